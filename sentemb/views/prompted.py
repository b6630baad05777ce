"""The same sentence in several templates, with solved examples behind it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from annotated_types import MinLen
from numpy.typing import NDArray

from sentemb.data import Table, tokenise
from sentemb.data.templates import MASK, Template, Templates, Words, class_words
from sentemb.data.tokens import TextTokeniser, concatenate
from sentemb.errors import DataError
from sentemb.parts import Whole
from sentemb.types import UNKNOWN, Examples, Frame, TokenColumn, View, ViewContext, Views, Vocabulary
from sentemb.views.edited import without
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

    Demonstrations are other examples of the data behind the sentence, drawn anew every step for each view, in the
    view's template with the word of their class at the mask: ``[CLS] It rains. It was [MASK]. [SEP] I won! It was
    great. [SEP]``. They are cut, and not the sentence, where a row exceeds ``data.max_tokens``.

    Args:
        templates: two or more, equal ones allowed (then dropout alone tells the views apart); each has one ``{text}``,
            and one ``{mask}`` where the pooling is ``mask``.
        subtract: subtract the vector of the template without a text.
        draw: instead of a template for each view, two views with a template each that is drawn anew every step.
        demonstrations: how many stand behind each sentence.
        words: of the classes, in the order of their labels; by default the classes' names in the data.
    Returns: the views, with the ids and content hashes of the sentence itself.
    Raises:
        ModelError: (when the data are read) a template leaves no room for a text, or has a mask that the tokenizer
            lacks.
        DataError: demonstrations of data without classes' names or words, of unknown classes, or of a single row.
    Source: Jiang et al. 2022, EMNLP, "PromptBERT: Improving BERT sentence embeddings with prompts": two templates,
        template denoising, released code; drawn templates, demonstrations: Jian et al. 2022, NAACL, "Contrastive
        learning for prompt-based few-shot language learners" (LM-SupCon).
    Deviations: PromptBERT's release counts a text's tokens without the template's, encodes the empty templates of 50
        lengths in every step where here those that occur are, and gives positions by number where here the text's place
        is taken by tokens that nothing attends to. LM-SupCon's demonstrations are one of each class.
    """

    columns = frozenset({"anchor"})

    def __init__(
        self, *, templates: Annotated[Templates, MinLen(2)], subtract: bool = False, draw: bool = False,
        demonstrations: Whole = 0, words: Words = (),
    ) -> None:
        if subtract and draw:
            raise ValueError("subtract = true needs a template of its own for each view; set draw = false")
        if subtract and demonstrations:
            raise ValueError("subtract = true has no empty template with demonstrations; leave one of them out")
        if words and not demonstrations:
            raise ValueError("words stand in demonstrations; set demonstrations, or leave words out")
        if demonstrations and any(Template.read(template).masks != 1 for template in templates):
            raise ValueError("demonstrations have a word at the template's {mask}; give each template one {mask}")
        self.templates, self.subtract, self.draw = templates, subtract, draw
        self.demonstrations, self.words = demonstrations, words
        self.needs = frozenset({"labels"} if demonstrations else ())
        self._frames: tuple[Frame, ...] = ()
        self._longest = 0  # tokens of a row with its demonstrations

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
        examples = tokenise(replace(table, columns=texts, prefixes=templates), tokeniser)
        if not self.demonstrations:
            return examples
        self._longest = max(self._longest, tokeniser.max_tokens)
        return replace(examples, columns={**examples.columns, **self._solved(table, tokeniser)})

    def _solved(self, table: Table, tokeniser: TextTokeniser) -> dict[str, TokenColumn]:
        """Every example in each of the templates, the word of its class at the mask."""
        label, where = table.label, f"{table.source}: views: prompted: demonstrations"
        if label is None or len(label) < 2 or UNKNOWN in label:
            raise DataError(f"{where} need two rows, and the class of every row")
        words = class_words(self.words, table, where)
        rows_of = [np.flatnonzero(label == number) for number in range(len(words))]
        columns = {}
        for i, template in enumerate(self.templates, 1):
            parts = []
            for word, rows in zip(words, rows_of, strict=True):
                texts = {"anchor": [table.columns["anchor"][row] for row in rows.tolist()]}
                if len(rows):
                    prefixes = {"anchor": template.replace(MASK, word)}
                    solved = tokenise(Table(columns=texts, prefixes=prefixes, source=table.source), tokeniser)
                    parts.append(solved.columns["anchor"])
            columns[f"anchor/solved/{i}"] = concatenate(parts).take(np.argsort(np.concatenate(rows_of)))
        return columns

    def __call__(self, examples: Examples, context: ViewContext) -> Views:
        """The sentence in every template, or in two drawn ones."""
        written, n = [examples.columns[name] for name in self._columns()], len(examples)
        count = len(written)
        chosen = context.generator.integers(count, size=(2, n)) if self.draw else np.arange(count)[:, None].repeat(n, 1)
        columns = [chosen_rows(written, which, np.arange(n)) for which in chosen] if self.draw else written
        if self.demonstrations:
            columns = [self._demonstrated(column, which, examples, context)
                       for column, which in zip(columns, chosen, strict=True)]
        frames = self._frames if self.subtract else [None] * len(columns)
        return {
            name: View(column=column, ids=examples.ids, minus=frame)
            for name, column, frame in zip(self.makes(()), columns, frames, strict=True)
        }

    def _demonstrated(
        self, column: TokenColumn, template: NDArray[np.int64], examples: Examples, context: ViewContext
    ) -> TokenColumn:
        """The column with other rows of its source behind every row, in the row's template."""
        source = context.dataset.sources.get(context.source, context.dataset)
        solved = [source.columns[f"anchor/solved/{i}"] for i in range(1, len(self.templates) + 1)]
        own, further = examples.ids - source.ids[0], []
        for _ in range(self.demonstrations):
            drawn = context.generator.integers(len(source) - 1, size=len(own))
            further.append(chosen_rows(solved, template, drawn + (drawn >= own)))
        return joined_rows(column, further, context.vocabulary, longest=self._longest)

    def _columns(self) -> list[str]:
        return ["anchor", *(f"anchor/{i}" for i in range(2, len(self.templates) + 1))]


