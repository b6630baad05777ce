"""What every companion keeps to, and how a part gets the one that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentemb.distributed import any_device
from sentemb.errors import RecipeError
from sentemb.parts import room
from sentemb.types import Batch, Component, Names, SentenceModule, Services, Tokens

C = TypeVar("C", bound="Companion")


class Companion(Component, room="companions"):
    """Something stateful beside the encoder. State changes only in ``prepare`` and ``after_step``.

    What must survive a restart is in parameters and buffers; ``checkpoint_state`` may leave out what ``bind`` or
    ``prepare`` rebuild exactly. Two of one kind have different names, ``Reference(…).marked(name="teacher")``; parts
    that use one take its name as a setting. One with ``only = ["NAME", …]`` neither observes nor changes in batches of
    other sources of a mixture; ``prepare`` sees the examples of all. With ``rolled = true`` every example is given what
    was observed of the example before it in the batch: a control, which keeps the cost and breaks the idea.
    """

    marks = MappingProxyType({"name": str, "only": Names, "rolled": bool})
    model_bytes = 0  # of the models that it holds, for each parameter of the backbone

    @property
    def rolled(self) -> bool:
        """Whether every example is given the outputs of another one."""
        return bool(self.given_marks.get("rolled", False))

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Paths and ids of what it loads, for ``sentemb check``; the default says the setting ``model``."""
        model = self.settings.get("model")
        return (model,) if isinstance(model, str) else ()

    def observe(self, tokens: Mapping[str, Tokens], views: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Per-row outputs (b, …) for this device's rows, without gradient; ``views`` holds example ids (b,).

        The step gathers them over devices into ``Batch.outputs["<companion>/<key>"]``.
        """
        return {}

    def after_step(self, batch: Batch, encoder: SentenceModule, services: Services) -> None:
        """Change the state, after the optimizer's step; ``batch`` is detached. The default does nothing.

        ``services.embed(encoder, column)`` embeds with the trained encoder as it is now. Every device calls it at the
        same step. Views that read this companion are then made without a lead over training.
        """

    def groups(self) -> NDArray[np.int64] | None:
        """The group of every example, -1 for none, once prepared: for batches that need it. Most have no groups."""
        return None

    def checkpoint_state(self) -> dict[str, Tensor]:
        return dict(self.state_dict())

    def load_checkpoint_state(self, state: Mapping[str, Tensor]) -> None:
        self.load_state_dict(dict(state))


def find_companion(companions: Mapping[str, Component], name: str, kind: type[C], part: str) -> C:
    """The companion of that name; RecipeError where the recipe has none, or one of another kind."""
    companion = companions.get(name)
    if isinstance(companion, kind):
        return companion
    there = "there is none" if companion is None else f"the one of that name is a {type(companion).__name__}"
    raise RecipeError(
        f'{part}: needs the companion "{name}" ({kind.__name__}), but {there}; companions of the recipe: '
        f'{", ".join(sorted(companions)) or "none"}. Add [[companions]] use = "{room("companions").name_of(kind)}"'
    )


def are_twins(tokens: Mapping[str, Tokens]) -> bool:
    """Whether the step's anchors and positives are the same inputs.

    All devices answer alike: an encoder whose weights are sharded must be called equally often on each.
    """
    return not any_device(not torch.equal(tokens["anchor"].input_ids, tokens["positive"].input_ids))
