"""fields: which texts a view has, the mean against a loop, and what a step makes of it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from rank_work import open_run
from toy import ToyEncoder

from sentemb import Recipe, check
from sentemb.errors import PartError, RecipeError
from sentemb.search.store.embedding import mean_of_fields as mean_of_index
from sentemb.training.pooled_rows import mean_of_fields
from sentemb.views import Columns, Fields

WEIGHTS = {"positive": {"positive": 0.3, "positive_2": 0.7}}
ROWS = [
    {"anchor": f"the {a} runs", "positive": f"a {a}", "positive_2": f"the {b} house and the {a} {i}", "negative_1": b}
    for i, (a, b) in enumerate([("dog", "red"), ("cat", "blue"), ("man", "green"), ("woman", "old")] * 2)
]


def test_views_and_their_texts(examples_of, context_of):
    columns = {name: [[2, 5 + i, 3], [2, 9 + i, 3]] for i, name in enumerate(
        ["anchor", "positive", "positive_2", "positive_3", "negative_1"])}
    examples = examples_of(**columns)
    views = Fields(weights=WEIGHTS)(examples, context_of(examples))
    assert list(views) == ["anchor", "positive", "positive_3", "negative_1"]
    assert tuple(views) == Fields(weights=WEIGHTS).makes(columns)
    assert Fields(weights=WEIGHTS).texts(columns) == 5
    assert views["positive"].shares.tolist() == [pytest.approx([0.3, 0.3]), pytest.approx([0.7, 0.7])]
    assert [part.column for part in views["positive"].parts] == [examples.columns["positive"],
                                                                 examples.columns["positive_2"]]
    assert views["anchor"].shares is None
    assert views["anchor"].parts == [views["anchor"]]
    assert all(view.ids is examples.ids for view in views.values())


def test_a_single_field_is_the_plain_view(examples_of, context_of):
    examples = examples_of(anchor=[[2, 5, 3]], positive=[[2, 6, 3]])
    views = Fields(weights={"positive": {"positive": 2.0}})(examples, context_of(examples))
    assert views == Columns()(examples, context_of(examples))


def test_hashes_are_those_of_all_fields_in_their_order(column_of, examples_of, context_of):
    examples = examples_of(anchor=[[2, 5, 3]] * 3, positive=[[2, 6, 3]] * 3, positive_2=[[2, 7, 3]] * 3)
    hashes = {"positive": [1, 1, 2], "positive_2": [2, 2, 1]}
    for name, values in hashes.items():
        examples.columns[name].text[:] = values
    text = Fields(weights=WEIGHTS)(examples, context_of(examples))["positive"].column.text
    assert text[0] == text[1] != text[2]
    assert (text >= 0).all()
    order = np.array([2, 0, 1])
    turned = examples.take(order)
    assert np.array_equal(Fields(weights=WEIGHTS)(turned, context_of(turned))["positive"].column.text, text[order])


def shares(*weights, rows=1):
    """Of fields that every row has."""
    return torch.tensor([[weight / sum(weights)] * rows for weight in weights], dtype=torch.float64)


@pytest.mark.parametrize("unit", [True, False])
def test_the_mean_by_a_loop(unit):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator)
    of_rows = torch.rand(3, 5, dtype=torch.float64, generator=generator)
    of_rows[1, 2] = 0
    found = mean_of_fields(rows, of_rows, unit=unit)
    for i in range(5):
        expected = [0.0] * 4
        for field in range(3):
            row = rows[field, i].tolist()
            length = math.sqrt(sum(x * x for x in row)) if unit else 1.0
            expected = [e + float(of_rows[field, i]) * x / length for e, x in zip(expected, row, strict=True)]
        assert found[i].tolist() == pytest.approx(expected, rel=1e-12)


def test_the_mean_by_hand_its_limits_and_gradient():
    rows = torch.tensor([[[3.0, 4.0]], [[0.0, 2.0]]])
    assert mean_of_fields(rows, shares(1.0, 3.0), unit=True).tolist() == [pytest.approx([0.15, 0.95])]
    assert mean_of_fields(rows, shares(1.0, 3.0), unit=False).tolist() == [pytest.approx([0.75, 2.5])]
    assert mean_of_fields(rows[:1], shares(0.4), unit=True) is not rows
    assert torch.equal(mean_of_fields(rows[:1], shares(0.4), unit=True), rows[0])
    assert mean_of_fields(rows[:, :0], shares(1.0, 3.0, rows=0), unit=True).shape == (0, 2)
    half = mean_of_fields(rows.bfloat16(), shares(1.0, 3.0), unit=True)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), torch.tensor([[0.15, 0.95]]), atol=4e-3, rtol=0)
    same = mean_of_fields(torch.stack([rows[0], rows[0]]), shares(0.1, 0.9), unit=True)  # equal fields: the field
    torch.testing.assert_close(same, rows[0] / 5)
    exact = rows.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mean_of_fields(x, shares(0.3, 0.7), unit=True), [exact])


def test_the_mean_is_that_of_an_index():
    texts = [{"title": "red cat", "text": "old house"}, {"title": "blue dog", "text": "red dog"}]

    class Unit(ToyEncoder):
        def encode(self, *arguments: Any, **options: Any) -> Any:
            raw = super().encode(*arguments, **options)
            return raw / np.linalg.norm(raw, axis=1, keepdims=True)

    raw = [ToyEncoder().encode([row[name] for row in texts]) for name in ("title", "text")]
    for encoder, unit in ((ToyEncoder(), False), (Unit(), True)):
        indexed = mean_of_index(encoder, texts, {"title": 0.3, "text": 0.7}, "")
        trained = mean_of_fields(torch.from_numpy(np.stack(raw)), shares(0.3, 0.7, rows=2), unit=unit)
        np.testing.assert_allclose(trained.numpy(), indexed, atol=1e-6)


@pytest.fixture
def tree(still_bert, tmp_path):
    """A recipe's tree whose positive has two fields."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return {
        "encoder": {"backbone": str(still_bert), "pooling": "mean"}, "data": {"use": "table", "path": str(path)},
        "views": {"use": "fields", "weights": WEIGHTS}, "terms": [{"use": "info_nce"}],
        "edits": [{"use": "given"}], "train": {"batch_size": 8, "precision": "fp32"},
    }


