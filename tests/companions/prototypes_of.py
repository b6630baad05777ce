"""Prototypes that are ready for use, for the tests of the parts that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tiny_module import TinyModule, build_of, column_of, examples_of, services_of

from sentemb.companions import Prototypes


def prototypes_of(
    *, labels: Sequence[int] | None = None, examples: int = 8, said: list[str] | None = None, seed: int = 0,
    **settings: Any,
) -> Prototypes:
    """The companion, bound to a module of width 4 and prepared on one-token texts with these classes."""
    module = TinyModule(seed=seed)
    companion = Prototypes(**settings)
    companion.bind(build_of(module))
    count = examples if labels is None else len(labels)
    data = examples_of(anchor=column_of([[5 + row] for row in range(count)]))
    if labels is not None:
        data = replace(data, label=np.array(labels, dtype=np.int64))
    companion.prepare(data, services_of([], said))
    return companion


def with_centres(companion: Prototypes, centres: torch.Tensor) -> Prototypes:
    """The companion with these centres (c, k, d)."""
    if companion.update == "gradient":
        companion.centres = torch.nn.Parameter(centres)
    else:
        companion.centres = centres
    return companion
