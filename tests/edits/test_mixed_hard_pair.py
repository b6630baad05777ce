"""mixed_hard_pair: the hardest rows against a loop, and its shares."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sentemb.edits import MixedHardPair, SameLabel
from sentemb.edits.mixed_partners import beta_draws
from sentemb.errors import RecipeError
from sentemb.terms import SupervisedContrast

LABELS = [0, 1, 0, 1, 2, -1]


@pytest.fixture
def table(make_table, make_batch):
    """Class 2 and the unlabelled example have one positive; the others two."""
    return SameLabel()(make_table(6, label=LABELS), make_batch())


def seeded(make_batch, seed=0):
    return make_batch(generator=torch.Generator().manual_seed(seed))


def test_equals_the_loop(table, make_batch):
    edited = MixedHardPair(portion=1.0)(table, seeded(make_batch, 4))
    own = beta_draws(6, 1.0, torch.Generator().manual_seed(4)).tolist()
    unit = F.normalize(table.candidate.embedding, dim=1)
    for i in range(6):
        positives = [j for j in range(6) if j == i or (LABELS[j] == LABELS[i] != -1)]
        if len(positives) < 2:
            torch.testing.assert_close(edited.sim[i], table.sim[i])
            continue
        negatives = [j for j in range(6) if j not in positives]
        farthest = min(positives, key=lambda j: float(table.sim[i, j]))
        hardest = max(negatives, key=lambda j: float(table.sim[i, j]))
        strangers = [j for j in negatives if j == hardest or (LABELS[j] == LABELS[hardest] != -1)]
        mixture = own[i] * unit[farthest] + (1 - own[i]) * unit[hardest]
        torch.testing.assert_close(edited.anchor.embedding[i], F.normalize(mixture, dim=0), rtol=1e-6, atol=1e-7)
        expected = [
            own[i] / len(positives) if j in positives else (1 - own[i]) / len(strangers) if j in strangers else 0.0
            for j in range(6)
        ]
        assert edited.share[i].tolist() == pytest.approx(expected, abs=1e-6)


def test_nothing_is_mixed_without_a_portion(table, make_batch):
    edited = MixedHardPair(portion=0.0)(table, seeded(make_batch))
    torch.testing.assert_close(edited.sim, table.sim)
    torch.testing.assert_close(SupervisedContrast()(edited, make_batch()), SupervisedContrast()(table, make_batch()))


def test_gradient_reaches_the_two_rows(table, make_batch):
    def loss(embedding):
        changed = replace(table, candidate=replace(table.candidate, embedding=embedding))
        edited = MixedHardPair(portion=1.0)(changed, seeded(make_batch))
        return SupervisedContrast(temperature=0.5)(edited, make_batch())

    assert torch.autograd.gradcheck(loss, [table.candidate.embedding.clone().requires_grad_()])


def test_edges_and_refusals(make_table, make_batch):
    alone = SameLabel()(make_table(1, label=[0]), make_batch())
    torch.testing.assert_close(MixedHardPair(portion=1.0)(alone, seeded(make_batch)).sim, alone.sim)
    one_class = SameLabel()(make_table(3, label=[4, 4, 4]), make_batch())  # no negative
    torch.testing.assert_close(MixedHardPair(portion=1.0)(one_class, seeded(make_batch)).sim, one_class.sim)
    with pytest.raises(RecipeError, match="no label column"):
        MixedHardPair()(make_table(2), seeded(make_batch))
    with pytest.raises(ValueError, match="portion"):
        MixedHardPair(portion=2.0)
