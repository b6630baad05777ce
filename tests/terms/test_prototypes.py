"""prototypes against loops, and what it is at its limits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from prototypes_of import prototypes_of, with_centres

from sentemb import Recipe
from sentemb.companions import Prototypes
from sentemb.errors import RecipeError
from sentemb.maths.table import narrow_batch, narrow_table, score_table
from sentemb.terms import InfoNCE, PrototypeSoftmax

LABELS = [2, 2, 5, 5, 5, 9]


def rows(n=6, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss_of(companion, anchors, positives, *, labels=None, more=(), step=0, share=None, **settings):
    table, batch = score_table(anchors, positives, labels=None if labels is None else torch.tensor(labels))
    views = dict(batch.views)
    for number, embedding in enumerate(more, 2):
        views[f"positive_{number}"] = replace(views["positive"], embedding=embedding)
    batch = replace(batch, views=views, companions={"prototypes": companion}, step=step)
    table = table if share is None else replace(table, share=share, positive=share > 0)
    return PrototypeSoftmax(**settings)(table, batch)


def learned(count=3, d=4, seed=5, **settings):
    centres = F.normalize(rows(count, d, seed), dim=1)[None]
    return with_centres(prototypes_of(count=count, **settings).double(), centres)


def unit(row):
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row]


def scores_of(embedding, centres):
    return [[sum(x * c for x, c in zip(unit(row), centre, strict=True)) for centre in centres]
            for row in embedding.tolist()]


def log_softmax(scores, temperature, prior=None):
    logits = [s / temperature + (prior[k] if prior else 0.0) for k, s in enumerate(scores)]
    total = math.log(sum(math.exp(x) for x in logits))
    return [x - total for x in logits]


def spread(scores, epsilon, iterations):
    q = [[math.exp(s / epsilon) for s in row] for row in scores]
    for _ in range(iterations):
        column = [sum(row[k] for row in q) for k in range(len(q[0]))]
        q = [[x / column[k] for k, x in enumerate(row)] for row in q]
        q = [[x / sum(row) for x in row] for row in q]
    return q


# -------------------------------------------------------------------------------------------------- loops
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("filled", [0, 3])
def test_swapped_equals_the_loop(views, filled):
    companion = learned(history=5)
    companion.history[:] = F.normalize(rows(5, seed=9), dim=1)
    companion.seen += filled
    embeddings = [rows(seed=seed) for seed in range(views)]
    loss = loss_of(companion, *embeddings[:2], more=embeddings[2:], temperature=0.3, epsilon=0.2, iterations=4)
    scores = [scores_of(embedding, companion.centres[0].tolist()) for embedding in embeddings]
    earlier = scores_of(companion.history[:filled], companion.centres[0].tolist())
    together = spread([row for view in scores for row in view] + earlier, 0.2, 4)
    q = [together[a * 6 : a * 6 + 6] for a in range(views)]
    total = 0.0
    for a in range(views):
        for b in range(views):
            if a != b:
                for i in range(6):
                    log_p = log_softmax(scores[b][i], 0.3)
                    total -= sum(q[a][i][k] * log_p[k] for k in range(3))
    assert loss.item() == pytest.approx(total / 6 / views / (views - 1), rel=1e-10)


@pytest.mark.parametrize("prior", ["none", "data"])
def test_assigned_equals_the_loop_over_clusterings(prior):
    companion = prototypes_of(examples=12, count=3, update="average", clusterings=2).double()
    centres = F.normalize(rows(6, seed=3), dim=1).view(2, 3, 4)
    centres[1, 2] = 0.0  # no rows so far
    companion = with_centres(companion, centres)
    one, other = rows(seed=1), rows(seed=2)
    loss = loss_of(companion, one, other, target="assigned", temperature=0.3, prior=prior)
    total = 0.0
    for c, count in ((0, 3), (1, 2)):
        known = companion.centres[c, :count].tolist()
        shares = companion.log_prior[c].tolist() if prior == "data" else None
        for a, b in ((one, other), (other, one)):
            for own, predicted in zip(scores_of(a, known), scores_of(b, known), strict=True):
                total -= log_softmax(predicted, 0.3, shares)[own.index(max(own))]
    assert loss.item() == pytest.approx(total / 6 / 2 / 2, rel=1e-6 if prior == "data" else 1e-10)


@pytest.mark.parametrize("prior", ["none", "data"])
def test_label_equals_the_loop(prior):
    companion = with_centres(prototypes_of(labels=LABELS).double(), F.normalize(rows(3, seed=5), dim=1)[None])
    labels = [2, 9, -1, 5, 77, 2]  # unknown classes are not counted
    loss = loss_of(companion, rows(), rows(seed=1), labels=labels, target="label", temperature=0.4, prior=prior)
    shares = [math.log(x / 6) for x in (2, 3, 1)] if prior == "data" else None
    scores, total = scores_of(rows(), companion.centres[0].tolist()), 0.0
    for i, label in enumerate(labels):
        if label in (2, 5, 9):
            total -= log_softmax(scores[i], 0.4, shares)[[2, 5, 9].index(label)] / 4
    assert loss.item() == pytest.approx(total, rel=1e-6 if prior == "data" else 1e-10)


def test_shares_are_summed_by_class():
    companion = with_centres(prototypes_of(labels=LABELS).double(), F.normalize(rows(3, seed=5), dim=1)[None])
    share = torch.zeros(6, 6, dtype=torch.float64)
    share[0, 0], share[0, 2] = 0.7, 0.3  # a mixture of the classes 2 and 5
    share[range(1, 6), range(1, 6)] = 1.0
    settings = {"labels": LABELS, "target": "label", "temperature": 0.4}
    loss = loss_of(companion, rows(), rows(seed=1), share=share, **settings)
    scores, total = scores_of(rows(), companion.centres[0].tolist()), 0.0
    for i, label in enumerate(LABELS):
        log_p = log_softmax(scores[i], 0.4)
        total -= 0.7 * log_p[0] + 0.3 * log_p[1] if i == 0 else log_p[[2, 5, 9].index(label)]
    assert loss.item() == pytest.approx(total / 6, rel=1e-10)


def test_a_class_that_its_average_has_not_met_is_not_counted():
    labels, companion = [0, 1, 2, 0, 1, 2], prototypes_of(labels=[0, 1, 2], update="average").double()
    centres = F.normalize(rows(3, seed=5), dim=1)[None]
    centres[0, 2] = 0.0
    settings = {"target": "label", "temperature": 0.4}
    loss = loss_of(with_centres(companion, centres), rows(), rows(seed=1), labels=labels, **settings)
    scores, total = scores_of(rows(), centres[0, :2].tolist()), 0.0
    for i in (0, 1, 3, 4):
        total -= log_softmax(scores[i], 0.4)[labels[i]] / 4
    assert loss.item() == pytest.approx(total, rel=1e-10)


# ------------------------------------------------------------------------------------------------- limits
def test_prototypes_that_are_the_candidates_are_info_nce():
    anchors, candidates = rows(5), rows(5, seed=1)
    companion = with_centres(
        prototypes_of(examples=8, count=5, update="average").double(), F.normalize(candidates, dim=1)[None]
    )
    # every candidate is nearest to itself, so the half that predicts from the anchors is info_nce
    loss = loss_of(companion, anchors, candidates, target="assigned", temperature=0.2)
    own = scores_of(anchors, companion.centres[0].tolist())
    back = sum(
        -log_softmax(scores_of(candidates, companion.centres[0].tolist())[i], 0.2)[own[i].index(max(own[i]))]
        for i in range(5)
    ) / 5
    table, batch = score_table(anchors, candidates)
    assert 2 * loss.item() - back == pytest.approx(InfoNCE(temperature=0.2)(table, batch).item(), rel=1e-10)


@pytest.mark.parametrize("target", ["swapped", "assigned"])
def test_one_prototype_gives_zero(target):
    anchors = rows().requires_grad_()
    loss = loss_of(learned(1), anchors, rows(seed=1), target=target)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(anchors.grad, torch.zeros_like(anchors.grad))


def test_a_large_epsilon_spreads_evenly():
    companion = learned()
    loss = loss_of(companion, rows(), rows(seed=1), epsilon=1e9, temperature=0.3)
    total = sum(
        -sum(log_softmax(row, 0.3)) / 3
        for seed in (0, 1) for row in scores_of(rows(seed=seed), companion.centres[0].tolist())
    )
    assert loss.item() == pytest.approx(total / 12, rel=1e-6)


def test_averaged_prototypes_without_rows_teach_nothing():
    companion = prototypes_of(examples=8, count=4, update="average").double()
    anchors = rows().requires_grad_()
    loss = loss_of(companion, anchors, rows(seed=1), target="assigned", prior="data")
    loss.backward()
    assert math.isfinite(loss.item())
    assert (anchors.grad == 0).all()


@pytest.mark.parametrize("target", ["swapped", "assigned", "label"])
def test_order_of_examples_and_views_does_not_matter(target):
    label = {"labels": LABELS} if target == "label" else {}
    companion = prototypes_of(**label).double() if label else learned()
    one, other, order = rows(), rows(seed=1), [3, 0, 5, 1, 4, 2]
    expected = loss_of(companion, one, other, target=target, **label).item()
    moved = {"labels": [LABELS[i] for i in order]} if label else {}
    assert loss_of(companion, one[order], other[order], target=target, **moved).item() == pytest.approx(expected)
    if target != "label":
        assert loss_of(companion, other, one, target=target).item() == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------ gradients
def test_gradcheck_of_assigned_and_label():
    companion = prototypes_of(labels=LABELS).double()
    embeddings = [rows().requires_grad_(), rows(seed=1).requires_grad_(), companion.centres.detach().requires_grad_()]
    for target in ("assigned", "label"):

        def loss(one, other, centres, target=target):
            companion.unit_centres = lambda width, step: F.normalize(centres, dim=-1)
            return loss_of(companion, one, other, labels=LABELS, target=target, temperature=0.5)

        assert torch.autograd.gradcheck(loss, embeddings)


def test_targets_of_swapped_carry_no_gradient():
    companion = learned()
    one, other = rows().requires_grad_(), rows(seed=1).requires_grad_()
    loss_of(companion, one, other, temperature=0.3, epsilon=0.2).backward()
    # the gradient of the cross-entropy towards constant targets
    scores = [F.normalize(view.detach(), dim=1) @ companion.centres[0].detach().T for view in (one, other)]
    q = torch.tensor(spread(torch.cat(scores).tolist(), 0.2, 3), dtype=torch.float64)
    fresh = one.detach().clone().requires_grad_()
    log_p = (F.normalize(fresh, dim=1) @ companion.centres[0].detach().T / 0.3).log_softmax(dim=1)
    (-(q[6:] * log_p).sum(dim=1).mean() / 2).backward()
    torch.testing.assert_close(one.grad, fresh.grad)
    assert companion.centres.grad.abs().sum() > 0


def test_frozen_prototypes_get_no_gradient():
    companion = learned(freeze_steps=3)
    anchors = rows().requires_grad_()
    loss_of(companion, anchors, rows(seed=1), step=2).backward()
    assert companion.centres.grad is None
    assert anchors.grad.abs().sum() > 0
    loss_of(companion, rows(), rows(seed=1), step=3).backward()
    assert companion.centres.grad.abs().sum() > 0


def test_leading_dimensions_are_compared_with_those_of_prototypes_and_history():
    companion = learned(history=3)
    companion.history[:], companion.seen[...] = F.normalize(rows(3, seed=9), dim=1), 3
    table, batch = score_table(rows(), rows(seed=1))
    batch = replace(batch, companions={"prototypes": companion})
    found = PrototypeSoftmax()(narrow_table(table, 2), narrow_batch(batch, 2))
    small = with_centres(companion, F.normalize(companion.centres.detach()[..., :2], dim=-1))
    small.history = F.normalize(companion.history[:, :2], dim=1)
    assert found.item() == pytest.approx(loss_of(small, rows()[:, :2], rows(seed=1)[:, :2]).item(), rel=1e-12)


@pytest.mark.parametrize("target", ["swapped", "assigned", "label"])
def test_autocast_changes_no_bit(target):
    companion = prototypes_of(labels=LABELS, history=3)
    settings = {"target": target, "labels": LABELS}
    expected = loss_of(companion, rows().float(), rows(seed=1).float(), **settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss_of(companion, rows().float(), rows(seed=1).float(), **settings), expected)


def test_edges():
    half = rows().bfloat16()
    for target in ("swapped", "assigned"):
        loss = loss_of(prototypes_of(count=3), half, half, target=target, temperature=0.01, epsilon=0.001)
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert torch.isfinite(loss_of(prototypes_of(count=3), half[:1], half[:1], target=target))
    unknown = rows().requires_grad_()
    loss = loss_of(prototypes_of(labels=LABELS).double(), unknown, rows(seed=1), labels=[-1] * 6, target="label")
    loss.backward()
    assert loss.item() == 0
    assert (unknown.grad == 0).all()


# ------------------------------------------------------------------------------------------------ refusals
def test_refuses_what_it_cannot_read():
    with pytest.raises(RecipeError, match="label column"):
        loss_of(prototypes_of(labels=LABELS).double(), rows(), rows(seed=1), target="label")
    table, batch = score_table(rows(), rows(seed=1))
    with pytest.raises(RecipeError, match='needs the companion "prototypes"'):
        PrototypeSoftmax()(table, batch)
    alone = replace(batch, views={"anchor": batch.views["anchor"]}, companions={"prototypes": learned()})
    with pytest.raises(RecipeError, match="only one"):
        PrototypeSoftmax()(table, alone)
    for settings, words in (({"target": "nearest"}, "swapped"), ({"epsilon": 0.0}, "epsilon"), ({"prior": 1}, "prior")):
        with pytest.raises(ValueError, match=words):
            PrototypeSoftmax(**settings)


@pytest.mark.parametrize(
    ("companion", "term", "words"),
    [
        ({"count": 8}, {"target": "label"}, "leave out count = 8"),
        ({"count": 8}, {"target": "assigned", "prior": "data"}, "needs groups of the data"),
        ({"count": 8, "update": "average"}, {}, 'update = "gradient"'),
        ({"count": 500, "history": 100}, {}, "228 rows .* cannot be spread over 500"),
    ],
)
def test_a_recipe_says_which_prototypes_do_not_fit(companion, term, words):
    recipe = Recipe.named("simcse-unsup-minilm")
    with pytest.raises(ValueError, match=words):
        recipe.replace(companions=[Prototypes(**companion)], terms=[PrototypeSoftmax(**term)])
