"""regulators against a loop, and what their columns do to a loss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from edit_tables import contrast, permuted
from torch import Tensor, nn

from sentemb.companions import Reference
from sentemb.edits import FalseNegative, Regulators
from sentemb.errors import RecipeError
from sentemb.maths.similarity import pairwise
from sentemb.maths.table import in_batch_table, narrow_table
from sentemb.types import Batch


def batch_of(positives, **rows: Tensor) -> Batch:
    """A batch in which the companions of these names gave these embeddings of the positives."""
    companions = {name: Reference().marked(name=name) for name in rows}
    return Batch(
        views={"positive": positives}, local=slice(0, len(positives)), tokens={}, encoded={}, companions=companions,
        outputs={f"{name}/positive": value for name, value in rows.items()},
    )


def random(n: int, d: int = 4, *, seed: int = 9) -> Tensor:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return nn.functional.normalize(rows, dim=1)


def cosine(a, b):
    a, b = a.tolist(), b.tolist()
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize("role", ["positive", "negative"])
def test_equals_the_loop(role, make_rows):
    anchor, positive = make_rows(4), make_rows(4, seed=1, label=[0, 1, 0, 1])
    rows = {"first": random(4, seed=5), "second": random(4, seed=6)}
    edited = Regulators(of=["first", "second"], role=role)(in_batch_table(anchor, positive), batch_of(positive, **rows))
    assert edited.sim.shape == (4, 12)
    for k, embedding in enumerate(rows.values()):
        for i in range(4):
            for j in range(4):
                column = 4 + 4 * k + j
                expected = cosine(anchor.embedding[i], embedding[j])
                assert edited.sim[i, column].item() == pytest.approx(expected, rel=1e-12)
                assert bool(edited.positive[i, column]) == (role == "positive" and i == j)
                assert edited.log_weight[i, column].item() == (-math.inf if role == "negative" and i == j else 0.0)
    assert edited.candidate.ids.tolist() == positive.ids.tolist() * 3
    assert edited.candidate.text.tolist() == positive.text.tolist() * 3
    assert edited.candidate.label.tolist() == positive.label.tolist() * 3
    torch.testing.assert_close(edited.sim, pairwise(anchor.embedding, edited.candidate.embedding, "cosine"))
    assert narrow_table(edited, 2).sim.shape == (4, 12)


def test_an_encoder_that_regulates_itself_changes_nothing_as_a_positive(make_rows):
    anchor, positive = make_rows(5), make_rows(5, seed=1)
    table, batch = in_batch_table(anchor, positive), batch_of(positive, reference=positive.embedding)
    edited = Regulators()(table, batch)
    assert contrast(edited).item() == pytest.approx(contrast(table).item(), rel=1e-6)


def test_and_doubles_the_negatives_as_a_negative(make_rows):
    anchor, positive = make_rows(5), make_rows(5, seed=1)
    table, batch = in_batch_table(anchor, positive), batch_of(positive, reference=positive.embedding)
    twice = torch.where(table.positive, 0.0, math.log(2))
    edited = Regulators(role="negative")(table, batch)
    assert contrast(edited).item() == pytest.approx(contrast(replace(table, log_weight=twice)).item(), rel=1e-6)


def test_by_hand(make_rows):
    axes = torch.eye(2, dtype=torch.float64)
    rows = replace(make_rows(2), embedding=axes)
    edited = Regulators()(in_batch_table(rows, rows), batch_of(rows, reference=axes.flip(0)))
    assert edited.sim[:, 2:].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    # anchor 0: its positives have cosines 1 and 0, the others 0 and 1
    assert contrast(edited, 1.0).item() == pytest.approx(math.log(2))


def test_columns_take_no_gradient_and_anchors_do(make_rows):
    positive = make_rows(3, seed=1)
    regulator = random(3).requires_grad_(False)

    def loss(embedding):
        anchor = replace(make_rows(3), embedding=embedding)
        return contrast(Regulators()(in_batch_table(anchor, positive), batch_of(positive, reference=regulator)))

    assert torch.autograd.gradcheck(loss, (make_rows(3).embedding.requires_grad_(),))


def test_order_of_examples_does_not_matter(make_rows):
    anchor, positive, regulator = make_rows(5), make_rows(5, seed=1), random(5)
    order = torch.tensor([3, 0, 1, 4, 2])
    edited = Regulators()(in_batch_table(anchor, positive), batch_of(positive, reference=regulator))
    turned = permuted(positive, order)
    moved = Regulators()(
        in_batch_table(permuted(anchor, order), turned), batch_of(turned, reference=regulator[order])
    )
    torch.testing.assert_close(moved.sim, edited.sim[order][:, torch.cat([order, order + 5])])


def test_known_false_negatives_are_removed_behind_it(make_rows):
    anchor, positive = make_rows(3, text=[7, 7, 8]), make_rows(3, seed=1, text=[9, 10, 11])
    edited = Regulators()(in_batch_table(anchor, positive), batch_of(positive, reference=random(3)))
    assert (edited.log_weight == 0).all()
    kept = FalseNegative(by=["ids"])(edited, batch_of(positive))
    assert torch.equal(kept.log_weight, edited.log_weight)  # everyone's own column is a positive
    doubled = replace(edited, candidate=replace(edited.candidate, ids=torch.tensor([0, 1, 2, 1, 1, 2])))
    assert FalseNegative(by=["ids"])(doubled, batch_of(positive)).log_weight[1, 3].item() == -math.inf


def test_texts_that_were_not_precomputed_are_left_out(make_rows):
    companion, positive = Reference(precompute=True), make_rows(3, text=[10, 20, 30])
    companion.hashes, companion.table = torch.tensor([10, 30]), random(2).half()
    batch = replace(batch_of(positive), companions={"reference": companion})
    edited = Regulators()(in_batch_table(make_rows(3), positive), batch)
    assert (edited.log_weight[:, 3:] == torch.tensor([0.0, -math.inf, 0.0])).all()
    assert edited.positive[:, 3:].diagonal().tolist() == [True, False, True]


@pytest.mark.parametrize("role", ["positive", "negative"])
def test_one_example_and_bfloat16(role, make_rows):
    alone = make_rows(1)
    loss = contrast(Regulators(role=role)(in_batch_table(alone, alone), batch_of(alone, reference=random(1))))
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    half = make_rows(3, dtype=torch.bfloat16)
    edited = Regulators(role=role)(in_batch_table(half, half), batch_of(half, reference=random(3).float()))
    assert torch.isfinite(contrast(edited))


def test_another_width_a_missing_companion_and_a_wrong_role_are_told(make_rows):
    rows = make_rows(3)
    table = in_batch_table(rows, rows)
    with pytest.raises(RecipeError, match="5 dimensions, the trained ones 4"):
        Regulators()(table, batch_of(rows, reference=random(3, 5)))
    with pytest.raises(RecipeError, match='needs the companion "reference"'):
        Regulators()(table, batch_of(rows))
    with pytest.raises(ValueError, match="'positive' or 'negative'"):
        Regulators(role="neutral")
    assert Regulators(of=["a", "b"]).needs == {"companion:a", "companion:b"}
