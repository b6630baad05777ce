"""What every edit is: a class that turns a score table into another one."""

from __future__ import annotations

from types import MappingProxyType

from torch import Tensor

from sentemb.errors import RecipeError
from sentemb.maths.similarity import require_cosine
from sentemb.types import Batch, Component, Names, PairScores


class Edit(Component, room="edits"):
    """``forward(table, batch)`` gives the table with more columns, other log-weights or other positives.

    An edit of one's own subclasses this, takes keyword-only settings and returns
    ``dataclasses.replace(table, log_weight=…)`` or ``add_candidates(table, rows)``; the given table stays as it is.
    A term can leave an edit out by its name (``without``), and ``only = ["NAME", …]`` keeps it to batches of these
    sources of a mixture. What an edit draws, it draws from ``batch.generator``, which every edit has to itself, equal
    on every device.

    Attributes:
        sets_shares: whether it divides an anchor's attraction over its positives (``PairScores.share``).
    """

    marks = MappingProxyType({"name": str, "only": Names})
    sets_shares: bool = False

    def __call__(self, table: PairScores, batch: Batch) -> PairScores:
        """The edited table of ``batch``.

        Raises:
            RecipeError: ``forward`` returned something else, or a table whose fields do not fit each other; an edit
                that needs cosines and a table of another similarity.
        """
        if "cosine" in self.needs:
            require_cosine(table.similarity, f"edit {self.name}")
        edited: object = super().__call__(table, batch)
        if not isinstance(edited, PairScores):
            raise RecipeError(f"edit {self.name}: forward gave {type(edited).__name__}; an edit gives a PairScores")
        n, m = len(table.anchor), len(edited.candidate)
        for field, expected in (
            ("sim", (n, m)), ("positive", (n, m)), ("log_weight", (n, m)), ("share", (n, m)), ("scale", (n,)),
            ("grade", (n, m)),
        ):
            value: Tensor | None = getattr(edited, field)
            if value is not None and tuple(value.shape) != expected:
                raise RecipeError(
                    f"edit {self.name}: its table has a {field} of shape {tuple(value.shape)}; {n} anchors and {m} "
                    f"candidates make {expected}"
                )
        return edited

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        """The edited table."""
        raise NotImplementedError
