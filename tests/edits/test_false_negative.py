"""Removal of negatives that are known to mean what the anchor means."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from edit_tables import contrast, permuted

from sentemb.edits import PARTS
from sentemb.edits.false_negative import FalseNegative
from sentemb.maths.table import add_candidates, in_batch_table
from sentemb.types import PairScores, Rows

GONE = -math.inf


def removed_by_loop(table: PairScores, *, ids: bool, text: bool) -> list[list[float]]:
    """The definition, pair by pair."""
    n, m = table.sim.shape
    result = [[0.0] * m for _ in range(n)]
    for i in range(n):
        same_ids, same_text = {int(table.anchor.ids[i])}, {int(table.anchor.text[i])}
        for j in range(m):
            if table.positive[i, j]:
                same_ids.add(int(table.candidate.ids[j]))
                same_text.add(int(table.candidate.text[j]))
        for j in range(m):
            if table.positive[i, j]:
                continue
            by_ids = ids and int(table.candidate.ids[j]) in same_ids - {-1}
            by_text = text and int(table.candidate.text[j]) in same_text - {-1}
            by_anchor = text and j < n and int(table.anchor.text[j]) == int(table.anchor.text[i]) != -1
            if by_ids or by_text or by_anchor:
                result[i][j] = GONE
    return result


def random_table(seed: int) -> PairScores:
    """Few distinct ids and texts, several positives, extra columns."""
    generator = torch.Generator().manual_seed(seed)

    def rows(count: int) -> Rows:
        return Rows(embedding=torch.randn(count, 3, generator=generator),
                    ids=torch.randint(-1, 8, (count,), generator=generator),
                    text=torch.randint(-1, 8, (count,), generator=generator))

    table = add_candidates(in_batch_table(rows(7), rows(7)), rows(5))
    return replace(table, positive=table.positive | (torch.rand(7, 12, generator=generator) < 0.1))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("by", [["ids"], ["text"], ["ids", "text"]])
def test_equals_the_loop(seed, by, make_batch):
    table = random_table(seed)
    edited = FalseNegative(by=by)(table, make_batch())
    assert edited.log_weight.tolist() == removed_by_loop(table, ids="ids" in by, text="text" in by)


def test_two_by_three_by_hand(make_batch):
    vectors = torch.eye(2)
    anchor = Rows(embedding=vectors, ids=torch.tensor([0, 1]), text=torch.tensor([100, 101]))
    positive = Rows(embedding=vectors, ids=torch.tensor([0, 1]), text=torch.tensor([200, 201]))
    # anchor 1's positive text again, under another example's id
    queue = Rows(embedding=torch.ones(1, 2), ids=torch.tensor([0]), text=torch.tensor([201]))
    table = add_candidates(in_batch_table(anchor, positive), queue)
    assert FalseNegative(by=["text"])(table, make_batch()).log_weight.tolist() == [[0, 0, 0], [0, 0, GONE]]
    assert FalseNegative(by=["ids"])(table, make_batch()).log_weight.tolist() == [[0, 0, GONE], [0, 0, 0]]
    assert FalseNegative()(table, make_batch()).log_weight.tolist() == [[0, 0, GONE], [0, 0, GONE]]


def test_examples_with_one_anchor_share_their_positives(make_rows, make_batch):
    anchor, positive = make_rows(3, text=[7, 7, 8]), make_rows(3, text=[1, 2, 3], seed=1)
    edited = FalseNegative(by=["text"])(in_batch_table(anchor, positive), make_batch())
    assert edited.log_weight.tolist() == [[0, GONE, 0], [GONE, 0, 0], [0, 0, 0]]


def test_keeps_earlier_weights_and_every_positive(make_table, make_batch):
    table = make_table(4, ids=[5, 5, 6, 7])
    table = replace(table, log_weight=torch.full((4, 4), 0.25, dtype=torch.float64))
    edited = FalseNegative()(table, make_batch())
    assert (edited.log_weight[edited.positive] == 0.25).all()
    assert edited.log_weight[0, 1] == edited.log_weight[1, 0] == GONE
    assert int(edited.log_weight.isinf().sum()) == 2


def test_follows_a_permutation_of_the_examples(make_rows, make_batch):
    anchor, positive = make_rows(6, ids=[0, 1, 0, 3, 1, 0]), make_rows(6, seed=1, ids=[0, 1, 0, 3, 1, 0])
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    one = FalseNegative()(in_batch_table(anchor, positive), make_batch())
    other = FalseNegative()(in_batch_table(permuted(anchor, order), permuted(positive, order)), make_batch())
    assert one.log_weight[order][:, order].tolist() == other.log_weight.tolist()
    assert one.log_weight.isinf().any()


def test_gradcheck_and_no_gradient_to_removed_pairs(make_rows, make_batch):
    anchor, positive = make_rows(4, ids=[0, 1, 0, 3]), make_rows(4, seed=1, ids=[0, 1, 0, 3])

    def loss(a: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        table = in_batch_table(
            Rows(embedding=a, ids=anchor.ids, text=anchor.text), Rows(embedding=p, ids=positive.ids, text=positive.text)
        )
        return contrast(FalseNegative()(table, make_batch()))

    assert torch.autograd.gradcheck(loss, [anchor.embedding.requires_grad_(), positive.embedding.requires_grad_()])
    sim = in_batch_table(anchor, positive).sim.detach().requires_grad_()
    contrast(FalseNegative()(replace(in_batch_table(anchor, positive), sim=sim), make_batch())).backward()
    assert sim.grad[0, 2] == sim.grad[2, 0] == 0
    assert sim.grad[0, 1] != 0
    assert sim.grad[0, 0] != 0


def test_edges(make_table, make_batch):
    one = FalseNegative()(make_table(1), make_batch())
    assert one.log_weight.tolist() == [[0.0]]
    # every example is the same one: only the positives are left, and the loss is 0, not NaN
    same = FalseNegative()(make_table(3, ids=[2, 2, 2], dtype=torch.bfloat16), make_batch())
    assert int(same.log_weight.isinf().sum()) == 6
    assert float(contrast(same)) == 0.0


@pytest.mark.parametrize("by", [[], ["ids", "ids"]])
def test_refuses_an_empty_or_repeated_choice(by):
    with pytest.raises(ValueError, match="by = "):
        FalseNegative(by=by)


def test_is_a_part():
    assert PARTS["false_negative"] is FalseNegative
    assert FalseNegative.needs == frozenset()
