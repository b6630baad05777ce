"""Terms that users know from sentence-transformers, against its losses on the same embeddings."""

from __future__ import annotations

import pytest
import torch

from sentemb.maths.table import score_table
from sentemb.terms import Angle, Contrastive, CoSENT, MarginMSE, OnlineContrastive, ScoreKL

pytestmark = pytest.mark.slow  # importing the library takes seconds

N = 6
SCORES = torch.tensor([0.2, 0.9, 0.2, 1.0, 0.5, 0.0])
BINARY = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])


def rows(seed):
    return torch.randn(N, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def losses():
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import losses

    return losses


@pytest.mark.parametrize(("term", "name", "score"), [
    (CoSENT(), "CoSENTLoss", SCORES), (Angle(), "AnglELoss", SCORES), (Contrastive(), "ContrastiveLoss", BINARY),
    (N * OnlineContrastive(), "OnlineContrastiveLoss", BINARY),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_scored_pairs(losses, term, name, score):
    theirs = getattr(losses, name)(None).compute_loss_from_embeddings([rows(0), rows(1)], score)
    ours = term.weight * term(rows(0), rows(1), scores=score)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


def test_margin_mse(losses):
    given = torch.randn(N, 3, generator=torch.Generator().manual_seed(9))
    theirs = losses.MarginMSELoss(None).compute_loss_from_embeddings([rows(k) for k in range(4)], given)
    table, batch = score_table(
        rows(0), rows(1), negatives=[rows(2), rows(3)], scores=given[:, 0], negative_scores=[given[:, 1], given[:, 2]],
        similarity="dot",
    )
    assert MarginMSE()(table, batch).item() == pytest.approx(theirs.item(), rel=1e-4)


def test_score_kl(losses):
    given = torch.randn(N, 3, generator=torch.Generator().manual_seed(9))
    theirs = losses.DistillKLDivLoss(None, temperature=1.0).compute_loss_from_embeddings(
        [rows(k) for k in range(4)], given
    )
    table, batch = score_table(
        rows(0), rows(1), negatives=[rows(2), rows(3)], scores=given[:, 0], negative_scores=[given[:, 1], given[:, 2]],
        similarity="dot",
    )
    assert ScoreKL(temperature=1.0)(table, batch).item() == pytest.approx(theirs.item(), rel=1e-4)
