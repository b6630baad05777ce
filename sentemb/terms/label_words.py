"""Every class is a word that the language model would write at the mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.data.templates import Words, class_words
from sentemb.encoder.pretrained import load_masked_lm_head
from sentemb.errors import ModelError
from sentemb.maths.similarity import at_least_float32
from sentemb.terms.term import Term
from sentemb.types import UNKNOWN, Batch, Build, Examples, PairScores, Services, TokenColumn
from sentemb.views.view import ViewNames


class LabelWords(Term):
    """Cross-entropy of the masked-LM head at the mask over one word for each class:

        z_ic = mean_{t ∈ word c} head(p_i)_t
        L = mean_{v ∈ of} -1/|K| Σ_{i ∈ K} log softmax_c(z_i)_{y_i}

    p are a view's rows behind the pooling ``mask``, K the examples whose class is known. A word of several tokens has
    the mean of their logits. The head is the checkpoint's where it has one, and left behind after training.

    Args:
        words: of the classes, in the order of their labels; by default the classes' names in the data.
        of: the views; the anchors by default.
    Returns: 0 where no class is known.
    Raises:
        DataError: (when prepared) labels are numbers and there are no words, or there are more classes than words.
        ModelError: (when prepared) the tokenizer knows nothing of a word, or knows two words alike.
    Source: Jian et al. 2022, NAACL, "Contrastive learning for prompt-based few-shot language learners" (LM-SupCon),
        released code; Gao, Fisch & Chen 2021, ACL (LM-BFF).
    Deviations: it is summed with the contrast, where LM-SupCon takes two optimiser steps a batch; words of several
        tokens are ours. The head's output weights are a copy of the word embeddings and learn apart from them.
    """

    def __init__(self, *, words: Words = (), of: ViewNames = ("anchor",)) -> None:
        super().__init__()
        self.words, self.of = words, of
        self.needs = frozenset({"labels", "pooled", *(f"view:{name}" for name in of)})
        self.head: nn.Sequential | None = None
        self.share: Tensor  # (classes, vocabulary entries in use) what each token counts for a class
        self.token: Tensor  # (entries in use,)

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Rows that are no states at a mask."""
        encoder, views, faults = recipe.get("encoder"), recipe.get("views"), []
        if encoder is not None and encoder.pooling is not None and not encoder.pooling.reads_mask_token:
            faults.append('reads the state at a mask: set encoder.pooling = "mask"')
        if views is not None and views.settings.get("subtract"):
            faults.append("reads states at the mask, from which views.subtract = true takes the template's: leave one "
                          "of them out")
        return faults

    def bind(self, build: Build) -> None:
        """Load the head."""
        self._tokenise: Callable[[Sequence[str]], TokenColumn] | None = build.tokenise
        self._special = np.fromiter(build.vocabulary.special, dtype=np.int64)
        self.head, _ = load_masked_lm_head(
            build.folder_of(build.backbone), seed=build.seed, trust_remote_code=build.trust_remote_code
        )

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Find the words' tokens."""
        words = class_words(self.words, dataset, f"terms: {self.name}")
        tokens = [self._tokens(word) for word in words]
        for label, ids in enumerate(tokens):
            if ids in tokens[:label]:
                raise ModelError(f'terms: {self.name}: the tokenizer knows the words "{words[tokens.index(ids)]}" and '
                                 f'"{words[label]}" alike; give each class a word of its own')
        entries = np.unique(np.concatenate(tokens))
        share = np.zeros((len(words), len(entries)))
        for label, ids in enumerate(tokens):
            np.add.at(share[label], np.searchsorted(entries, ids), 1 / len(ids))
        assert self.head is not None
        weight = next(self.head.parameters())
        self.register_buffer("token", torch.from_numpy(entries).to(weight.device), persistent=False)
        self.register_buffer("share", torch.from_numpy(share).to(weight), persistent=False)

    def forward(self, table: PairScores, batch: Batch) -> Float[Tensor, ""]:
        assert self.head is not None
        label = batch.views["anchor"].label
        assert label is not None
        known = (label != UNKNOWN).nonzero()[:, 0]
        *layers, decoder = self.head
        assert isinstance(decoder, nn.Linear)
        losses = []
        for name in self.of:
            states = batch.pooled[name][known].to(decoder.weight.dtype)
            for layer in layers:
                states = layer(states)
            # only the words' rows of the largest product of the step
            logits = at_least_float32(F.linear(states, decoder.weight[self.token], decoder.bias[self.token]))
            scores = logits @ self.share.T.to(logits.dtype)
            losses.append(F.cross_entropy(scores, label[known], reduction="sum") / max(len(known), 1))
        return torch.stack(losses).mean()

    def _tokens(self, word: str) -> list[int]:
        assert self._tokenise is not None
        ids = self._tokenise([f" {word}"]).flat.astype(np.int64)  # behind a space, as inside a text
        ordinary: list[int] = ids[~np.isin(ids, self._special)].tolist()
        if not ordinary:
            raise ModelError(f'terms: {self.name}: the tokenizer knows nothing of the word "{word}"; give another one')
        return ordinary
