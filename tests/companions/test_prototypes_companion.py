"""The companion prototypes: groups, moving centres, history, and what survives a restart."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from prototypes_of import prototypes_of
from tiny_module import TinyModule, build_of, column_of, examples_of, services_of

from sentemb.companions import Prototypes
from sentemb.errors import DataError
from sentemb.maths.clusters import k_means, sinkhorn
from sentemb.types import Batch, Rows

NO_SERVICES = services_of([])


def batch_of(ids, *, views=("anchor", "positive"), step=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    known = torch.tensor(ids)
    made = {name: Rows(embedding=torch.randn(len(ids), 4, generator=generator), ids=known, text=known + 100)
            for name in views}
    return Batch(views=made, local=slice(0, len(ids)), tokens={}, encoded={}, step=step)


def after(companion, *batches):
    for batch in batches:
        companion.after_step(batch, TinyModule(), NO_SERVICES)
    return companion


# ------------------------------------------------------------------------------------------------ groups
def test_one_prototype_for_each_class():
    companion = prototypes_of(labels=[7, 3, 7, -1, 3, 7])
    assert companion.centres.shape == (1, 2, 4)
    assert companion.classes.tolist() == [3, 7]
    assert companion.groups().tolist() == [1, 0, 1, -1, 0, 1]
    assert companion.classes_of(torch.tensor([3, 7, 5, -1, 9])).tolist() == [0, 1, -1, -1, -1]
    torch.testing.assert_close(companion.log_prior.exp(), torch.tensor([[0.4, 0.6]]))


def test_clusters_of_the_data_are_those_of_the_centred_embeddings():
    said: list[str] = []
    companion = prototypes_of(examples=30, count=3, update="average", clusterings=2, said=said)
    assert said == ["companion prototypes: clustering 30 distinct texts into 3 groups"]
    vectors = torch.from_numpy(NO_SERVICES.embed(TinyModule(), column_of([[5 + row] for row in range(30)])))
    vectors = F.normalize(vectors - vectors.mean(dim=0), dim=1)
    for turn in range(2):
        expected = k_means(vectors, 3, seed=42 + turn)
        assert torch.equal(companion.members[:, turn], expected)
        means = F.normalize(torch.stack([vectors[expected == k].mean(dim=0) for k in range(3)]), dim=1)
        assert torch.equal((vectors @ means.T).argmax(dim=1), expected)  # settled: all lie nearest to their own mean
    assert companion.groups_of(torch.tensor([4, -1])).tolist() == [companion.members[4].tolist(), [-1, -1]]
    torch.testing.assert_close(companion.log_prior.exp().sum(dim=1), torch.ones(2))


def test_equal_texts_are_of_one_cluster():
    companion = Prototypes(count=2, update="average")
    companion.bind(build_of(TinyModule()))
    companion.prepare(examples_of(anchor=column_of([[5], [6], [5], [7]], text=[1, 2, 1, 3])), NO_SERVICES)
    assert companion.groups()[0] == companion.groups()[2]


def test_k_means_keeps_no_cluster_empty_and_finds_what_is_apart():
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(60) % 4
    rows = F.normalize(torch.eye(4)[true] + 0.05 * torch.randn(60, 4, generator=generator), dim=1)
    for seed in range(5):
        cluster = k_means(rows, 4, seed=seed)
        assert len(cluster.unique()) == 4
        pairs = torch.stack([true, cluster]).unique(dim=1)
        assert pairs.shape[1] == 4  # the same partition under other numbers
    assert k_means(rows, 60, seed=0).unique().numel() == 60
    assert (k_means(rows, 1, seed=0) == 0).all()


# ------------------------------------------------------------------------------------------ moving centres
def test_an_averaged_centre_follows_the_rows_of_its_group():
    companion = prototypes_of(labels=[0, 0, 1, 1, 2], update="average", momentum=0.75)
    assert not companion.centres.any()
    first, second = batch_of([0, 2, 1]), batch_of([1, 3], seed=1)
    after(companion, first, second)
    expected = [torch.zeros(4)] * 3
    for batch in (first, second):
        rows = [(int(companion.members[i, 0]), F.normalize(row, dim=0)) for view in batch.views.values()
                for i, row in zip(view.ids.tolist(), view.embedding, strict=True)]
        for k in range(3):
            own = [row for group, row in rows if group == k]
            if own:
                expected[k] = F.normalize(0.75 * expected[k] + 0.25 * sum(own) / len(own), dim=0)
    torch.testing.assert_close(companion.centres[0], torch.stack(expected))
    assert not companion.centres[0, 2].any()  # no row of class 2 so far


def test_unknown_groups_move_nothing():
    companion = prototypes_of(labels=[0, 1, -1], update="average")
    after(companion, batch_of([2, -1]))
    assert not companion.centres.any()


def test_learned_prototypes_start_from_the_seed_and_keep_unit_length():
    one, other = prototypes_of(count=5, seed=0), prototypes_of(count=5, seed=3)
    assert torch.equal(one.centres, other.centres)  # of the run's seed alone, not of the encoder
    assert [name for name, _ in one.named_parameters()] == ["centres"]
    with torch.no_grad():
        one.centres.mul_(3.0)
    after(one, batch_of([0, 1]))
    torch.testing.assert_close(one.centres.norm(dim=-1), torch.ones(1, 5))
    assert not one.has_groups
    assert (one.groups() == -1).all()


def test_frozen_steps_have_no_gradient():
    companion = prototypes_of(count=3, freeze_steps=2)
    assert not companion.unit_centres(4, 1).requires_grad
    assert companion.unit_centres(4, 2).requires_grad
    torch.testing.assert_close(companion.unit_centres(2, 0).norm(dim=-1), torch.ones(1, 3))  # a narrower width


# ------------------------------------------------------------------------------------------------ history
def test_history_is_first_in_first_out_over_all_views():
    companion = prototypes_of(count=2, history=5)
    assert len(companion.earlier_rows()) == 0
    first, second = batch_of([0]), batch_of([1, 2], seed=1)
    after(companion, first)
    assert len(companion.earlier_rows()) == 2
    after(companion, second)
    rows = torch.cat([view.embedding for batch in (first, second) for view in batch.views.values()])
    expected = F.normalize(rows, dim=1)[1:]  # 6 rows, the oldest is overwritten
    assert {tuple(row) for row in companion.history.tolist()} == {tuple(row) for row in expected.tolist()}
    after(companion, batch_of(list(range(8)), seed=2))  # a batch longer than the history
    assert len(companion.earlier_rows()) == 5


def test_sinkhorn_spreads_rows_equally():
    scores = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = sinkhorn(scores / 0.2, 500).exp()
    torch.testing.assert_close(q.sum(dim=1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(q.sum(dim=0), torch.full((4,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(sinkhorn(scores * 0.0, 3).exp(), torch.full_like(scores, 0.25))
    extreme = sinkhorn((scores * 1e4).float(), 3)
    assert not extreme.isnan().any()


def test_sinkhorn_equals_the_plain_loop():
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    q = np.exp(scores.numpy() / 0.5)
    for _ in range(3):
        q = q / q.sum(axis=0, keepdims=True)
        q = q / q.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(sinkhorn(scores / 0.5, 3).exp().numpy(), q)


# ------------------------------------------------------------------------------------------------ restart
@pytest.mark.parametrize(
    "settings",
    [{"count": 3, "history": 4}, {"count": 3, "update": "average", "clusterings": 2}, {"labels": [0, 1] * 4}],
)
def test_checkpoint_restores_every_bit(settings):
    companion = after(prototypes_of(**settings), batch_of([0, 1, 2]))
    state = copy.deepcopy(companion.checkpoint_state())
    assert set(state) == {"centres", "history", "seen"}  # groups are found again
    fresh = prototypes_of(**settings)
    fresh.load_checkpoint_state(state)
    for one in (companion, fresh):
        after(one, batch_of([3, 4, 5, 6], seed=1))
    for name, tensor in companion.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name


def test_nothing_changes_outside_after_step():
    companion = prototypes_of(count=3, update="average", history=4)
    before = copy.deepcopy(dict(companion.state_dict()))
    companion.observe({}, {"anchor": torch.tensor([0])})
    companion.unit_centres(4, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in companion.state_dict().items())


# ------------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": 0}, "count"), ({"momentum": 1.0}, "momentum"), ({"history": -1}, "history"),
        ({"update": "mean"}, "gradient"), ({"clusterings": 2}, "several need a count"),
        ({"count": 3, "clusterings": 2}, 'update = "average"'),
    ],
)
def test_refuses_values_outside_its_domain(settings, words):
    with pytest.raises(ValueError, match=words):
        Prototypes(**settings)


@pytest.mark.parametrize(
    ("labels", "settings", "words"),
    [
        ([4, 4, 4], {}, "1 known classes"), ([-1, -1], {}, "0 known classes"), (None, {}, "0 known classes"),
        ([0, 1, 0], {"count": 5, "update": "average"}, "count = 5, but the data have 3 distinct anchors"),
    ],
)
def test_refuses_data_without_enough_groups(labels, settings, words):
    with pytest.raises(DataError, match=words):
        prototypes_of(labels=labels, **settings)
