"""What every edit is: a class that turns a score table into another one."""

from __future__ import annotations

from sentemb.errors import RecipeError
from sentemb.types import Batch, Component, PairScores


class Edit(Component, room="edits"):
    """``forward(table, batch)`` gives the table with more columns, other log-weights or other positives.

    An edit of one's own subclasses this, takes keyword-only settings and returns
    ``dataclasses.replace(table, log_weight=…)`` or ``add_candidates(table, rows)``; the given table stays as it is.
    """

    def __call__(self, table: PairScores, batch: Batch) -> PairScores:
        """The edited table of ``batch``.

        Raises:
            RecipeError: ``forward`` returned something else, or a table whose fields do not fit each other.
        """
        edited: object = super().__call__(table, batch)
        if not isinstance(edited, PairScores):
            raise RecipeError(f"edit {self.name}: forward gave {type(edited).__name__}; an edit gives a PairScores")
        expected = (len(table.anchor), len(edited.candidate))
        for field in ("sim", "positive", "log_weight"):
            shape = tuple(getattr(edited, field).shape)
            if shape != expected:
                raise RecipeError(
                    f"edit {self.name}: its table has a {field} of shape {shape}; {expected[0]} anchors and "
                    f"{expected[1]} candidates make {expected}"
                )
        return edited

    def forward(self, table: PairScores, batch: Batch) -> PairScores:
        """The edited table."""
        raise NotImplementedError
