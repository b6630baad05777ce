"""similar_words: the nearest word embeddings among the tokens of the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_module import TinyModule, build_of, column_of, examples_of, services_of
from torch import nn

from sentemb.companions import SimilarWords
from sentemb.errors import ModelError

USED = [5, 6, 7, 9, 11, 30]
ROWS = [[2, 5, 6, 7, 3], [2, 9, 11, 5, 3], [2, 30, 3]]


def prepared(module, rows=ROWS, count=3):
    companion = SimilarWords(count=count)
    companion.bind(build_of(module))
    companion.prepare(examples_of(anchor=column_of(rows)), services_of([]))
    return companion


def test_equals_the_loop_over_used_words():
    module = TinyModule()
    weight = module.tokens.weight.detach().double()
    similar = prepared(module).similar(np.array(USED, dtype=np.int32))
    for token, row in zip(USED, similar.tolist(), strict=True):
        cosine = {
            other: float(torch.cosine_similarity(weight[token], weight[other], dim=0)) for other in USED
            if other != token
        }
        assert row == sorted(cosine, key=lambda other: -cosine[other])[:3]
    assert similar.dtype == np.int32


def test_special_and_unseen_tokens_are_their_own():
    similar = prepared(TinyModule()).similar(np.array([0, 2, 3, 8, 39], dtype=np.int32))
    assert similar.tolist() == [[token] * 3 for token in (0, 2, 3, 8, 39)]


def test_few_words_have_few_similar_ones():
    module = TinyModule()
    assert prepared(module, [[2, 5, 6, 3]]).similar(np.array([5, 6], dtype=np.int32)).tolist() == [[6], [5]]
    assert prepared(module, [[2, 5, 3]]).similar(np.array([5], dtype=np.int32)).tolist() == [[5]]


def test_training_changes_nothing_and_nothing_is_saved():
    module = TinyModule()
    companion = SimilarWords()
    companion.bind(build_of(module))
    expected = prepared(TinyModule(), count=5).similar(np.array(USED, dtype=np.int32))
    with torch.no_grad():
        module.tokens.weight.normal_()
    companion.prepare(examples_of(anchor=column_of(ROWS)), services_of([]))
    assert (companion.similar(np.array(USED, dtype=np.int32)) == expected).all()
    assert companion.checkpoint_state() == {}


def test_an_encoder_without_word_embeddings_is_named():
    module = TinyModule()
    module.tokens = nn.Embedding(8, 4)
    with pytest.raises(ModelError, match="no table of word embeddings for 40 tokens"):
        SimilarWords().bind(replace(build_of(module), encoder=module))
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        SimilarWords(count=0)
