"""A recipe's run that is given pooled rows in place of a backbone's, and gradients compared with finite differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import rederived
import torch
from rederived import Rows

from sentemb.training.objective import EncodedViews, Losses
from sentemb.training.run import Run
from sentemb.types import Encoded

DIRECTIONS = 6


@dataclass
class Driven:
    """A recipe's run whose backbone is left out: pooled rows come from the test."""

    run: Run

    def inputs(self, rows: Sequence[int], step: int = 0) -> Any:
        return self.run.make_input(np.array(rows), step)

    def mlp(self, pooled: Rows) -> Rows:
        head = self.run.plan.encoder.module.heads[-1].state_dict()
        weight, bias = (value.double().numpy() for _, value in sorted(head.items(), reverse=True))
        return rederived.mlp(pooled, weight, bias)

    def finish(
        self, inputs: Any, pooled: Rows, maps: Mapping[str, Sequence[Rows]] | None = None
    ) -> tuple[Losses, list[Rows]]:
        """The losses, and the gradients at the pooled rows and the attention maps."""
        leaves = [torch.from_numpy(pooled.swapaxes(0, 1).copy()).requires_grad_()]  # (n, views, d)
        separate = {}
        for name, layers in (maps or {}).items():
            tensors = [torch.from_numpy(layer).requires_grad_() for layer in layers]
            leaves += tensors
            place = inputs.use.embedded.index(name)
            separate[name] = Encoded(pooled=leaves[0][:, place], attentions=tuple(tensors))
        losses = self.run.plan.objective.finish(EncodedViews(pooled=leaves[0], separate=separate), inputs)
        gradients = torch.autograd.grad(losses.total, leaves, allow_unused=True)
        filled = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves, strict=True)]
        return losses, [filled[0].numpy().swapaxes(0, 1), *(g.numpy() for g in filled[1:])]

    def after_step(self, losses: Losses) -> None:
        self.run.plan.objective.after_step(losses.batch, self.run.step.services)

    def state(self, companion: str) -> dict[str, Rows]:
        state = self.run.plan.objective.companions[companion].state_dict()
        return {key: value.numpy().copy() for key, value in state.items()}


def random_pooled(views: int, n: int, seed: int, common: float = 0.0, spread: float = 0.7) -> Rows:
    """(views, n, 32); an example's views differ by ``spread``, and ``common`` makes all rows alike."""
    draw = np.random.default_rng(seed)
    return common + draw.normal(size=(1, n, 32)) + spread * draw.normal(size=(views, n, 32))


def assert_slopes(
    loss: Callable[[Rows], float], at: Rows, gradient: Rows, *, rel: float = 1e-7, absolute: float = 1e-9
) -> None:
    """The gradient agrees with finite differences of the loss along random directions."""
    draw = np.random.default_rng(0)
    for _ in range(DIRECTIONS):
        direction = draw.normal(size=at.shape)
        direction /= np.linalg.norm(direction)
        expected = rederived.slope(loss, at, direction)
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=rel, abs=absolute)
