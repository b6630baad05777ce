"""local against a loop over tokens and sentences."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from token_batches import IDS, MASK, ORDINARY, Heads, build_with, normal, token_batch
from torch import nn

from sentemb.errors import RecipeError
from sentemb.terms import Local


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return Heads()


@pytest.fixture
def term(heads):
    part = Local(temperature=0.3)
    part.bind(build_with(heads))
    return part


@pytest.mark.parametrize("start", [0, 1])
def test_equals_the_loop(term, heads, table_of, start):
    hidden, sentences = normal(2, 5, 4), normal(3, 4, seed=1)
    share = term(table_of(torch.eye(3)), token_batch(hidden, sentences, start=start))
    total = 0.0
    for row, place in ORDINARY:
        state = heads.head(hidden[row, place])
        cosine = [F.cosine_similarity(state, sentence, dim=0).item() / 0.3 for sentence in sentences]
        total += math.log(sum(map(math.exp, cosine))) - cosine[start + row]
    assert share.count.item() == 4
    assert share.total.item() == pytest.approx(total, rel=1e-10)


def test_one_sentence_alone_gives_zero(term, table_of):
    share = term(table_of(torch.eye(1)), token_batch(normal(1, 5, 4), normal(1, 4), ids=IDS[:1], mask=MASK[:1]))
    assert share.total.item() == 0.0


def test_padding_and_the_order_of_tokens_do_not_matter(term, table_of):
    hidden, sentences = normal(2, 5, 4), normal(2, 4, seed=1)
    before = term(table_of(torch.eye(2)), token_batch(hidden, sentences))
    order = [0, 3, 1, 2, 4]
    changed = hidden.clone()
    changed[1, 3:] = 9.0  # padding
    changed[0] = hidden[0, order]
    ids = IDS.clone()
    ids[0] = IDS[0, order]
    after = term(table_of(torch.eye(2)), token_batch(changed, sentences, ids=ids))
    assert after.total.item() == pytest.approx(before.total.item(), rel=1e-12)


def test_only_sentences_learn(term, table_of):
    hidden, sentences = normal(2, 5, 4).requires_grad_(), normal(2, 4, seed=1).requires_grad_()
    term(table_of(torch.eye(2)), token_batch(hidden, sentences)).total.backward()
    assert hidden.grad is None
    assert sentences.grad.abs().sum() > 0
    assert not list(term.parameters())  # the heads are the encoder's
    fixed = hidden.detach()
    assert torch.autograd.gradcheck(lambda s: term(table_of(torch.eye(2)), token_batch(fixed, s)).total, (sentences,))


def test_heads_that_couple_rows_are_refused(heads):
    heads.norm = nn.BatchNorm1d(4)
    with pytest.raises(RecipeError, match="couple the rows"):
        Local().bind(build_with(heads))
