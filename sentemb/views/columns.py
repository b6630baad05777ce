"""The columns of the data as they are: pairs, triplets, any number of hard negatives."""

from __future__ import annotations

from sentemb.errors import DataError
from sentemb.types import Examples, View, ViewContext, Views


class Columns:
    """Anchor, positive and, where the data have them, negative or negative_1, negative_2, … of every example.

    Differs from ``twice`` in reading the positive from the data.

    Raises: DataError where the data have no anchor or no positive column.
    Source: Gao, Yao & Chen 2021, EMNLP, section 4 (premise, entailment, contradiction).
    Deviations: none.
    """

    columns = frozenset({"anchor", "positive"})
    needs: frozenset[str] = frozenset()

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """One view a column, in the columns' order."""
        missing = [name for name in ("anchor", "positive") if name not in examples.columns]
        if missing:
            raise DataError(
                f'[views] use = "columns": the data have no column {" and no column ".join(missing)}; '
                f'found: {", ".join(examples.columns) or "none"}; '
                'name it under [data], or use = "twice" for single sentences'
            )
        return {
            name: View(column, examples.ids)
            for name, column in examples.columns.items()
            if name in ("anchor", "positive") or name.startswith("negative")
        }
