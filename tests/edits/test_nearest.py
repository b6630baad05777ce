"""nearest: rows of the momentum queue as anchors, candidates or further positives."""

from __future__ import annotations

import math

import pytest
import torch
from edit_tables import contrast, permuted
from test_queue import queue_with

from sentemb.edits import PARTS, FalseNegative, Nearest, Queue
from sentemb.errors import RecipeError
from sentemb.maths.similarity import pairwise
from sentemb.maths.table import in_batch_table
from sentemb.terms import InfoNCE, SupervisedContrast
from sentemb.types import Rows

PLACES = ["anchor", "candidate", "extra"]


def loop_neighbours(own, anchor, positive, old, count=1, threshold=-math.inf):
    """The nearest admissible rows of ``old`` for every row of ``own``, best first, with plain numbers."""
    chosen = []
    for i in range(len(own)):
        cosines = []
        for k in range(len(old)):
            same = old.ids[k] == anchor.ids[i] or old.text[k] in (anchor.text[i], positive.text[i])
            if not same:
                cosines.append((float(torch.cosine_similarity(own.embedding[i], old.embedding[k], dim=0)), k))
        chosen.append([k for value, k in sorted(cosines, reverse=True)[:count] if value >= threshold])
    return chosen


@pytest.fixture
def case(make_rows, make_batch):
    """Four examples; the queue holds five others, one of them of example 2 and one with the text of positive 0."""
    anchor, positive = make_rows(4), make_rows(4, seed=1, text=[2000, 2001, 2002, 2003])
    old = make_rows(5, seed=2, ids=[40, 41, 2, 43, 44], text=[3000, 3001, 3002, 2000, 3004])
    batch = make_batch({"anchor": anchor, "positive": positive}, companions={"momentum": queue_with(old, 8)})
    return anchor, positive, old, in_batch_table(anchor, positive), batch


@pytest.mark.parametrize("of", ["anchor", "positive"])
@pytest.mark.parametrize("place", ["anchor", "candidate"])
def test_a_place_is_taken_by_the_nearest_of_a_loop(case, place, of):
    anchor, positive, old, table, batch = case
    chosen = loop_neighbours({"anchor": anchor, "positive": positive}[of], anchor, positive, old)
    edited = Nearest(place=place, of=of)(table, batch)
    rows = edited.anchor if place == "anchor" else edited.candidate
    for i, (k,) in enumerate(chosen):
        assert torch.equal(rows.embedding[i], old.embedding[k])
        assert (rows.ids[i], rows.text[i]) == (old.ids[k], old.text[k])
    torch.testing.assert_close(edited.sim, pairwise(edited.anchor.embedding, edited.candidate.embedding, "cosine"))
    assert torch.equal(edited.positive, table.positive)
    assert torch.equal(edited.log_weight, table.log_weight)


def test_extra_columns_are_positives_of_their_own_row_alone(case):
    anchor, positive, old, table, batch = case
    chosen = loop_neighbours(positive, anchor, positive, old, count=2)
    edited = Nearest(place="extra", count=2)(table, batch)
    assert edited.sim.shape == (4, 12)
    for i in range(4):
        for rank in range(2):
            for column in range(4):
                j, is_own = 4 + 4 * rank + column, column == i
                assert edited.positive[i, j] == is_own
                assert edited.log_weight[i, j] == (0 if is_own else -math.inf)
            assert torch.equal(edited.candidate.embedding[4 + 4 * rank + i], old.embedding[chosen[i][rank]])
    torch.testing.assert_close(edited.sim, pairwise(edited.anchor.embedding, edited.candidate.embedding, "cosine"))


def test_a_supervised_loss_of_extra_columns_equals_the_loop(case):
    anchor, positive, old, table, batch = case
    chosen = loop_neighbours(positive, anchor, positive, old, count=3)
    loss = SupervisedContrast(temperature=0.3)(Nearest(place="extra", count=3)(table, batch), batch)
    expected = 0.0
    for i in range(4):
        own = [float(torch.cosine_similarity(anchor.embedding[i], old.embedding[k], dim=0)) for k in chosen[i]]
        sims = table.sim[i].tolist() + own
        normaliser = math.log(sum(math.exp(s / 0.3) for s in sims))
        expected += sum(normaliser - s / 0.3 for s in [sims[i], *own]) / 4 / 4
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_two_by_three_by_hand(make_batch):
    rows = Rows(embedding=torch.eye(2), ids=torch.arange(2), text=torch.arange(2))
    old = Rows(embedding=torch.tensor([[3.0, 4.0], [5.0, 0.0], [0.0, 2.0]]), ids=torch.tensor([7, 8, 1]),
               text=torch.tensor([17, 18, 19]))
    batch = make_batch({"anchor": rows, "positive": rows}, companions={"momentum": queue_with(old, 4)})
    edited = Nearest(place="anchor")(in_batch_table(rows, rows), batch)
    # row 0: (5, 0); row 1: its own example (0, 2) is left out, then (3, 4)
    torch.testing.assert_close(edited.sim, torch.tensor([[1.0, 0.0], [0.6, 0.8]]))


