"""mixed_partners: mixed anchors and their shares against loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sentemb.edits import MixedPartners
from sentemb.edits.mixed_partners import beta_draws
from sentemb.maths.table import in_batch_table
from sentemb.terms import SupervisedContrast
from sentemb.types import Rows


def seeded(make_batch, seed=0):
    return make_batch(generator=torch.Generator().manual_seed(seed))


def draws(n, seed, part):
    """Partners and λ with the same random numbers."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=generator).tolist()
    partner = {order[k]: order[(k + 1) % n] for k in range(n)}
    own = beta_draws(n, part.concentration, generator).clamp(min=part.low).tolist()
    is_mixed = (torch.rand(n, generator=generator) < part.portion).tolist()
    return partner, [x if mixed else 1.0 for x, mixed in zip(own, is_mixed, strict=True)]


@pytest.mark.parametrize("low", [0.0, 0.8])
def test_equals_the_loop(make_table, make_batch, low):
    table = make_table(6)
    part = MixedPartners(portion=0.7, concentration=1.0, low=low)
    edited = part(table, seeded(make_batch, 3))
    partner, own = draws(6, 3, part)
    assert any(x < 1 for x in own)
    assert any(x == 1 for x in own)
    unit = F.normalize(table.anchor.embedding, dim=1)
    for i in range(6):
        mixture = own[i] * unit[i] + (1 - own[i]) * unit[partner[i]]
        torch.testing.assert_close(
            F.normalize(edited.anchor.embedding[i], dim=0), mixture / mixture.norm(), rtol=1e-6, atol=1e-7
        )
        expected = [own[i] if j == i else (1 - own[i] if j == partner[i] else 0.0) for j in range(6)]
        assert edited.share[i].tolist() == pytest.approx(expected, abs=1e-6)
        assert edited.positive[i].tolist() == [j == i or (j == partner[i] and own[i] < 1) for j in range(6)]


def test_the_loss_is_cross_entropy_with_soft_targets(make_table, make_batch):
    edited = MixedPartners(portion=1.0, concentration=1.0)(make_table(5), seeded(make_batch, 1))
    total = 0.0
    for i in range(5):
        below = sum(math.exp(float(x) / 0.3) for x in edited.sim[i])
        total -= sum(
            float(edited.share[i, j]) * math.log(math.exp(float(edited.sim[i, j]) / 0.3) / below) for j in range(5)
        ) / 5
    loss = SupervisedContrast(temperature=0.3)(edited, make_batch())
    assert loss.item() == pytest.approx(total, rel=1e-6)


def test_limits(make_table, make_batch):
    table = make_table(4)
    for part in (MixedPartners(portion=0.0), MixedPartners(portion=1.0, low=1.0)):  # λ = 1
        edited = part(table, seeded(make_batch))
        torch.testing.assert_close(edited.sim, table.sim)
        assert torch.equal(edited.positive, table.positive)
    part = MixedPartners(portion=1.0, concentration=1e-3)
    edited = part(table, seeded(make_batch, 0))
    partner, own = draws(4, 0, part)
    swapped = [i for i in range(4) if own[i] < 1e-6]  # λ = 0: the row of the partner's anchor, and its positive
    assert swapped
    for i in swapped:
        torch.testing.assert_close(edited.sim[i], table.sim[partner[i]], rtol=1e-5, atol=1e-5)
        assert edited.share[i, partner[i]].item() == pytest.approx(1.0)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_nobody_is_its_own_partner(n):
    part = MixedPartners()
    for seed in range(20):
        partner, _ = draws(n, seed, part)
        assert sorted(partner.values()) == list(range(n))
        assert all(i != j for i, j in partner.items())


def test_gradient_reaches_both_anchors(make_rows, make_batch):
    anchor, positive = make_rows(3), make_rows(3, seed=1)

    def loss(a, p):
        table = in_batch_table(
            Rows(embedding=a, ids=anchor.ids, text=anchor.text), Rows(embedding=p, ids=positive.ids, text=positive.text)
        )
        edited = MixedPartners(portion=1.0, concentration=1.0)(table, seeded(make_batch, 2))
        return SupervisedContrast(temperature=0.5)(edited, make_batch())

    assert torch.autograd.gradcheck(loss, [rows.embedding.requires_grad_() for rows in (anchor, positive)])


def test_a_removed_pair_of_the_partner_stays_removed_and_one_example_stays(make_table, make_batch):
    alone = make_table(1, dtype=torch.bfloat16)
    assert MixedPartners()(alone, seeded(make_batch)) is alone
    table = make_table(3)
    weight = torch.zeros(3, 3, dtype=torch.float64).masked_fill(~table.positive, -math.inf)
    edited = MixedPartners(portion=1.0, concentration=1.0)(replace(table, log_weight=weight), seeded(make_batch))
    assert (edited.log_weight[edited.positive] == 0).all()  # both positives are live
    assert (edited.log_weight[~edited.positive] == -math.inf).all()


@pytest.mark.parametrize("bad", [{"portion": 1.5}, {"concentration": 0.0}, {"low": -0.1}])
def test_refuses_values_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        MixedPartners(**bad)