def chosen_rows(columns: Sequence[TokenColumn], which: NDArray[np.int64], rows: NDArray[np.int64]) -> TokenColumn:
    """A column whose row i is row ``rows[i]`` of column ``which[i]``."""
    used = np.unique(which)
    parts = [columns[number].take(rows[which == number]) for number in used]
    order = np.concatenate([np.flatnonzero(which == number) for number in used])
    return concatenate(parts).take(np.argsort(order))


def joined_rows(
    first: TokenColumn, further: Sequence[TokenColumn], vocabulary: Vocabulary, *, longest: int
) -> TokenColumn:
    """Every row of the first column with those of the further ones behind it, without their opening special token and
    without masks of their own; at most ``longest`` tokens are kept."""
    special = np.fromiter(vocabulary.special, dtype=np.int32)
    columns = [first]
    for column in further:
        is_left_out = column.flat == vocabulary.mask
        start = column.offsets[:-1]
        is_left_out[start] |= np.isin(column.flat[start], special)
        columns.append(without(column, is_left_out, None))
    n = len(first)
    merged = concatenate(columns).take(np.arange(len(columns) * n).reshape(len(columns), n).T.ravel())
    offsets = merged.offsets[:: len(columns)]
    lengths = np.diff(offsets)
    number = np.arange(len(merged.flat)) - np.repeat(offsets[:-1], lengths)
    return TokenColumn(flat=merged.flat[number < longest], text=first.text,
                       offsets=np.concatenate([[0], np.cumsum(np.minimum(lengths, longest))]))
