"""distill against a loop over rows, by hand, and at its edges."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from given_reference import GivenReference

from sentemb.companions.momentum import Momentum
from sentemb.companions.reference import Reference
from sentemb.errors import RecipeError
from sentemb.maths.table import add_candidates, in_batch_table, take_rows
from sentemb.terms.distill import Distill
from sentemb.terms.info_nce import InfoNCE
from sentemb.types import Rows

INF = float("inf")


def loop_reference(sim, log_weight, cosine, is_known, temperature, reference_temperature):
    n, m = sim.shape
    losses = []
    for i in range(n):
        columns = [j for j in range(m) if is_known[i, j] and log_weight[i, j] > -INF]
        if len(columns) < 2:
            continue
        p = [math.exp(float(sim[i, j]) / temperature + float(log_weight[i, j])) for j in columns]
        q = [math.exp(float(cosine[i, j]) / reference_temperature) for j in columns]
        losses.append(sum(b / sum(q) * math.log((b / sum(q)) / (a / sum(p))) for a, b in zip(p, q, strict=True)))
    return sum(losses) / max(len(losses), 1)


@pytest.fixture
def case(random_sim):
    """One removed pair, unknown last column, and a row of which one candidate is left."""
    log_weight = random_sim(4, 6, seed=1).detach()
    log_weight[0, 2] = -INF
    log_weight[3, 1:] = -INF
    is_known = torch.ones(4, 6, dtype=torch.bool)
    is_known[:, 5] = False
    return random_sim(4, 6), log_weight, random_sim(4, 6, seed=2).detach(), is_known


def test_equals_the_loop(case, table_of, batch_of):
    sim, log_weight, cosine, is_known = case
    batch = batch_of(4, companions={"reference": GivenReference(cosine, is_known)})
    loss = Distill(temperature=0.3, reference_temperature=0.2)(table_of(sim, log_weight=log_weight), batch)
    assert loss.item() == pytest.approx(loop_reference(sim.detach(), log_weight, cosine, is_known, 0.3, 0.2), rel=1e-10)


def test_hand_worked_two_by_two(table_of, batch_of):
    # τ = τ_r = 1; row 0 agrees with the reference; row 1: q = (1/2, 1/2), p = softmax(0, log 3) = (1/4, 3/4),
    # KL = ½ log(½/¼) + ½ log(½/¾) = 0.143841
    sim = torch.tensor([[0.4, 0.1], [0.0, math.log(3.0)]])
    batch = batch_of(companions={"reference": GivenReference(torch.tensor([[0.4, 0.1], [0.7, 0.7]]))})
    loss = Distill(temperature=1.0, reference_temperature=1.0)(table_of(sim), batch)
    assert loss.item() == pytest.approx(0.143841 / 2, abs=1e-6)


def test_equal_tables_give_zero_and_no_gradient(table_of, batch_of, random_sim):
    sim = random_sim(4, 4)
    loss = Distill()(table_of(sim), batch_of(4, companions={"reference": GivenReference(sim.detach().clone())}))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert sim.grad.abs().max() < 1e-12


def test_the_reference_gets_no_gradient(table_of, batch_of, random_sim):
    cosine = random_sim(4, 4, seed=3)
    sim = random_sim(4, 4)
    Distill()(table_of(sim), batch_of(4, companions={"reference": GivenReference(cosine)})).backward()
    assert cosine.grad is None
    assert sim.grad.abs().sum() > 0


def test_order_of_examples_and_candidates_does_not_matter(case, table_of, batch_of):
    sim, log_weight, cosine, is_known = (tensor.detach() for tensor in case)
    rows, columns = [2, 0, 3, 1], [5, 2, 0, 4, 1, 3]
    batch = batch_of(4, companions={"reference": GivenReference(cosine, is_known)})
    before = Distill()(table_of(sim, log_weight=log_weight), batch)
    sim, log_weight, cosine, is_known = (t[rows][:, columns] for t in (sim, log_weight, cosine, is_known))
    batch = batch_of(4, companions={"reference": GivenReference(cosine, is_known)})
    assert Distill()(table_of(sim, log_weight=log_weight), batch).item() == pytest.approx(before.item(), rel=1e-12)


def test_gradcheck(case, table_of, batch_of):
    sim, log_weight, cosine, is_known = case
    batch = batch_of(4, companions={"reference": GivenReference(cosine, is_known)})
    term = Distill(temperature=0.4)
    assert torch.autograd.gradcheck(lambda s: term(table_of(s, log_weight=log_weight), batch), (sim,))


def test_one_example_alone_gives_zero_and_no_gradient(table_of, batch_of):
    sim = torch.tensor([[0.3]], requires_grad=True)
    loss = Distill()(table_of(sim), batch_of(1, companions={"reference": GivenReference(torch.tensor([[0.5]]))}))
    loss.backward()
    assert loss.item() == 0.0
    assert sim.grad.item() == 0.0


def test_a_wholly_removed_table_gives_zero_and_no_gradient(table_of, batch_of, random_sim):
    sim = random_sim(3, 3)
    table = table_of(sim, log_weight=torch.full((3, 3), -INF, dtype=torch.float64))
    loss = Distill()(table, batch_of(3, companions={"reference": GivenReference(torch.zeros(3, 3))}))
    loss.backward()
    assert loss.item() == 0.0
    assert (sim.grad == 0).all()


def test_bfloat16_table_is_scored_in_float32(case, table_of, batch_of):
    sim, log_weight, cosine, is_known = case
    sim, cosine = sim.detach().bfloat16(), cosine.float()
    batch = batch_of(4, companions={"reference": GivenReference(cosine, is_known)})
    loss = Distill()(table_of(sim, log_weight=log_weight.float()), batch)
    assert loss.dtype == torch.float32
    expected = loop_reference(sim.double(), log_weight.float(), cosine, is_known, 0.05, 0.05)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_without_a_reference_says_so(table_of, batch_of):
    with pytest.raises(RecipeError, match='distill: needs the companion "reference"'):
        Distill()(table_of(torch.eye(2)), batch_of())


# ------------------------------------------------------------------------------------------------ the average teaches
@pytest.fixture
def taught(batch_of):
    """Three examples, two queued texts and a column of neither; keys of the batch, and what the queue holds."""
    generator = torch.Generator().manual_seed(4)

    def rows(count: int, first: int) -> Rows:
        ids = torch.arange(first, first + count)
        embedding = torch.randn(count, 4, generator=generator, dtype=torch.float64)
        return Rows(embedding=embedding, ids=ids, text=ids + 500)

    anchor, positive, queued, other = rows(3, 0), rows(3, 10), rows(2, 20), rows(1, 30)
    companion = Momentum(keys=True, queue_size=2)
    companion.register_buffer("embedding", queued.embedding)
    companion.register_buffer("text", queued.text)
    companion.register_buffer("seen", torch.tensor(2))
    table = add_candidates(add_candidates(in_batch_table(anchor, positive), queued), other)
    keys = {f"momentum/{view}": rows(3, 40).embedding for view in ("anchor", "positive")}
    batch = batch_of(
        3, views={"anchor": anchor, "positive": positive}, companions={"momentum": companion}, outputs=keys
    )
    return table, batch


def test_self_distillation_equals_the_loop(taught):
    table, batch = taught
    keys = [*batch.outputs["momentum/positive"], *table.candidate.embedding[3:5]]
    total = 0.0
    for i in range(3):
        anchor = batch.outputs["momentum/anchor"][i]
        q = [math.exp(float(torch.cosine_similarity(anchor, key, dim=0)) / 0.2) for key in keys]
        p = [math.exp(float(s) / 0.3) for s in table.sim[i, :5]]
        total += sum(b / sum(q) * math.log((b / sum(q)) / (a / sum(p))) for a, b in zip(p, q, strict=True)) / 3
    loss = Distill(temperature=0.3, reference_temperature=0.2, companion="momentum")(table, batch)
    assert loss.item() == pytest.approx(total, rel=1e-10)


def test_a_teacher_that_is_the_student_sends_no_gradient(taught):
    table, batch = taught
    views = {"momentum/anchor": table.anchor.embedding, "momentum/positive": table.candidate.embedding[:3]}
    sim = table.sim[:, :5].clone().requires_grad_()
    known = replace(
        table, sim=sim, positive=table.positive[:, :5], log_weight=table.log_weight[:, :5],
        candidate=take_rows(table.candidate, slice(5)),
    )
    loss = Distill(companion="momentum")(known, replace(batch, outputs=views))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert sim.grad.abs().max() < 1e-12


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_beside_info_nce_it_is_cross_entropy_with_soft_targets(case, table_of, batch_of, weight):
    """(1 - a) one-hot + a q as targets has the gradient of (1 - a) info_nce + a distill at one τ."""
    sim, log_weight, cosine, _ = case
    log_weight, cosine = log_weight[:3], cosine[:3]
    sim = sim.detach()[:3].requires_grad_()
    table, batch = table_of(sim, log_weight=log_weight), batch_of(3, companions={"reference": GivenReference(cosine)})
    q = torch.softmax((cosine / 0.2).masked_fill(log_weight == -INF, -INF), dim=1)
    targets = (1 - weight) * torch.eye(3, 6, dtype=torch.float64) + weight * q
    log_p = torch.log_softmax(sim / 0.3 + log_weight, dim=1).masked_fill(log_weight == -INF, 0.0)
    expected = torch.autograd.grad(-(targets * log_p).sum() / 3, sim)[0]
    ours = (1 - weight) * InfoNCE(temperature=0.3)(table, batch)
    ours = ours + weight * Distill(temperature=0.3, reference_temperature=0.2)(table, batch)
    torch.testing.assert_close(torch.autograd.grad(ours, sim)[0], expected)


def test_an_average_without_keys_is_told(taught):
    term = Distill(companion="momentum")
    assert "keys = true" in term.faults({"companions": [Momentum()]})[0]
    assert term.faults({"companions": [Momentum(keys=True)]}) == []
    assert Distill().faults({"companions": [Reference()]}) == []
    table, batch = taught
    with pytest.raises(RecipeError, match="momentum: makes no keys of the batch"):
        term(table, replace(batch, companions={"momentum": Momentum()}))


@pytest.mark.parametrize("name", ["temperature", "reference_temperature"])
def test_temperatures_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name} = 0.0: must be greater than or equal to"):
        Distill(**{name: 0.0})
