"""The gallery: every row can be trained, and what it says follows from its numbers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sentemb import Recipe
from sentemb.recipe.load import shipped_recipes

BENCH = Path(__file__).resolve().parents[2] / "eval" / "bench"
sys.path.insert(0, str(BENCH))
gallery = pytest.importorskip("gallery")
BUDGET = gallery.Budget(backbone="backbone", steps=3, precision="fp32", seeds=(1, 2, 3))
STATIC = replace(BUDGET, is_static=True)


@pytest.fixture
def made(tmp_path):
    return gallery.Gallery(BUDGET, tmp_path)


@pytest.mark.parametrize("budget", [BUDGET, STATIC], ids=["transformer", "static"])
def test_every_arm_of_every_row_is_a_recipe(budget, tmp_path):
    made = gallery.Gallery(budget, tmp_path)
    for method in made.methods:
        folders = {"data": "nowhere", "backbone": "backbone", "earlier": "earlier", "made": "made"}
        common = gallery.with_folders(made.protocols[method["protocol"]]["set"], **folders)
        for name, arm in made.arms(method).items():
            overrides = gallery.with_folders(arm.overrides, **folders)
            recipe = Recipe.load(arm.recipe, ["encoder.backbone=backbone", *common, *overrides])
            assert recipe.terms, (method["recipe"], name)
        arms = made.arms(method)
        assert arms["method"] != arms["knockout"]


def test_every_small_recipe_has_a_row_or_a_reason(made):
    listed = {entry["recipe"] for entry in (*made.methods, *made.unmeasured)}
    listed |= {protocol["baseline"] for protocol in made.protocols.values()}
    small = {name for name in shipped_recipes() if name.endswith("-minilm")}
    assert small <= listed
    assert not {entry["method"].lower() for entry in made.unsuited} & {name.removesuffix("-minilm") for name in small}


def test_on_a_static_model_a_row_needs_no_twins_and_every_arm_has_its_own_rate(made, tmp_path):
    static = gallery.Gallery(STATIC, tmp_path)
    assert all(method["sweep"] for method in static.methods)
    assert len(static.methods) + len(static.unmeasured) == len(made.methods)
    assert 'views={use="columns"}' in static.protocols["A"]["set"]
    static.report()
    page = (tmp_path / "README.md").read_text()
    assert "static model" in page
    assert "--static --backbone FOLDER" in page
    assert "diffcse-minilm.toml): It needs a masked language model" in page


def entries(*values):
    return [{"score": value} for value in values]


def test_differences_are_paired_by_seed():
    difference = gallery.paired(entries(71.0, 73.0, 75.0), entries(70.0, 71.0, 72.0))
    assert difference["mean"] == pytest.approx(2.0)
    assert difference["half"] == pytest.approx(4.3027 * 1.0 / 3**0.5, rel=1e-4)  # t of 2 degrees of freedom


@pytest.mark.parametrize(
    ("mean", "half", "spread", "words"),
    [
        (1.0, 0.5, 0.2, "gain seen"),
        (-1.0, 0.5, 0.2, "loss seen"),
        (0.4, 0.5, 0.2, "no effect seen at this scale"),
        (1.0, 0.5, 1.5, "no effect seen at this scale"),
        (0.4, 0.1, 0.2, "no effect seen at this scale"),
    ],
)
def test_a_difference_within_its_interval_the_baselines_spread_or_half_a_point_is_none(mean, half, spread, words):
    assert gallery.verdict({"gain": {"mean": mean, "half": half}, "baseline_sd": spread}) == words


@pytest.mark.parametrize(
    ("now", "then", "is_same"),
    [
        ("data.path={made}/scored.jsonl", "data.path=/anywhere/made/scored.jsonl", True),
        ("data.path={made}/scored.jsonl", "data.path=/anywhere/made/graded.jsonl", False),
        ("terms.1.weight=0.0", "terms.1.weight=0.0", True),
        ("terms.1.weight=0.0", "terms.1.weight=0.5", False),
    ],
)
def test_a_run_counts_while_its_settings_are_the_rows_wherever_its_files_lay(now, then, is_same):
    assert gallery.is_same(now, then) == is_same


def test_the_page_names_what_was_run_and_what_was_not(made, tmp_path):
    method, rows = next(entry for entry in made.methods if not entry.get("sweep")), []
    for name, arm in made.arms(method).items():
        for seed in BUDGET.seeds:
            score = 70 + seed / 10 + (2 if name == "method" else 0)
            rows.append(json.dumps({
                "run": made.name_of(arm, seed, "1"), "overrides": ["train.seed=1", *arm.overrides],
                "score": score, "rate": "1", "cpu_s_per_step": 1.0, "geometry": {method["mechanism"]: -1.5},
            }))
    (tmp_path / "runs.jsonl").write_text("\n".join(rows) + "\n")
    made = gallery.Gallery(BUDGET, tmp_path)
    method = next(entry for entry in made.methods if entry["recipe"] == method["recipe"])
    made.report()
    page = (tmp_path / "README.md").read_text()
    assert f"[{method['recipe']}]" in page
    assert "**gain seen** | +2.00 ± 0.00" in page
    assert "Not run yet" in page
    assert "PamC" in page
    assert (tmp_path / "gallery.svg").read_text().startswith("<svg")
    row = next(row for row in json.loads((tmp_path / "gallery.json").read_text())["rows"] if "gain" in row)
    assert row["over_knockout"]["mean"] == pytest.approx(2.0)
    # a knock-out that was changed since then counts as not run
    method["knockout"] = ["train.weight_decay=0.5"]
    assert "gain" not in made._row(method)
