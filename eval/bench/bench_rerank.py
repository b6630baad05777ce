"""Supervised fine-tuning or contrast for a reranker? SciFact's train pairs, scored on its held-out test queries.

    SENTEMB_DATA=… python eval/bench/run.py rerank [--steps 115] [--lists 8] [--group 4] [--max-tokens 192] [--seeds 42]

Lists are mined by the first stage itself from the whole corpus. Both arms start from one checkpoint, with the same new
output layer, the same lists in the same order, the same steps; only the loss differs. Reported are nDCG@10 of the first
stage's best documents in the cross-encoder's order, beside the first stage alone, and the gain query by query.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_index_quality import MODEL
from bench_mined import Remembering, Task
from harness import data, machine, markdown_table, write_report


def main(arguments: list[str]) -> None:
    """Train both arms over the seeds and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-stage", default=MODEL)
    parser.add_argument("--backbone", default=MODEL)
    parser.add_argument("--steps", type=int, default=115)
    parser.add_argument("--lists", type=int, default=8, help="a step")
    parser.add_argument("--group", type=int, default=4, help="candidates of a list in a step")
    parser.add_argument("--negatives", type=int, default=10, help="mined for a pair; the group is drawn from them")
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--max-tokens", type=int, default=192, help="of query and document together")
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--work", type=Path, help="folder to work in; what is finished there is not done again")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    options = parser.parse_args(arguments)
    from sentemb.encoder import Encoder
    from sentemb.evaluate.evaluation import evaluate_model
    from sentemb.evaluate.opening import open_model
    from sentemb.evaluate.significance import bootstrap
    from sentemb.evaluate.tasks.reranked import Reranked
    from sentemb.mining.rules import RelativeMargin
    from sentemb.mining.run import mine
    from sentemb.rerank.train import RerankSettings, train_reranker

    folder, facts = data() / "hub" / "mteb" / "scifact", machine()
    task = Task(folder, is_dev=False)
    first: Any = Remembering(Encoder.load(options.first_stage, max_tokens=options.max_tokens))  # the corpus once
    first.source = options.first_stage
    model = open_model(first)
    alone_by_query = task.by_query(first)
    rows: list[list[str]] = []
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        work, lists = options.work or Path(name), (options.work or Path(name)) / "mined.jsonl"
        if not lists.exists():
            mine(task.pairs, corpus=task.documents, encoder=first, negatives=options.negatives, output=lists,
                 rules=[RelativeMargin(fraction=0.05)])
        mined = json.loads(lists.with_name(f"{lists.name}.report.json").read_text())["report"]
        print(mined, flush=True)
        for seed in options.seeds:
            for loss in ("bce", "list"):
                settings = RerankSettings(
                    loss={"use": loss}, group=options.group, batch_size=options.lists, epochs=1000,
                    max_steps=options.steps, max_tokens=options.max_tokens, learning_rate=options.rate, seed=seed,
                )
                run = train_reranker(lists, backbone=options.backbone, output=work / f"{loss}-{seed}",
                                     settings=settings, resume=True)
                (result,) = evaluate_model(
                    model, Reranked(path=str(folder), reranker=str(run.model_dir), depth=options.depth)
                ).tasks
                results[f"{loss} {seed}"] = result
                gains = (100 * np.asarray(result.items.values) - alone_by_query)[task.is_new]
                alone, gain = result.baselines.values()
                intervals = list(result.baseline_intervals.values())
                rows.append([f"`{loss}`, seed {seed}", _score(result.main, result.interval),
                             _score(gain, intervals[1], "+"),
                             _score(gains.mean(), bootstrap(gains, resamples=2000), "+"),
                             f"{run.last_losses['loss']:.3f}", f"{run.seconds:.0f}"])
                print(rows[-1], flush=True)
    rows.insert(0, ["first stage alone", _score(alone, intervals[0]), "", "", "", ""])
    gap = [np.subtract(results[f"list {s}"].items.values, results[f"bce {s}"].items.values) for s in options.seeds]
    between = 100 * np.mean(gap, axis=0)
    interval = bootstrap(between, resamples=2000)
    facts.update(arguments={name: str(value) for name, value in vars(options).items()}, mined=mined,
                 scores={name: result.main for name, result in results.items()}, alone=alone)
    text = (f"First stage {options.first_stage}; cross-encoder from {options.backbone}, {options.steps} steps of "
            f"{options.lists} lists of {options.group} candidates at {options.rate:g}, {options.max_tokens} tokens (of "
            f"the first stage too); {mined['mined']} anchors, {options.negatives} negatives mined for each. The best "
            f"{options.depth} documents of the test queries are reranked. Intervals are 95 % bootstrap intervals over "
            f"queries; the gain is paired, and given again for the {task.is_new.sum()} of {len(task.is_new)} queries "
            "whose documents no train query has.\n\n")
    header = ["", "nDCG@10", "gain over the first stage", "on new documents", "last loss", "seconds of training"]
    text += markdown_table(header, rows)
    text += (f"\n`list` minus `bce`, mean over seeds, query by query: {between.mean():+.2f} "
             f"({interval.low:+.2f} to {interval.high:+.2f}).\n")
    write_report("rerank", "Rerankers: supervised fine-tuning against contrast, SciFact", text, facts, {})


def _score(value: float, interval: Any, sign: str = "") -> str:
    return f"{value:{sign}.2f} ({interval.low:{sign}.2f} to {interval.high:{sign}.2f})"
