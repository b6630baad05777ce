"""One model for search and similarity: single tasks, mixed rows, CoDiEmb's batches in turn, and merged models.

    SENTEMB_DATA=… python eval/bench/run.py mixture [--steps 200] [--batch 32] [--max-tokens 256] [--seeds 42 43 44]
        [--sts STSBenchmark SICK-R] [--distractors 0]

Search is SciFact's train pairs, similarity STSBenchmark's train pairs; all arms start from one checkpoint and take the
same number of steps of the same size. "Mixed rows" is what one file of both gives: a contrast of all pairs, of which
those of STSBenchmark count from a score of 4. The merged models are made of the two single-task models, untrained.
Scored are STS sets' test pairs (Spearman) and SciFact's test queries (nDCG@10). ``--distractors N`` searches the judged
documents and N others instead of all, which is easier, and quicker.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_index_quality import MODEL
from bench_mined import Task
from harness import data, lines, machine, markdown_table, write_report, write_rows

RECIPE = "codiemb-minilm"
HIGHEST = 5.0  # score of STSBenchmark
SAME = 4.0  # from here on a pair counts as a pair of equal meaning


def arms(scratch: Path, pairs: list[dict[str, str]]) -> dict[str, Any]:
    """Recipes by arm; the training files come to lie in ``scratch``."""
    from sentemb import Recipe
    from sentemb.data import Mixture, TextPairs
    from sentemb.edits import FalseNegative
    from sentemb.terms import InfoNCE

    graded = [
        {"anchor": row["sentence1"], "positive": row["sentence2"], "score": float(row["score"])}
        for row in lines(data() / "hub" / "mteb" / "stsbenchmark-sts" / "train.jsonl")
    ]
    alike = [{"anchor": row["anchor"], "positive": row["positive"]} for row in graded if row["score"] >= SAME]
    files = {"search": pairs, "sts": graded, "mixed": [*pairs, *alike]}
    sources = {}
    for name, rows in files.items():
        path = scratch / f"{name}.jsonl"
        write_rows(path, rows)
        sources[name] = TextPairs(path=str(path))
    recipe = Recipe.named(RECIPE)
    mixture = Mixture(parts=[sources["search"].marked(name="search"), sources["sts"].marked(name="sts")])
    search = {"edits": [FalseNegative(by=["text"])], "terms": [InfoNCE(temperature=0.02)]}
    graded_terms = [term.marked(only=None) for term in recipe.terms if term.is_for("sts")]
    both = recipe.replace(data=mixture, edits=[FalseNegative(by=["text"]).marked(only=["search"])])
    return {
        "similarity alone": recipe.replace(data=sources["sts"], edits=[], terms=graded_terms),
        "search alone": recipe.replace(data=sources["search"], **search),
        "mixed rows": recipe.replace(data=sources["mixed"], **search),
        "in turn (CoDiEmb)": both,
    }


def scores(task: Task, model: Any, sets: list[str], distractors: int) -> list[float]:
    """Of the STS sets and SciFact."""
    from sentemb.evaluate import Sts, evaluate_model

    results = evaluate_model(model, [Sts(sets=tuple(sets), protocol="mteb")], resamples=0)
    if distractors:
        judged = {name for by_document in task.judged.values() for name in by_document}
        others = [row for row in task.documents if row["id"] not in judged]
        chosen = np.random.default_rng(0).permutation(len(others))[:distractors].tolist()
        task.documents = [row for row in task.documents if row["id"] in judged] + [others[i] for i in chosen]
    return [*(result.main for result in results.tasks), task.score(model)]


def main(arguments: list[str]) -> None:
    """Train the arms over the seeds, merge, and write the table."""
    parser = argparse.ArgumentParser(prog="run.py mixture", description=__doc__)
    parser.add_argument("--backbone", default=MODEL)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-5)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--sts", nargs="+", default=["STSBenchmark", "SICK-R"])
    parser.add_argument("--distractors", type=int, default=0)
    options = parser.parse_args(arguments)
    from dataclasses import replace

    from sentemb import Encoder, EncoderSettings, merge, train

    facts, task = machine(), Task(data() / "hub" / "mteb" / "scifact", is_dev=False)
    scores_by_arm: dict[str, list[list[float]]] = {}

    def score(arm: str, model: Any) -> None:
        scores_by_arm.setdefault(arm, []).append(scores(task, model, options.sts, options.distractors))
        print(arm, scores_by_arm[arm][-1], flush=True)

    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        score("before training", Encoder.load(options.backbone, max_tokens=options.max_tokens))
        for seed in options.seeds:
            models = {}
            for arm, recipe in arms(scratch, task.pairs).items():
                settings = replace(
                    recipe.train, epochs=1000, max_steps=options.steps, batch_size=options.batch,
                    learning_rate=options.rate, seed=seed,
                )
                encoder = EncoderSettings(backbone=options.backbone, max_tokens=options.max_tokens)
                result = train(recipe.replace(train=settings, encoder=encoder), output=scratch / f"{seed} {arm}")
                models[arm] = result.model_dir
                score(arm, Encoder.load(result.model_dir))
            single = [models["similarity alone"], models["search alone"]]
            score("both alone, averaged", merge(single))
            score("both alone, fused by change", merge(single, base=options.backbone))
    report(scores_by_arm, facts | {"scores": scores_by_arm, "arguments": vars(options)}, options)


def report(scores_by_arm: dict[str, list[list[float]]], facts: dict[str, Any], options: argparse.Namespace) -> None:
    """The table of all arms."""
    table = [[arm, *(over_seeds(column) for column in np.array(rows).T)] for arm, rows in scores_by_arm.items()]
    corpus = f"the judged documents and {options.distractors:,} others" if options.distractors else "all documents"
    text = (
        f"{options.backbone}, recipe {RECIPE} and parts of it; {options.steps} steps of {options.batch} at "
        f"{options.rate:g}, {options.max_tokens} tokens, {len(options.seeds)} seeds; SciFact searched in {corpus}.\n\n"
    )
    text += markdown_table(["", *options.sts, "SciFact nDCG@10"], table)
    write_report("mixture", "One model for search and similarity", text, facts, {})


def over_seeds(values: Any) -> str:
    """Mean and standard deviation."""
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")
