"""Learning something new without forgetting: labelled texts alone, and with what the model was in between.

    SENTEMB_DATA=… python eval/bench/run.py continual [--steps 80] [--rate 2e-5] [--seeds 42 43 44]

New are Banking77's train texts, replayed Wikipedia sentences without labels. All arms take the same batches of the new
task; the recipe continual-minilm has a batch of the other texts after each, on which the model follows its own start.
Its knock-out reads them and learns nothing from them. Scored are Banking77's test texts (accuracy of the five nearest
train texts) and what may be forgotten: the pairs of STSBenchmark's test split and of SICK-R (Spearman).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from bench_index_quality import MODEL
from bench_students import sentences
from harness import data, machine, markdown_table, write_report

RECIPE = "continual-minilm"
STS = ("STSBenchmark", "SICK-R")
BANKING = "hub/mteb/banking77"


def arms(place: Path) -> dict[str, Any]:
    """Recipes by arm; the training files come to lie in ``place``."""
    from sentemb import Recipe

    rows = [json.loads(line) for line in (data() / BANKING / "train.jsonl").read_text().splitlines()]
    new, replay = place / "new.jsonl", place / "replay.txt"
    new.write_text("".join(json.dumps({"anchor": row["text"], "label": row["label"]}) + "\n" for row in rows))
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
    asked = parser.parse_args(arguments)
    from dataclasses import replace

    from sentemb import Encoder, train
    from sentemb.data import Mixture

    facts, found = machine(), {"before": [scores(Encoder.load(asked.backbone))]}
    print(found, flush=True)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for seed in asked.seeds:
            for arm, recipe in arms(place).items():
                steps = asked.steps * (2 if isinstance(recipe.data, Mixture) else 1)  # the sources take turns
                settings = replace(recipe.train, epochs=1000, max_steps=steps, learning_rate=asked.rate, seed=seed)
                encoder = replace(recipe.encoder, backbone=asked.backbone)
                result = train(recipe.replace(train=settings, encoder=encoder), output=place / f"{seed} {arm}")
                found.setdefault(arm, []).append(scores(Encoder.load(result.model_dir)))
                print(arm, seed, found[arm][-1], flush=True)
    report(found, facts | {"scores": found, "arguments": vars(asked)}, asked)


def report(found: dict[str, list[list[float]]], facts: dict[str, Any], asked: argparse.Namespace) -> None:
    """The table, and the differences seed by seed."""
    table = [[arm, *(_mean(column) for column in np.array(rows).T)] for arm, rows in found.items()]
    gaps = np.array(found["with replay"]) - np.array(found["the new task alone"])
    text = (
        f"{asked.backbone}, recipe {RECIPE} and parts of it: {asked.steps} steps of 64 of the new task at "
        f"{asked.rate:g}, {len(asked.seeds)} seeds.\n\n" + markdown_table(["", "Banking77", *STS], table)
        + "\nWith replay minus the new task alone, seed by seed: " + "; ".join(
            f"{what} {', '.join(f'{gap:+.2f}' for gap in column)}"
            for what, column in zip(("Banking77", *STS), gaps.T, strict=True)) + ".\n"
    )
    write_report("continual", "Learning something new without forgetting", text, facts, {})


def _mean(values: Any) -> str:
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")