@pytest.mark.parametrize("unit", [True, False])
def test_a_step_contrasts_the_means_of_the_fields_vectors(tree, tmp_path, unit):
    run = open_run(tree, str(tmp_path / "run"), dtype=torch.float32)
    encoder = run.plan.encoder
    encoder.is_normalised = unit
    inputs, objective = run.make_input(np.arange(len(ROWS)), 0), run.plan.objective
    with torch.no_grad():
        table, batch = objective.table(objective.encode(inputs), inputs)
    assert list(batch.views) == ["anchor", "positive", "negative_1"]
    encoded = {name: encoder.encode([row[name] for row in ROWS], precision="fp32") for name in ROWS[0]}
    expected = 0.3 * encoded["positive"] + 0.7 * encoded["positive_2"]
    np.testing.assert_allclose(batch.views["positive"].embedding.numpy(), expected, atol=1e-5)
    anchor, *others = (x / np.linalg.norm(x, axis=1, keepdims=True)
                       for x in (encoded["anchor"], expected, encoded["negative_1"]))
    np.testing.assert_allclose(table.sim.numpy(), anchor @ np.concatenate(others).T, atol=1e-5)


@pytest.mark.parametrize("absent", ["", "  ", None, "no key"])
def test_a_field_that_a_row_lacks_has_no_weight_there(tree, tmp_path, absent):
    rows = [dict(row) for row in ROWS]
    rows[1]["positive"] = rows[5]["positive_2"] = absent
    if absent == "no key":
        del rows[1]["positive"], rows[5]["positive_2"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = open_run(tree, str(tmp_path / "run"), dtype=torch.float32)
    encoder, objective = run.plan.encoder, run.plan.objective
    encoder.is_normalised = True
    inputs = run.make_input(np.arange(len(ROWS)), 0)
    with torch.no_grad():
        _, batch = objective.table(objective.encode(inputs), inputs)
    means = batch.views["positive"].embedding.numpy()
    for row, field in ((1, "positive_2"), (5, "positive")):
        np.testing.assert_allclose(means[row], encoder.encode(ROWS[row][field], precision="fp32"), atol=1e-5)
    whole = [encoder.encode([row[name] for row in ROWS], precision="fp32") for name in ("positive", "positive_2")]
    others = [0, 2, 3, 4, 6, 7]
    np.testing.assert_allclose(means[others], (0.3 * whole[0] + 0.7 * whole[1])[others], atol=1e-5)
    run.step.backward([inputs])
    assert all(value.grad is None or value.grad.isfinite().all() for value in objective.parameters())


def test_a_row_without_any_field_is_named(tree, tmp_path):
    rows = [dict(row) for row in ROWS]
    rows[3]["positive"] = rows[3]["positive_2"] = ""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RecipeError, match=r'rows.jsonl:4: has no text in any of "positive", "positive_2"'):
        check(Recipe.from_tree(tree, "test.toml"))
    rows[3] |= {"positive": "a dog", "anchor": ""}  # no field of another one
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RecipeError, match=r'rows.jsonl:4: column "anchor" is empty'):
        check(Recipe.from_tree(tree, "test.toml"))


