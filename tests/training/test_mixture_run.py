"""A mixture inside a run: who takes part in which batch, what is logged, one order on every device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from part_examples import tree_of
from rank_work import dealt_rows, open_run

from sentemb import Recipe, check, train
from sentemb.errors import DataError, RecipeError
from sentemb.training.inputs import StepInput


@pytest.fixture
def tree(still_bert: Path, pairs_file: Path) -> Any:
    def of(**settings: Any) -> dict[str, Any]:
        return tree_of("views", "by_source", str(still_bert), str(pairs_file), **{"epochs": 2, **settings})

    return of


def batches_of(run: Any) -> list[StepInput]:
    return [batch for batches in run.feed.steps(0) for batch in batches]


def test_parts_take_part_in_batches_of_their_sources(tree: Any, tmp_path: Path) -> None:
    run = open_run(tree(), str(tmp_path))
    objective = run.plan.objective
    calls: list[str] = []
    for part in objective.parts:
        part.register_forward_hook(lambda module, *_: calls.append(module.name))
    expected = {"wiki": ["queue", "info_nce"], "pairs": ["given", "info_nce", "cosent"]}
    seen = set()
    for batch in batches_of(run)[:6]:
        calls.clear()
        losses = objective(batch)
        assert sorted(calls) == sorted(expected[batch.source])
        assert set(losses.parts) == set(expected[batch.source]) & {"info_nce", "cosent"}
        assert losses.batch.source == batch.source
        assert set(losses.batch.views) == {"wiki": {"anchor", "positive"}}.get(batch.source, set(losses.batch.views))
        assert (losses.batch.score is None) == (batch.source == "wiki")
        before = int(objective.companions["momentum"].seen)
        objective.after_step(losses.batch, run.step.services)
        assert (int(objective.companions["momentum"].seen) > before) == (batch.source == "wiki")
        seen.add(batch.source)
    assert seen == set(expected)


def test_its_loss_is_that_of_a_recipe_of_the_source_alone(tree: Any, pairs_file: Path, tmp_path: Path) -> None:
    mixed = open_run(tree(), str(tmp_path))
    alone = tree()
    for table in [*alone["terms"], *alone["edits"], *alone["companions"]]:
        table.pop("only", None)
    alone |= {"data": {"use": "table", "path": str(pairs_file)}, "views": {"use": "columns"}, "companions": []}
    alone["edits"] = [{"use": "given"}]
    plain = open_run(alone, str(tmp_path))
    mixed.plan.objective.eval(), plain.plan.objective.eval()
    found = mixed.plan.objective(mixed.make_input(np.arange(12, 17), 0))  # the first rows of the second source
    wanted = plain.plan.objective(plain.make_input(np.arange(5), 0))
    assert found.parts.keys() == wanted.parts.keys()
    for name, value in wanted.parts.items():
        torch.testing.assert_close(found.parts[name], value)


def test_devices_see_one_source_at_every_step_and_a_resumed_run_goes_on(tree: Any, ranks: Any, tmp_path: Path) -> None:
    one = ranks[1].run(dealt_rows, tree(), str(tmp_path))[0]
    assert all({row < 12 for row in rows} in ({True}, {False}) for rows in one)
    assert ranks[2].run(dealt_rows, tree(), str(tmp_path)) == [one, one]
    assert ranks[1].run(dealt_rows, tree(), str(tmp_path), 3)[0] == one[3:]


def test_log_says_losses_norms_and_examples_of_every_source(tree: Any, tmp_path: Path) -> None:
    result = train(Recipe.from_tree(tree(log_every=100, batches="no_duplicates"), "test"), output=tmp_path / "run")
    entry = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    names = {"wiki/info_nce", "pairs/info_nce", "pairs/cosent"}
    assert set(result.last_losses) == names
    numbers = {f"loss/{name}" for name in names} | {"gradient_norm/wiki", "gradient_norm/pairs"}
    assert numbers | {"examples/wiki", "examples/pairs", "step", "learning_rate"} == set(entry)
    assert entry["examples/wiki"] == 2 * 7  # two epochs of one full batch of twelve rows
    assert entry["examples/pairs"] == 2 * 7 * 5
    assert all(entry[name] > 0 for name in numbers)


def test_batches_of_several_sources_in_one_step(tree: Any, tmp_path: Path) -> None:
    recipe = Recipe.from_tree(tree(log_every=1, gradient_accumulation=8, learning_rate=1e-4), "test")
    train(recipe, output=tmp_path / "run")
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"loss/wiki/info_nce", "loss/pairs/cosent", "gradient_norm", "examples/wiki"} <= set(first)


def test_other_data_are_given_by_source(tree: Any, tmp_path: Path) -> None:
    recipe = Recipe.from_tree(tree(max_steps=2), "test")
    rows = [(f"red {i}", f"blue {i}", f"green {i}") for i in range(14)]
    names = ("anchor", "positive", "negative_1")
    graded = [{**dict(zip(names, row, strict=True)), "score": i % 2} for i, row in enumerate(rows)]
    songs = [{"anchor": f"song {i}"} for i in range(14)]
    result = train(recipe, data={"wiki": songs, "pairs": graded}, output=tmp_path / "run")
    assert result.steps == 2
    with pytest.raises(RecipeError, match=r"found list; this recipe's data are a mixture: give a dict of wiki, pairs"):
        train(recipe, data=rows, output=tmp_path / "other")


FAULTS: list[tuple[Any, str]] = [
    (lambda tree: tree["terms"][0].update(only=["wiky"]), 'only names "wiky", but its sources are pairs, wiki'),
    (lambda tree: tree["terms"][0].update(only=["pairs"]), 'terms has none for the source "wiki"'),
    (lambda tree: tree["views"]["makers"].pop("wiki"), "views.makers names pairs, but its sources are pairs, wiki"),
    (
        lambda tree: tree["edits"][1].update(only=["pairs"]),
        'needs the companion "momentum", which is not for the source pairs',
    ),
    (lambda tree: tree["train"].update(batches={"use": "grouped", "groups": 6}), "batch_size = 5 is below"),
    (lambda tree: tree.update(data={"use": "lines", "path": "x.txt"}), "but the data are no mixture"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_names_that_do_not_fit_are_told(tree: Any, change: Any, message: str) -> None:
    table = tree()
    change(table)
    with pytest.raises(RecipeError, match=message):
        Recipe.from_tree(table, "test")


def test_marks_of_a_part_are_refused_outside_a_mixture(tree: Any) -> None:
    table = tree()
    data = {**table["data"]["parts"][1], "weight": 2.0}
    table |= {"data": data, "views": {"use": "columns"}, "edits": [], "companions": []}
    table["terms"] = [{"use": "info_nce"}]
    with pytest.raises(RecipeError, match=r'data.batch_size is for a part of a mixture \(use = "mixture"\)'):
        Recipe.from_tree(table, "test")


def test_check_looks_at_every_source(tree: Any, pairs_file: Path) -> None:
    table = tree()
    report = check(Recipe.from_tree(table, "test"))
    assert [line for line in report.verified if line.startswith("source")] == [
        f'source "wiki": data {pairs_file}: the first 12 rows, columns anchor',
        f'source "pairs": data {pairs_file}: the first 36 rows, columns anchor, positive, negative_1, negative_2',
    ]
    table["terms"][1]["only"] = ["wiki", "pairs"]
    message = r'source "wiki": terms\[1\] \(cosent\) needs the column "score"; the data have: anchor'
    with pytest.raises(RecipeError, match=message):
        check(Recipe.from_tree(table, "test"))


def test_a_source_without_the_columns_of_its_views_is_told_before_training(tree: Any, tmp_path: Path) -> None:
    table = tree()
    table["views"]["makers"]["wiki"] = "columns"
    with pytest.raises((RecipeError, DataError), match=r'source "wiki": views \(columns\) needs the column "positive"'):
        train(Recipe.from_tree(table, "test"), output=tmp_path / "run")
