"""Mining hard negatives: ours against sentence_transformers.util.mine_hard_negatives, same vectors, same rules.

    SENTEMB_DATA=… python eval/bench/run.py mine [--rows 50000] [--negatives 5] [--rounds 2]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from bench_index import base_vectors
from harness import Contender, machine, machine_line, markdown_table, race, ratio, write_report

FILE = str(Path(__file__).with_name("contenders_index.py"))


def main(arguments: list[str]) -> None:
    """Race, compare the negatives, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--negatives", type=int, default=5)
    parser.add_argument("--margin", type=float, default=0.05)
    parser.add_argument("--range-max", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--base-texts", type=int, default=20_000)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sentemb-bench-index")
    asked = parser.parse_args(arguments)
    facts = machine()
    common = {"base": base_vectors(asked.base_texts, asked.cache), "rows": asked.rows, "negatives": asked.negatives,
              "margin": asked.margin, "range_max": asked.range_max}
    contenders = [
        Contender("sentemb", FILE, "mine_ours", common),
        Contender("sentence-transformers", FILE, "mine_theirs", {**common, "use_faiss": False}),
        Contender("sentence-transformers, FAISS", FILE, "mine_theirs", {**common, "use_faiss": True}),
    ]
    lanes = race(contenders, rounds=asked.rounds, warmups=0)
    ours = lanes["sentemb"]
    table = []
    for lane in lanes.values():
        if lane.fault is not None:
            table.append([lane.name, lane.fault, "–", "–", "–", "–"])
            continue
        same = int((np.load(lane.facts["array"]) == np.load(ours.facts["array"])).all(axis=1).sum())
        table.append([lane.name, f"{lane.median_s:.1f}", str(ratio(lane, ours)), f"{lane.peak_mib:.0f}",
                      f"{lane.facts['triplets']:,}", f"{same:,}"])
    text = f"# Mining hard negatives\n\n{machine_line(facts)}\n\n"
    text += (f"{asked.rows:,} anchors against {asked.rows:,} passages, {asked.negatives} negatives, absolute margin "
             f"{asked.margin}, window {asked.range_max}; vectors are given to both, so only mining is timed.\n\n")
    text += markdown_table(
        ["", "seconds", "ours is faster", "peak MiB", "negatives", "anchors with the same ones"], table)
    print(write_report("mine", text, facts, {"mine": lanes}).read_text())


if __name__ == "__main__":
    main([])
