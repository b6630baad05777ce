"""How many tokens make a batch: found once per machine and model, on real work, and kept.

Small batches stay in the cache, large ones keep every core busy; which is faster depends on both. So the first
batches of long work are cut by several budgets in turn (they are work that had to be done anyway), and the one with
the most tokens a second is kept in the user's cache folder.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sentemb.files import cache_dir, write_json
from sentemb.machine.rates import processor

CANDIDATES = {"cpu": (4096, 1024, 2048, 8192), "cuda": (65_536, 16_384, 32_768, 131_072)}  # the first if in doubt
_OTHERS = (16_384,)
_ROUNDS = 5
_CLEARLY = 1.03  # how much faster than the first another must be
_FULL = 0.8  # of its budget: a batch of fewer tokens tells nothing

_known: dict[tuple[object, ...], Budget] = {}


class Budget:
    """The tokens of the next batch, until a few rounds of all candidates decide.

    Args:
        candidates: the first is taken unless another is clearly faster; one alone is taken at once.
        path: where the decision is kept.
    """

    def __init__(self, candidates: tuple[int, ...], path: Path | None = None, rounds: int = _ROUNDS) -> None:
        self.path = path
        self._candidates, self._rounds = candidates, rounds
        self._rates: list[dict[int, float]] = [{}]  # tokens a second by candidate, round by round
        self._decided = candidates[0] if len(candidates) == 1 else _read(path, candidates)

    @property
    def is_decided(self) -> bool:
        """Whether no more trials are needed."""
        return self._decided is not None

    def __call__(self) -> int:
        """Tokens of the next batch."""
        if self._decided is not None:
            return self._decided
        # rows get shorter from batch to batch, so every other round goes the other way
        order = self._candidates if len(self._rates) % 2 else self._candidates[::-1]
        return next(budget for budget in order if budget not in self._rates[-1])

    def told(self, tokens: int, seconds: float) -> None:
        """What the batch that ``__call__`` asked for took."""
        if self._decided is not None or tokens < _FULL * self():
            return
        self._rates[-1][self()] = tokens / max(seconds, 1e-9)
        if len(self._rates[-1]) < len(self._candidates):
            return
        if len(self._rates) < self._rounds:
            self._rates.append({})
            return
        self._decided = self._best()
        if self.path is not None:
            with suppress(OSError):  # a cache folder that cannot be written is no fault
                write_json(self.path, {"tokens": self._decided})

    @contextmanager
    def timing(self, tokens: int, device: torch.device) -> Iterator[None]:
        """Around the computing of a batch; waits for a GPU only while nothing is decided."""
        if self._decided is not None:
            yield
            return
        _wait(device)
        start = time.perf_counter()
        yield
        _wait(device)
        self.told(tokens, time.perf_counter() - start)

    def _best(self) -> int:
        # against the mean of their round, because the machine and the rows change from round to round
        relative = {
            budget: statistics.median(found[budget] / statistics.fmean(found.values()) for found in self._rates)
            for budget in self._candidates
        }
        best = max(self._candidates, key=relative.__getitem__)
        return best if relative[best] > _CLEARLY * relative[self._candidates[0]] else self._candidates[0]


def budget_for(backbone: nn.Module, dtype: torch.dtype, device: torch.device, form: str) -> Budget:
    """The budget of backbones of this size on this machine.

    Args:
        form: how they run (``lean``, ``plain`` …).
    """
    facts = _facts(backbone, dtype, device, form)
    if facts not in _known:  # every query comes by here; names and files are for the first alone
        key = sha256(json.dumps(facts).encode()).hexdigest()[:32]
        _known[facts] = Budget(CANDIDATES.get(device.type, _OTHERS), cache_dir() / "machine" / f"budget-{key}.json")
    return _known[facts]


def _facts(backbone: nn.Module, dtype: torch.dtype, device: torch.device, form: str) -> tuple[object, ...]:
    """What decides which budget is fastest."""
    config: Any = backbone.config
    names = ("model_type", "hidden_size", "dim", "num_hidden_layers", "n_layers", "intermediate_size", "hidden_dim")
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return (machine, torch.__version__, torch.get_num_threads(), str(dtype), form,
            *(str(getattr(config, name, None)) for name in names))


def _read(path: Path | None, candidates: tuple[int, ...]) -> int | None:
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["tokens"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if found in candidates else None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
