"""info_nce against loops written from the equation, a hand-worked case, and its edges."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentemb.errors import DataError, NumericError
from sentemb.terms.info_nce import InfoNCE
from sentemb.terms.sigmoid_contrast import SigmoidContrast
from sentemb.types import Examples, Services

INF = float("inf")


def loop_reference(sim, positive, log_weight, temperature, directions="one"):
    """−1/n Σ_i log( Σ_p exp ℓ_ip / Σ_j exp ℓ_ij ), pair by pair in Python floats."""
    n, m = sim.shape
    sim = sim.detach()

    def one_way(rows, columns, at):
        total = 0.0
        for i in range(rows):
            above = below = 0.0
            for j in range(columns):
                a, c = at(i, j)
                value = math.exp(float(sim[a, c]) / temperature + float(log_weight[a, c]))
                below += value
                above += value if positive[a, c] else 0.0
            total -= math.log(above / below)
        return total / rows

    forth = one_way(n, m, lambda i, j: (i, j))
    if directions == "one":
        return forth
    return (forth + one_way(n, n, lambda i, j: (j, i))) / 2


@pytest.mark.parametrize("directions", ["one", "both"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (2, 2), (5, 5), (4, 9)])
def test_equals_the_loop(table_of, batch_of, random_sim, n, m, directions):
    sim = random_sim(n, m)
    positive = torch.eye(n, m, dtype=torch.bool)
    if m > n:
        positive[0, m - 1] = True  # a second positive
    if n > 2:
        positive[0, 1] = True  # in the square too: the table is not symmetric
    log_weight = random_sim(n, m, seed=1).detach()
    if m > n + 1:
        log_weight[n - 1, n] = -INF  # a removed pair
    table = table_of(sim, positive, log_weight)
    loss = InfoNCE(temperature=0.3, directions=directions)(table, batch_of(n))
    assert loss.item() == pytest.approx(loop_reference(sim, positive, log_weight, 0.3, directions), rel=1e-12)


def test_hand_worked_two_by_two(table_of, batch_of):
    # τ = 0.5: logits [[2, 0], [1, 1.2]]; log(1 + e^-2) = 0.126928, log(1 + e^-0.2) = 0.598139
    table = table_of(torch.tensor([[1.0, 0.0], [0.5, 0.6]], dtype=torch.float64))
    assert InfoNCE(temperature=0.5)(table, batch_of()).item() == pytest.approx((0.126928 + 0.598139) / 2, abs=1e-6)
    # from the candidates' side, columns (2, 1) and (0, 1.2): log(1 + e^-1) = 0.313262, log(1 + e^-1.2) = 0.263282
    both = InfoNCE(temperature=0.5, directions="both")(table, batch_of()).item()
    assert both == pytest.approx((0.126928 + 0.598139 + 0.313262 + 0.263282) / 4, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(5)), st.sampled_from(["one", "both"]))
def test_order_of_examples_does_not_matter(order, directions):
    # built without fixtures: hypothesis calls this many times
    from sentemb.types import PairScores, Rows

    def table(sim, log_weight):
        rows = Rows(embedding=torch.zeros(5, 1), ids=torch.arange(5), text=torch.arange(5))
        candidate = Rows(embedding=torch.zeros(8, 1), ids=torch.arange(8), text=torch.arange(8))
        return PairScores(
            sim=sim, positive=torch.eye(5, 8, dtype=torch.bool), log_weight=log_weight, anchor=rows, candidate=candidate
        )

    generator = torch.Generator().manual_seed(3)
    sim = torch.rand(5, 8, generator=generator, dtype=torch.float64)
    log_weight = torch.rand(5, 8, generator=generator, dtype=torch.float64)
    columns = [*order, 7, 5, 6]
    term = InfoNCE(temperature=0.1, directions=directions)
    before = term(table(sim, log_weight), None_batch())
    after = term(table(sim[list(order)][:, columns], log_weight[list(order)][:, columns]), None_batch())
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


def None_batch():
    from sentemb.types import Batch

    return Batch(views={}, local=slice(0, 5), tokens={}, encoded={})


@pytest.mark.parametrize("directions", ["one", "both"])
def test_gradcheck(table_of, batch_of, random_sim, directions):
    removed = torch.zeros(4, 7, dtype=torch.bool)
    removed[1, 5] = removed[0, 2] = True

    def loss(sim, weight):
        table = table_of(sim, log_weight=weight.masked_fill(removed, -INF))
        return InfoNCE(temperature=0.2, directions=directions)(table, batch_of(4))

    assert torch.autograd.gradcheck(loss, (random_sim(4, 7), random_sim(4, 7, seed=2)))


def test_one_example_alone_gives_zero_and_no_gradient(table_of, batch_of, random_sim):
    sim = random_sim(1, 1)
    loss = InfoNCE(directions="both")(table_of(sim), batch_of(1))
    loss.backward()
    assert loss.item() == 0.0
    assert sim.grad.item() == 0.0


def test_removed_pairs_get_no_gradient(table_of, batch_of, random_sim):
    sim = random_sim(3, 5)
    log_weight = torch.zeros(3, 5, dtype=torch.float64)
    log_weight[0, 3] = -INF
    InfoNCE()(table_of(sim, log_weight=log_weight), batch_of(3)).backward()
    assert sim.grad[0, 3] == 0.0
    assert (sim.grad[1:, 3] > 0).all()
    assert torch.isfinite(sim.grad).all()


def test_an_infinite_loss_does_not_poison_the_gradient(table_of, batch_of, random_sim):
    sim = random_sim(3, 3)
    log_weight = torch.zeros(3, 3, dtype=torch.float64)
    log_weight[1, 1] = -INF
    InfoNCE()(table_of(sim, log_weight=log_weight), batch_of(3)).backward()
    assert torch.isfinite(sim.grad).all()


def test_anchor_without_a_positive_is_infinite_and_diagnosed(table_of, batch_of, random_sim):
    log_weight = torch.zeros(3, 3, dtype=torch.float64)
    log_weight[1] = -INF
    table = table_of(random_sim(3, 3), log_weight=log_weight)
    term = InfoNCE()
    assert not torch.isfinite(term(table, batch_of(3)))
    with pytest.raises(NumericError, match=r"info_nce, step 7: every positive of example 101 has been removed"):
        term.diagnose(table, batch_of(3))


def test_nan_similarity_is_diagnosed(table_of, batch_of):
    sim = torch.tensor([[1.0, 0.0], [float("nan"), 1.0]])
    with pytest.raises(NumericError, match="similarities of example 101 are not finite"):
        InfoNCE().diagnose(table_of(sim), batch_of())


def test_nan_weight_is_diagnosed(table_of, batch_of):
    table = table_of(torch.eye(2), log_weight=torch.tensor([[0.0, float("nan")], [0.0, 0.0]]))
    with pytest.raises(NumericError, match="example 100 a log_weight that is NaN"):
        InfoNCE().diagnose(table, batch_of())


def test_a_temperature_that_is_none_is_diagnosed(table_of, batch_of):
    table = dataclasses.replace(table_of(torch.eye(2)), scale=torch.tensor([1.0, 0.0]))
    with pytest.raises(NumericError, match="example 101 a temperature that is not above 0"):
        InfoNCE().diagnose(table, batch_of())


def test_diagnosis_shortens_long_lists(table_of, batch_of):
    sim = torch.full((20, 20), float("nan"))
    with pytest.raises(NumericError, match=r"examples 100, 101, .*107 and 12 more"):
        InfoNCE().diagnose(table_of(sim), batch_of(20))


def test_a_sound_table_is_not_blamed(table_of, batch_of):
    InfoNCE().diagnose(table_of(torch.eye(3)), batch_of(3))


def test_bfloat16_table_is_scored_in_float32(table_of, batch_of, random_sim):
    sim = random_sim(4, 6).detach().bfloat16()
    table = table_of(sim, log_weight=torch.zeros(4, 6))
    loss = InfoNCE()(table, batch_of(4))
    exact = InfoNCE()(table_of(sim.double()), batch_of(4))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


def test_small_temperatures_do_not_overflow(table_of, batch_of):
    table = table_of(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    assert InfoNCE(temperature=1e-3)(table, batch_of()).item() == 0.0
    wrong = table_of(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))
    assert InfoNCE(temperature=1e-3)(wrong, batch_of()).item() == pytest.approx(2000.0)


def test_learnable_temperature_starts_as_given_and_keeps_its_floor(table_of, batch_of, random_sim, build_for):
    term = InfoNCE(temperature=0.05, learnable_temperature=True)
    (parameter,) = term.parameters()
    table = table_of(random_sim(4, 4).float())
    loss = term(table, batch_of(4))
    assert loss.item() == pytest.approx(InfoNCE(temperature=0.05)(table, batch_of(4)).item(), rel=1e-5)
    loss.backward()
    # d loss / d log τ by central differences of the fixed-temperature loss
    step = 1e-3
    up, down = (InfoNCE(temperature=0.05 * math.exp(s))(table, batch_of(4)).item() for s in (step, -step))
    assert parameter.grad.item() == pytest.approx((up - down) / (2 * step), rel=1e-2)
    with torch.no_grad():
        parameter.fill_(math.log(1e-5))
    assert term.temperature.item() == pytest.approx(0.01)


def test_fixed_temperature_has_no_parameters(build_for):
    term = InfoNCE()
    assert list(term.parameters()) == []


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature"):
        InfoNCE(temperature=temperature)


def test_learnable_temperature_cannot_start_below_its_floor():
    with pytest.raises(ValueError, match=r"starts at 0\.01 or above"):
        InfoNCE(temperature=0.001, learnable_temperature=True)


def scored(batch_of, *scores):
    return dataclasses.replace(batch_of(len(scores)), score=torch.tensor(scores))


@pytest.mark.parametrize("directions", ["one", "both"])
def test_scores_weigh_rows(table_of, batch_of, random_sim, directions):
    sim, scores = random_sim(4, 4), (0.2, 1.0, 0.0, 0.7)
    term = InfoNCE(temperature=0.3, directions=directions, row_weight="score")
    logits = (sim.detach() / 0.3).exp().tolist()
    expected = 0.0
    for i, score in enumerate(scores):
        forth, back = sum(logits[i]), sum(row[i] for row in logits)
        losses = [-math.log(logits[i][i] / forth), -math.log(logits[i][i] / back)]
        expected += score * (losses[0] if directions == "one" else sum(losses) / 2) / 4
    assert term(table_of(sim), scored(batch_of, *scores)).item() == pytest.approx(expected, rel=1e-6)
    weights = torch.tensor(scores, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda sim: term(table_of(sim), dataclasses.replace(batch_of(4), score=weights)), (sim,)
    )


def test_scores_of_one_change_nothing_and_a_score_of_zero_leaves_only_a_negative(table_of, batch_of, random_sim):
    sim = random_sim(3, 3)
    plain = InfoNCE()(table_of(sim), batch_of(3))
    assert torch.equal(InfoNCE(row_weight="score")(table_of(sim), scored(batch_of, 1.0, 1.0, 1.0)), plain)
    InfoNCE(row_weight="score")(table_of(sim), scored(batch_of, 1.0, 0.0, 1.0)).backward()
    assert (sim.grad[1] == 0).all()
    assert (sim.grad[[0, 2], 1] > 0).all()


def test_an_anchor_of_score_zero_may_lack_a_positive(table_of, batch_of, random_sim):
    sim, log_weight = random_sim(3, 3), torch.zeros(3, 3, dtype=torch.float64)
    log_weight[1] = -INF
    loss = InfoNCE(row_weight="score")(table_of(sim, log_weight=log_weight), scored(batch_of, 1.0, 0.0, 1.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(sim.grad).all()


def test_scores_must_be_there_and_not_negative(table_of, batch_of, random_sim):
    term = InfoNCE(row_weight="score")
    assert term.needs == {"scores"}
    assert not InfoNCE().needs
    with pytest.raises(DataError, match="graded scores"):
        term(table_of(random_sim(2, 2)), batch_of(2))
    data = Examples(ids=np.arange(3), columns={}, score=np.array([1.0, 0.0, -0.5], dtype=np.float32))
    services = Services(embed=None, nearest=None, decode=None, say=print)
    with pytest.raises(DataError, match=r"row 3 has the score -0\.5; scores must be at least 0"):
        term.prepare(data, services)
    InfoNCE().prepare(data, services)
    with pytest.raises(ValueError, match="row_weight"):
        InfoNCE(row_weight="scores")


@pytest.mark.parametrize("directions", ["one", "both"])
def test_weights_take_the_place_of_n(table_of, batch_of, random_sim, directions):
    sim = random_sim(3, 3).detach()
    weight = torch.tensor([0.5, 2.0, 0.0])
    weighted = InfoNCE(temperature=0.3, directions=directions, row_weight="weight")
    rows = []
    for i in range(3):
        only = torch.zeros(3)
        only[i] = 1.0  # the loss of one row, with all columns
        rows.append(weighted(table_of(sim), batch_of(3, weight=only)).item())
    loss = weighted(table_of(sim), batch_of(3, weight=weight))
    assert loss.item() == pytest.approx((0.5 * rows[0] + 2 * rows[1]) / 2.5, rel=1e-10)
    plain = InfoNCE(temperature=0.3, directions=directions)(table_of(sim), batch_of(3)).item()
    assert sum(rows) / 3 == pytest.approx(plain, rel=1e-12)
    equal = weighted(table_of(sim), batch_of(3, weight=torch.full((3,), 4.0)))
    assert equal.item() == pytest.approx(plain, rel=1e-12)
    assert weighted.needs == {"weights"}
    assert weighted(table_of(sim), batch_of(3, weight=torch.zeros(3))).item() == 0
    with pytest.raises(DataError, match="add a weight column"):
        weighted(table_of(sim), batch_of(3))


@pytest.fixture
def several(random_sim):
    """Similarities, several positives, and log-weights with one negative and one positive removed."""
    positive = torch.eye(4, 6, dtype=torch.bool)
    positive[0, 5] = positive[1, 4] = positive[1, 3] = True
    log_weight = random_sim(4, 6, seed=1).detach()
    log_weight[2, 3] = log_weight[1, 4] = -math.inf
    return random_sim(4, 6), positive, log_weight


def test_positives_apart_equal_the_loop(table_of, batch_of, several):
    sim, positive, log_weight = several
    fixed, total = sim.detach(), 0.0
    for i in range(4):
        e = [math.exp(float(fixed[i, j]) / 0.3 + float(log_weight[i, j])) for j in range(6)]
        below = sum(e[j] for j in range(6) if not positive[i, j])
        own = [j for j in range(6) if positive[i, j] and e[j] > 0]
        total -= sum(math.log(e[j] / (e[j] + below)) for j in own) / len(own) / 4
    term = InfoNCE(temperature=0.3, positives="apart")
    assert term(table_of(*several), batch_of(4)).item() == pytest.approx(total, rel=1e-10)
    assert torch.autograd.gradcheck(lambda s: term(table_of(s, positive, log_weight), batch_of(4)), (sim,))


def test_one_positive_apart_is_the_plain_loss(table_of, batch_of, random_sim):
    table = table_of(random_sim(4, 6))
    plain = InfoNCE(temperature=0.2)(table, batch_of(4)).item()
    assert InfoNCE(temperature=0.2, positives="apart")(table, batch_of(4)).item() == pytest.approx(plain, rel=1e-12)
    alone = InfoNCE(positives="apart")(table_of(random_sim(1, 1)), batch_of(1))
    assert alone.item() == 0


@pytest.mark.parametrize("term", [InfoNCE(learnable_temperature=True), SigmoidContrast(learn=True)])
def test_a_learned_temperature_can_rise_from_its_floor(table_of, batch_of, term):
    with torch.no_grad():
        term.log_temperature.fill_(math.log(1e-4))
    wrong = table_of(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))  # asks for a higher one
    term(wrong, batch_of()).backward()
    assert term.log_temperature.exp().item() == pytest.approx(0.01)
    assert term.log_temperature.grad < 0
