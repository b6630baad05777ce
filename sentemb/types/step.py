"""A training step: rows, score table, batch, and what parts are given to work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from sentemb.parts import Part, room
from sentemb.types.texts import (
    Examples,
    Similarity,
    TokenColumn,
    Tokens,
    Vectors,
    Vocabulary,
)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What the backbone and the pooling make of ``Tokens``; no row sees another."""

    pooled: Float[Tensor, "b d"]  # before any head
    hidden: Float[Tensor, "b t d"] | None = None  # last hidden states, when asked for
    inner: Float[Tensor, "b d"] | None = None  # pooled states of a lower layer, where a part has asked for it
    attentions: tuple[Float[Tensor, "b h t t"], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Embeddings with what is known of the texts behind them."""

    embedding: Float[Tensor, "n d"]  # after the heads; not normalised
    ids: Int[Tensor, " n"]  # example ids; -1 where a row is no example (noise, centroid)
    text: Int[Tensor, " n"]  # content hashes; -1 likewise
    label: Int[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return int(self.embedding.shape[0])


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """The score table. Columns 0…n-1 are the in-batch candidates, row i's own positive at column i.

    Attributes:
        share: how an anchor's attraction is divided over its positives, 0 elsewhere; None: equally.
        scale: every anchor's temperature, relative to that of a term; None: 1.
        grade: how relevant every candidate is to the anchor, 0 where nothing is known of the pair; None: not graded.
    """

    sim: Float[Tensor, "n m"]  # cosine or dot similarity
    positive: Bool[Tensor, "n m"]
    log_weight: Float[Tensor, "n m"]  # added to the logit sim / (temperature · scale); -inf removes the pair
    anchor: Rows
    candidate: Rows
    similarity: Similarity = "cosine"
    share: Float[Tensor, "n m"] | None = None
    scale: Float[Tensor, " n"] | None = None
    grade: Float[Tensor, "n m"] | None = None


@dataclass(frozen=True, kw_only=True)
class Share:
    """A device's part of a loss that is Σ total / Σ count over devices."""

    total: Float[Tensor, ""]
    count: Float[Tensor, ""]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Everything an edit, a term or a companion may look at during one step.

    ``views``, ``pooled`` and ``outputs`` cover the whole batch over all devices (equal on every device, gradients reach
    every device's rows); ``tokens`` and ``encoded`` cover this device's rows, which are ``views[…][local]``.
    """

    views: Mapping[str, Rows]
    local: slice
    tokens: Mapping[str, Tokens]
    encoded: Mapping[str, Encoded]
    pooled: Mapping[str, Float[Tensor, "n p"]] = field(default_factory=dict)  # by view, before the heads
    inner: Mapping[str, Float[Tensor, "n p"]] = field(default_factory=dict)  # likewise, of a lower layer
    outputs: Mapping[str, Tensor] = field(default_factory=dict)  # "companion/name" → (n, …), no gradient
    score: Float[Tensor, " n"] | None = None
    margin: Float[Tensor, " n"] | None = None
    weight: Float[Tensor, " n"] | None = None  # how much every example counts
    levels: Int[Tensor, "n l"] | None = None  # the anchors' coarser classes, finest first
    negative_scores: Mapping[str, Float[Tensor, " n"]] = field(default_factory=dict)  # view -> as score
    grades: Mapping[str, Float[Tensor, " n"]] = field(default_factory=dict)  # view -> its relevance to the anchor
    companions: Mapping[str, Component] = field(default_factory=dict)
    generator: torch.Generator | None = None  # CPU generator, the same state on every device
    step: int = 0
    source: str = ""  # of a mixture that all its examples come from


class SentenceModule(Protocol):
    """The trainable module inside an ``Encoder``, as parts see it (an ``nn.Module``)."""

    width: int  # of project()'s output
    exported_width: int  # of project()'s output without the heads that serve training only
    pooled_width: int  # of project()'s input

    def __call__(self, tokens: Tokens, *, hidden: bool = False, attentions: bool = False) -> Encoded: ...

    def together(self, batches: Sequence[Tokens]) -> list[Encoded]: ...  # as calling it with every batch

    def also_pool(self, layer: int, part: str) -> None: ...  # give ``Encoded.inner`` from now on, of this layer

    def project(
        self, pooled: Tensor, *, exported: bool = False, views: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """Heads. ``exported`` leaves out the heads that serve training only. May couple rows (BatchNorm).

        The rows are those of ``views`` views, one view after the other; what heads draw comes from the generator.
        """


class LoadEncoder(Protocol):
    """Loads a second, frozen encoder. It reads the trained one's token ids, so their tokenizers must be the same;
    unless ``by_text``: then it is given texts only (``Services.embed``)."""

    def __call__(self, source: str, *, by_text: bool = False) -> SentenceModule: ...


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a part of a training step takes beside the encoder."""

    parameters: int = 0
    activation_bytes: float = 0.0  # that backward needs


@dataclass(frozen=True, kw_only=True)
class Build:
    """What a part may use when its modules are made, after the recipe was validated."""

    backbone: str  # path or id that the encoder was loaded from
    width: int  # of the embeddings that terms see
    vocabulary: Vocabulary
    encoder: SentenceModule
    load_encoder: LoadEncoder
    companions: Mapping[str, Component] = field(default_factory=dict)  # by name, bound; none while they are bound
    seed: int = 42
    trust_remote_code: bool = False
    folder_of: Callable[[str], Path] = Path  # the local folder of a path, hub id or package:… source
    tokenise: Callable[[Sequence[str]], TokenColumn] | None = None  # as the encoder does


@dataclass(frozen=True, kw_only=True)
class Services:
    """What ``Companion.prepare`` and ``after_step`` may call; each gives every device the same."""

    embed: Callable[[SentenceModule, TokenColumn | Sequence[str]], Vectors]  # (rows, d), unit length
    # (vectors, k) -> each row's k nearest others by inner product, (rows, k), and their similarities
    nearest: Callable[[Vectors, int], tuple[NDArray[np.int64], NDArray[np.float32]]]
    decode: Callable[[TokenColumn], list[str]]  # token ids back to text, for surface statistics
    say: Callable[[str], None]  # a line for the user


@dataclass(frozen=True, kw_only=True)
class ViewContext:
    """What a view maker may use beside the examples."""

    generator: np.random.Generator  # same on every device: views are made for the whole batch, then sliced
    dataset: Examples  # all examples, for makers that fetch other rows
    vocabulary: Vocabulary
    companions: Mapping[str, Component]
    source: str = ""  # of a mixture that the batch comes from


class Component(Part, nn.Module):
    """Base of terms, edits and companions, the parts of a training step.

    ``needs`` names what a part reads; ``sentemb check`` verifies it before anything is loaded:
    ``labels`` ``levels`` ``scores`` ``negative_scores`` ``margins`` ``weights`` ``grades`` ``texts`` ``tokens``
    ``pooled`` ``inner`` ``hidden`` ``attentions`` ``cosine`` (as similarity) ``view:NAME`` ``companion:NAME``.
    """

    encodes: frozenset[str] = frozenset()  # views beside anchor, positive and negatives to encode (``anchor.masked``)

    @property
    def name(self) -> str:
        """What messages, metrics and checkpoints call this part."""
        return str(self.given_marks.get("name") or room(self.room).name_of(type(self)))

    def bind(self, build: Build) -> None:
        """Make the modules and buffers that depend on the encoder. The default makes none."""

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Once before training, on the whole tokenised data set; deterministic. The default does nothing."""

    def sources_of(self, dataset: Examples) -> Mapping[str, Examples]:
        """What it sees of a data set: the sources of a mixture that it is for, each with the words that name it in
        messages; all rows of any other data set, with none."""
        mine = {f'source "{name}", ': part for name, part in dataset.sources.items() if self.is_for(name)}
        return mine if dataset.sources else {"": dataset}

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the files that it reads beside the data, for ``sentemb check``."""
        return ()

    def footprint(self, *, hidden: int, vocabulary: int, texts: int, tokens: int) -> Footprint:
        """Memory of large layers of its own, for ``sentemb check``; ``texts`` are a batch's, of one view."""
        return Footprint()

    def notes(self) -> list[str]:
        """What its settings may well spoil: ``sentemb check`` says it, and nothing is stopped."""
        return []

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """What is wrong with it among the other fields of a recipe (by name; those that are wrong are absent)."""
        return []
