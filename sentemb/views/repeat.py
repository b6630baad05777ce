"""The same sentence several times: dropout is the only augmentation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

from annotated_types import Ge, Lt
from pydantic import AfterValidator

from sentemb.types import Examples, View, ViewContext, Views
from sentemb.views.view import ViewMaker

Rates = Annotated[Sequence[Annotated[float, Ge(0), Lt(1)]], AfterValidator(tuple)]


class Repeat(ViewMaker):
    """Every sentence ``count`` times, each encoded with a dropout of its own:

        anchor, positive, positive_2, …, positive_(count - 1)

    ``twice`` is count = 2. The further positives are read by ``multi_view``, and stand in the table where the edit
    ``given`` puts them. A step encodes count / 2 times as many rows as with ``twice``: compare methods at a batch size
    that makes up for it.

    Args:
        count: V, views of an example.
        dropouts: the backbone's dropout rate for each view, in the order above; by default its own for all.
    Source: Shidani et al. 2024, ICLR, "Poly-View contrastive learning"; Koromilas et al. 2025, "A
        principled framework for multi-view contrastive learning" (V views of an image); rates: Sedghamiz et al. 2021,
        Findings of EMNLP, "SupCL-Seq".
    Deviations: dropout in place of image augmentations.
    """

    columns = frozenset({"anchor"})
    needs_dropout = True

    def __init__(self, *, count: Annotated[int, Ge(2)] = 4, dropouts: Rates | None = None) -> None:
        if dropouts is not None and len(dropouts) != count:
            raise ValueError(f"dropouts has {len(dropouts)} rates for count = {count} views; give one for each")
        self.count, self.dropouts = count, dropouts

    def makes(self, columns: Collection[str]) -> tuple[str, ...]:
        """Anchor, positive, positive_2, …"""
        return ("anchor", "positive", *(f"positive_{i}" for i in range(2, self.count)))

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """One and the same text under every name."""
        rates: Sequence[float | None] = self.dropouts or [None] * self.count
        return {
            name: View(column=examples.columns["anchor"], ids=examples.ids, dropout=rate)
            for name, rate in zip(self.makes(()), rates, strict=True)
        }
