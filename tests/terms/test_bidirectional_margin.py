"""bidirectional_margin against a loop over pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sentemb.companions import Clusters
from sentemb.errors import RecipeError
from sentemb.terms import BidirectionalMargin
from sentemb.types import Rows

CLUSTER = [0, 1, 0, 2, 0]


@pytest.fixture
def batch_with(batch_of, build_for):
    """A batch whose anchors are of these clusters."""

    def make(cluster=CLUSTER, *, has_started=True):
        companion = Clusters(count=3)
        companion.bind(build_for(width=3))
        companion.double()
        companion.centroids.copy_(torch.eye(3))
        companion.started.fill_(int(has_started))
        ids = torch.arange(len(cluster))
        anchor = Rows(embedding=torch.eye(3, dtype=torch.float64)[cluster] + 0.1, ids=ids, text=ids)
        return batch_of(len(cluster), views={"anchor": anchor}, companions={"clusters": companion})

    return make


@pytest.mark.parametrize(("inner", "outer"), [(0.0, 0.3), (0.2, 0.5), (0.1, 0.1)])
def test_equals_the_loop(table_of, batch_with, random_sim, inner, outer):
    sim = random_sim(5, 7)  # two columns that an edit added
    total = 0.0
    for i in range(5):
        for j in range(5):
            if i != j and CLUSTER[i] == CLUSTER[j]:
                x = sim[i, j].item() - sim[i, i].item()
                total += max(0.0, x + inner) + max(0.0, -x - outer)
    loss = BidirectionalMargin(inner=inner, outer=outer)(table_of(sim), batch_with())
    assert loss.item() == pytest.approx(total / 25, rel=1e-12)
    assert torch.autograd.gradcheck(
        lambda sim: BidirectionalMargin(inner=inner, outer=outer)(table_of(sim), batch_with()), (sim,)
    )


def test_by_hand(table_of, batch_with):
    sim = torch.tensor([[0.8, 0.9], [0.1, 0.5]], dtype=torch.float64)
    loss = BidirectionalMargin(inner=0.0, outer=0.3)(table_of(sim), batch_with([1, 1]))
    assert loss.item() == pytest.approx((0.1 + 0.1) / 4)  # 0.1 above the positive; 0.4 below it


def test_within_the_band_and_between_clusters_nothing_is_lost(table_of, batch_with, random_sim):
    inside = torch.tensor([[0.8, 0.6], [0.5, 0.7]], dtype=torch.float64)
    assert BidirectionalMargin(inner=0.1, outer=0.3)(table_of(inside), batch_with([1, 1])).item() == 0
    assert BidirectionalMargin()(table_of(random_sim(3, 3)), batch_with([0, 1, 2])).item() == 0


def test_before_the_start_it_is_zero_with_a_gradient_of_zero(table_of, batch_with, random_sim):
    sim = random_sim(5, 5)
    loss = BidirectionalMargin()(table_of(sim), batch_with(has_started=False))
    loss.backward()
    assert loss.item() == 0
    assert not sim.grad.any()


def test_order_of_examples_does_not_matter(table_of, batch_with, random_sim):
    sim, order = random_sim(5, 5), [3, 0, 4, 1, 2]
    before = BidirectionalMargin()(table_of(sim), batch_with())
    after = BidirectionalMargin()(table_of(sim[order][:, order]), batch_with([CLUSTER[i] for i in order]))
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


def test_one_example_half_precision_and_removed_pairs(table_of, batch_with, random_sim):
    assert BidirectionalMargin()(table_of(torch.ones(1, 1)), batch_with([0])).item() == 0
    batch = batch_with()
    anchor = batch.views["anchor"]
    half = replace(batch, views={"anchor": replace(anchor, embedding=anchor.embedding.bfloat16())})
    sim = random_sim(5, 5)
    removed = torch.full((5, 5), -torch.inf, dtype=torch.float64)
    # a pair that another edit removed from the contrast stays in its band
    found = BidirectionalMargin()(table_of(sim, log_weight=removed), half)
    assert found.item() == pytest.approx(BidirectionalMargin()(table_of(sim), batch).item())


def test_refuses_a_band_turned_over_and_a_recipe_without_clusters(table_of, batch_of):
    with pytest.raises(ValueError, match=r"outer = 0\.1 is below inner = 0\.2"):
        BidirectionalMargin(inner=0.2, outer=0.1)
    with pytest.raises(ValueError, match="inner"):
        BidirectionalMargin(inner=-0.1)
    with pytest.raises(RecipeError, match='needs the companion "clusters"'):
        BidirectionalMargin()(table_of(torch.eye(2)), batch_of(2))
