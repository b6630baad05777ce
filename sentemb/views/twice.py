"""The same sentence twice: dropout is the only augmentation."""

from __future__ import annotations

from sentemb.types import Examples, View, ViewContext, Views
from sentemb.views.view import ViewMaker


class Twice(ViewMaker):
    """Anchor and positive are one sentence, encoded twice with independent dropout.

        x_i⁺ = x_i,  h_i = f(x_i; z),  h_i⁺ = f(x_i; z′)

    Both names hold the same ``View`` object, so its tokens are padded and moved once.
    A data set's positive or negative columns are not read.

    Source: Gao, Yao & Chen 2021, EMNLP, section 3.1.
    Deviations: none.
    """

    columns = frozenset({"anchor"})
    needs_dropout = True

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """``anchor`` and ``positive``, one and the same view."""
        view = View(column=examples.columns["anchor"], ids=examples.ids)
        return {"anchor": view, "positive": view}
