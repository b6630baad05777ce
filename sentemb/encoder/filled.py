"""Training pairs by a masked-language model: words of a sentence are taken out, and the model fills the places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Gt, Le, MinLen
from numpy.typing import NDArray
from pydantic import AfterValidator
from torch import Tensor

from sentemb.data.makers.maker import Maker, Row
from sentemb.encoder.layout import read_layout
from sentemb.encoder.pretrained import lacks_head, load_masked_lm
from sentemb.encoder.source import locate
from sentemb.encoder.tokeniser import load_hub
from sentemb.errors import ModelError
from sentemb.parts import Count, Fraction

Shares = Annotated[Sequence[Annotated[float, Gt(0), Le(1)]], MinLen(1), AfterValidator(tuple)]
_WORD_STARTS = ("Ġ", "▁")  # of tokens of byte-level and sentencepiece vocabularies


@dataclass(frozen=True, kw_only=True)
class Filled(Maker):
    """Every sentence, and what a masked-language model makes of it where some of its words are hidden.

        rows:  anchor = the sentence, positive = the sentence with its hidden words filled in again

    Of each share of a sentence's words, so many are drawn and hidden; neighbours among them become one place with the
    probability ``merged``, which deletes words. The model puts its most likely whole word into every place, all
    places of a text at once. The more is hidden, the less of the meaning stays: a stand-in for the texts that a
    language model writes for CLAIF and SynCSE, and no substitute for it.

    Args:
        path: sentences: a txt file, or a file with a column text.
        model: folder, ``package:…`` or hub id of a masked-language model.
        shares: of the words that are hidden; a row for each. CLAIF has 0.1 to 0.8.
        merged: probability that two neighbouring hidden words become one place.
        batch: texts that the model reads at once.

    Raises:
        ModelError: the model has no masked-language-model head, or its tokenizer no mask.
    Source: Cheng et al. 2023, Findings of ACL (CLAIF), released code: masks by share, merged with probability ½.
    Deviations: a masked-language model fills the places where the authors ask a large language model.
    """

    model: str
    shares: Shares = (0.2,)
    merged: Fraction = 0.5
    batch: Count = 64

    def rows(self, generator: np.random.Generator, left_out: Counter[str]) -> Iterator[Row]:
        fill, remaining = Filler(self.model), self.records()
        while records := list(islice(remaining, self.batch)):
            sentences = [" ".join(str(self.cell(record, "text", "anchor")).split()) for record in records]
            hidden = [
                (sentence, hide(sentence.split(), share, self.merged, generator))
                for sentence in sentences for share in self.shares
            ]
            fitting = [pair for pair in hidden if fill.reads(pair[1])]
            if len(fitting) < len(hidden):
                left_out["texts that are longer than the model reads, or have a mask"] += len(hidden) - len(fitting)
            for (sentence, _), positive in zip(fitting, fill([words for _, words in fitting]), strict=True):
                if positive.lower() == sentence.lower():
                    left_out["texts that were filled with their own words"] += 1
                else:
                    yield {"anchor": sentence, "positive": positive}


def hide(
    words: Sequence[str], share: float, merged: float, generator: np.random.Generator
) -> list[str | None]:
    """The words with None in the place of hidden ones: of ``share`` of them, at least one."""
    count = max(1, round(share * len(words)))
    chosen = set(generator.choice(len(words), count, replace=False).tolist())
    result: list[str | None] = []
    for i, word in enumerate(words):
        if i not in chosen:
            result.append(word)
        elif not (i - 1 in chosen and generator.random() < merged):
            result.append(None)
    return result


class Filler:
    """Fills the places of texts with a masked-language model's most likely words."""

    def __init__(self, source: str) -> None:
        folder = read_layout(locate(source)).backbone
        self.model, missing = load_masked_lm(folder)
        self.hub = load_hub(folder, lower_case=False)
        if lacks_head(missing) or self.hub.mask_token_id is None:
            raise ModelError(f"{source}: no masked-language model with its head and a mask token; name a checkpoint "
                             "that was trained by masked-language modelling, e.g. distilbert-base-uncased")
        self.model.eval()
        self.words = word_tokens(self.hub, self.model.get_output_embeddings().out_features)
        self.longest = min(self.hub.model_max_length, getattr(self.model.config, "max_position_embeddings", 512) - 2)

    def _text(self, words: Sequence[str | None]) -> str:
        return " ".join(self.hub.mask_token if word is None else word for word in words)

    def reads(self, words: Sequence[str | None]) -> bool:
        """Whether the model reads the whole text, and finds no other places in it."""
        ids = self.hub(self._text(words))["input_ids"]
        return bool(len(ids) <= self.longest and ids.count(self.hub.mask_token_id) == list(words).count(None))

    @torch.inference_mode()
    def __call__(self, texts: Sequence[Sequence[str | None]]) -> list[str]:
        """The texts with a word in every place."""
        if not texts:
            return []
        tokens = self.hub([self._text(words) for words in texts], padding=True, return_tensors="pt")
        logits: Tensor = self.model(**tokens).logits
        best = logits.masked_fill(~self.words, -torch.inf).argmax(dim=-1)
        is_place = tokens["input_ids"] == self.hub.mask_token_id
        filled = []
        for words, ids, places in zip(texts, best, is_place, strict=True):
            fillers = (self.hub.decode([number]).strip() for number in ids[places].tolist())
            filled.append(" ".join(next(fillers) if word is None else word for word in words))
        return filled


def word_tokens(hub: Any, size: int) -> Tensor:
    """Which of the vocabulary's tokens are whole words of letters, (size,)."""
    tokens = hub.convert_ids_to_tokens(list(range(min(size, len(hub)))))
    has_starts = any(token.startswith(_WORD_STARTS) for token in tokens)
    is_word: NDArray[np.bool_] = np.zeros(size, dtype=bool)
    for number, token in enumerate(tokens):
        word = token.lstrip("Ġ▁")
        is_word[number] = word.isalpha() and (not has_starts or token.startswith(_WORD_STARTS))
    is_word[[number for number in hub.all_special_ids if number < size]] = False
    return torch.from_numpy(is_word)
