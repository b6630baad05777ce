"""A slowly following copy of the encoder, and the queue of what it has encoded."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Lt
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sentemb.companions.companion import Companion, are_twins, find_companion
from sentemb.companions.reference import Reference
from sentemb.distributed import devices, gather_detached, split_sizes
from sentemb.encoder.heads import Head
from sentemb.errors import RecipeError
from sentemb.maths.similarity import at_least_float32, pairwise
from sentemb.parts import Count
from sentemb.types import UNKNOWN, Batch, Build, PairScores, SentenceModule, Services, Tokens


class Momentum(Companion):
    """Exponential moving average of the encoder, and a first-in-first-out queue of its embeddings:

        θ_k ← m θ_k + (1 - m) θ,    queue ← queue ∪ f(texts; θ_k)  without its oldest rows

    After every step the average is updated first and then encodes the step's texts, without dropout. The queue
    holds embeddings behind the train-time heads, example ids and content hashes, of the whole batch over all
    devices, so it is equal on every device. It starts empty. ``reference``, its sibling, never moves.

    With ``keys`` the average also encodes the anchors and positives of a step before its loss. Parts read these keys as
    candidates (``queue``) or as a teacher's opinion (``distill``, ``soften``), and they go into the queue as they are.

    Args:
        momentum: m; 0.995 in ESimCSE, section 4.2.
        queue_size: rows kept; 160 = 2.5 batches of 64 is ESimCSE's best (table 7).
        of: the view whose texts fill the queue.
        keys: encode every step's anchors and positives for the parts that read them; costs one forward pass more of
            each, one of both where they are equal.
    Returns:
        ``observe``: with ``keys``, embeddings (b, width) of the anchors and positives by the average.
    Source: He et al. 2020, CVPR, "Momentum contrast" (MoCo), section 3.2; Wu et al. 2022, COLING, "ESimCSE",
        section 3.2 (dropout of the momentum encoder turned off).
    Deviations: without ``keys`` none from ESimCSE, whose positives come from the trained encoder. With ``keys`` the
        queue holds MoCo's own keys, those of the average before its update, but without dropout as in ESimCSE.
    """

    needs = frozenset({"tokens"})
    model_bytes = 4

    def __init__(
        self, *, momentum: Annotated[float, Ge(0), Lt(1)] = 0.995, queue_size: Count = 160,
        of: Literal["anchor", "positive"] = "anchor", keys: bool = False,
    ) -> None:
        super().__init__()
        self.momentum, self.queue_size, self.of, self.keys = momentum, queue_size, of, keys
        self.encoder: nn.Module
        self.embedding: Float[Tensor, "size d"]
        self.ids: Int[Tensor, " size"]
        self.text: Int[Tensor, " size"]
        self.seen: Int[Tensor, ""]

    def bind(self, build: Build) -> None:
        encoder = copy.deepcopy(build.encoder)
        assert isinstance(encoder, nn.Module)
        if any(isinstance(module, Head) and module.per_view for module in encoder.modules()):
            raise RecipeError(
                f"companions: {self.name} encodes single views of a device, for which heads that whiten a batch "
                "(group_whitening) have no meaning; leave out one of them"
            )
        self.encoder = encoder.eval().requires_grad_(False)
        unknown = torch.full((self.queue_size,), UNKNOWN, dtype=torch.int64)
        self.register_buffer("embedding", torch.zeros(self.queue_size, build.width))
        self.register_buffer("ids", unknown)
        self.register_buffer("text", unknown.clone())
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # rows ever put in

    def train(self, mode: bool = True) -> Momentum:
        return super().train(False)

    @property
    def is_filled(self) -> Bool[Tensor, " size"]:
        """Which slots hold an embedding."""
        return torch.arange(self.queue_size, device=self.seen.device) < self.seen

    @torch.no_grad()
    def observe(self, tokens: Mapping[str, Tokens], views: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Keys of this device's anchors and positives, where ``keys`` asks for them; equal inputs are encoded once."""
        if not self.keys:
            return {}
        first = self._encode(tokens["anchor"])
        return {"anchor": first, "positive": first if are_twins(tokens) else self._encode(tokens["positive"])}

    def keys_of(self, view: str, outputs: Mapping[str, Tensor]) -> Float[Tensor, "n d"]:
        """The average's embeddings of the step's anchors or positives.

        Raises:
            RecipeError: the companion was not told to make them.
        """
        if not self.keys:
            raise RecipeError(f"companion {self.name}: makes no keys of the batch; set keys = true")
        return outputs[f"{self.name}/{view}"]

    @torch.no_grad()
    def similarity(self, table: PairScores, batch: Batch) -> tuple[Float[Tensor, "n m"], Bool[Tensor, "n m"]]:
        """The average's cosine of every anchor with every candidate, and where it is known.

        An anchor is known by the key of its text in the batch; a candidate by the key of its text among the batch's
        positives, or else by the newest one in the queue.
        """
        anchors, positives = (self.keys_of(view, batch.outputs) for view in ("anchor", "positive"))
        size = self.queue_size
        oldest_first = (self.seen + torch.arange(size, device=self.seen.device)) % size
        texts = torch.cat([self.text[oldest_first], batch.views["positive"].text])
        row, row_known = _newest(batch.views["anchor"].text, table.anchor.text)
        column, column_known = _newest(texts, table.candidate.text)
        queued = self.embedding[oldest_first[column.clamp(max=size - 1)]].to(positives.dtype)
        keys = torch.where(column[:, None] < size, queued, positives[(column - size).clamp(min=0)])
        return pairwise(anchors[row], keys, "cosine"), row_known[:, None] & column_known[None, :]

    @torch.no_grad()
    def after_step(self, batch: Batch, encoder: SentenceModule, services: Services) -> None:
        """Follow the encoder, then put the step's texts into the queue."""
        average = self.encoder
        assert isinstance(encoder, nn.Module)
        for mine, theirs in zip(average.parameters(), encoder.parameters(), strict=True):
            if theirs.requires_grad:  # what stands still is its own average
                mine.lerp_(theirs.detach().to(mine.dtype), 1 - self.momentum)
        for own, current in zip(average.buffers(), encoder.buffers(), strict=True):
            own.copy_(current)  # counters and running statistics are averages already
        if self.keys:
            keys = self.keys_of(self.of, batch.outputs)
        else:
            sizes = split_sizes(len(batch.views[self.of]), devices())
            keys = gather_detached(self._encode(batch.tokens[self.of]), sizes)
        rows = batch.views[self.of]
        self._put(keys, rows.ids, rows.text)

    def _encode(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        return at_least_float32(self.encoder.project(self.encoder(tokens).pooled))  # type: ignore[operator]

    def _put(self, keys: Float[Tensor, "n d"], ids: Int[Tensor, " n"], text: Int[Tensor, " n"]) -> None:
        n = len(keys)
        first = max(n - self.queue_size, 0)  # of a batch longer than the queue, only the end stays
        # the slot is arithmetic on a device tensor: no synchronisation
        slot = (self.seen + torch.arange(first, n, device=self.seen.device)) % self.queue_size
        self.embedding[slot] = keys[first:].to(self.embedding.dtype)
        self.ids[slot] = ids[first:]
        self.text[slot] = text[first:]
        self.seen += n


def _newest(known: Int[Tensor, " k"], texts: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """The last place of every text among ``known``, and whether it is there; an unknown text is nowhere."""
    ascending, order = known.sort(stable=True)
    position = (torch.searchsorted(ascending, texts, right=True) - 1).clamp(min=0)
    return order[position], (ascending[position] == texts) & (texts != UNKNOWN)


def teacher_similarity(
    table: PairScores, batch: Batch, companion: str, part: str
) -> tuple[Float[Tensor, "n m"], Bool[Tensor, "n m"]]:
    """The cosines of the companion of that name, a ``reference`` or a ``momentum``, and where they are known."""
    teacher = batch.companions.get(companion)
    if isinstance(teacher, Momentum):
        return teacher.similarity(table, batch)
    reference = find_companion(batch.companions, companion, Reference, part)
    return reference.similarity(table.anchor, table.candidate, batch.outputs)


def faults_of_keys(recipe: Mapping[str, Any], companion: str) -> list[str]:
    """That a part reads keys of a momentum encoder which makes none."""
    named = (entry for entry in recipe.get("companions", ()) if entry.name == companion)
    if not any(isinstance(entry, Momentum) and not entry.keys for entry in named):
        return []
    return [f'reads the average\'s keys of the batch; give the companion "{companion}" keys = true']
