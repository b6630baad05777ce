"""Hard negatives from the data."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from edit_tables import contrast, permuted

from sentemb.edits import PARTS
from sentemb.edits.given import Given, further_views
from sentemb.errors import RecipeError
from sentemb.maths.table import add_candidates, in_batch_table, transposed
from sentemb.types import Rows


def test_is_a_part():
    assert PARTS["given"] is Given
    assert Given.needs == {"view:negative_1|positive_2"}


def test_equals_simcse_equation_5(make_rows, make_batch):
    n, alpha, temperature = 5, 2.0, 0.3
    anchor, positive, negative = (make_rows(n, seed=seed) for seed in range(3))
    table = Given(weight=alpha)(in_batch_table(anchor, positive), make_batch({"negative": negative}))

    def s(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(F.cosine_similarity(a, b, dim=0))

    losses = []
    for i in range(n):
        denominator = 0.0
        for j in range(n):
            denominator += math.exp(s(anchor.embedding[i], positive.embedding[j]) / temperature)
            own = alpha if i == j else 1.0
            denominator += own * math.exp(s(anchor.embedding[i], negative.embedding[j]) / temperature)
        losses.append(-math.log(math.exp(s(anchor.embedding[i], positive.embedding[i]) / temperature) / denominator))
    torch.testing.assert_close(float(contrast(table, temperature)), sum(losses) / n, rtol=1e-12, atol=0)


def test_two_by_two_by_hand(make_batch):
    def rows(vectors: list[list[float]], first: int) -> Rows:
        known = torch.arange(first, first + 2)
        return Rows(embedding=torch.tensor(vectors, dtype=torch.float32), ids=torch.arange(2), text=known)

    table = in_batch_table(rows([[1, 0], [0, 1]], 10), rows([[1, 0], [0, 1]], 20))
    table = Given(weight=3.0)(table, make_batch({"negative": rows([[0, 2], [-5, 0]], 30)}))
    assert table.sim.tolist() == [[1, 0, 0, -1], [0, 1, 1, 0]]
    assert table.positive.tolist() == [[True, False, False, False], [False, True, False, False]]
    torch.testing.assert_close(table.log_weight, torch.tensor([[0, 0, math.log(3), 0], [0, 0, 0, math.log(3)]]))
    assert table.candidate.ids.tolist() == [0, 1, -1, -1]  # a contradiction is not its example
    assert table.candidate.text.tolist() == [20, 21, 30, 31]


def test_several_views_by_number(make_rows, make_table, make_batch):
    views = {f"negative_{k}": make_rows(3, seed=k, first=100 * k) for k in (10, 2, 1)}
    table = Given()(make_table(3), make_batch(views))
    assert table.sim.shape == (3, 12)
    assert table.candidate.ids.tolist() == [0, 1, 2, 100, 101, 102, 200, 201, 202, 1000, 1001, 1002]
    views = {"negative": 0, "negatives": 0, "anchor.negative_1": 0, "negative_3": 0, "positive_2": 0}
    assert further_views(views, "negative") == [
        "negative", "negative_3",
    ]


def test_labels_of_the_in_batch_candidates_survive(make_rows, make_batch):
    labelled = make_rows(3, label=[4, 5, 4])
    table = Given()(in_batch_table(labelled, labelled), make_batch({"negative": make_rows(3, seed=1)}))
    assert table.candidate.label.tolist() == [4, 5, 4, -1, -1, -1]


def test_follows_a_permutation_of_the_examples(make_rows, make_batch):
    anchor, positive, negative = (make_rows(6, seed=seed) for seed in range(3))
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    one = Given(weight=2.0)(in_batch_table(anchor, positive), make_batch({"negative": negative}))
    other = Given(weight=2.0)(
        in_batch_table(permuted(anchor, order), permuted(positive, order)),
        make_batch({"negative": permuted(negative, order)}),
    )
    columns = torch.cat([order, order + 6])
    torch.testing.assert_close(one.sim[order][:, columns], other.sim)
    torch.testing.assert_close(one.log_weight[order][:, columns], other.log_weight)


def test_gradcheck(make_rows, make_batch):
    anchor, positive, negative = (make_rows(3, seed=seed) for seed in range(3))

    def loss(*embeddings: torch.Tensor) -> torch.Tensor:
        a, p, x = (
            Rows(embedding=e, ids=r.ids, text=r.text)
            for e, r in zip(embeddings, (anchor, positive, negative), strict=True)
        )
        return contrast(Given(weight=0.5)(in_batch_table(a, p), make_batch({"negative": x})))

    assert torch.autograd.gradcheck(loss, [r.embedding.requires_grad_() for r in (anchor, positive, negative)])


def test_one_example_and_bfloat16(make_rows, make_table, make_batch):
    table = Given()(make_table(1, dtype=torch.bfloat16), make_batch({"negative": make_rows(1, dtype=torch.bfloat16)}))
    assert table.sim.shape == (1, 2)
    assert table.sim.dtype == table.log_weight.dtype == torch.float32


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_refuses_a_weight_that_has_no_logarithm(weight):
    with pytest.raises(ValueError, match="weight"):
        Given(weight=weight)


def test_says_that_no_negative_is_there(make_rows, make_table, make_batch):
    with pytest.raises(RecipeError, match=r"no view is named positive_2.*anchor, positive"):
        Given()(make_table(2), make_batch({"anchor": make_rows(2), "positive": make_rows(2)}))


def test_further_positives_are_one_for_their_own_anchor(make_rows, make_batch):
    views = {"anchor": make_rows(3), "positive": make_rows(3, seed=1), "positive_2": make_rows(3, seed=2)}
    table = Given()(in_batch_table(views["anchor"], views["positive"]), make_batch(views))
    assert torch.equal(table.positive, torch.eye(3, dtype=torch.bool).repeat(1, 2))
    assert (table.log_weight == 0).all()
    assert table.candidate.ids.tolist() == [0, 1, 2, 0, 1, 2]


def test_grades_stand_beside_the_anchors_own_candidates(make_rows, make_batch):
    anchor, positive = make_rows(2), make_rows(2, seed=1)
    views = {"positive_2": make_rows(2, seed=2), "negative_1": make_rows(2, seed=3)}
    grades = {"positive": torch.tensor([3.0, 2.0]), "negative_1": torch.tensor([1.0, 0.5])}
    table = Given()(in_batch_table(anchor, positive), make_batch(views, grades=grades))
    assert table.grade is not None
    assert table.grade.tolist() == [[3, 0, 3, 0, 1, 0], [0, 2, 0, 2, 0, 0.5]]
    wider = add_candidates(table, make_rows(1, seed=4))
    assert wider.grade is not None
    assert wider.grade[:, -1].tolist() == [0, 0]
    flipped = transposed(table).grade
    assert flipped is not None
    assert flipped.tolist() == [[3, 0], [0, 2]]
    assert Given()(in_batch_table(anchor, positive), make_batch(views)).grade is None


def test_grades_of_a_loop_of_ones_own():
    from sentemb.maths.table import score_table

    eye = torch.eye(2)
    table, batch = score_table(eye, eye, negatives=[eye], grades=[torch.tensor([2.0, 1.0]), torch.tensor([0.0, 0.5])])
    grade = Given()(table, batch).grade
    assert grade is not None
    assert grade.tolist() == [[2, 0, 0, 0], [0, 1, 0, 0.5]]
