"""words against a loop over the vocabulary."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_module import services_of
from token_batches import build_with, normal, token_batch
from torch import nn

from sentemb.terms import Words
from sentemb.types import Examples, TokenColumn

TEXTS = [[2, 10, 10, 11, 3], [2, 11, 3], [2, 12, 11, 3], [2, 10, 3]]  # in texts: 11 three times, 10 twice, 12 once


def examples(rows, name="positive"):
    column = TokenColumn(
        flat=np.array([token for row in rows for token in row], dtype=np.int32),
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64), text=np.arange(len(rows)),
    )
    return Examples(ids=np.arange(len(rows)), columns={name: column})


def prepared(name="positive", vocabulary=2):
    term = Words(vocabulary=vocabulary)
    term.bind(build_with(nn.Identity()))
    term.prepare(examples(TEXTS, name), services_of([]))
    return term.double()


def test_the_words_are_the_most_frequent_by_texts_and_the_bias_their_log_odds():
    term = prepared()
    assert term.number[11].item() == 0
    assert term.number[10].item() == 1
    assert sorted(set(term.number.tolist())) == [-1, 0, 1]
    assert term.head.bias.tolist() == pytest.approx([math.log(3.5 / 1.5), 0.0])
    assert prepared("anchor").number.tolist() == term.number.tolist()  # dropout twins predict their own words


def test_equals_the_loop(table_of):
    term = prepared()
    sentences = normal(3, 4)
    share = term(table_of(torch.eye(3)), token_batch(normal(2, 5, 4), sentences, start=1))
    logits = term.head(sentences[1:]).detach()
    total = 0.0
    for i, words in enumerate(({10, 11, 12}, {13})):
        for token, k in ((11, 0), (10, 1)):
            p = 1 / (1 + math.exp(-float(logits[i, k])))
            total -= math.log(p if token in words else 1 - p)
    assert share.count.item() == 2
    assert share.total.item() == pytest.approx(total, rel=1e-10)


def test_a_token_twice_counts_once_and_padding_never(table_of):
    term = prepared(vocabulary=100)
    assert term.head.out_features == 17  # all ordinary tokens
    once, twice = (torch.tensor([[2, 10, token, 3, 0]]) for token in (12, 10))
    mask = torch.tensor([[1, 1, 1, 1, 0]])
    sentences, hidden = normal(1, 4), normal(1, 5, 4)
    values = [
        term(table_of(torch.eye(1)), token_batch(hidden, sentences, ids=ids, mask=mask)).total.item()
        for ids in (once, twice)
    ]
    logit = term.head(sentences)[0, term.number[12]].item()
    # taking one word out of the labels costs exactly its logit
    assert values[1] - values[0] == pytest.approx(logit, rel=1e-9)


def test_gradcheck_and_repeatable_start(table_of):
    term = prepared()
    sentences = normal(2, 4).requires_grad_()
    batch = token_batch(normal(2, 5, 4), sentences)
    assert torch.autograd.gradcheck(
        lambda s: term(table_of(torch.eye(2)), token_batch(normal(2, 5, 4), s)).total, (sentences,)
    )
    assert torch.equal(term.head.weight, prepared().head.weight)
    term(table_of(torch.eye(2)), batch).total.backward()
    assert term.head.weight.grad is not None


def test_refuses_an_empty_vocabulary():
    with pytest.raises(ValueError, match="vocabulary"):
        Words(vocabulary=0)
