"""What every loss term is: a class that turns a score table into a scalar, inside a recipe or in anybody's own loop."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import overload

from torch import Tensor

from sentemb.edits.given import Given
from sentemb.errors import RecipeError
from sentemb.maths.table import mark_same_label, score_table
from sentemb.parts import NonNegative
from sentemb.terms.diagnosis import explain_table
from sentemb.types import Batch, Component, Names, PairScores, Share, Similarity


class Term(Component, room="terms"):
    """One loss: ``forward(table, batch)`` gives a scalar that is equal on every device, or this device's ``Share``.

    A term of one's own subclasses this, takes keyword-only settings and computes its loss from ``table.sim``,
    ``table.positive`` and ``table.log_weight``. Gathering over devices, chunking, and the heads are done already.
    An anchor without a positive may make the loss infinite: ``diagnose`` then says so in words.
    ``0.1 * term`` is the term with that weight in the sum of losses. ``without = ["NAME", …]`` shows it the table as
    it is without the edits of these names. ``only = ["NAME", …]`` keeps it to batches of these sources of a mixture.

    Attributes:
        refuses_shares: whether it cannot divide an anchor's attraction over its positives (``PairScores.share``).
    """

    marks = MappingProxyType({"name": str, "weight": NonNegative, "without": Names, "only": Names})
    refuses_shares: bool = False

    @property
    def without(self) -> tuple[str, ...]:
        """Names of the edits that its table leaves out."""
        return tuple(self.given_marks.get("without", ()))

    @property
    def weight(self) -> float:
        """What its loss is multiplied with in the sum of losses."""
        return float(self.given_marks.get("weight", 1.0))

    def __rmul__(self, weight: float) -> Term:
        return self.marked(weight=self.weight * weight)

    @overload
    def __call__(self, anchors: PairScores, positives: Batch, /) -> Tensor | Share: ...

    @overload
    def __call__(
        self,
        anchors: Tensor,
        positives: Tensor,
        /,
        *,
        negatives: Sequence[Tensor] = (),
        labels: Tensor | None = None,
        scores: Tensor | None = None,
        negative_scores: Sequence[Tensor] = (),
        weights: Tensor | None = None,
        grades: Sequence[Tensor] = (),
        similarity: Similarity = "cosine",
    ) -> Tensor: ...

    def __call__(
        self,
        anchors: PairScores | Tensor,
        positives: Batch | Tensor,
        /,
        *,
        negatives: Sequence[Tensor] = (),
        labels: Tensor | None = None,
        scores: Tensor | None = None,
        negative_scores: Sequence[Tensor] = (),
        weights: Tensor | None = None,
        grades: Sequence[Tensor] = (),
        similarity: Similarity = "cosine",
    ) -> Tensor | Share:
        """The loss of a table and its batch, or of two tensors of embeddings (n, d) whose rows belong together.

        Args:
            anchors: a score table, or the anchors' embeddings.
            positives: the table's batch, or the embeddings of the anchors' positives.
            negatives: embeddings (n, d) of hard negatives; every anchor sees all of them.
            labels: (n,) classes; rows of one class become each other's positives.
            scores: (n,) graded similarities of the pairs, for terms that fit them.
            negative_scores: (n,) the same of the anchors and every entry of ``negatives``.
            weights: (n,) how much every pair counts, for terms with ``row_weight``.
            grades: (n,) relevance of the positives, then of every entry of ``negatives``.
            similarity: how embeddings are compared.

        Raises:
            RecipeError: the term needs more than embeddings (tokens, companions), or returns no scalar.
        """
        if isinstance(anchors, PairScores):
            assert isinstance(positives, Batch)
            return self._checked(super().__call__(anchors, positives))
        assert isinstance(positives, Tensor)
        table, batch = score_table(
            anchors, positives, negatives=negatives, labels=labels, scores=scores, negative_scores=negative_scores,
            weights=weights, grades=grades, similarity=similarity,
        )
        given = {
            "labels": labels is not None, "scores": scores is not None, "negative_scores": bool(negative_scores),
            "weights": weights is not None, "grades": bool(grades),
            "cosine": True,  # forward refuses another similarity
        }
        lacking = self.needs - {f"view:{name}" for name in batch.views} - {name for name in given if given[name]}
        if lacking:
            raise RecipeError(f"{self.name} needs {', '.join(sorted(lacking))}, which embeddings alone do not have")
        if negatives:
            table = Given()(table, batch)
        if labels is not None:
            table = mark_same_label(table)
        loss = self._checked(super().__call__(table, batch))
        return loss.total / loss.count.clamp_min(1e-12) if isinstance(loss, Share) else loss

    def _checked(self, loss: object) -> Tensor | Share:
        if isinstance(loss, Share) and loss.total.dim() == loss.count.dim() == 0:
            return loss
        if isinstance(loss, Tensor) and loss.dim() == 0:
            return loss
        what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)[:80]
        raise RecipeError(f"{self.name}: forward gave {what}; a term gives a scalar tensor or a Share of two scalars")

    def forward(self, table: PairScores, batch: Batch) -> Tensor | Share:
        """The loss of the whole batch."""
        raise NotImplementedError

    def diagnose(self, table: PairScores, batch: Batch) -> None:
        """Raise the NumericError that says why this term's loss is not finite; return where the table is in order.

        Called only after the loss was not finite, so that ``forward`` needs no check that makes the device wait.
        """
        explain_table(self.name, table, batch)
