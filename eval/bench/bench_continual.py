"""Learning something new without forgetting: labelled texts alone, and with what the model was in between.

    SENTEMB_DATA=… python eval/bench/run.py continual [--steps 80] [--rate 2e-5] [--seeds 42 43 44]

New are Banking77's train texts, replayed Wikipedia sentences without labels. All arms take the same batches of the new
task; the recipe continual-minilm has a batch of the other texts after each, on which the model follows its own start.
Its knock-out reads them and learns nothing from them. Scored are Banking77's test texts (accuracy of the five nearest
train texts) and what may be forgotten: the pairs of STSBenchmark's test split and of SICK-R (Spearman).
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from bench_index_quality import MODEL
from bench_mixture import over_seeds
from bench_students import sentences
from harness import data, lines, machine, markdown_table, write_report, write_rows

RECIPE = "continual-minilm"
STS = ("STSBenchmark", "SICK-R")
BANKING = "hub/mteb/banking77"


def arms(folder: Path) -> dict[str, Any]:
    """Recipes by arm; the training files come to lie in ``folder``."""
    from sentemb import Recipe

    new, replay = folder / "new.jsonl", folder / "replay.txt"
    rows = lines(data() / BANKING / "train.jsonl")
    write_rows(new, ({"anchor": row["text"], "label": row["label"]} for row in rows))
    replay.write_text("".join(f"{text}\n" for text in islice(sentences(), 20_000)))
    both = [f"data.parts.0.path={new}", f"data.parts.1.path={replay}"]
    recipe = Recipe.load(RECIPE, both)
    alone = recipe.replace(
        data=recipe.data.sources["new"].marked(name=None), companions=[],
        edits=[edit.marked(only=None) for edit in recipe.edits],
        terms=[term.marked(only=None) for term in recipe.terms if term.is_for("new")],
    )
    return {
        "the new task alone": alone, "with replay": recipe,
        "replay read, nothing learned of it": Recipe.load(RECIPE, [*both, "terms.1.weight=0.0"]),
    }


def scores(model: Any) -> list[float]:
    """Of the new task, and of the STS sets."""
    from sentemb.evaluate import Classification, Sts, evaluate_model

    tasks = [Classification(path=str(data() / BANKING), method="knn"), Sts(sets=STS, protocol="mteb")]
    return [result.main for result in evaluate_model(model, tasks, resamples=0).tasks]


def main(arguments: list[str]) -> None:
    """Train the arms over the seeds and write the table."""
    parser = argparse.ArgumentParser(prog="run.py continual", description=__doc__)
    parser.add_argument("--backbone", default=MODEL)
    parser.add_argument("--steps", type=int, default=80, help="of the new task")
    parser.add_argument("--rate", type=float, default=2e-5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    options = parser.parse_args(arguments)
    from dataclasses import replace

    from sentemb import Encoder, train
    from sentemb.data import Mixture

    facts, scores_by_arm = machine(), {"before": [scores(Encoder.load(options.backbone))]}
    print(scores_by_arm, flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in options.seeds:
            for arm, recipe in arms(folder).items():
                steps = options.steps * (2 if isinstance(recipe.data, Mixture) else 1)  # the sources take turns
                settings = replace(recipe.train, epochs=1000, max_steps=steps, learning_rate=options.rate, seed=seed)
                encoder = replace(recipe.encoder, backbone=options.backbone)
                result = train(recipe.replace(train=settings, encoder=encoder), output=folder / f"{seed} {arm}")
                scores_by_arm.setdefault(arm, []).append(scores(Encoder.load(result.model_dir)))
                print(arm, seed, scores_by_arm[arm][-1], flush=True)
    report(scores_by_arm, facts | {"scores": scores_by_arm, "arguments": vars(options)}, options)


def report(scores_by_arm: dict[str, list[list[float]]], facts: dict[str, Any], options: argparse.Namespace) -> None:
    """The table, and the differences seed by seed."""
    table = [[arm, *(over_seeds(column) for column in np.array(rows).T)] for arm, rows in scores_by_arm.items()]
    gaps = np.array(scores_by_arm["with replay"]) - np.array(scores_by_arm["the new task alone"])
    text = (
        f"{options.backbone}, recipe {RECIPE} and parts of it: {options.steps} steps of 64 of the new task at "
        f"{options.rate:g}, {len(options.seeds)} seeds.\n\n" + markdown_table(["", "Banking77", *STS], table)
        + "\nWith replay minus the new task alone, seed by seed: " + "; ".join(
            f"{task} {', '.join(f'{gap:+.2f}' for gap in column)}"
            for task, column in zip(("Banking77", *STS), gaps.T, strict=True)) + ".\n"
    )
    write_report("continual", "Learning something new without forgetting", text, facts, {})
