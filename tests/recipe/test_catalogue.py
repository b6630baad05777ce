"""Every shipped recipe checks, builds and trains; every part is documented, listed and shown."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from sentemb import Encoder, Recipe, check, train
from sentemb.cli import main
from sentemb.errors import RecipeError
from sentemb.parts import ROOMS, describe, room, settings_of
from sentemb.recipe.catalogue import KINDS, catalogue, find_parts
from sentemb.recipe.load import read_tree, shipped_recipes

RECIPES = sorted(shipped_recipes())


# recipes of published sizes have the parts of the small ones, which run among the fast tests
_PUBLISHED = re.compile(r"bert.*-(base|large)")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if _PUBLISHED.search(name) else name for name in RECIPES]
)
def test_recipe_checks_builds_and_trains_two_steps(name, on_tiny_model, tmp_path):
    tree, _ = read_tree(name)
    recipe = Recipe.load(name, on_tiny_model(tree))
    report = check(recipe)
    assert report.recipe.name == name
    result = train(recipe, output=tmp_path / "run")
    assert result.steps == 2
    assert all(np.isfinite(value) for value in result.last_losses.values())
    assert len(result.last_losses) == len(recipe.terms)
    loaded = Encoder.load(result.model_dir)
    assert loaded.encode(["a red house", "a dog runs"]).shape == (2, loaded.width)
    assert (tmp_path / "run" / "loss.svg").stat().st_size > 1000
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "learning_rate"} < set(lines[-1]) or "dev" in lines[-1]
    assert Recipe.load(tmp_path / "run" / "recipe.toml") == recipe  # the parts of the recipe were not used up


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_opens_with_its_command_and_names_its_source(name):
    text = shipped_recipes()[name].read_text()
    assert text.startswith(f"# sentemb {name}" if name == "quickstart" else f"# sentemb train {name}")
    assert Recipe.named(name).source


def test_the_resolved_recipe_of_a_run_trains_the_same(on_tiny_model, tmp_path):
    tree, _ = read_tree("simcse-unsup-minilm")
    train(Recipe.load("simcse-unsup-minilm", on_tiny_model(tree)), output=tmp_path / "first")
    train(tmp_path / "first" / "recipe.toml", output=tmp_path / "second")
    a, b = (Encoder.load(tmp_path / run / "model").encode(["a dog eats"]) for run in ("first", "second"))
    assert np.array_equal(a, b)


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_every_part_says_what_it_is(name):
    for use, cls in room(name).classes().items():
        facts = describe(cls)
        assert facts.summary, f"{name}/{use} has no docstring"
        assert set(facts.settings) >= set(settings_of(cls)), f"{name}/{use} does not explain all of its settings"
        if name in ("terms", "edits", "companions"):
            assert facts.source, f"{name}/{use} names no source"
            assert facts.deviations, f"{name}/{use} names no deviations (none is an answer)"


@pytest.mark.parametrize("name", ["terms", "edits", "views", "copies", "companions"])
def test_every_part_has_a_test_file(name):
    tests = Path(__file__).resolve().parents[1] / ("views" if name == "copies" else name)
    stems = {path.stem for path in tests.glob("test_*.py")}
    for use in (use for use, cls in room(name).classes().items() if cls.__module__.startswith("sentemb.")):
        assert any(stem in (f"test_{use}", f"test_{use}_edit", f"test_{use}_companion") for stem in stems), use


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_catalogue_lists_something(kind):
    assert catalogue(kind)


def run(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert not caught.value.code, capsys.readouterr().err
    return capsys.readouterr().out


def test_list_names_kinds_parts_and_recipes(capsys):
    assert "terms " in run(capsys, "list")
    assert "info_nce" in run(capsys, "list", "terms")
    assert "simcse-unsup-minilm" in json.loads(run(capsys, "list", "recipes", "--json"))
    with pytest.raises(RecipeError, match="did you mean terms"):
        catalogue("term")


def test_a_part_whose_library_is_absent_is_listed_with_the_reason(monkeypatch):
    monkeypatch.setattr("sentemb.parts.rooms.Room.find", lambda self, use: importlib.import_module("no_such_library"))
    assert catalogue("terms")["info_nce"] == "(cannot be used here: No module named 'no_such_library')"


def test_show_finds_parts_and_recipes(capsys):
    shown = run(capsys, "show", "info_nce")
    setting = "temperature  (number at least 0.0001, by default 0.05)"
    for words in ("terms/info_nce", "L = -1/n", setting, "info_nce.py:"):
        assert words in shown
    shown = run(capsys, "show", "diffcse-minilm")
    for words in ("views.copies[0]  masked", "terms[1]  0.005 × replaced_token_detection", "masked.py:"):
        assert words in shown
    assert Recipe.from_toml(run(capsys, "show", "simcse-queue-minilm", "--toml")) == Recipe.named("simcse-queue-minilm")


def test_a_name_in_several_rooms_is_asked_for(capsys):
    assert {where for where, _ in find_parts("mined")} == {"copies", "edits"}
    with pytest.raises(SystemExit):
        main(["show", "mined"])
    assert "copies/mined, edits/mined" in capsys.readouterr().err
    assert "edits/mined" in run(capsys, "show", "edits/mined")
    assert find_parts("nothing_of_this_name") == []


def test_an_own_part_of_the_current_folder_is_shown(capsys, tmp_path, monkeypatch):
    (tmp_path / "own_margin.py").write_text(
        "from sentemb import Term\n\n\nclass OwnMargin(Term):\n"
        '    """A margin of my own."""\n\n    def forward(self, table, batch):\n        return table.sim.mean()\n'
    )
    monkeypatch.chdir(tmp_path)
    assert "A margin of my own." in run(capsys, "show", "own_margin:OwnMargin")
