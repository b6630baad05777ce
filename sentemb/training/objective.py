"""The objective: encoder and heads, score table, edits, terms and companions as one module.

    inputs ─► pooled rows (this device) ┆ gather ─► heads ─► table ─► edits ─► terms ─► Σ weight · loss

The dotted line is the cache boundary: left of it rows never see each other, so the rows may be encoded in any
chunks; right of it everything sees the whole batch over all devices. ``encode`` is the left side, ``finish`` the
right one, ``losses`` both. Heads stand right of the line, so a BatchNorm sees exactly the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.distributed import devices, gather_detached, gather_rows, sum_over_devices
from sentemb.edits.edit import Edit
from sentemb.errors import NumericError, RecipeError
from sentemb.maths.nested import narrow_batch, narrow_table
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.table import in_batch_table
from sentemb.terms.term import Term
from sentemb.training.inputs import LengthGroup, StepInput
from sentemb.types import Batch, Companion, Encoded, PairScores, Rows, SentenceModule, Share, Similarity, Views

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class WeightedTerm:
    """One summand of the objective."""

    name: str
    term: Term
    weight: float


@dataclass(frozen=True)
class EncodedViews:
    """The left side's result on this device."""

    pooled: Float[Tensor, "b v d"]  # v views: those of StepInput.merged, then the embedded ones among ``alone``
    alone: Mapping[str, Encoded]  # views whose hidden states or attentions a term reads


def is_embedded(view: str) -> bool:
    """Whether a view has embeddings of its own; copies (``anchor.masked``) are there for their tokens and states."""
    return "." not in view


@dataclass(frozen=True)
class Losses:
    """One step's loss and its parts."""

    total: Tensor  # averaged over devices this is the whole batch's loss
    parts: Mapping[str, Tensor]  # unweighted, whole batch, detached
    batch: Batch  # detached; for the companions' after_step
    table: PairScores | None  # says which examples are at fault where the loss is not finite

    def without_graph(self) -> Losses:
        """The same for looking at later."""
        table = self.table and replace(
            self.table, sim=self.table.sim.detach(), log_weight=self.table.log_weight.detach(),
            anchor=_detached_rows(self.table.anchor), candidate=_detached_rows(self.table.candidate),
        )
        return replace(self, total=self.total.detach(), table=table)

    def without_needless_table(self) -> Losses:
        """The same without the table where the loss is known to be finite (asking a GPU would make it wait)."""
        is_fine = self.total.device.type == "cpu" and bool(torch.isfinite(self.total))
        return replace(self, table=None) if is_fine else self


