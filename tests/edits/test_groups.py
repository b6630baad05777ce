"""groups: its rules against loops, and the losses that they make."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from edit_tables import contrast, permuted
from prototypes_of import prototypes_of
from tiny_module import column_of, examples_of, services_of

from sentemb import Recipe
from sentemb.companions import Prototypes
from sentemb.edits import GroupWeights, SameLabel
from sentemb.errors import DataError, RecipeError
from sentemb.maths.table import add_candidates, extra_rows, in_batch_table
from sentemb.terms import Decoupled, InfoNCE

LABELS = [3, 3, 8, 8, 8, -1]


@pytest.fixture
def labelled(make_table):
    """The table of six examples with classes and two candidates of unknown class; one pair is removed."""
    table = make_table(6, label=LABELS)
    table = add_candidates(table, extra_rows(torch.randn(2, 4, dtype=torch.float64), table.candidate))
    weight = torch.rand(6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight[0, 3] = -math.inf
    return replace(table, log_weight=weight)


def clustered(clusterings=2, examples=12):
    return prototypes_of(examples=examples, count=3, update="average", clusterings=clusterings)


def prepared(prior, labels):
    """The edit of classes, prepared on data with these labels."""
    edit = GroupWeights(rule="balance", prior=prior)
    data = examples_of(anchor=column_of([[5]] * len(labels)))
    edit.prepare(replace(data, label=np.array(labels)), services_of([]))
    return edit


def added(edit, table, batch):
    """What the edit added to the log-weights of pairs that were there."""
    edited = edit(table, batch)
    assert (edited.log_weight[table.log_weight.isinf()] == -math.inf).all()
    changed = edited.log_weight - table.log_weight
    return changed.masked_fill(table.log_weight.isinf(), 0.0)


# -------------------------------------------------------------------------------------------------- loops
@pytest.mark.parametrize("rule", ["apart", "together"])
def test_clusterings_equal_the_loop(make_table, make_batch, rule):
    companion = clustered()
    table = make_table(6, ids=[0, 3, 5, 7, 7, 9])
    table = add_candidates(table, extra_rows(torch.randn(1, 4, dtype=torch.float64), table.candidate))
    found = added(GroupWeights(rule=rule, by="clusters"), table, make_batch(companions={"clusters": companion}))
    for i in range(6):
        for j in range(7):
            if i == j:
                expected = 0.0  # the positive
            elif j == 6:
                expected = 0.0 if rule == "apart" else -math.inf  # of no cluster
            else:
                own, other = (companion.members[table.anchor.ids[k]].tolist() for k in (i, j))
                share = sum(a != b for a, b in zip(own, other, strict=True)) / 2
                if rule == "apart":
                    expected = math.log(share) if share else -math.inf
                else:
                    expected = 0.0 if share < 1 else -math.inf
            assert found[i, j].item() == pytest.approx(expected), (i, j)


def test_distance_equals_the_loop(labelled, make_batch):
    found = added(GroupWeights(rule="distance", strength=0.5), labelled, make_batch())
    labels = [*LABELS, -1, -1]
    for i in range(6):
        for j in range(8):
            is_plain = i == j or -1 in (labels[i], labels[j]) or (i, j) == (0, 3)
            expected = 0.0 if is_plain else 0.5 * math.log(abs(labels[i] - labels[j]) + 1)
            assert found[i, j].item() == pytest.approx(expected)


def test_distance_without_strength_weighs_all_alike(labelled, make_batch):
    assert (added(GroupWeights(rule="distance", strength=0.0), labelled, make_batch()) == 0).all()


@pytest.mark.parametrize("prior", ["uniform", "data"])
def test_balance_equals_the_loop(labelled, make_batch, prior):
    found = added(prepared(prior, [3, 8, 8, 8, -1]), labelled, make_batch())
    labels = [*LABELS, -1, -1]
    share = {3: 1 / 4, 8: 3 / 4, -1: 1 / 5}
    for i in range(6):
        live = [j for j in range(8) if labelled.log_weight[i, j] > -math.inf]
        for j in live:
            count = 1 if labels[j] == -1 else sum(labels[k] == labels[j] for k in live)
            expected = -math.log(count) + (math.log(share[labels[j]]) if prior == "data" else 0.0)
            assert found[i, j].item() == pytest.approx(expected, rel=1e-6)


# -------------------------------------------------------------------------------------------------- limits
@pytest.mark.parametrize("prior", ["uniform", "data"])
def test_identity_5_the_class_wise_log_mean_exp_loss(make_table, make_batch, prior):
    """-log( π_y mean_{k ∈ y} e^{s_k / τ} / Σ_c π_c mean_{k ∈ c} e^{s_k / τ} ) = info_nce + same_label + balance."""
    labels = [3, 3, 8, 8, 8, 4]
    table = make_table(6, label=labels)
    batch = make_batch()
    share = {3: 1 / 8, 8: 3 / 8, 4: 4 / 8} if prior == "data" else dict.fromkeys(labels, 1 / 3)
    total = 0.0
    for i, own in enumerate(labels):
        mean = {}
        for label in share:
            logits = [math.exp(table.sim[i, j] / 0.2) for j in range(6) if labels[j] == label]
            mean[label] = share[label] * sum(logits) / len(logits)
        total -= math.log(mean[own] / sum(mean.values())) / 6
    edited = prepared(prior, [3, 8, 8, 8, 4, 4, 4, 4])(SameLabel()(table, batch), batch)
    loss = InfoNCE(temperature=0.2)(edited, batch)
    assert loss.item() == pytest.approx(total, rel=1e-6 if prior == "data" else 1e-12)


def test_balance_of_clusters_weighs_them_by_their_share(make_table, make_batch):
    companion = clustered(1)
    table, batch = make_table(6, ids=[0, 3, 5, 7, -1, 9]), make_batch(companions={"prototypes": companion})
    found = added(GroupWeights(rule="balance", by="prototypes", prior="data"), table, batch)
    group = [int(companion.members[i, 0]) if i >= 0 else -1 for i in (0, 3, 5, 7, -1, 9)]
    sizes = companion.members[:, 0].bincount().tolist()
    for j in range(6):
        share = 1 / 12 if group[j] == -1 else sizes[group[j]] / 12 / group.count(group[j])
        assert found[:, j].tolist() == pytest.approx([math.log(share)] * 6, rel=1e-6)


def test_equal_counts_and_a_uniform_prior_leave_the_loss_unchanged(make_table, make_batch):
    table = make_table(6, label=[0, 0, 1, 1, 2, 2])
    edited = GroupWeights(rule="balance")(table, make_batch())
    assert contrast(edited).item() == pytest.approx(contrast(table).item(), rel=1e-12)


def test_one_cluster_for_all_leaves_no_negative_and_no_loss(make_table, make_batch):
    companion = clustered(1)
    companion.members[:] = 0
    table = make_table(4)
    table = replace(table, sim=table.sim.requires_grad_())
    edited = GroupWeights(rule="apart", by="prototypes")(table, make_batch(companions={"prototypes": companion}))
    assert edited.log_weight.isinf().sum() == 12
    loss = Decoupled()(edited, make_batch())
    loss.backward()
    assert loss.item() == 0
    assert (table.sim.grad == 0).all()
    companion.members[:, 0] = torch.arange(12)  # all in different ones
    edited = GroupWeights(rule="apart", by="prototypes")(table, make_batch(companions={"prototypes": companion}))
    assert torch.equal(edited.log_weight, table.log_weight)


def test_order_of_examples_does_not_matter(make_rows, make_batch):
    anchor, candidate = make_rows(6, label=LABELS), make_rows(6, seed=1, label=LABELS)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for rule in ("apart", "together", "balance", "distance"):
        table = GroupWeights(rule=rule)(in_batch_table(anchor, candidate), make_batch())
        other = in_batch_table(permuted(anchor, order), permuted(candidate, order))
        moved = GroupWeights(rule=rule)(other, make_batch())
        torch.testing.assert_close(moved.log_weight, table.log_weight[order][:, order])


def test_edges(make_table, make_batch):
    for rule in ("apart", "together", "balance", "distance"):
        alone = make_table(1, label=[2])
        edited = GroupWeights(rule=rule)(alone, make_batch())
        assert edited.log_weight.tolist() == [[0.0]]
        half = GroupWeights(rule=rule)(make_table(3, dtype=torch.bfloat16, label=[0, 1, 1]), make_batch())
        assert half.log_weight.dtype == torch.float32
        removed = replace(make_table(3, label=[0, 0, 1]), log_weight=torch.full((3, 3), -math.inf, dtype=torch.float64))
        assert (GroupWeights(rule=rule)(removed, make_batch()).log_weight == -math.inf).all()


# ------------------------------------------------------------------------------------------------ refusals
def test_refuses_what_it_cannot_read(make_table, make_batch):
    with pytest.raises(RecipeError, match="no label column"):
        GroupWeights(rule="apart")(make_table(3), make_batch())
    with pytest.raises(RecipeError, match='needs the companion "prototypes"'):
        GroupWeights(rule="apart", by="prototypes")(make_table(3), make_batch())
    with pytest.raises(RecipeError, match=r"prepare\(dataset, services\) was not called"):
        GroupWeights(rule="balance", prior="data")(make_table(2, label=[0, 1]), make_batch())
    with pytest.raises(DataError, match="no row has a known class"):
        prepared("data", [-1, -1])
    for settings, words in (
        ({"rule": "near"}, "apart"), ({"rule": "distance", "by": "prototypes"}, "no order"),
        ({"rule": "balance", "prior": "flat"}, "uniform"), ({"rule": "distance", "strength": -1.0}, "strength"),
    ):
        with pytest.raises(ValueError, match=words):
            GroupWeights(**settings)


@pytest.mark.parametrize(
    ("companion", "edit", "words"),
    [
        ({"count": 8}, {"rule": "apart", "by": "prototypes"}, 'needs groups of "prototypes"'),
        (
            {"count": 8, "update": "average", "clusterings": 2}, {"rule": "balance", "by": "prototypes"},
            "takes one clustering",
        ),
    ],
)
def test_a_recipe_says_which_groups_do_not_fit(companion, edit, words):
    recipe = Recipe.named("simcse-unsup-minilm")
    with pytest.raises(ValueError, match=words):
        recipe.replace(companions=[Prototypes(**companion)], edits=[GroupWeights(**edit)])
