"""neighbours_in_text against loops; with documents, at edges, and without neighbours."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from edit_tables import permuted

from sentemb import Recipe
from sentemb.data.contiguous import Contiguous
from sentemb.edits import NeighboursInText
from sentemb.errors import RecipeError
from sentemb.maths.table import add_candidates, in_batch_table
from sentemb.terms import InfoNCE, SupervisedContrast
from sentemb.types import Rows

INF = float("inf")


def reference(sim, ids, label, window, temperature):
    """Mean cross-entropy between the softmax without the sentence itself and the uniform share over its neighbours."""
    total = 0.0
    for i, own in enumerate(ids):
        near = [
            j for j, other in enumerate(ids)
            if 0 < abs(own - other) <= window and (label is None or label[i] == label[j] != -1)
        ]
        others = [j for j in range(len(ids)) if j != i or not near]
        below = sum(math.exp(float(sim[i, j]) / temperature) for j in others)
        for j in near or [i]:
            total -= math.log(math.exp(float(sim[i, j]) / temperature) / below) / len(near or [i])
    return total / len(ids)


@pytest.mark.parametrize("window", [1, 2, 30])
@pytest.mark.parametrize("label", [None, [0, 0, 0, 1, 1, -1, -1]])
@pytest.mark.parametrize("ids", [[3, 4, 5, 6, 7, 8, 9], [5, 40, 4, 6, 20, 21, 90]])
def test_equals_the_loop(make_table, make_batch, ids, label, window):
    table = make_table(7, ids=ids, label=label)
    edited = NeighboursInText(window=window)(table, make_batch())
    loss = SupervisedContrast(temperature=0.5)(edited, make_batch())
    assert loss.item() == pytest.approx(reference(table.sim, ids, label, window, 0.5), rel=1e-12)
    assert edited.sim is table.sim
    assert (table.log_weight == 0).all()


def test_three_sentences_by_hand(make_table, make_batch):
    edited = NeighboursInText()(make_table(3), make_batch())
    assert edited.positive.int().tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert edited.log_weight.tolist() == [[-INF, 0, 0], [0, -INF, 0], [0, 0, -INF]]


def test_without_neighbours_it_is_info_nce(make_table, make_batch):
    table = make_table(5, ids=[1, 3, 5, 7, 9])
    loss = SupervisedContrast(temperature=0.1)(NeighboursInText()(table, make_batch()), make_batch())
    assert torch.equal(loss, SupervisedContrast(temperature=0.1)(table, make_batch()))
    assert loss.item() == pytest.approx(InfoNCE(temperature=0.1)(table, make_batch()).item(), rel=1e-12)
    assert NeighboursInText()(make_table(1), make_batch()).positive.tolist() == [[True]]


def test_a_wide_window_makes_all_others_positives(make_table, make_batch):
    edited = NeighboursInText(window=6)(make_table(6), make_batch())
    assert (edited.positive == ~torch.eye(6, dtype=torch.bool)).all()


def test_removed_pairs_stay_removed_and_added_columns_stay_what_they_are(make_table, make_rows, make_batch):
    table = make_table(3)
    log_weight = table.log_weight.clone()
    log_weight[0, 1] = -INF  # the only neighbour of sentence 0
    table = add_candidates(replace(table, log_weight=log_weight), make_rows(2, seed=4, ids=[0, 3]))
    edited = NeighboursInText()(table, make_batch())
    assert edited.positive.int().tolist() == [[1, 0, 0, 0, 0], [1, 0, 1, 0, 0], [0, 1, 0, 0, 0]]
    assert edited.log_weight.isinf().int().tolist() == [[0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]


def test_follows_a_permutation_of_the_examples(make_rows, make_batch):
    rows, other = make_rows(5), make_rows(5, seed=1)
    order = torch.tensor([2, 3, 1, 0, 4])
    one = NeighboursInText()(in_batch_table(rows, other), make_batch())
    two = NeighboursInText()(in_batch_table(permuted(rows, order), permuted(other, order)), make_batch())
    assert one.positive[order][:, order].tolist() == two.positive.tolist()
    assert one.log_weight[order][:, order].tolist() == two.log_weight.tolist()


def test_gradcheck(make_rows, make_batch):
    known = make_rows(4, ids=[1, 2, 3, 9])

    def loss(a, p):
        table = in_batch_table(*(Rows(embedding=rows, ids=known.ids, text=known.text) for rows in (a, p)))
        return SupervisedContrast(temperature=0.5)(NeighboursInText()(table, make_batch()), make_batch())

    rows = [make_rows(4, seed=seed).embedding.requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(loss, rows)


@pytest.mark.parametrize("order", ["no_duplicates", "shuffled"])
def test_batches_of_rows_at_random_are_refused(order):
    assert Recipe.named("quick-thoughts-minilm").train.batches == Contiguous()
    with pytest.raises(RecipeError, match=r'neighbours_in_text\) finds no neighbours .* train\.batches = "contiguous"'):
        Recipe.load("quick-thoughts-minilm", [f"train.batches={order}"])


def test_bfloat16_and_wrong_values(make_table, make_batch):
    edited = NeighboursInText()(make_table(4, dtype=torch.bfloat16), make_batch())
    assert torch.isfinite(SupervisedContrast()(edited, make_batch()))
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        NeighboursInText(window=0)