class Objective(nn.Module):
    """Everything that is trained, and everything that decides the loss."""

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
        parts: list[Term | Edit | Companion] = [*self.edits, *self.terms, *self.companions.values()]  # type: ignore[list-item]
        self.needs = frozenset().union(*(part.needs for part in parts))
        self.encodes = frozenset().union(*(part.encodes for part in parts))
        self.nested = tuple(sorted(set(nested)))
        if self.nested and not 1 <= self.nested[0] <= self.nested[-1] < encoder.width:
            raise RecipeError(
                f"train.nested_dims = {list(nested)}: each must be at least 1 and below the embeddings' "
                f"{encoder.width} dimensions"
            )

    # ------------------------------------------------------------------------------------- which views
    def alone(self, views: Views) -> tuple[str, ...]:
        """Views encoded on their own, because a term reads their hidden states or attentions."""
        if not self.needs & {"hidden", "attentions"}:
            return ()
        return tuple(name for name in views if name in self.encodes or "attentions" in self.needs)

    def embedded(self, views: Views) -> tuple[str, ...]:
        """Views encoded together for their embeddings: anchor, positives, negatives, and what parts ask for."""
        alone = self.alone(views)
        return tuple(name for name in views if name not in alone and (is_embedded(name) or name in self.encodes))

    def read(self, views: Views) -> tuple[str, ...]:
        """Views whose tokens reach the device as such."""
        reads_all = "tokens" in self.needs
        return tuple(name for name in views if reads_all or name in self.alone(views))

    # ---------------------------------------------------------------------------------- left of the line
    def encode(self, inputs: StepInput) -> EncodedViews:
        """Backbone and pooling over this device's rows."""
        found = []
        if inputs.merged:
            parts = [encoded.pooled for encoded in self._encode_groups(inputs.groups)]
            found.append(self.in_views(merged_rows(parts, inputs.groups), inputs))
        alone: dict[str, Encoded] = {}
        for name, tokens in inputs.tokens.items():
            if name not in inputs.merged and (name in self.encodes or "attentions" in self.needs):
                alone[name] = self.encoder(tokens, hidden=True, attentions="attentions" in self.needs)
        found += [alone[name].pooled.unsqueeze(0) for name in alone if is_embedded(name)]
        return EncodedViews(torch.cat(found).transpose(0, 1), alone)

    def encode_group(self, group: LengthGroup) -> Encoded:
        """Pooled rows of one group of the merged views."""
        return self._encode_groups([group])[0]

    def _encode_groups(self, groups: Sequence[LengthGroup]) -> list[Encoded]:
        together = self.encoder.together([group.tokens for group in groups])
        return [
            replace(encoded, pooled=encoded.pooled[: len(group.rows)])
            for encoded, group in zip(together, groups, strict=True)
        ]

    @staticmethod
    def in_views(merged: Float[Tensor, "r d"], inputs: StepInput) -> Float[Tensor, "v b d"]:
        """Merged rows by view."""
        return merged.view(len(inputs.merged), inputs.local.stop - inputs.local.start, -1)

    # --------------------------------------------------------------------------------- right of the line
    def finish(self, encoded: EncodedViews, inputs: StepInput) -> Losses:
        """Gather over devices, heads, table, edits, terms."""
        names = (*inputs.merged, *(name for name in encoded.alone if is_embedded(name)))
        pooled = gather_rows(encoded.pooled, inputs.sizes)  # (n, v, d)
        count = pooled.shape[0]
        flat = pooled.transpose(0, 1).reshape(count * len(names), -1)  # view-major: one BatchNorm over all views
        projected = at_least_float32(self.encoder.project(flat)).view(len(names), count, -1)
        views = {
            name: Rows(projected[place], inputs.ids[name], inputs.text[name], inputs.label)
            for place, name in enumerate(names)
        }
        batch = Batch(
            views=views,
            local=inputs.local,
            tokens=inputs.tokens,
            encoded=encoded.alone,
            outputs=self._observe(inputs),
            score=inputs.score,
            companions=dict(self.companions.items()),  # type: ignore[arg-type]
            generator=torch.Generator().manual_seed(inputs.seed),
            step=inputs.step,
        )
        table = in_batch_table(views["anchor"], views["positive"], self.similarity)
        for edit in self.edits:
            table = edit(table, batch)
        return self._sum(table, batch)

    def losses(self, inputs: StepInput) -> Losses:
        """Both sides."""
        return self.finish(self.encode(inputs), inputs)

    def zero(self) -> Tensor:
        """A loss of nothing, for a backward that only synchronises."""
        return torch.zeros((), device=next(self.parameters()).device)

    def forward(self, work: Callable[Concatenate[Objective, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """``model(Objective.losses, inputs)``: run a method inside what wraps this module (DDP's hooks, autocast)."""
        return work(self, *args, **kwargs)

    def _observe(self, inputs: StepInput) -> dict[str, Tensor]:
        """Companions' per-row outputs, of the whole batch."""
        outputs: dict[str, Tensor] = {}
        ids = {name: rows[inputs.local] for name, rows in inputs.ids.items()}
        with torch.no_grad():
            for name, companion in self.companions.items():
                for key, rows in companion.observe(inputs.tokens, ids).items():  # type: ignore[operator]
                    outputs[f"{name}/{key}"] = gather_detached(rows, inputs.sizes)
        return outputs

    def _sum(self, table: PairScores, batch: Batch) -> Losses:
        total: Tensor = table.sim.new_zeros(())
        parts: dict[str, Tensor] = {}
        narrow = [(narrow_table(table, width), narrow_batch(batch, width)) for width in self.nested]
        for name, weight, term in zip(self.term_names, self.weights, self.terms, strict=True):
            # what reads tokens (masked-LM, replaced-token detection) knows no narrower embeddings
            seen = [(table, batch)] if "tokens" in term.needs else [(table, batch), *narrow]  # type: ignore[operator]
            values = [_whole(term(*at)) for at in seen]
            total = total + weight * sum(value for value, _ in values) / len(values)
            parts[name] = torch.stack([part for _, part in values]).mean()
        return Losses(total, parts, detached(batch), table)

    # -------------------------------------------------------------------------------------------- state
    def after_step(self, batch: Batch) -> None:
        """Let the companions change their state."""
        with torch.no_grad():
            for companion in self.companions.values():
                companion.after_step(batch, self.encoder)  # type: ignore[operator]

    def explain_non_finite(self, losses: Losses) -> NumericError:
        """Which part is not finite, for which examples, and what to do."""
        bad = [name for name, value in losses.parts.items() if not torch.isfinite(value)]
        for name, term in zip(self.term_names, self.terms, strict=True):
            if name in bad and losses.table is not None:
                try:
                    term.diagnose(losses.table, losses.batch)  # type: ignore[operator]
                except NumericError as error:
                    return error
        rows = ~torch.isfinite(losses.batch.views["anchor"].embedding).all(dim=1)
        ids = losses.batch.views["anchor"].ids[rows].tolist()[:8]
        where = f"the embeddings of examples {ids} are not finite" if ids else "all embeddings are finite"
        return NumericError(
            f"step {losses.batch.step}: the loss is not finite (part: {', '.join(bad) or 'their sum'}); {where}. "
            'Lower train.learning_rate, use train.precision = "fp32", or set train.on_nan = "skip"'
        )


def merged_rows(parts: Sequence[Tensor], groups: Sequence[LengthGroup]) -> Float[Tensor, "r d"]:
    """Groups' pooled rows in the merged order."""
    return torch.cat(list(parts))[torch.argsort(torch.cat([group.rows for group in groups]))]


def _whole(value: Tensor | Share) -> tuple[Tensor, Tensor]:
    """What to differentiate on this device so that the mean over devices is right, and the whole batch's loss."""
    if not isinstance(value, Share):
        return value, value.detach()
    # every device divides by the whole batch's count; × devices, because gradients are averaged over devices
    count = sum_over_devices(value.count).clamp_min(1e-12)
    return value.total / count * devices(), sum_over_devices(value.total) / count


def detached(batch: Batch) -> Batch:
    """The batch without gradients."""
    return replace(batch, views={name: _detached_rows(rows) for name, rows in batch.views.items()}, encoded={})


def _detached_rows(rows: Rows) -> Rows:
    return replace(rows, embedding=rows.embedding.detach())


def check_needs(objective: Objective, views: Sequence[str], companions: Sequence[str]) -> None:
    """Raise ``RecipeError`` for claims of the parts that the views and companions at hand do not meet."""
    have = {*(f"view:{name}" for name in views), *(f"companion:{name}" for name in companions)}
    missing = [need for need in sorted(objective.needs) if ":" in need and need not in have]
    if missing:
        raise RecipeError([f"a part needs {need}, which the recipe does not have" for need in missing])

