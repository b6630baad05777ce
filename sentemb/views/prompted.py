"""The same sentence in several templates."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from annotated_types import MinLen

from sentemb.data import Table, tokenise
from sentemb.data.templates import Template, Templates
from sentemb.data.tokens import TextTokeniser, concatenate
from sentemb.types import Examples, Frame, View, ViewContext, Views
from sentemb.views.view import ViewMaker


class Prompted(ViewMaker):
    """Every sentence in each of the templates, by default one view a template:

        anchor = template 1 around x,   positive = template 2 around x,   positive_2 = template 3 around x, …

    Texts are written and tokenised once, at the start of training; a text that is too long for its template is cut,
    the words behind it are not (``data.max_tokens`` counts both). With ``subtract``, a view's rows behind the pooling
    become

        h(template around x) - h(template around nothing, its tokens where they stand around x)

    which leaves out what the template says by itself; gradients pass through both, and only one row is encoded for all
    texts of one length. A trained model has its template in ``encoder.prompts`` and ``encoder.default_prompt``.

    Args:
        templates: two or more, equal ones allowed (then dropout alone tells the views apart); each has one ``{text}``,
            and one ``{mask}`` where the pooling is ``mask``.
        subtract: subtract the vector of the template without a text.
        draw: instead of a template for each view, two views with a template each that is drawn anew every step.
    Returns: the views, with the ids and content hashes of the sentence itself.
    Raises: ModelError (when the data are read) for a template that leaves no room for a text, or has a mask that the
        tokenizer lacks.
    Source: Jiang et al. 2022, EMNLP, "PromptBERT: Improving BERT sentence embeddings with prompts": two templates,
        template denoising, released code; drawn templates: Jian et al. 2022, NAACL, "Contrastive learning for
        prompt-based few-shot language learners" (LM-SupCon).
    Deviations: PromptBERT's release counts a text's tokens without the template's, encodes the empty templates of 50
        lengths in every step where here those that occur are, and gives positions by number where here the text's place
        is taken by tokens that nothing attends to.
    """

    columns = frozenset({"anchor"})

    def __init__(
        self, *, templates: Annotated[Templates, MinLen(2)], subtract: bool = False, draw: bool = False,
    ) -> None:
        if subtract and draw:
            raise ValueError("subtract = true needs a template of its own for each view; set draw = false")
        self.templates, self.subtract, self.draw = templates, subtract, draw
        self._frames: tuple[Frame, ...] = ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """Its templates."""
        return tuple(self.templates)

    def makes(self, columns: Collection[str]) -> tuple[str, ...]:
        """Anchor, positive, positive_2, …"""
        further = 2 if self.draw else len(self.templates)
        return ("anchor", "positive", *(f"positive_{i}" for i in range(2, further)))

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Prefixes beside its templates; a part that encodes its views by themselves where something is subtracted."""
        faults = []
        if "data" in recipe and any(source.prefixes for source in recipe["data"].sources.values()):
            faults.append("writes the texts into its templates itself; leave out data.prefixes")
        readers = [part.name for part in recipe.get("terms", ())
                   if "attentions" in part.needs or part.encodes & set(self.makes(()))]
        if self.subtract and readers:
            faults.append(f"subtract = true: the term {readers[0]} reads states or attentions of its views, of which "
                          "nothing is subtracted; leave one of them out")
        return faults

    def read(self, table: Table, tokeniser: TextTokeniser) -> Examples:
        """The data with a column of token ids for each template: ``anchor``, ``anchor/2``, …"""
        names = self._columns()
        texts = {**table.columns, **dict.fromkeys(names, table.columns["anchor"])}
        if self.subtract:
            self._frames = tuple(tokeniser.frame(Template.read(template)) for template in self.templates)
        templates = dict(zip(names, self.templates, strict=True))
        return tokenise(replace(table, columns=texts, prefixes=templates), tokeniser)

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """The sentence in every template, or in two drawn ones."""
        columns = [examples.columns[name] for name in self._columns()]
        if self.draw:
            together, n = concatenate(columns), len(examples)
            drawn = context.generator.integers(len(columns), size=(2, n))
            columns = [together.take(rows * n + np.arange(n)) for rows in drawn]
        frames = self._frames if self.subtract else [None] * len(columns)
        return {
            name: View(column=column, ids=examples.ids, minus=frame)
            for name, column, frame in zip(self.makes(()), columns, frames, strict=True)
        }

    def _columns(self) -> list[str]:
        return ["anchor", *(f"anchor/{i}" for i in range(2, len(self.templates) + 1))]
