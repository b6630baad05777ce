"""Templates: words before and behind a text, and what a tokenizer makes of them without the text.

    This sentence : "{text}" means {mask} .

A prompt without ``{text}`` is the template whose text stands behind it: ``query: `` is ``query: {text}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator

from sentemb.data.table import Table
from sentemb.errors import DataError, ModelError
from sentemb.types import UNKNOWN, Examples, Frame, Tokens, Vocabulary

TEXT, MASK = "{text}", "{mask}"


@dataclass(frozen=True, kw_only=True)
class Template:
    """What stands before and behind a text; ``{mask}`` in either is the tokenizer's mask token."""

    before: str
    after: str = ""

    @classmethod
    def read(cls, prompt: str) -> Template:
        """The template that a prompt is; raises ``ValueError`` where its ``{text}`` is missing or is there twice."""
        before, _, after = prompt.partition(TEXT)
        if (TEXT not in prompt and MASK in prompt) or TEXT in after:
            count = "none" if TEXT not in prompt else str(prompt.count(TEXT))
            raise ValueError(f"the template '{prompt}' must have one {TEXT}, where the text stands; it has {count}")
        return cls(before=before, after=after)

    @property
    def masks(self) -> int:
        """How many mask tokens it has."""
        return self.before.count(MASK) + self.after.count(MASK)

    def fill(self, texts: Sequence[str], mask: str | None = None) -> list[str]:
        """Every text in the template. A mask token's name inside a text is spelled apart (``[ MASK ]``), so that the
        template's own are the only ones; without masks in the template texts stay as they are.

        Raises: ``ValueError`` for a template with a mask where the tokenizer has none.
        """
        if not self.masks:
            return [self.before + text + self.after for text in texts]
        if mask is None:
            raise ValueError("the tokenizer has no mask token, which the template's {mask} stands for; use a backbone "
                             "that was trained by masked-language modelling (BERT, RoBERTa, MPNet, …)")
        before, after = (words.replace(MASK, mask) for words in (self.before, self.after))
        apart = f"{mask[:1]} {mask[1:-1]} {mask[-1:]}"
        return [before + text.replace(mask, apart) + after for text in texts]


def prompted_texts(texts: Sequence[str], prompt: str | None) -> list[str]:
    """Texts in a prompt or template, for models that take nothing but texts; raises ``ModelError`` for a template that
    they cannot be given."""
    try:
        return list(texts) if not prompt else Template.read(prompt).fill(texts)
    except ValueError as error:
        raise ModelError(str(error)) from None


def require_one_mask(prompt: str | None) -> None:
    """Raise ``ValueError`` unless a prompt has exactly one mask token, as the pooling ``mask`` needs."""
    masks = 0 if prompt is None else Template.read(prompt).masks
    if masks != 1:
        fault = "there is none" if prompt is None else f"'{prompt}' has {masks or 'none'}"
        raise ValueError(f"must be a template with one {MASK}, whose vector the pooling \"mask\" reads, as in 'This "
                         f"sentence : \"{TEXT}\" means {MASK} .'; {fault}")


def _templates(prompts: Sequence[str]) -> tuple[str, ...]:
    for prompt in prompts:
        Template.read(prompt)
        if TEXT not in prompt:
            raise ValueError(f"the template '{prompt}' must have one {TEXT}, where the text stands; it has none")
    return tuple(prompts)


def class_words(words: Sequence[str], examples: Examples | Table, where: str) -> list[str]:
    """A word for each class: those given, or the classes' names in the data, underscores read as spaces.

    Raises: DataError where there are neither, or fewer than classes.
    """
    chosen = list(words) or [name.replace("_", " ") for name in examples.label_names]
    if not chosen:
        raise DataError(f'{where}: the labels are numbers; give words = ["…", …], one for each class in order, or name '
                        "the column that has the classes' names as label")
    most = int(examples.label.max(initial=UNKNOWN)) if examples.label is not None else UNKNOWN
    if most >= len(chosen):
        raise DataError(f"{where}: words has {len(chosen)}, but the data have the label {most}; give one for each "
                        "class, labels counted from 0")
    return chosen


Words = Annotated[Sequence[str], AfterValidator(tuple)]  # of classes, as a setting
Templates = Annotated[Sequence[str], AfterValidator(_templates)]  # as a setting


def empty_rows(frames: Sequence[Frame], lengths: NDArray[np.int64], vocabulary: Vocabulary) -> Tokens:
    """Templates without their text, one a row, every token at the position that it has around a text of that length.

    In the text's place stand tokens that no other token attends to, which leaves positions alone in every architecture.
    """
    filler = next(token for token in (vocabulary.mask, 0, 1) if token is not None and token != vocabulary.pad)
    sizes = [len(frame) + length for frame, length in zip(frames, lengths.tolist(), strict=True)]
    ids = np.full((len(sizes), max(sizes)), vocabulary.pad, dtype=np.int64)
    attention = np.zeros_like(ids)
    for row, (frame, size) in enumerate(zip(frames, sizes, strict=True)):
        begin, end = len(frame.begin), size - len(frame.end)
        ids[row, :size] = [*frame.begin, *[filler] * (end - begin), *frame.end]
        attention[row, :begin] = attention[row, end:size] = 1
    return Tokens(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(attention))
