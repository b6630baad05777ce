"""Encoding and training beside other work: on an idle machine, then with a process that never rests on every core.

    SENTEMB_DATA=… python eval/bench/run.py busy [--work encode train] [--rounds 20]
        [--texts 300] [--steps 3] [--batch 32]

Ours as the command line runs it (`sentemb.share_processors()` before torch is imported), ours with PyTorch's own way of
waiting, and sentence-transformers (float32, as it comes). A round of training is a whole run from the checkpoint on
disk to the saved model, in bfloat16.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import Contender, Lane, Work, data, machine, markdown_table, race, write_report

HEADER = ["", "idle, s", "busy, s", "busy over idle (least–most)", "idle, over PyTorch's way", "busy, over it"]
OURS, PLAIN, PEER = "sentemb", "sentemb, PyTorch's way of waiting", "sentence-transformers"


def ours(work: str, shares: bool, **arguments: Any) -> Work:
    """Encoding or training by sentemb."""
    import sentemb

    if shares:
        sentemb.share_processors()
    import bench_serve  # these import torch, which must come second
    import bench_train

    return {"encode": bench_serve.encode, "train": bench_train.sentemb}[work](**arguments)


def peer(work: str, **arguments: Any) -> Work:
    """The same by sentence-transformers."""
    import bench_serve
    import bench_train

    if work == "train":
        return bench_train.sentence_transformers(**arguments)
    from sentence_transformers import SentenceTransformer

    from sentemb.encoder.source import locate

    texts, model = bench_serve.sentences(**arguments), SentenceTransformer(str(locate(bench_serve.MODEL)), device="cpu")
    return lambda: {"vectors": len(model.encode(texts, batch_size=64, show_progress_bar=False))}


@contextmanager
def other_work(processes: int) -> Iterator[None]:
    """So many processes that compute without rest."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def rows(idle: dict[str, Lane], busy: dict[str, Lane]) -> list[list[str]]:
    """A line a contender: seconds, and the shares that the issue's targets are about."""
    lines = []
    for name in idle:
        alone, beside, plain = idle[name], busy[name], idle[PLAIN]
        shares = [alone.median_s / seconds for seconds in beside.seconds]
        lines.append([
            name, f"{alone.median_s:.2f}", f"{beside.median_s:.2f}",
            f"{alone.median_s / beside.median_s:.2f} ({min(shares):.2f}–{max(shares):.2f})",
            f"{plain.median_s / alone.median_s:.2f}", f"{busy[PLAIN].median_s / beside.median_s:.2f}",
        ])  # fmt: skip
    return lines


def main(arguments: list[str]) -> None:
    """Race and report."""
    import bench_serve

    parser = argparse.ArgumentParser(
        prog="busy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", nargs="+", choices=("encode", "train"), default=["encode", "train"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    options, facts = parser.parse_args(arguments), machine()
    said = {
        "encode": f"{options.texts} sentences ({bench_serve.MODEL})",
        "train": f"{options.steps} steps of {options.batch} pairs with loading and saving",
    }
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in bench_serve.sentences(2000))
        file.flush()
        work: dict[str, dict[str, Any]] = {
            "encode": {"count": options.texts},
            "train": {"lines": file.name, "backbone": str(data().parent / "models" / "minilm-mlm"), "precision": "bf16",
                      "steps": options.steps, "batch": options.batch},
        }  # fmt: skip
        for name in options.work:
            common, here = {"work": name, **work[name]}, str(Path(__file__))
            contenders = [
                Contender(OURS, here, "ours", {**common, "shares": True}),
                Contender(PLAIN, here, "ours", {**common, "shares": False}),
                Contender(PEER, here, "peer", common),
            ]
            races = {}
            for state, count in (("idle", 0), ("busy", facts["cores"])):
                with other_work(count):
                    races[state] = race(contenders, rounds=options.rounds)
            text = (
                f"{options.rounds} rounds: {said[name]}. Busy: {facts['cores']} processes that never rest. Shares are "
                "of rates; every round's busy one is over the median idle one.\n\n"
                + markdown_table(HEADER, rows(races["idle"], races["busy"]))
            )
            write_report(f"busy_{name}", f"Busy machines: {name}", text, facts, races)
