"""`[[dev]]` with several kinds of tasks: their mean chooses the best checkpoint."""

from __future__ import annotations

import json

import hub_data
import numpy as np
import pytest

from sentemb import Encoder, Recipe, train
from sentemb.data import TextPairs
from sentemb.evaluate import Classification, Pairs, Retrieval, Sts, evaluate_model
from sentemb.recipe.recipe import EncoderSettings
from sentemb.terms.info_nce import InfoNCE
from sentemb.training.settings import TrainSettings
from sentemb.views.columns import Columns


def test_several_tasks_choose_the_best_checkpoint(tmp_path, tiny_bert):
    for make in (hub_data.sts, hub_data.retrieval, hub_data.classification):
        make(tmp_path)
    hub_data.jsonl(
        tmp_path / "duplicates.jsonl", [{**row, "label": int(row["score"] > 2)} for row in hub_data.pairs(seed=7)]
    )
    tasks = [
        Sts(path=str(tmp_path / "mteb/stsbenchmark-sts/test.jsonl"), name="sts"),
        Pairs(path=str(tmp_path / "duplicates.jsonl"), metric="f1"),
        Retrieval(path=str(tmp_path / "mteb/nfcorpus"), metric="mrr@10", baselines=False),
        Classification(path=str(tmp_path / "mteb/banking77"), method="knn"),
    ]
    rows = [{"anchor": text, "positive": hub_data.near(text)} for text in hub_data.sentences(64, seed=3)]
    hub_data.jsonl(tmp_path / "pairs.jsonl", rows)
    recipe = Recipe(
        encoder=EncoderSettings(backbone=str(tiny_bert)),
        data=TextPairs(path=str(tmp_path / "pairs.jsonl")),
        views=Columns(),
        terms=[InfoNCE(temperature=0.05)],
        dev=tasks,
        train=TrainSettings(batch_size=8, max_steps=4, eval_every=2, learning_rate=1e-3, precision="fp32"),
    )
    result = train(recipe, output=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    scored = [line for line in lines if "dev" in line]
    names = ["sts", "duplicates", "nfcorpus", "banking77"]
    assert [line["step"] for line in scored] == [2, 4]
    for line in scored:
        assert line["dev"] == pytest.approx(np.mean([line[f"dev/{name}"] for name in names]))
    best = max(scored, key=lambda line: line["dev"])
    again = evaluate_model(Encoder.load(result.model_dir), tasks, precision="fp32", resamples=0)
    for name, task in zip(names, again.tasks, strict=True):
        assert task.main == pytest.approx(best[f"dev/{name}"], abs=0.5), name
