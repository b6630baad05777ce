"""Reading text, and batches without duplicate texts: ours against sentence-transformers' sampler and datasets' reader.

    SENTEMB_DATA=… python eval/bench/run.py data [--batch 64] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from harness import Contender, Lane, machine, machine_line, markdown_table, race, ratio, write_report

FILE = str(Path(__file__).with_name("contenders_data.py"))
OURS, PEER = "sentemb", "sentence-transformers"


def main(arguments: list[str]) -> None:
    """Race and report."""
    parser = argparse.ArgumentParser(prog="data", description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    data = Path(os.environ["SENTEMB_DATA"])
    triplets = {"path": str(data / "nli" / "snli_triplets.tsv.zst"), "batch": options.batch}
    batches = race(
        [
            Contender(OURS, FILE, "sentemb_batches", triplets),
            Contender(PEER, FILE, "sentence_transformers_batches", {**triplets, "hashed": False}),
            Contender(f"{PEER}, hashed", FILE, "sentence_transformers_batches", {**triplets, "hashed": True}),
        ],
        rounds=options.rounds,
    )
    lines = {"path": str(data / "text" / "wiki1m.txt.zst")}
    reading = race(
        [Contender(OURS, FILE, "sentemb_read", lines), Contender("datasets", FILE, "datasets_read", lines)],
        rounds=options.rounds, warmups=0,
    )
    facts = machine()
    text = (
        f"# Data\n\n{machine_line(facts)}\n\n"
        f"Batches of {options.batch} without duplicate texts from SNLI triplets, hashing included, one epoch.\n\n"
        f"{_table(batches)}\n\nReading Wikipedia sentences from a .txt.zst file.\n\n{_table(reading)}"
    )
    write_report("data", text, facts, {"batches": batches, "reading": reading})


def _table(lanes: dict[str, Lane]) -> str:
    rows = []
    for name, lane in lanes.items():
        if lane.fault is not None:
            rows.append([name, lane.fault, "", "", "", ""])
            continue
        told = "; ".join(f"{key} {value:,}" for key, value in lane.facts.items() if key != "rows")
        rate = lane.facts["rows"] / lane.median_s
        faster = "" if name == OURS else str(ratio(lane, lanes[OURS]))
        rows.append([name, f"{lane.median_s:.3f}", f"{rate:,.0f}", f"{lane.facts['rows']:,}", told, faster])
    return markdown_table(["contender", "seconds", "rows/s", "rows", "facts", "ours is faster by"], rows)