def test_a_single_field_trains_as_the_plain_view_exactly(tree, tmp_path):
    losses = []
    for number, views in enumerate(({"use": "columns"}, {"use": "fields", "weights": {"positive": {"positive": 1.0}}})):
        run = open_run({**tree, "views": views}, str(tmp_path / str(number)), dtype=torch.float32)
        (result,) = run.step.backward([run.make_input(np.arange(len(ROWS)), 0)])
        gradient = next(parameter.grad for parameter in run.plan.objective.parameters() if parameter.grad is not None)
        losses.append((result.total, gradient))
    assert torch.equal(losses[0][0], losses[1][0])
    assert torch.equal(losses[0][1], losses[1][1])


@pytest.mark.parametrize(("weights", "message"), [
    ({}, "weights names no fields"), ({"positive": {}}, "weights names no fields"),
    ({"positive": {"positive": 0.0}}, "greater than 0"),
    ({"positive": {"positive": 1.0, "text": 1.0}}, 'weights: "text" is no text of an example; they are anchor, '),
    ({"positive": {"positive": 1.0, "score": 1.0}}, 'weights: "score" is no text of an example'),
    ({"positive": {"positive_2": 1.0}}, r'the view "positive" has the name of none of its columns \(positive_2\)'),
    ({"anchor": {"anchor": 1, "positive_2": 1}, "positive": {"positive": 1, "positive_2": 1}},
     'the column "positive_2" is a field of two views'),
])  # fmt: skip
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(PartError, match=message):
        Fields(weights=weights)


@pytest.mark.parametrize(("changes", "message"), [
    ({"encoder": {"heads": [{"use": "mlp"}]}}, "before encoder.heads; leave the heads out"),
    ({"terms": [{"use": "words"}]}, "views of several texts, and words reads a view's one text"),
    ({"edits": [{"use": "inner_layer", "layer": 1}]}, "inner_layer reads a view's one text"),
    ({"companions": [{"use": "momentum"}]}, "companion momentum reads a view's one text"),
    ({"views": {"use": "fields", "weights": WEIGHTS, "copies": [{"use": "shuffled"}]}}, "copy negative_1 reads"),
])  # fmt: skip
def test_parts_that_read_one_text_of_a_view_are_refused(tree, changes, message):
    changed = {**tree, **changes, "encoder": {**tree["encoder"], **changes.get("encoder", {})}}
    with pytest.raises(RecipeError, match=message):
        Recipe.from_tree(changed, "test.toml")


def test_a_missing_column_is_named_and_memory_counts_every_text(tree, tmp_path):
    wrong = {"positive": {"positive": 1.0, "positive_7": 1.0}}
    with pytest.raises(RecipeError, match=r'views \(fields\) needs the column "positive_7"; the data have'):
        check(Recipe.from_tree({**tree, "views": {"use": "fields", "weights": wrong}}, "test.toml"))
    fields = check(Recipe.from_tree(tree, "test.toml"))
    plain = check(Recipe.from_tree({**tree, "views": {"use": "columns"}}, "test.toml"))
    assert fields.peak_bytes == plain.peak_bytes  # four texts an example, as views or as fields
