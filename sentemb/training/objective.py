"""The objective: encoder and heads, score table, edits, terms and companions as one module.

    inputs ─► pooled rows (this device) ┆ gather ─► heads ─► table ─► edits ─► terms ─► Σ weight · loss

Terms that leave out the same edits (``without``) share one edited table.

The dotted line is the cache boundary. Left of it no row sees another, so the rows may be encoded in any chunks
(``encode``). Right of it everything sees the whole batch of all devices (``finish``): heads stand there, so a BatchNorm
sees exactly the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.companions.companion import Companion
from sentemb.distributed import devices, gather_detached, gather_rows, sum_over_devices
from sentemb.edits.edit import Edit
from sentemb.encoder.backbone import dropout_at
from sentemb.errors import NumericError, RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.table import in_batch_table, narrow_batch, narrow_table
from sentemb.terms.term import Term
from sentemb.training.active import ActiveParts, WeightedTerm
from sentemb.training.inputs import LengthGroup, StepInput
from sentemb.training.pooled_rows import in_order, in_views
from sentemb.types import Batch, Component, Encoded, PairScores, Rows, SentenceModule, Services, Share, Similarity

_PRIME = 2_305_843_009_213_693_951  # 2^61 - 1: seeds of one step's heads and edits lie far apart


@dataclass(frozen=True, kw_only=True)
class EncodedViews:
    """This device's rows left of the cache boundary."""

    pooled: Float[Tensor, "b v d"]  # the v views of ``StepInput.embedded``, a lower layer's rows behind their own
    separate: Mapping[str, Encoded]  # views whose hidden states or attentions a term reads


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The loss of one batch."""

    total: Tensor  # its mean over devices is the whole batch's loss, and so are its gradient's
    parts: Mapping[str, Tensor]  # of the whole batch, by term, unweighted and detached
    batch: Batch  # detached


class Objective(nn.Module):
    """Everything that is trained, and everything that decides the loss: ``objective(inputs)`` is ``Losses``."""

    def __init__(
        self,
        encoder: SentenceModule,
        *,
        terms: Sequence[WeightedTerm],
        edits: Sequence[tuple[str, Edit]] = (),
        companions: Mapping[str, Companion] | None = None,
        similarity: Similarity = "cosine",
        nested: Sequence[int] = (),
    ) -> None:
        """``nested`` lists widths below the embeddings' own whose leading dimensions are trained as embeddings too.

        Raises:
            RecipeError: a nested width that is not below the embeddings' own.
        """
        super().__init__()
        self.encoder: SentenceModule = encoder
        self.similarity: Similarity = similarity
        self.edits = nn.ModuleList(edit for _, edit in edits)
        self.edit_names = tuple(name for name, _ in edits)
        self.terms = nn.ModuleList(entry.term for entry in terms)
        self.term_names = tuple(entry.name for entry in terms)
        self.weights = tuple(entry.weight for entry in terms)
        self.companions = nn.ModuleDict(dict(companions or {}))
        self._has_inner = any("inner" in part.needs for part in self.parts)
        self.nested = tuple(sorted(set(nested)))
        if self.nested and not 1 <= self.nested[0] <= self.nested[-1] < encoder.width:
            raise RecipeError(
                f"train.nested_dims = {list(nested)}: each must be at least 1 and below the embeddings' "
                f"{encoder.width} dimensions"
            )

    @property
    def parts(self) -> list[Component]:
        """Companions, edits and terms."""
        return [*self.companions.values(), *self.edits, *self.terms]

    @property
    def named_companions(self) -> dict[str, Companion]:
        """The companions by name."""
        return dict(self.companions.items())  # type: ignore[arg-type]

    def active(self, source: str = "") -> ActiveParts:
        """The parts that are for this source of a mixture."""
        terms = (
            WeightedTerm(name=name, term=cast(Term, term), weight=weight)
            for name, term, weight in zip(self.term_names, self.terms, self.weights, strict=True)
        )
        edits = zip(self.edit_names, cast(Iterable[Edit], self.edits), strict=True)
        return ActiveParts(
            companions={name: part for name, part in self.named_companions.items() if part.is_for(source)},
            edits=tuple((i, name, edit) for i, (name, edit) in enumerate(edits) if edit.is_for(source)),
            terms=tuple(entry for entry in terms if entry.term.is_for(source)),
        )

    def forward(self, inputs: StepInput) -> Losses:
        """The loss of a batch."""
        return self.finish(self.encode(inputs), inputs)

    # ---------------------------------------------------------------------------------- left of the line
    def encode(self, inputs: StepInput) -> EncodedViews:
        """Backbone and pooling over this device's rows."""
        reads_attentions = "attentions" in self.active(inputs.source).needs
        pooled = []
        if inputs.use.together:
            rows = []
            for rate, groups in groupby(inputs.groups, lambda group: group.dropout):
                with self._dropout_at(rate):
                    rows += [_rows(encoded) for encoded in self.encoder.together([group.tokens for group in groups])]
            pooled.append(in_views(in_order(rows, inputs.groups), inputs))
        separate = {}
        for name in inputs.use.separate:
            with self._dropout_at(inputs.dropout[name]):
                separate[name] = self.encoder(inputs.tokens[name], hidden=True, attentions=reads_attentions)
        pooled += [_rows(separate[name])[:, None] for name in separate if name in inputs.use.embedded]
        return EncodedViews(pooled=torch.cat(pooled, dim=1), separate=separate)

    def encode_group(self, group: LengthGroup) -> Float[Tensor, "r d"]:
        """Pooled rows of one group of the views that are encoded together."""
        with self._dropout_at(group.dropout):
            return _rows(self.encoder.together([group.tokens])[0])

    def _dropout_at(self, rate: float | None) -> AbstractContextManager[None]:
        assert isinstance(self.encoder, nn.Module)
        return dropout_at(self.encoder, rate)

    # --------------------------------------------------------------------------------- right of the line
    def finish(self, encoded: EncodedViews, inputs: StepInput) -> Losses:
        """Gather over devices, heads, table, edits, terms."""
        plain, batch = self.in_batch(encoded, inputs)
        total: Tensor = plain.sim.new_zeros(())
        parts: dict[str, Tensor] = {}
        tables: dict[frozenset[str], list[tuple[PairScores, Batch]]] = {}
        for entry in self.active(inputs.source).terms:
            term, without = entry.term, frozenset(entry.term.without)
            if without not in tables:
                table = self.edited(plain, batch, inputs.seed, without)
                narrow = [(narrow_table(table, width), narrow_batch(batch, width)) for width in self.nested]
                tables[without] = [(table, batch), *narrow]
            # what reads tokens or pooled rows knows no narrower embeddings
            widths = tables[without][:1] if term.needs & {"tokens", "pooled"} else tables[without]
            values = [_local_and_whole(term(*arguments)) for arguments in widths]
            total = total + entry.weight * sum(local for local, _ in values) / len(values)
            parts[entry.name] = torch.stack([whole for _, whole in values]).mean()
        return Losses(total=total, parts=parts, batch=_detached(batch))

    def table(self, encoded: EncodedViews, inputs: StepInput) -> tuple[PairScores, Batch]:
        """The score table with all edits, and the batch behind it."""
        plain, batch = self.in_batch(encoded, inputs)
        return self.edited(plain, batch, inputs.seed), batch

    def in_batch(self, encoded: EncodedViews, inputs: StepInput) -> tuple[PairScores, Batch]:
        """The score table before any edit, and the batch behind it."""
        names = inputs.use.embedded
        # heads and terms compute in float32 behind a backbone that is kept in bfloat16
        pooled = at_least_float32(gather_rows(encoded.pooled, inputs.sizes))  # (n, v, d)
        inner = None
        if self._has_inner:
            pooled, inner = pooled.chunk(2, dim=-1)
        count = pooled.shape[0]
        flat = pooled.transpose(0, 1).reshape(count * len(names), -1)  # view-major: one BatchNorm over all views
        generator = torch.Generator().manual_seed((inputs.seed - _PRIME) % 2**63)
        rows = self.encoder.project(flat, views=len(names), generator=generator)
        projected = at_least_float32(rows).view(len(names), count, -1)
        views = {
            name: Rows(
                embedding=projected[index], ids=inputs.ids[name], text=inputs.text[name], label=inputs.label
            )
            for index, name in enumerate(names)
        }
        batch = Batch(
            views=views,
            local=inputs.local,
            tokens=inputs.tokens,
            encoded=encoded.separate,
            pooled={name: pooled[:, index] for index, name in enumerate(names)},
            inner={} if inner is None else {name: inner[:, index] for index, name in enumerate(names)},
            outputs=self._observe(inputs),
            score=inputs.score,
            margin=inputs.margin,
            weight=inputs.weight,
            levels=inputs.levels,
            negative_scores=inputs.negative_scores,
            grades=inputs.grades,
            companions=self.active(inputs.source).companions,
            step=inputs.step,
            source=inputs.source,
        )
        return in_batch_table(views["anchor"], views["positive"], self.similarity), batch

    def edited(
        self, table: PairScores, batch: Batch, seed: int, without: frozenset[str] = frozenset()
    ) -> PairScores:
        """The table after the edits whose names are not in ``without``.

        Every edit draws from a generator of its own, so that leaving one out changes no draw of another.
        """
        for position, name, edit in self.active(batch.source).edits:
            if name not in without:
                generator = torch.Generator().manual_seed((seed + position * _PRIME) % 2**63)
                table = edit(table, replace(batch, generator=generator))
        return table

    def _observe(self, inputs: StepInput) -> dict[str, Tensor]:
        """Companions' per-row outputs, of the whole batch."""
        outputs: dict[str, Tensor] = {}
        ids = {name: rows[inputs.local] for name, rows in inputs.ids.items()}
        with torch.no_grad():
            for name, companion in self.active(inputs.source).companions.items():
                for key, rows in companion.observe(inputs.tokens, ids).items():
                    gathered = gather_detached(rows, inputs.sizes)
                    outputs[f"{name}/{key}"] = gathered.roll(1, dims=0) if companion.rolled else gathered
        return outputs

    # ------------------------------------------------------------------------------------- after a step
    def after_step(self, batch: Batch, services: Services) -> None:
        """Let the companions change their state."""
        with torch.no_grad():
            for companion in self.active(batch.source).companions.values():
                companion.after_step(batch, self.encoder, services)

    @torch.no_grad()
    def explain_non_finite(self, inputs: StepInput, losses: Losses) -> NumericError:
        """Which part is not finite, for which examples, and what to do; every device must call it.

        The table is made once more, because no step holds it for a case that hardly ever comes.
        """
        bad = [name for name, value in losses.parts.items() if not torch.isfinite(value)]
        plain, batch = self.in_batch(self.encode(inputs), inputs)
        for entry in self.active(inputs.source).terms:
            if entry.name in bad:
                try:
                    table = self.edited(plain, batch, inputs.seed, frozenset(entry.term.without))
                    entry.term.diagnose(table, batch)
                except NumericError as error:
                    return error
        anchor = losses.batch.views["anchor"]
        ids = anchor.ids[~torch.isfinite(anchor.embedding).all(dim=1)].tolist()[:8]
        where = f"the embeddings of examples {ids} are not finite" if ids else "all embeddings are finite"
        return NumericError(
            f"step {losses.batch.step}: the loss is not finite (part: {', '.join(bad) or 'their sum'}); {where}. "
            'Lower train.learning_rate, use train.precision = "fp32", or set train.on_nan = "skip"'
        )


def _rows(encoded: Encoded) -> Float[Tensor, "b p"]:
    """Pooled rows, those of a lower layer behind them."""
    return encoded.pooled if encoded.inner is None else torch.cat([encoded.pooled, encoded.inner], dim=-1)


def _local_and_whole(value: Tensor | Share) -> tuple[Tensor, Tensor]:
    """The local loss whose mean over devices has the right gradient, and the loss of the whole batch for logging."""
    if not isinstance(value, Share):
        return value, value.detach()
    # every device divides by the whole batch's count; × devices, because gradients are averaged over devices
    count = sum_over_devices(value.count).clamp_min(1e-12)
    return value.total / count * devices(), sum_over_devices(value.total) / count


def _detached(batch: Batch) -> Batch:
    views = {name: replace(rows, embedding=rows.embedding.detach()) for name, rows in batch.views.items()}
    return replace(batch, views=views, encoded={}, pooled={}, inner={})
