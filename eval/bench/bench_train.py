"""SimCSE training: ours against sentence-transformers' trainer, same model, data, batch and precision.

    SENTEMB_DATA=… python eval/bench/run.py train [--steps 30] [--batch 64] [--rounds 3] [--precisions fp32 bf16]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from harness import Contender, Lane, Ratio, machine, machine_line, markdown_table, race, write_report

FILE = str(Path(__file__).with_name("contenders_train.py"))


def data() -> Path:
    """The folder SENTEMB_DATA."""
    return Path(os.environ["SENTEMB_DATA"])


def main(arguments: list[str]) -> None:
    """Race, compare the losses, report."""
    parser = argparse.ArgumentParser(prog="train", description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--backbone", default=str(data().parent / "models" / "minilm-mlm"))
    options = parser.parse_args(arguments)
    from sentemb.data import iter_texts

    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in islice(iter_texts(data() / "text" / "wiki1m.txt.zst"), 20_000))
        file.flush()
        common = {"lines": file.name, "backbone": options.backbone, "steps": options.steps, "batch": options.batch}
        found: dict[str, dict[str, Lane]] = {}
        for precision in options.precisions:
            found[precision] = race(
                [Contender(name, FILE, name, {**common, "precision": precision})
                 for name in ("sentemb", "sentence_transformers")],
                rounds=options.rounds, warmups=0,
            )
    facts = machine()
    write_report("train", report(found, options, facts), facts, found)


def report(found: dict[str, dict[str, Lane]], options: Any, facts: dict[str, Any]) -> str:
    """The Markdown report."""
    rows = []
    for precision, lanes in found.items():
        ours, theirs = lanes["sentemb"], lanes["sentence_transformers"]
        ratios = [a / b for a, b in zip(theirs.seconds, ours.seconds, strict=True)]
        ratio = Ratio(statistics.median(ratios), min(ratios), max(ratios))
        for name, lane in lanes.items():
            rate = options.steps * options.batch / lane.median_s
            tail = statistics.fmean(lane.facts["losses"][-5:])
            rows.append([f"{name} {precision}", f"{lane.median_s:.1f}", f"{rate:.1f}", f"{tail:.4f}",
                         f"{lane.peak_mib:.0f}", str(ratio) if name == "sentemb" else ""])
    header = ["contender", "seconds a run", "examples/s", "loss, last 5 steps", "peak MiB", "faster than the peer"]
    return (
        f"# SimCSE training\n\n{machine_line(facts)}\n\n{options.steps} steps of batch {options.batch}, at most 32 "
        "tokens. A run is everything from the checkpoint on disk to the end of training; ours includes its checkpoint "
        "and export.\n\n"
        + markdown_table(header, rows)
    )
