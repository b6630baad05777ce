"""label_words: its loss against loops, which words it takes, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sentemb import Recipe
from sentemb.data import Table
from sentemb.errors import DataError, ModelError, RecipeError
from sentemb.recipe.needs import class_faults
from sentemb.terms import LabelWords
from sentemb.types import Batch, Build, Examples, Rows, Services

WORDS = ("music", "red house", "dog")
LABEL = [0, 2, 1, -1]


def unasked(*_: object) -> None:
    raise AssertionError("label_words asks for no service")


SERVICES = Services(embed=unasked, nearest=unasked, decode=unasked, say=unasked)  # type: ignore[arg-type]


def examples(label: list[int] = LABEL, names: tuple[str, ...] = ()) -> Examples:
    return Examples(ids=np.arange(len(label)), columns={}, label=np.array(label), label_names=names)


@pytest.fixture
def bound(build: Build):
    def make(data: Examples | None = None, dtype: torch.dtype = torch.float64, **settings: object) -> LabelWords:
        term = LabelWords(**{"words": WORDS, **settings})
        term.bind(build)
        term.to(dtype)
        term.prepare(data or examples(), SERVICES)
        return term

    return make


def batch_with(pooled: torch.Tensor, label: list[int] = LABEL) -> Batch:
    n = len(pooled)
    rows = Rows(embedding=pooled, ids=torch.arange(n), text=torch.arange(n), label=torch.tensor(label))
    return Batch(views={"anchor": rows, "positive": rows}, local=slice(0, n), tokens={}, encoded={},
                 pooled={"anchor": pooled, "positive": 2 * pooled})


def states(n: int = 4, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(0), dtype=dtype)


def loop(term: LabelWords, build: Build, pooled: torch.Tensor, label: list[int]) -> float:
    """From the equation, over the whole vocabulary's logits."""
    ids = [[token for token in build.tokenise([word]).flat.tolist() if token > 4] for word in WORDS]
    losses = []
    for row, truth in zip(pooled, label, strict=True):
        if truth >= 0:
            logits = term.head(row[None])[0].tolist()
            scores = [sum(logits[token] for token in tokens) / len(tokens) for tokens in ids]
            losses.append(math.log(sum(map(math.exp, scores))) - scores[truth])
    return sum(losses) / len(losses)


def test_equals_the_loop(bound, build, table_of):
    term, pooled = bound(), states()
    assert term(table_of(torch.eye(4)), batch_with(pooled)).item() == pytest.approx(loop(term, build, pooled, LABEL))
    both = bound(of=["anchor", "positive"])
    expected = (loop(both, build, pooled, LABEL) + loop(both, build, 2 * pooled, LABEL)) / 2
    assert both(table_of(torch.eye(4)), batch_with(pooled)).item() == pytest.approx(expected)


def test_by_hand(bound, table_of):
    """Two classes whose words' logits are 2 and 0, and 0 and 1."""
    term = bound(words=["music", "dog"], data=examples([0, 0]))
    decoder = torch.nn.Linear(2, term.head[-1].out_features).double()
    with torch.no_grad():
        decoder.weight.zero_()
        decoder.bias.zero_()
        music, dog = term.token[term.share.argmax(dim=1)].tolist()
        decoder.weight[music, 0] = decoder.weight[dog, 1] = 1
    term.head = torch.nn.Sequential(decoder)
    pooled = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    # -log softmax(2, 0)[0] = 0.126928 and -log softmax(0, 1)[0] = 1.313262
    loss = term(table_of(torch.eye(2)), batch_with(pooled, [0, 0])).item()
    assert loss == pytest.approx((0.126928 + 1.313262) / 2, abs=1e-6)


def test_gradient_and_permutation(bound, table_of):
    term, order = bound(), torch.tensor([2, 0, 3, 1])

    def loss(pooled: torch.Tensor) -> torch.Tensor:
        return term(table_of(torch.eye(4)), batch_with(pooled))

    assert torch.autograd.gradcheck(loss, states().requires_grad_(), atol=1e-6)
    moved = batch_with(states()[order], [LABEL[i] for i in order])
    assert term(table_of(torch.eye(4)), moved).item() == pytest.approx(loss(states()).item(), rel=1e-12)


def test_edges(bound, table_of):
    assert bound()(table_of(torch.eye(2)), batch_with(states(2), [-1, -1])).item() == 0
    half = bound(dtype=torch.bfloat16)(table_of(torch.eye(4)), batch_with(states(dtype=torch.bfloat16)))
    assert half.dtype == torch.float32
    assert torch.isfinite(half)


def test_names_of_the_data_are_the_words(bound, table_of):
    named = bound(words=(), data=examples(names=("music", "red_house", "dog")))
    assert torch.equal(named.share, bound().share)
    assert torch.equal(named.token, bound().token)


@pytest.mark.parametrize(("settings", "data", "kind", "words"), [
    ({"words": ()}, examples(), DataError, "the labels are numbers; give words"),
    ({"words": ["dog", "cat"]}, examples(), DataError, "words has 2, but the data have the label 2"),
    ({"words": ["dog", "cat", "Dog"]}, examples(), ModelError, '"dog" and "Dog" alike'),
    ({"words": ["dog", "cat", "\u200b"]}, examples(), ModelError, "knows nothing of the word"),
])
def test_refuses_words_that_tell_no_classes_apart(settings, data, kind, words, bound):
    with pytest.raises(kind, match=words):
        bound(data, **settings)


def test_check_tells_of_labels_without_words():
    table = Table(columns={"anchor": list("abcd")}, label=np.array([0, 1, 0, 1]))
    faults = class_faults(Recipe.named("lm-supcon-minilm"), table)
    assert sum("the labels are numbers; give words" in fault for fault in faults) == 2  # the view and the term
    named = Table(columns=table.columns, label=table.label, label_names=("dog", "music"))
    assert not [fault for fault in class_faults(Recipe.named("lm-supcon-minilm"), named) if "words" in fault]


def test_refuses_rows_that_are_no_states_at_a_mask():
    recipe = Recipe.named("lm-supcon-minilm")
    plain = replace(recipe.encoder, pooling="cls")
    with pytest.raises(ValueError, match=r"reads the state at a mask: set encoder\.pooling"):
        recipe.replace(encoder=plain)
    with pytest.raises(RecipeError, match="label_words needs labels, pooled"):
        LabelWords()(torch.eye(2), torch.eye(2))
