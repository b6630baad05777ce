"""Every shipped recipe checks, builds and trains; every part is documented."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sentemb import Encoder, check, train
from sentemb.recipe.catalogue import ROOMS, catalogue, parts
from sentemb.recipe.load import read_tree, shipped_recipes
from sentemb.recipe.show import read_docstring

RECIPES = sorted(shipped_recipes())


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_checks_builds_and_trains_two_steps(name, on_tiny_model, tmp_path):
    tree, _ = read_tree(name)
    overrides = on_tiny_model(tree)
    report = check(name, overrides)
    assert report.recipe.name == name
    result = train(name, overrides=overrides, output=tmp_path / "run")
    assert result.steps == 2
    assert all(np.isfinite(value) for value in result.last_losses.values())
    assert len(result.last_losses) == len(report.recipe.terms)
    loaded = Encoder.load(result.model_dir)
    assert loaded.encode(["a red house", "a dog runs"]).shape == (2, loaded.width)
    assert (tmp_path / "run" / "curve.png").stat().st_size > 1000
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "learning_rate"} < set(lines[-1]) or "dev" in lines[-1]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_opens_with_its_command_and_names_its_source(name):
    text = shipped_recipes()[name].read_text()
    assert text.startswith(f"# sentemb {name}" if name == "quickstart" else f"# sentemb train {name}")
    tree, _ = read_tree(name)
    assert tree["source"]


def test_the_resolved_recipe_of_a_run_trains_the_same(on_tiny_model, tmp_path):
    tree, _ = read_tree("simcse-unsup-minilm")
    overrides = on_tiny_model(tree)
    first = train("simcse-unsup-minilm", overrides=overrides, output=tmp_path / "first")
    second = train(tmp_path / "first" / "recipe.toml", output=tmp_path / "second")
    a, b = (Encoder.load(result.model_dir).encode(["a dog eats"]) for result in (first, second))
    assert np.array_equal(a, b)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_part_says_what_it_is(room):
    for name, cls in parts(room).items():
        summary, _, sections = read_docstring(cls)
        assert summary, f"{room}.{name} has no docstring"
        if room in ("terms", "edits", "companions"):
            assert sections.get("Source"), f"{room}.{name} names no source"
            assert sections.get("Deviations"), f"{room}.{name} names no deviations (none is an answer)"


@pytest.mark.parametrize("room", ["terms", "edits", "views", "companions"])
def test_every_part_has_a_test_file(room):
    tests = Path(__file__).resolve().parents[1] / room
    stems = " ".join(path.stem for path in tests.glob("test_*.py"))
    missing = [name for name in parts(room) if name not in stems]
    assert not missing, f"no tests/{room}/test_*.py names {missing}"


@pytest.mark.parametrize("kind", [*sorted(ROOMS), "recipes", "methods", "poolings"])
def test_every_catalogue_lists_something(kind):
    assert catalogue(kind)
