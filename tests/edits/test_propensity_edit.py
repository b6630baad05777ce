"""DebCSE's weights of the negatives."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from edit_tables import contrast, permuted

from sentemb.companions.propensity import Propensity as Companion
from sentemb.edits import PARTS
from sentemb.edits.propensity import PropensityWeights
from sentemb.errors import RecipeError
from sentemb.maths.propensity import Logistic
from sentemb.maths.table import add_candidates, in_batch_table
from sentemb.types import Rows


class Measured(Companion):
    """The companion with given similarities of texts 1000 … 1000 + k - 1 in place of prepared ones."""

    def __init__(self, sem: torch.Tensor, sur: torch.Tensor, threshold: float = 0.5) -> None:
        super().__init__(negative_threshold=threshold)
        self.sem, self.sur = sem, sur
        self.negative_model = Logistic(-4.0, 8.0)

    def pairs(self, anchor, candidate):
        left, right = anchor - 1000, candidate - 1000
        known = (left >= 0)[:, None] & (right >= 0)[None, :]
        left, right = left.clamp(min=0), right.clamp(min=0)
        return self.sem[left][:, right], self.sur[left][:, right], known


def measured(k: int, seed: int = 0, threshold: float = 0.5) -> Measured:
    generator = torch.Generator().manual_seed(seed)
    return Measured(torch.rand(k, k, generator=generator), torch.rand(k, k, generator=generator), threshold)


def weights_by_loop(table, companion: Measured, clip: float) -> list[list[float]]:
    n, m = table.sim.shape
    result = table.log_weight.tolist()
    for i in range(n):
        raw, total = {}, 0.0
        for j in range(m):
            text = int(table.candidate.text[j])
            if table.positive[i, j] or text < 0 or result[i][j] == -math.inf:
                continue
            left, right = int(table.anchor.text[i]) - 1000, text - 1000
            if float(companion.sem[left, right]) > companion.negative_threshold:
                result[i][j] = -math.inf
                continue
            chance = 1 / (1 + math.exp(4 - 8 * (1 - float(companion.sur[left, right]))))
            raw[j] = math.exp(result[i][j]) * min(1 / chance, clip)
            total += math.exp(result[i][j])
        for j, weight in raw.items():
            result[i][j] = math.log(weight / sum(raw.values()) * total)
    return result


@pytest.mark.parametrize("clip", [1.0, 3.0, 100.0])
def test_equals_the_loop(clip, make_rows, make_table, make_batch):
    table = add_candidates(make_table(5), make_rows(4, seed=3, text=[1006, 1007, -1, 1005]))
    before = 0.5 * torch.rand(5, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before[1, 3] = -math.inf
    table = replace(table, log_weight=before)
    companion = measured(8)
    edited = PropensityWeights(clip=clip)(table, make_batch(companions={"propensity": companion}))
    expected = torch.tensor(weights_by_loop(table, companion, clip), dtype=torch.float64)
    torch.testing.assert_close(edited.log_weight, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(edited.log_weight[:, 7], before[:, 7])  # a candidate that is no text
    assert edited.log_weight.isinf().sum() > before.isinf().sum()


def test_two_by_three_by_hand(make_rows, make_batch):
    """Anchor 0: candidate 1 looks alike and counts more than candidate 2; anchor 1's candidate 0 means the same."""
    sur = torch.tensor([[1.0, 0.9, 0.1], [0.9, 1.0, 0.5], [0.1, 0.5, 1.0]])
    sem = torch.tensor([[1.0, 0.2, 0.1], [0.8, 1.0, 0.0], [0.1, 0.0, 1.0]])
    table = add_candidates(in_batch_table(make_rows(2), make_rows(2, seed=1)), make_rows(1, first=2))
    edited = PropensityWeights(clip=1e6)(table, make_batch(companions={"propensity": Measured(sem, sur)}))
    alike, unlike = 1 + math.exp(4 - 8 * 0.1), 1 + math.exp(4 - 8 * 0.9)
    expected = torch.tensor(
        [[0, math.log(2 * alike / (alike + unlike)), math.log(2 * unlike / (alike + unlike))], [-math.inf, 0, 0]],
        dtype=torch.float64,
    )
    torch.testing.assert_close(edited.log_weight, expected, rtol=1e-5, atol=1e-6)


def test_follows_a_permutation_of_the_examples(make_rows, make_batch):
    anchor, positive = make_rows(5), make_rows(5, seed=1)
    order = torch.tensor([3, 1, 0, 4, 2])
    batch = make_batch(companions={"propensity": measured(5)})
    one = PropensityWeights()(in_batch_table(anchor, positive), batch)
    other = PropensityWeights()(in_batch_table(permuted(anchor, order), permuted(positive, order)), batch)
    torch.testing.assert_close(one.log_weight[order][:, order], other.log_weight)


def test_gradcheck(make_rows, make_batch):
    anchor, positive = make_rows(4), make_rows(4, seed=1)
    batch = make_batch(companions={"propensity": measured(4)})

    def loss(a: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        table = in_batch_table(
            Rows(embedding=a, ids=anchor.ids, text=anchor.text), Rows(embedding=p, ids=positive.ids, text=positive.text)
        )
        return contrast(PropensityWeights()(table, batch))

    assert torch.autograd.gradcheck(loss, [anchor.embedding.requires_grad_(), positive.embedding.requires_grad_()])


def test_edges(make_table, make_batch):
    batch = make_batch(companions={"propensity": measured(3, threshold=-0.5)})  # every pair is too alike
    assert PropensityWeights()(make_table(1), batch).log_weight.tolist() == [[0.0]]
    sim = make_table(3).sim.requires_grad_()
    edited = PropensityWeights()(replace(make_table(3), sim=sim), batch)
    assert int(edited.log_weight.isinf().sum()) == 6
    loss = contrast(edited)
    loss.backward()
    assert loss == 0
    assert torch.isfinite(sim.grad).all()
    half = PropensityWeights()(make_table(3, dtype=torch.bfloat16), make_batch(companions={"propensity": measured(3)}))
    assert half.log_weight.dtype == torch.float32
    assert not half.log_weight.isnan().any()


@pytest.mark.parametrize("clip", [0.5, math.inf, math.nan])
def test_refuses_values_out_of_range(clip):
    with pytest.raises(ValueError, match="clip"):
        PropensityWeights(clip=clip)


def test_says_which_companion_is_missing(make_table, make_batch):
    with pytest.raises(RecipeError, match='needs the companion "propensity"'):
        PropensityWeights()(make_table(2), make_batch())


def test_is_a_part():
    assert PARTS["propensity"] is PropensityWeights
    assert PropensityWeights().needs == {"companion:propensity"}
