"""What a training run is made of, what its companions may call, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sentemb.distributed import all_objects, broadcast_object, devices, rank, say
from sentemb.encoder import Encoder
from sentemb.errors import RecipeError
from sentemb.maths.neighbours import nearest
from sentemb.training.callbacks import Callback
from sentemb.training.device import UnshardedEncoder
from sentemb.training.objective import Objective
from sentemb.training.settings import TrainSettings
from sentemb.types import DevScores, Examples, SentenceModule, Services, TokenColumn
from sentemb.views.view import ViewCopy, ViewMaker

if TYPE_CHECKING:
    from sentemb.pages import Chart
    from sentemb.training.run_pages import Curve

# rows that a device embeds before the devices exchange what they have: a slow device keeps no other one waiting long
_ROWS_AT_ONCE = 8192
_BATCH_TOKENS = 4096


class EncoderCache:
    """Encoders by the module that parts hold: the trained one and the frozen ones that companions load."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._loaded: dict[str, Encoder] = {}

    def load(self, source: str, *, by_text: bool = False) -> SentenceModule:
        """A frozen encoder whose tokenizer is the trained one's, or any that reads texts.

        Raises:
            RecipeError: the tokenizers differ, so token ids cannot be shared.
        """
        if source not in self._loaded:
            self._loaded[source] = Encoder.load(source, weights="fp32")
            self._loaded[source].module.requires_grad_(False).eval()
        loaded = self._loaded[source]
        if not by_text and loaded.tokeniser.fingerprint() != self.encoder.tokeniser.fingerprint():
            raise RecipeError(
                f"{source}: its tokenizer differs from the trained encoder's, but both read the same token ids; choose "
                "a checkpoint of the same family, or, in a reference, precompute = true: then it reads the texts"
            )
        module: SentenceModule = loaded.module
        return module

    def encoder_of(self, module: SentenceModule) -> Encoder:
        """The encoder around a module that ``load`` gave, or around the trained one."""
        return next(encoder for encoder in (self.encoder, *self._loaded.values()) if encoder.module is module)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a ``Run`` needs: built, with nothing left to decide. ``recipe.build`` makes it from a recipe."""

    encoder: Encoder
    encoders: EncoderCache
    objective: Objective
    dataset: Examples
    maker: ViewMaker
    copies: Sequence[ViewCopy]
    settings: TrainSettings
    run_dir: Path
    recipe: Mapping[str, Any]  # the resolved recipe, for trackers
    recipe_hash: str
    dev: Callable[[Encoder], DevScores] | None = None
    callbacks: Sequence[Callback] = ()
    files: Mapping[str, str] = field(default_factory=dict)  # name -> text, written into the run folder at the start


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Where a finished run left its model, and how it went."""

    model_dir: Path
    run_dir: Path
    steps: int
    seconds: float  # of all the legs of a run that was resumed
    examples_per_second: float
    best_score: float | None
    best_step: int | None
    last_losses: Mapping[str, float]
    skipped_steps: int = 0

    def plot(self, curve: Curve = "loss") -> Chart:
        """The run's ``loss`` by term, ``dev`` scores, ``learning_rate`` or ``gradient_norm``; a notebook shows it."""
        from sentemb.training.run_pages import RunRecord, curve_chart

        return curve_chart(RunRecord.read(self.run_dir), curve)

    def _repr_html_(self) -> str:
        from sentemb.training.run_pages import result_in_cell

        return result_in_cell(self)


def build_services(encoders: EncoderCache, trained: UnshardedEncoder) -> Services:
    """The services of one run."""
    def embed(module: SentenceModule, rows: TokenColumn | Sequence[str]) -> NDArray[np.float32]:
        encoder = encoders.encoder_of(module)
        if encoder is trained.encoder and trained.is_sharded:
            return _embed(trained.read(), rows, on=1)
        return _embed(encoder, rows, on=devices())

    def same_everywhere(vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        # every device searches, so that none waits; the first one's answer counts, so that no tie is broken differently
        neighbours: tuple[NDArray[np.int64], NDArray[np.float32]] = broadcast_object(nearest(vectors, k))
        return neighbours

    return Services(embed=embed, nearest=same_everywhere, decode=encoders.encoder.tokeniser.decode, say=say)


def _embed(encoder: Encoder, rows: TokenColumn | Sequence[str], *, on: int) -> NDArray[np.float32]:
    """Unit embeddings (rows, d), equal on every device; the first ``on`` devices share the work.

    Always in one format (float32, unless the weights are kept in a smaller one) and in the same blocks of rows, so that
    neither the clock nor the number of devices changes a bit.
    """
    precision = "fp32" if encoder.weights == "fp32" else "bf16"
    starts = range(0, len(rows), _ROWS_AT_ONCE)
    vectors: list[NDArray[np.float32]] = []
    was_training = encoder.module.training
    encoder.module.eval()
    try:
        for first in range(0, len(starts), on):
            own: NDArray[np.float32] | None = None
            if rank() < on and first + rank() < len(starts):
                with torch.no_grad():
                    block = _block(rows, starts[first + rank()])
                    own = encoder.encode(block, normalise=True, precision=precision, batch_tokens=_BATCH_TOKENS)
            vectors += [block for block in all_objects(own) if block is not None]
    finally:
        encoder.module.train(was_training)
    return np.concatenate(vectors)


def _block(rows: TokenColumn | Sequence[str], start: int) -> TokenColumn | Sequence[str]:
    end = min(start + _ROWS_AT_ONCE, len(rows))
    return rows.take(np.arange(start, end)) if isinstance(rows, TokenColumn) else rows[start:end]