@pytest.mark.parametrize("place", PLACES)
def test_an_empty_queue_a_high_threshold_and_a_late_start_change_no_loss(case, make_rows, make_batch, place):
    anchor, *_, table, batch = case
    empty = make_batch(batch.views, companions={"momentum": queue_with(make_rows(0), 3)})
    plain = contrast(table)
    for edit, one in (
        (Nearest(place=place), empty), (Nearest(place=place, threshold=0.9999), batch),
        (Nearest(place=place, start=1), batch),
    ):
        edited = edit(table, one)
        assert torch.equal(edited.sim[:, :4], table.sim)
        assert contrast(edited).item() == plain.item()
        assert torch.equal(edited.anchor.ids, anchor.ids)
        assert not (edited.positive & (edited.log_weight == -math.inf)).any()


def test_a_threshold_takes_only_what_is_alike_enough(case):
    anchor, positive, old, table, batch = case
    (best, *_), *_ = (pairwise(anchor.embedding, old.embedding, "cosine")[i].sort(descending=True)[0] for i in [1])
    chosen = loop_neighbours(anchor, anchor, positive, old, threshold=float(best) - 1e-9)
    edited = Nearest(place="anchor", of="anchor", threshold=float(best) - 1e-9)(table, batch)
    wanted = [old.ids[k[0]] if k else anchor.ids[i] for i, k in enumerate(chosen)]
    assert edited.anchor.ids.tolist() == wanted
    assert 0 < sum(bool(k) for k in chosen) < 4


def test_starts_at_its_step(case, make_batch):
    *_, table, batch = case
    later = make_batch(batch.views, companions=batch.companions, step=5)
    assert not torch.equal(Nearest(place="anchor", start=5)(table, later).sim, table.sim)


def test_a_queue_of_the_candidates_under_other_ids_changes_nothing(make_rows, make_batch):
    """The limit of the methods: NNCLR and DeCLIP are the plain contrast where every neighbour is the row itself."""
    anchor, positive = make_rows(4), make_rows(4, seed=1)
    for place, rows in (("anchor", anchor), ("candidate", positive)):
        old = Rows(embedding=rows.embedding, ids=rows.ids + 50, text=rows.text + 5000)
        batch = make_batch({"anchor": anchor, "positive": positive}, companions={"momentum": queue_with(old, 6)})
        table = in_batch_table(anchor, positive)
        torch.testing.assert_close(Nearest(place=place, of=place.replace("candidate", "positive"))(table, batch).sim,
                                   table.sim)


def test_false_negative_knows_a_neighbour_that_stands_in_the_batch(make_rows, make_batch):
    anchor, positive = make_rows(3), make_rows(3, seed=1, text=[2000, 2001, 2002])
    old = Rows(embedding=positive.embedding[:1], ids=torch.tensor([2]), text=torch.tensor([2002]))
    batch = make_batch({"anchor": anchor, "positive": positive}, companions={"momentum": queue_with(old, 1)})
    edited = FalseNegative()(Nearest(place="candidate")(in_batch_table(anchor, positive), batch), batch)
    # candidates 0 and 1 became example 2's text; it is not its own neighbour, so candidate 2 stays
    assert edited.candidate.ids.tolist() == [2, 2, 2]
    removed = edited.log_weight.isinf().nonzero().tolist()
    assert removed == [[i, j] for i in range(3) for j in range(3) if i != j]


@pytest.mark.parametrize("place", ["anchor", "candidate"])
def test_rows_that_share_a_neighbour_are_no_negatives_of_each_other(make_rows, make_batch, place):
    anchor, positive = make_rows(3), make_rows(3, seed=1, text=[2000, 2001, 2002])
    old = make_rows(2, seed=2, first=60)
    batch = make_batch({"anchor": anchor, "positive": positive}, companions={"momentum": queue_with(old, 2)})
    table = Nearest(place=place)(in_batch_table(anchor, positive), batch)
    chosen = (table.anchor if place == "anchor" else table.candidate).ids
    edited = FalseNegative()(table, batch)
    expected = (chosen[:, None] == chosen[None, :]) & ~table.positive
    assert expected.any()
    assert torch.equal(edited.log_weight.isinf(), expected)


