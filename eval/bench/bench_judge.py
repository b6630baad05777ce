"""Do the figures of `sentemb mine --judge` predict what training on the negatives brings?

    SENTEMB_DATA=… python eval/bench/run.py judge [--work FOLDER] [--data scifact nfcorpus] [--seeds 42 43 44]
        [--steps 100] [--batch 32] [--max-tokens 128] [--pairs 1000] [--documents 5000] [--cross-encoder MODEL]

Files of negatives that were mined in different ways from the same pairs; each is judged, then trained on by the recipe
mined-negatives, and scored by nDCG@10 on test queries. The gain is the difference from training on the same pairs
without mined negatives, seed by seed. Reported is Spearman's correlation of every score with the mean gain over the
files. Finished runs lie in FOLDER/runs.jsonl (by default in sentemb's cache): the same command goes on from them, and
the page says how many there are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_index_quality import MODEL
from bench_mined import IN_BATCH, RECIPE, Remembering, Task, trained
from harness import data, lines, machine, markdown_table, write_report, write_rows

from sentemb.evaluate.metrics import spearman
from sentemb.files import cache_dir

SCORES = ("hardness", "safety", "lexical")


def ways(cross_encoder: str | None) -> dict[str, dict[str, Any]]:
    """Name -> options of mining."""
    from sentemb.mining.rules import CrossEncoderRule, RankWindow, RelativeMargin
    from sentemb.mining.sources import Nearest, Random, SharedWords

    margin = RelativeMargin(fraction=0.05)
    half = [Nearest(share=0.5), SharedWords(share=0.5)]
    by_way: dict[str, dict[str, Any]] = {
        "nearest": {"sources": [Nearest()]},
        "nearest, margin": {"sources": [Nearest()], "rules": [margin]},
        "nearest, margin, drawn of 50": {"sources": [Nearest()], "rules": [margin], "sampling": "random",
                                         "candidates": 50},
        "nearest, ranks 11 to 50": {"sources": [Nearest()], "rules": [RankWindow(skip=10, last=50)], "candidates": 50},
        "words": {"sources": [SharedWords()]},
        "words, margin": {"sources": [SharedWords()], "rules": [margin]},
        "half nearest, half words, margin": {"sources": half, "rules": [margin]},
        "random": {"sources": [Random()]},
    }
    if cross_encoder:
        by_way["nearest, cross-encoder"] = {"sources": [Nearest()], "rules": [CrossEncoderRule(model=cross_encoder)]}
    return by_way


def smaller(task: Task, *, pairs: int, documents: int) -> set[tuple[str, str]]:
    """Keep so many queries with all their positives, and so many documents: the judged ones, then drawn ones. Gives one
    pair a query, to train on: mining must know the others as positives."""
    generator = np.random.default_rng(0)
    by_query: dict[str, list[str]] = {}
    for pair in task.pairs:
        by_query.setdefault(pair["anchor"], []).append(pair["positive"])
    queries = [list(by_query)[i] for i in generator.permutation(len(by_query))[:pairs].tolist()]
    task.pairs = [pair for pair in task.pairs if pair["anchor"] in set(queries)]
    judged = {name for of_query in task.judged.values() for name in of_query}
    first = [row for row in task.documents if row["id"] in judged]
    others = [row for row in task.documents if row["id"] not in judged]
    drawn = generator.permutation(len(others))[: max(documents - len(first), 0)]
    task.documents = first + [others[i] for i in np.sort(drawn).tolist()]
    return {(query, by_query[query][int(generator.integers(len(by_query[query])))]) for query in queries}


def main(arguments: Sequence[str]) -> None:
    """Mine, judge, train and score what the folder does not have yet; write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=cache_dir() / "bench-judge", help="for mined files, finished runs")
    parser.add_argument("--data", nargs="+", choices=["scifact", "nfcorpus"], default=["scifact", "nfcorpus"])
    parser.add_argument("--backbone", default=MODEL)
    parser.add_argument("--cross-encoder", default=None, help="adds a ninth file, refused by this model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    for name, default in (("steps", 100), ("batch", 32), ("max-tokens", 128), ("pairs", 1000), ("documents", 10_000),
                          ("negatives", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=2e-5)
    options = parser.parse_args(arguments)
    facts = machine()
    options.work.mkdir(parents=True, exist_ok=True)
    for name in options.data:
        run_data(name, options)
    runs = lines(options.work / "runs.jsonl")
    text, figures = page(runs, options)
    facts.update(arguments={key: str(value) for key, value in vars(options).items()}, figures=figures, runs=runs)
    write_report("judge", "Do scores of mined negatives predict the gain of training on them?", text, facts, {})


def run_data(name: str, options: argparse.Namespace) -> None:
    """All runs of one data set, seed by seed, so that a stopped experiment has whole seeds."""
    from sentemb.encoder import Encoder
    from sentemb.mining.run import mine

    task = Task(data() / "hub" / "mteb" / name, is_dev=False)
    chosen = smaller(task, pairs=options.pairs, documents=options.documents)
    start = Remembering(Encoder.load(options.backbone, max_tokens=options.max_tokens))
    files: dict[str, tuple[Path, dict[str, Any]]] = {}
    for number, (way, way_options) in enumerate(ways(options.cross_encoder).items()):
        mined, file = options.work / f"{name}-{number}-all.jsonl", options.work / f"{name}-{number}.jsonl"
        if not mined.exists():
            mine(task.pairs, corpus=task.documents, encoder=start, output=mined, negatives=options.negatives,
                 judge=True, **way_options)
        rows = lines(mined)
        write_rows(file, [row for row in rows if (row["anchor"], row["positive"]) in chosen])
        report = json.loads(mined.with_name(mined.name + ".report.json").read_text())
        files[way] = file, report["judgement"]
    pairs = options.work / f"{name}-pairs.jsonl"
    write_rows(pairs, [{"anchor": anchor, "positive": positive} for anchor, positive in sorted(chosen)])
    log = options.work / "runs.jsonl"
    done = {(run["data"], run["way"], run["seed"]) for run in (lines(log) if log.exists() else [])}
    for seed in options.seeds:
        arms = [("none", IN_BATCH, pairs), *((way, RECIPE, file) for way, (file, _) in files.items())]
        for way, recipe, file in arms:
            if (name, way, seed) in done:
                continue
            score = task.score(trained(options, recipe, file, options.rate, seed))
            row = {"data": name, "way": way, "seed": seed, "ndcg": score, "judgement": files.get(way, (None, {}))[1]}
            with log.open("a") as runs:
                runs.write(json.dumps(row) + "\n")
            print(name, way, seed, f"{score:.2f}", flush=True)


def page(runs: Sequence[dict[str, Any]], options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Two tables a data set, of the seeds that have every file: gains and scores, correlations."""
    text = (f"{options.backbone}, recipe {RECIPE}: {options.steps} steps of {options.batch} at {options.rate:g}, "
            f"{options.max_tokens} tokens, {options.negatives} negatives, a pair of at most {options.pairs} queries "
            f"each, at most {options.documents} documents (all judged ones among them). Gain: nDCG@10 minus that of "
            "the same seed without mined ones.\n")
    figures: dict[str, Any] = {}
    names = ["none", *ways(options.cross_encoder)]
    for name in options.data:
        scores = {(run["way"], run["seed"]): run["ndcg"] for run in runs if run["data"] == name}
        seeds = [seed for seed in options.seeds if all((way, seed) in scores for way in names)]
        if not seeds:
            text += f"\n## {name}\n\nNot run.\n"
            continue
        judged = {run["way"]: run["judgement"] for run in runs if run["data"] == name}
        gains = {way: [scores[way, seed] - scores["none", seed] for seed in seeds] for way in names[1:]}
        rows = [[way, f"{np.mean(gain):+.2f}", ", ".join(f"{value:+.2f}" for value in gain),
                 *(f"{judged[way][score]:.3f}" for score in SCORES)] for way, gain in gains.items()]
        means = [float(np.mean(gain)) for gain in gains.values()]
        correlations = {score: spearman([judged[way][score] for way in gains], means) for score in SCORES}
        plain = ", ".join(f"{scores['none', seed]:.2f}" for seed in seeds)
        text += f"\n## {name}: {len(seeds)} of {len(options.seeds)} seeds run\n\nWithout mined negatives: {plain}.\n\n"
        text += markdown_table(["negatives", "gain", "by seed", *SCORES], rows)
        text += "\nSpearman with the mean gain over the files: "
        text += ", ".join(f"{score} {value:+.2f}" for score, value in correlations.items()) + ".\n"
        figures[name] = {"gains": gains, "spearman": correlations}
    return text, figures
