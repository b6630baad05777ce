"""Everything together: a recipe with a part of every kind is checked, trained, resumed, saved, loaded and searched."""

from __future__ import annotations

import itertools
import json
import mailbox
import subprocess
import sys
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder, Recipe, Run, SearchIndex, build, check, evaluate_model
from sentemb.cli import main

RECIPE = Path(__file__).parents[1] / "recipe.toml"
OWN = {
    "sources": "mailbox", "copies": "ance", "companions": "ance", "terms": "additive_margin", "poolings": "attention",
    "kinds": "usearch", "tasks": "triplets",
}  # fmt: skip


@pytest.fixture
def recipe(backbone: Path, pairs: list[tuple[str, str]], tmp_path: Path) -> Recipe:
    with closing(mailbox.mbox(tmp_path / "archive.mbox")) as box:
        for subject, text in pairs:
            message = EmailMessage()
            message["Subject"] = subject
            message.set_content(text)
            box.add(message)
    rows = itertools.pairwise(pairs)
    triplets = [{"anchor": one[0], "positive": one[1], "negative": other[1]} for one, other in rows]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in triplets))
    return Recipe.load(RECIPE, [
        f"encoder.backbone={backbone}", f"data.path={tmp_path / 'archive.mbox'}",
        f"dev.0.path={tmp_path / 'dev.jsonl'}", "data.max_tokens=16", "companions.0.every=2", "companions.0.depth=4",
        "train.batch_size=8", "train.max_steps=4", "train.eval_every=2", "train.learning_rate=1e-3",
        "train.precision=fp32",
    ])  # fmt: skip


def test_it_trains_with_all_of_them(recipe: Recipe, pairs: list[tuple[str, str]], tmp_path: Path) -> None:
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert not check(recipe).unverified
    run = Run(build(recipe, tmp_path / "run"))
    result = run.train()
    companion = run.plan.objective.companions["ance"]
    texts = run.plan.dataset.columns["positive"].text
    assert (texts[companion.neighbours] != texts[:, None]).all()
    assert companion.neighbours[0].tolist() != [1, 2, 3, 4]  # mined, not the rows after it

    trained = Encoder.load(result.model_dir, precision="fp32")
    assert trained.module.pooling.outer.weight.abs().max() > 0  # it was zero
    scores = evaluate_model(trained, recipe.dev, resamples=0)
    assert scores.tasks[0].main == pytest.approx(result.best_score)  # what was saved is what triplet accuracy chose
    anchors = [anchor for anchor, _ in pairs]
    again = Encoder.load(trained.save(tmp_path / "copy"), precision="fp32")
    np.testing.assert_array_equal(again.encode(anchors), trained.encode(anchors))

    with SearchIndex.build(tmp_path / "index", anchors, encoder=trained, kind="usearch") as index:
        assert index.search(anchors[3], 1)[0].text == anchors[3]
    with SearchIndex.open(tmp_path / "index") as index:  # the model and the kind are found again by name
        assert index.search(anchors[5], 1)[0].text == anchors[5]


def test_a_resumed_run_is_the_run_that_never_stopped(recipe: Recipe, tmp_path: Path) -> None:
    def steps(run: Run, until: int) -> Run:
        for batches in run.inputs():
            run.train_step(batches)
            if run.state.step == until:
                break
        return run

    whole = steps(Run(build(recipe, tmp_path / "whole")), 4)
    steps(Run(build(recipe, tmp_path / "halves")), 3).save()
    resumed = steps(Run(build(recipe, tmp_path / "halves"), resume=True), 4)
    for name, value in whole.plan.objective.state_dict().items():
        assert torch.equal(value, resumed.plan.objective.state_dict()[name]), name


@pytest.mark.parametrize("room", OWN)
def test_they_are_listed_and_shown(room: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["list", room])
    assert OWN[room] in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["show", f"{room}/{OWN[room]}"])
    assert "own_parts/" in capsys.readouterr().out


def test_the_installed_command_knows_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sentemb", "show", "additive_margin"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert "Yang et al. 2019" in shown