def test_a_replaced_rows_class_is_unknown(make_rows, make_batch):
    anchor, positive = make_rows(3, label=[1, 1, 2]), make_rows(3, seed=1, label=[1, 1, 2])
    batch = make_batch({"anchor": anchor, "positive": positive},
                       companions={"momentum": queue_with(make_rows(4, seed=2, first=60), 4)})
    edited = Nearest(place="candidate")(in_batch_table(anchor, positive), batch)
    assert edited.candidate.label.tolist() == [-1] * 3
    assert edited.anchor.label.tolist() == [1, 1, 2]


def test_labels_of_the_other_columns_survive(make_rows, make_batch):
    anchor, positive = make_rows(3, label=[1, 1, 2]), make_rows(3, seed=1, label=[1, 1, 2])
    batch = make_batch({"anchor": anchor, "positive": positive},
                       companions={"momentum": queue_with(make_rows(4, seed=2, first=60), 4)})
    edited = Nearest(place="candidate")(Queue()(in_batch_table(anchor, positive), batch), batch)
    assert edited.sim.shape == (3, 7)
    torch.testing.assert_close(edited.sim, pairwise(edited.anchor.embedding, edited.candidate.embedding, "cosine"))


@pytest.mark.parametrize("place", PLACES)
def test_follows_a_permutation_of_the_examples(case, make_batch, place):
    anchor, positive, _, table, batch = case
    order = torch.tensor([3, 1, 0, 2])
    moved = {"anchor": permuted(anchor, order), "positive": permuted(positive, order)}
    other = make_batch(moved, companions=batch.companions)
    edit = Nearest(place=place)
    one, two = edit(table, batch), edit(in_batch_table(moved["anchor"], moved["positive"]), other)
    torch.testing.assert_close(contrast(one), contrast(two))


@pytest.mark.parametrize(("place", "learning"), [("anchor", "positive"), ("candidate", "anchor"), ("extra", "both")])
def test_neighbours_carry_no_gradient(case, make_batch, place, learning):
    anchor, positive, _, _, batch = case
    rows = {"anchor": anchor.embedding.requires_grad_(), "positive": positive.embedding.requires_grad_()}
    contrast(Nearest(place=place)(in_batch_table(anchor, positive), batch)).backward()
    for name, embedding in rows.items():
        assert (embedding.grad is not None and embedding.grad.abs().sum() > 0) == (learning in (name, "both"))


def test_gradcheck(case, make_batch):
    anchor, positive, _, _, batch = case

    def loss(a: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        one = Rows(embedding=a, ids=anchor.ids, text=anchor.text)
        two = Rows(embedding=p, ids=positive.ids, text=positive.text)
        views = make_batch({"anchor": one, "positive": two}, companions=batch.companions)
        return InfoNCE(temperature=0.5)(Nearest(place="extra", count=2)(in_batch_table(one, two), views), views)

    assert torch.autograd.gradcheck(loss, [anchor.embedding.requires_grad_(), positive.embedding.requires_grad_()])


def test_edges(make_rows, make_batch):
    one = make_rows(1, dtype=torch.bfloat16)
    old = make_rows(2, seed=2, first=70, dtype=torch.float32)
    batch = make_batch({"anchor": one, "positive": one}, companions={"momentum": queue_with(old, 2)})
    for place in PLACES:
        edited = Nearest(place=place, count=5 if place == "extra" else 1)(in_batch_table(one, one), batch)
        assert edited.sim.dtype == torch.float32
        assert torch.isfinite(edited.sim).all()


def test_the_table_keeps_its_values_when_the_queue_moves_on(case):
    *_, table, batch = case
    edited = Nearest(place="extra")(table, batch)
    before = edited.candidate.embedding.clone()
    batch.companions["momentum"].embedding.zero_()
    assert torch.equal(edited.candidate.embedding, before)


def test_is_a_part_and_says_which_companion_is_missing(make_table, make_batch):
    assert PARTS["nearest"] is Nearest
    assert Nearest(place="anchor").needs == {"companion:momentum"}
    with pytest.raises(RecipeError, match="nearest: needs the companion"):
        Nearest(place="anchor")(make_table(2), make_batch())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"place": "anchor", "count": 2}, 'only place = "extra"'),
        ({"place": "middle"}, "anchor"),
        ({"place": "extra", "count": 0}, "count"),
        ({"place": "extra", "of": "negative_1"}, "of"),
        ({"place": "extra", "threshold": 2.0}, "threshold"),
        ({"place": "extra", "start": -1}, "start"),
    ],
)
def test_refuses_values_outside_its_domain(settings, words):
    with pytest.raises(ValueError, match=words):
        Nearest(**settings)
