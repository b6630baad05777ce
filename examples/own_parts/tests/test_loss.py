from __future__ import annotations

import math

import pytest
import torch
from own_parts.loss import AdditiveMargin

from sentemb.edits import Given
from sentemb.maths.table import score_table
from sentemb.parts import PartError, describe, room
from sentemb.terms import InfoNCE


def embeddings(rows: int = 5) -> list[torch.Tensor]:
    return list(torch.randn(3, rows, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))


def test_it_is_the_equation() -> None:
    anchors, positives, hard = embeddings()
    table, batch = score_table(anchors, positives, negatives=[hard])
    loss = AdditiveMargin(margin=0.2, temperature=0.1)(Given()(table, batch), batch)

    def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
        return float(torch.cosine_similarity(one, other, dim=0))

    expected = 0.0
    for i in range(5):
        own = math.exp((cosine(anchors[i], positives[i]) - 0.2) / 0.1)
        others = sum(math.exp(cosine(anchors[i], positives[j]) / 0.1) for j in range(5) if j != i)
        mined = sum(math.exp(cosine(anchors[i], hard[j]) / 0.1) for j in range(5))
        back = sum(math.exp(cosine(anchors[j], positives[i]) / 0.1) for j in range(5) if j != i)
        expected -= (math.log(own / (own + others + mined)) + math.log(own / (own + back))) / 10
    assert float(loss) == pytest.approx(expected)


def test_without_margin_it_is_info_nce_both_ways() -> None:
    anchors, positives, _ = embeddings()
    plain = InfoNCE(temperature=0.05, directions="both")(anchors, positives)
    torch.testing.assert_close(AdditiveMargin(margin=0, temperature=0.05)(anchors, positives), plain)


def test_its_gradient() -> None:
    anchors, positives, _ = embeddings(3)
    loss = AdditiveMargin(temperature=0.5)
    inputs = (anchors.requires_grad_(), positives.requires_grad_())
    assert torch.autograd.gradcheck(lambda one, other: loss(one, other), inputs)


def test_it_has_a_name_settings_and_help() -> None:
    terms = room("terms")
    assert terms.find("additive_margin") is AdditiveMargin
    assert terms.make({"use": "additive_margin", "margin": 0.1}) == AdditiveMargin(margin=0.1)
    with pytest.raises(PartError, match="margin"):
        AdditiveMargin(margin=-1)
    facts = describe(AdditiveMargin)
    assert facts.source.startswith("Yang et al. 2019")
    assert set(facts.settings) == {"margin", "temperature"}
