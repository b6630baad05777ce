"""Hard-negative weights and the debiased estimate."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from edit_tables import contrast, permuted

from sentemb.edits import PARTS
from sentemb.edits.hardness import Hardness
from sentemb.maths.table import add_candidates, extra_rows, in_batch_table
from sentemb.terms import InfoNCE
from sentemb.types import Rows

TAU = 0.5


def loss_by_loop(table, beta: float, prior: float) -> float:
    """Robinson et al. 2021, equations 3 to 5, with plain numbers, for tables with one positive a row."""
    n, m = table.sim.shape
    losses = []
    for i in range(n):
        positive = next(j for j in range(m) if table.positive[i, j])
        live = [j for j in range(m) if not table.positive[i, j] and math.isfinite(table.log_weight[i, j])]
        base = [math.exp(table.log_weight[i, j]) for j in live]
        exp_sim = [math.exp(float(table.sim[i, j]) / TAU) for j in live]
        tilt = [b * e**beta for b, e in zip(base, exp_sim, strict=True)]
        weights = [t * sum(base) / sum(tilt) for t in tilt]
        reweighted = sum(w * e for w, e in zip(weights, exp_sim, strict=True))
        plus = math.exp(float(table.sim[i, positive]) / TAU)
        count = sum(base)
        estimate = max((reweighted - prior * count * plus) / (1 - prior), count * math.exp(-1 / TAU))
        losses.append(-math.log(plus / (plus + estimate)))
    return sum(losses) / n


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("prior", [0.0, 0.05, 0.5])
def test_equals_the_loop(beta, prior, make_table, make_batch):
    table = make_table(6, 3)
    before = torch.rand(6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    before[0, 3] = before[4, 1] = -math.inf
    before[torch.eye(6, dtype=torch.bool)] = 0.0
    table = replace(table, log_weight=before)
    edited = Hardness(beta=beta, temperature=TAU, class_prior=prior)(table, make_batch())
    torch.testing.assert_close(float(contrast(edited, TAU)), loss_by_loop(table, beta, prior), rtol=1e-10, atol=0)
    assert edited.log_weight[0, 3] == edited.log_weight[4, 1] == -math.inf
    assert (edited.log_weight[edited.positive] == 0).all()


def test_two_by_three_by_hand(make_table, make_batch):
    table = replace(make_table(3),
        sim=torch.tensor([[1.0, math.log(1), math.log(3)]] * 3, dtype=torch.float64),
        positive=torch.tensor([[True, False, False]] * 3),
    )
    edited = Hardness(beta=1.0, temperature=1.0)(table, make_batch())
    # weights ∝ exp(sim) = 1, 3 with mean 1: 1/2 and 3/2
    torch.testing.assert_close(edited.log_weight[0].exp(), torch.tensor([1, 0.5, 1.5], dtype=torch.float64))


def test_weights_carry_no_gradient(make_table, make_batch):
    sim = make_table(4).sim.requires_grad_()
    edited = Hardness(beta=1.0)(replace(make_table(4), sim=sim), make_batch())
    assert not edited.log_weight.requires_grad
    debiased = Hardness(beta=1.0, temperature=TAU, class_prior=0.1)(replace(make_table(4), sim=sim), make_batch())
    # the correction is part of the estimate, so it does: each negative's gradient is that of log G
    estimate = (debiased.sim / TAU + debiased.log_weight).masked_fill(debiased.positive, -math.inf).logsumexp(1)
    gradient, = torch.autograd.grad(estimate.sum(), sim)
    weight = Hardness(beta=1.0, temperature=TAU)(make_table(4), make_batch()).log_weight.exp()
    unnormalised = weight * (make_table(4).sim / TAU).exp()
    share = unnormalised / (1 - 0.1) / estimate.detach().exp()[:, None] / TAU
    negative = ~debiased.positive
    torch.testing.assert_close(gradient[negative], share[negative])
    assert (gradient[debiased.positive] < 0).all()


def test_gradcheck(make_rows, make_batch):
    anchor, positive = make_rows(4), make_rows(4, seed=1)
    fixed = in_batch_table(anchor, positive)
    part = Hardness(beta=0.0, temperature=TAU, class_prior=0.1)  # beta > 0 detaches, which finite differences see

    def loss(a: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        table = in_batch_table(
            Rows(embedding=a, ids=anchor.ids, text=anchor.text), Rows(embedding=p, ids=positive.ids, text=positive.text)
        )
        return contrast(part(table, make_batch()), TAU)

    assert torch.autograd.gradcheck(loss, [anchor.embedding.requires_grad_(), positive.embedding.requires_grad_()])
    weight = Hardness(beta=1.0, temperature=TAU)(fixed, make_batch()).log_weight.detach()

    def weighted(a: torch.Tensor) -> torch.Tensor:
        return contrast(
            replace(in_batch_table(Rows(embedding=a, ids=anchor.ids, text=anchor.text), positive), log_weight=weight),
            TAU,
        )

    leaf = anchor.embedding.detach().clone().requires_grad_()
    contrast(Hardness(beta=1.0, temperature=TAU)(
        in_batch_table(Rows(embedding=leaf, ids=anchor.ids, text=anchor.text), positive), make_batch()), TAU).backward()
    other = anchor.embedding.detach().clone().requires_grad_()
    weighted(other).backward()
    torch.testing.assert_close(leaf.grad, other.grad)  # the gradient of constant weights


def test_follows_a_permutation_of_the_examples(make_rows, make_batch):
    anchor, positive = make_rows(5), make_rows(5, seed=1)
    order = torch.tensor([3, 1, 0, 4, 2])
    part = Hardness(beta=1.0, class_prior=0.1)
    one = part(in_batch_table(anchor, positive), make_batch())
    other = part(in_batch_table(permuted(anchor, order), permuted(positive, order)), make_batch())
    torch.testing.assert_close(one.log_weight[order][:, order], other.log_weight)


@pytest.mark.parametrize("prior", [0.0, 0.1])
def test_edges(prior, make_table, make_batch):
    part = Hardness(beta=1.0, class_prior=prior)
    assert part(make_table(1), make_batch()).log_weight.tolist() == [[0.0]]
    lonely = make_table(3)
    lonely = replace(lonely, log_weight=torch.zeros(3, 3, dtype=torch.float64).masked_fill(~lonely.positive, -math.inf))
    assert part(lonely, make_batch()).log_weight.tolist() == lonely.log_weight.tolist()
    half = part(make_table(3, dtype=torch.bfloat16), make_batch())
    assert half.log_weight.dtype == torch.float32
    assert torch.isfinite(half.log_weight).all()
    sim = lonely.sim.clone().requires_grad_()
    contrast(part(replace(lonely, sim=sim), make_batch())).backward()
    assert torch.isfinite(sim.grad).all()


@pytest.mark.parametrize("bad", [{"beta": -1.0}, {"temperature": 0.0}, {"class_prior": 1.0}, {"class_prior": -0.1}])
def test_refuses_values_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Hardness(**bad)


def test_is_a_part():
    assert PARTS["hardness"] is Hardness


def test_a_class_prior_that_leaves_nothing_but_the_floor_is_noted(make_table, make_batch):
    assert not Hardness(class_prior=0.1, temperature=0.5).notes()
    assert not Hardness(class_prior=0.0).notes()
    assert not Hardness(class_prior=6e-6, temperature=0.05).notes()
    [note] = Hardness(class_prior=0.1, temperature=0.05).notes()
    assert "class_prior below 6.1e-06" in note
    # and so it is: a positive at 0.9, negatives at 0.3
    sim = torch.full((3, 3), 0.3, dtype=torch.float64).fill_diagonal_(0.9).requires_grad_()
    table = replace(make_table(3), sim=sim)
    contrast(Hardness(beta=0.0, class_prior=0.1, temperature=0.05)(table, make_batch()), 0.05).backward()
    assert sim.grad[~torch.eye(3, dtype=torch.bool)].abs().max() < 1e-12


# ------------------------------------------------------------------------------------------------- keep and skip
@pytest.mark.parametrize(("keep", "skip"), [(2, 0), (1, 1), (3, 2), (None, 2)])
def test_a_window_of_ranks_equals_the_sorted_loop(make_table, make_batch, keep, skip):
    table = make_table(6)
    weight = torch.rand(6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weight[0, 3] = -math.inf
    edited = Hardness(beta=0.0, keep=keep, skip=skip)(replace(table, log_weight=weight), make_batch())
    for i in range(6):
        live = [j for j in range(6) if j != i and math.isfinite(weight[i, j])]
        ranked = sorted(live, key=lambda j: -float(table.sim[i, j]))[skip : skip + (keep or 6)]
        assert [j for j in range(6) if j != i and edited.log_weight[i, j] > -math.inf] == sorted(ranked)
        assert all(edited.log_weight[i, j] == pytest.approx(float(weight[i, j])) for j in ranked)


def test_ties_of_a_window_go_by_column(make_table, make_batch):
    table = replace(make_table(4), sim=torch.zeros(4, 4, dtype=torch.float64))
    edited = Hardness(beta=0.0, keep=1)(table, make_batch())
    assert (edited.log_weight > -math.inf).nonzero().tolist() == [
        [0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 2], [3, 0], [3, 3],
    ]


def test_one_kept_negative_at_a_small_temperature_is_the_maximum(make_table, make_batch):
    """The limit of InfoNCE: the triplet with the hardest negative."""
    table = make_table(5)
    edited = Hardness(beta=0.0, keep=1)(table, make_batch())
    hardest = table.sim.masked_fill(table.positive, -math.inf).amax(dim=1)
    gap = (hardest - table.sim.diagonal()).clamp(min=0).mean()
    assert 1e-3 * float(contrast(edited, 1e-3)) == pytest.approx(float(gap), abs=1e-3)


def test_keeping_all_changes_nothing(make_table, make_batch):
    table = make_table(4)
    assert torch.equal(Hardness(beta=1.0, keep=9)(table, make_batch()).log_weight,
                       Hardness(beta=1.0)(table, make_batch()).log_weight)


def test_a_window_among_added_columns_leaves_the_batch_alone(make_table, make_rows, make_batch):
    plain = make_table(5)
    table = add_candidates(plain, extra_rows(make_rows(7, seed=9).embedding, plain.candidate))
    edited = Hardness(beta=0.0, keep=2, skip=1, among="added")(table, make_batch())
    assert torch.equal(edited.log_weight[:, :5], plain.log_weight)
    for i in range(5):
        order = sorted(range(5, 12), key=lambda j: -float(table.sim[i, j]))
        stay = [j for j in range(5, 12) if edited.log_weight[i, j] == 0]
        assert stay == sorted(order[1:3])


@pytest.mark.parametrize("temperature", [0.05, 0.01, 0.005])
def test_the_floor_has_a_finite_gradient_at_small_temperatures(make_table, make_batch, temperature):
    sim = torch.full((4, 4), 0.1).fill_diagonal_(1.0).requires_grad_()  # the positives' share is up to e^180
    table = replace(make_table(4, dtype=torch.float32), sim=sim)
    edited = Hardness(beta=0.0, temperature=temperature, class_prior=0.1)(table, make_batch())
    InfoNCE(temperature=temperature)(edited, make_batch()).backward()
    assert torch.isfinite(edited.log_weight).all()
    assert torch.isfinite(sim.grad).all()


def test_a_removed_positive_does_not_count(make_table, make_batch):
    table = make_table(4)
    sim, weight = table.sim.clone().requires_grad_(), table.log_weight.clone()
    weight[0, 1] = -math.inf
    removed = replace(table, sim=sim, log_weight=weight)
    marked = removed.positive.clone()
    marked[0, 1] = True
    edit = Hardness(beta=0.0, temperature=TAU, class_prior=0.1)
    edited = edit(replace(removed, positive=marked), make_batch())
    torch.testing.assert_close(edited.log_weight, edit(removed, make_batch()).log_weight)
    InfoNCE(temperature=TAU)(edited, make_batch()).backward()
    assert sim.grad[0, 1] == 0


@pytest.mark.parametrize("prior", [0.0, 0.1])
def test_a_rows_own_temperature_is_used(make_table, make_batch, prior):
    table = replace(make_table(4), scale=torch.full((4,), 2.0, dtype=torch.float64))
    edited = Hardness(temperature=TAU, class_prior=prior)(table, make_batch())
    other = Hardness(temperature=2 * TAU, class_prior=prior)(make_table(4), make_batch())
    torch.testing.assert_close(edited.log_weight, other.log_weight)


def test_identity_7_weights_that_maximise_the_mean_similarity_at_a_price_of_their_divergence(make_table, make_batch):
    """Σ w s / Σ w - (τ/β) KL(w / Σ w ‖ uniform) is largest at the tilt; other weights of the same row have less."""
    table, beta = make_table(6), 0.7
    edited = Hardness(beta=beta, temperature=TAU)(table, make_batch())
    generator = torch.Generator().manual_seed(2)
    for i in range(6):
        negative = ~table.positive[i]
        sim, weight = table.sim[i, negative], edited.log_weight[i, negative].softmax(dim=0)

        def worth(w, sim=sim):
            return float((w * sim).sum() - TAU / beta * (w * (w * len(w)).log()).sum())

        for _ in range(50):
            noise = torch.randn(len(weight), generator=generator, dtype=torch.float64)
            assert worth((weight.log() + 0.1 * noise).softmax(dim=0)) < worth(weight)
