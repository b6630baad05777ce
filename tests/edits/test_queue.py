"""Negatives from the momentum queue. How the queue fills is tested beside the companion."""

from __future__ import annotations

import math

import pytest
import torch
from edit_tables import contrast, permuted

from sentemb.companions.momentum import Momentum
from sentemb.companions.reference import Reference
from sentemb.edits import PARTS
from sentemb.edits.false_negative import FalseNegative
from sentemb.edits.queue import Queue
from sentemb.errors import RecipeError
from sentemb.maths.similarity import pairwise
from sentemb.maths.table import in_batch_table
from sentemb.types import Rows


def queue_with(rows: Rows, size: int) -> Momentum:
    """A companion whose queue holds these rows and is empty otherwise."""
    companion = Momentum(queue_size=size)
    width = rows.embedding.shape[1]
    companion.register_buffer("embedding", torch.zeros(size, width, dtype=rows.embedding.dtype))
    companion.register_buffer("ids", torch.full((size,), -1))
    companion.register_buffer("text", torch.full((size,), -1))
    companion.register_buffer("seen", torch.tensor(0))
    companion._put(rows.embedding, rows.ids, rows.text)
    return companion


def test_equals_the_loop(make_rows, make_batch):
    anchor, positive, old = make_rows(4), make_rows(4, seed=1), make_rows(5, seed=2, first=40)
    batch = make_batch(companions={"momentum": queue_with(old, 8)})
    loss = contrast(Queue()(in_batch_table(anchor, positive), batch), 0.3)
    expected = 0.0
    for i in range(4):
        def exp_sim(candidate: torch.Tensor, i: int = i) -> float:
            return math.exp(float(torch.cosine_similarity(anchor.embedding[i], candidate, dim=0)) / 0.3)

        denominator = sum(exp_sim(c) for c in positive.embedding) + sum(exp_sim(c) for c in old.embedding)
        expected -= math.log(exp_sim(positive.embedding[i]) / denominator) / 4
    torch.testing.assert_close(float(loss), expected, rtol=1e-10, atol=0)


def test_two_by_three_by_hand(make_batch):
    rows = Rows(embedding=torch.eye(2), ids=torch.arange(2), text=torch.arange(2))
    old = Rows(embedding=torch.tensor([[3.0, 4.0]]), ids=torch.tensor([9]), text=torch.tensor([19]))
    table = Queue()(in_batch_table(rows, rows), make_batch(companions={"momentum": queue_with(old, 2)}))
    torch.testing.assert_close(table.sim, torch.tensor([[1, 0, 0.6, 0], [0, 1, 0.8, 0]]))
    assert table.log_weight.tolist() == [[0, 0, 0, -math.inf]] * 2
    assert table.candidate.ids.tolist() == [0, 1, 9, -1]
    assert table.candidate.text.tolist() == [0, 1, 19, -1]
    assert not table.positive[:, 2:].any()


def test_false_negative_drops_the_example_that_comes_back(make_rows, make_batch):
    anchor, positive, old = make_rows(3), make_rows(3, seed=1), make_rows(2, seed=2, first=1)
    batch = make_batch(companions={"momentum": queue_with(old, 3)})
    table = FalseNegative()(Queue()(in_batch_table(anchor, positive), batch), batch)
    gone = -math.inf
    assert table.log_weight[:, 3:].tolist() == [[0, 0, gone], [gone, 0, gone], [0, gone, gone]]


def test_the_table_keeps_its_values_when_the_queue_moves_on(make_rows, make_batch):
    companion = queue_with(make_rows(3, seed=2), 3)
    table = Queue()(in_batch_table(make_rows(2), make_rows(2)), make_batch(companions={"momentum": companion}))
    before = table.candidate.embedding.clone()
    companion._put(make_rows(3, seed=5).embedding, torch.arange(3), torch.arange(3))
    assert torch.equal(table.candidate.embedding, before)


def test_follows_a_permutation_of_the_examples(make_rows, make_batch):
    anchor, positive, old = make_rows(4), make_rows(4, seed=1), make_rows(5, seed=2)
    order = torch.tensor([3, 1, 0, 2])
    batch = make_batch(companions={"momentum": queue_with(old, 5)})
    one = Queue()(in_batch_table(anchor, positive), batch)
    other = Queue()(in_batch_table(permuted(anchor, order), permuted(positive, order)), batch)
    torch.testing.assert_close(one.sim[order][:, 4:], other.sim[:, 4:])


