"""The companion clusters: start, assignment and update against loops, and what survives a restart."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from tiny_module import TinyModule, build_of, services_of

from sentemb import Recipe
from sentemb.companions import Clusters
from sentemb.companions.clusters import chain
from sentemb.types import Batch, Rows

NO_SERVICES = services_of([])


def clusters_of(**settings):
    companion = Clusters(**{"count": 3, "start_below": 1.0, "rate": 0.25, **settings})
    companion.bind(build_of(TinyModule()))
    return companion


def batch_of(count, *, seed=0, step=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(count)
    views = {name: Rows(embedding=torch.randn(count, 4, generator=generator).to(dtype), ids=ids, text=ids)
             for name in ("anchor", "positive")}
    return Batch(views=views, local=slice(0, count), tokens={}, encoded={}, step=step)


def after(companion, *batches):
    for batch in batches:
        companion.after_step(batch, TinyModule(), NO_SERVICES)
    return companion


def cosine(a, b):
    a, b = a.tolist(), b.tolist()
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


# ------------------------------------------------------------------------------------------------- loops
@pytest.mark.parametrize("step", [0, 1, 7])
def test_start_equals_the_loop(step):
    batch = batch_of(6, step=step)
    companion = after(clusters_of(), batch)
    anchor, candidate = (batch.views[name].embedding for name in ("anchor", "positive"))
    first = next(i for i in range(6) if torch.equal(companion.centroids[0], anchor[i]))
    chosen = [first]
    while len(chosen) < 3:
        left = [j for j in range(6) if j not in chosen]
        chosen.append(min(left, key=lambda j: cosine(anchor[chosen[-1]], candidate[j])))
    assert companion.has_started
    assert torch.equal(companion.centroids, anchor[chosen])


def test_the_first_centroid_is_drawn_for_the_step():
    firsts = {tuple(after(clusters_of(), batch_of(6, step=step)).centroids[0].tolist()) for step in range(12)}
    assert len(firsts) > 1


def test_update_equals_the_loop():
    companion = after(clusters_of(), batch_of(6))
    centroids = [row.clone() for row in companion.centroids]
    for seed in (1, 2):
        batch = batch_of(5, seed=seed)
        anchor = batch.views["anchor"].embedding
        nearest = [max(range(3), key=lambda k, row=row: cosine(row, centroids[k])) for row in anchor]
        for k in set(nearest):
            total = sum(row for row, own in zip(anchor, nearest, strict=True) if own == k)
            centroids[k] = 0.25 * total + 0.75 * centroids[k]
        after(companion, batch)
    torch.testing.assert_close(companion.centroids, torch.stack(centroids))


def test_by_hand():
    companion = clusters_of(count=2, rate=0.5)
    companion.centroids.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]]))
    companion.started.fill_(1)
    batch = batch_of(2)
    batch.views["anchor"].embedding.copy_(torch.tensor([[3.0, 1, 0, 0], [1, 0, 0, 0]]))
    after(companion, batch)  # both are nearest to the first: their sum, not their mean
    assert companion.centroids.tolist() == [[2.5, 0.5, 0, 0], [0, 1, 0, 0]]


def test_a_chain_of_all_rows_takes_each_once():
    sim = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    assert sorted(chain(sim, 5, 8).tolist()) == list(range(8))
    assert chain(torch.tensor([[9.0, 1, 0], [0, 9, 1], [1, 0, 9]]), 0, 3).tolist() == [0, 2, 1]


# ------------------------------------------------------------------------------------------------ limits
def test_order_of_examples_changes_no_update():
    companion, other = (after(clusters_of(), batch_of(6)) for _ in range(2))
    batch = batch_of(6, seed=1)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = batch_of(6, seed=1)
    moved.views["anchor"].embedding.copy_(batch.views["anchor"].embedding[order])
    torch.testing.assert_close(after(companion, batch).centroids, after(other, moved).centroids)


@pytest.mark.parametrize(("settings", "count"), [({"start_below": -1.0}, 6), ({"start_below": -0.9}, 6), ({}, 2)])
def test_batches_that_start_nothing(settings, count):
    companion = after(clusters_of(**settings), batch_of(count))
    assert not companion.has_started
    assert not companion.centroids.any()


def test_a_rate_of_zero_keeps_the_centroids_and_one_replaces_them():
    kept = after(clusters_of(rate=0.0), batch_of(6))
    before = kept.centroids.clone()
    assert torch.equal(after(kept, batch_of(6, seed=1)).centroids, before)
    replaced = after(clusters_of(rate=1.0), batch_of(6))
    own = replaced.similarity(batch_of(1, seed=1).views["anchor"].embedding).argmax()
    after(replaced, batch_of(1, seed=1))
    assert torch.equal(replaced.centroids[own], batch_of(1, seed=1).views["anchor"].embedding[0])


def test_half_precision_and_narrower_rows():
    companion = after(clusters_of(), batch_of(6, dtype=torch.bfloat16), batch_of(6, seed=1, dtype=torch.bfloat16))
    assert companion.centroids.dtype == torch.float32
    rows = torch.randn(2, 3, requires_grad=True)
    found = companion.similarity(rows)
    assert found[0, 1].item() == pytest.approx(cosine(rows[0].detach(), companion.centroids[1, :3]), rel=1e-5)
    assert not found.requires_grad


# ----------------------------------------------------------------------------------------------- restart
@pytest.mark.parametrize("steps", [0, 2])
def test_checkpoint_restores_every_bit(steps):
    companion = after(clusters_of(), *(batch_of(6, seed=step) for step in range(steps)))
    fresh = clusters_of()
    fresh.load_checkpoint_state(copy.deepcopy(companion.checkpoint_state()))
    for one in (companion, fresh):
        after(one, batch_of(6, seed=8, step=8), batch_of(6, seed=9, step=9))
    assert torch.equal(companion.centroids, fresh.centroids)
    assert companion.has_started


# ---------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("settings", "words"), [({"count": 1}, "count"), ({"start_below": 1.5}, "start_below"), ({"rate": -0.1}, "rate")]
)
def test_refuses_values_outside_its_domain(settings, words):
    with pytest.raises(ValueError, match=words):
        Clusters(**settings)


def test_a_recipe_with_batches_too_small_is_refused():
    with pytest.raises(ValueError, match=r"count = 65 is above train\.batch_size = 64"):
        Recipe.named("simcse-unsup-minilm").replace(companions=[Clusters(count=65)])