def test_gradcheck(make_rows, make_batch):
    anchor, positive = make_rows(3), make_rows(3, seed=1)
    batch = make_batch(companions={"momentum": queue_with(make_rows(2, seed=2), 4)})

    def loss(a: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        table = in_batch_table(
            Rows(embedding=a, ids=anchor.ids, text=anchor.text), Rows(embedding=p, ids=positive.ids, text=positive.text)
        )
        return contrast(Queue()(table, batch))

    assert torch.autograd.gradcheck(loss, [anchor.embedding.requires_grad_(), positive.embedding.requires_grad_()])


# -------------------------------------------------------------------------------------------------- MoCo's keys
def with_keys(companion: Momentum, keys: torch.Tensor) -> dict[str, object]:
    companion.keys = True
    return {"companions": {"momentum": companion}, "outputs": {"momentum/anchor": keys, "momentum/positive": keys}}


def test_with_keys_equals_mocos_loop(make_rows, make_batch):
    anchor, positive, old = make_rows(4), make_rows(4, seed=1), make_rows(5, seed=2, first=40)
    keys = make_rows(4, seed=3).embedding
    batch = make_batch({"anchor": anchor, "positive": positive}, **with_keys(queue_with(old, 8), keys))
    table = Queue(keys=True)(in_batch_table(anchor, positive), batch)
    expected = 0.0
    for i in range(4):
        def exp_sim(candidate: torch.Tensor, i: int = i) -> float:
            return math.exp(float(torch.cosine_similarity(anchor.embedding[i], candidate, dim=0)) / 0.3)

        denominator = sum(exp_sim(c) for c in keys) + sum(exp_sim(c) for c in old.embedding)
        expected -= math.log(exp_sim(keys[i]) / denominator) / 4
    torch.testing.assert_close(float(contrast(table, 0.3)), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(table.sim, pairwise(table.anchor.embedding, table.candidate.embedding, "cosine"))
    assert table.candidate.ids.tolist() == [0, 1, 2, 3, 40, 41, 42, 43, 44, -1, -1, -1]


def test_with_keys_only_anchors_learn(make_rows, make_batch):
    anchor, positive = make_rows(3), make_rows(3, seed=1)
    anchor.embedding.requires_grad_()
    positive.embedding.requires_grad_()
    keys = make_rows(3, seed=3).embedding
    batch = make_batch(
        {"anchor": anchor, "positive": positive}, **with_keys(queue_with(make_rows(2, seed=2), 2), keys)
    )
    contrast(Queue(keys=True)(in_batch_table(anchor, positive), batch)).backward()
    assert anchor.embedding.grad.abs().sum() > 0
    assert not positive.embedding.grad.any()


def test_with_the_encoders_own_rows_as_keys_nothing_changes(make_rows, make_batch):
    anchor, positive = make_rows(3), make_rows(3, seed=1, label=[1, 2, 1])
    companion = queue_with(make_rows(2, seed=2), 2)
    batch = make_batch({"anchor": anchor, "positive": positive}, **with_keys(companion, positive.embedding))
    one, other = (Queue(keys=keys)(in_batch_table(anchor, positive), batch) for keys in (True, False))
    torch.testing.assert_close(one.sim, other.sim)
    assert one.candidate.label.tolist() == other.candidate.label.tolist()


def test_a_companion_without_keys_is_told(make_table, make_batch, make_rows):
    with pytest.raises(RecipeError, match="set keys = true"):
        Queue(keys=True)(make_table(2), make_batch(companions={"momentum": queue_with(make_rows(2), 2)}))
    assert 'give the companion "momentum" keys = true' in Queue(keys=True).faults({"companions": [Momentum()]})[0]
    assert Queue(keys=True).faults({"companions": [Momentum(keys=True)]}) == []
    assert Queue().faults({"companions": [Momentum()]}) == []


def test_edges(make_rows, make_batch):
    empty = make_batch(companions={"momentum": queue_with(make_rows(0, dtype=torch.float32), 3)})
    one = make_rows(1, dtype=torch.bfloat16)
    table = Queue()(in_batch_table(one, one), empty)
    assert table.log_weight.tolist() == [[0, *[-math.inf] * 3]]
    assert torch.isfinite(table.sim).all()
    assert float(contrast(table)) == 0.0


def test_says_which_companion_is_missing(make_rows, make_batch):
    table = in_batch_table(make_rows(2), make_rows(2))
    with pytest.raises(RecipeError, match=r'needs the companion "momentum".*there is none.*none'):
        Queue()(table, make_batch())
    with pytest.raises(RecipeError, match="is a Reference"):
        Queue()(table, make_batch(companions={"momentum": Reference()}))


def test_is_a_part():
    assert PARTS["queue"] is Queue
    assert Queue().needs == {"companion:momentum"}
