"""Masked copies: the shares, what is never touched, and where the randomness comes from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentemb.errors import ModelError
from sentemb.types import Examples, TokenColumn, View, ViewContext, Vocabulary
from sentemb.views.masked import Masked
from sentemb.views.twice import Twice

SPECIAL = (0, 2, 3)


@pytest.fixture
def many(examples_of):
    generator = np.random.default_rng(5)
    return examples_of(anchor=[[2, *generator.integers(5, 30, 20).tolist(), 3] for _ in range(2000)])


def test_shares_are_as_asked(many, context_of):
    copy = Masked(of=["anchor"], probability=0.3)
    context = context_of(many)
    view = copy(Twice()(many, context), context)["anchor.masked"]
    original, flat, targets = many.columns["anchor"].flat, view.column.flat, view.targets
    ordinary = ~np.isin(original, SPECIAL)
    chosen = targets != -100
    assert chosen[ordinary].mean() == pytest.approx(0.3, abs=0.01)  # 40,000 draws: sd 0.0023
    assert (flat == 4)[chosen].mean() == pytest.approx(0.8, abs=0.02)
    # 10 % random, of which 1/27 happens to be the original and 1/27 the mask itself
    assert ((flat != 4) & (flat != original))[chosen].mean() == pytest.approx(0.1, abs=0.015)
    assert (flat == original)[chosen].mean() == pytest.approx(0.1, abs=0.015)


def test_only_chosen_tokens_change_and_targets_hold_the_original(many, context_of):
    context = context_of(many)
    view = Masked(of=["anchor"], probability=0.5)(Twice()(many, context), context)["anchor.masked"]
    original, chosen = many.columns["anchor"].flat, view.targets != -100
    assert (view.column.flat[~chosen] == original[~chosen]).all()
    assert (view.targets[chosen] == original[chosen]).all()
    assert not np.isin(original[chosen], SPECIAL).any()
    assert not np.isin(view.column.flat[chosen], SPECIAL).any()
    assert view.targets.dtype == view.column.flat.dtype == np.int32
    assert view.column.offsets is many.columns["anchor"].offsets
    assert view.ids is many.ids


def test_the_source_is_untouched_and_views_of_one_sentence_are_masked_on_their_own(many, context_of):
    before = many.columns["anchor"].flat.copy()
    context = context_of(many)
    copies = Masked(of=["anchor", "positive"], probability=0.3)(Twice()(many, context), context)
    assert list(copies) == ["anchor.masked", "positive.masked"]
    assert (many.columns["anchor"].flat == before).all()
    first, second = copies["anchor.masked"].targets != -100, copies["positive.masked"].targets != -100
    ordinary = ~np.isin(before, SPECIAL)
    assert (first & second)[ordinary].mean() == pytest.approx(0.09, abs=0.01)  # independent: 0.3 × 0.3


def test_randomness_comes_from_the_context_alone(many, context_of):
    def flat(seed):
        np.random.seed(seed)  # the global state must not matter
        context = context_of(many, seed=11)
        return Masked(of=["anchor"])(Twice()(many, context), context)["anchor.masked"].column.flat

    assert (flat(0) == flat(1)).all()
    other = context_of(many, seed=12)
    assert (flat(0) != Masked(of=["anchor"])(Twice()(many, other), other)["anchor.masked"].column.flat).any()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 29), max_size=6), max_size=5), st.floats(0.01, 0.99), st.integers(0, 99))
def test_ragged_and_empty_rows(token_rows, probability, seed):
    offsets = np.cumsum([0, *(len(row) for row in token_rows)]).astype(np.int64)
    flat = np.array([token for row in token_rows for token in row], dtype=np.int32)
    ids = np.arange(len(token_rows), dtype=np.int64)
    views = {"positive": View(column=TokenColumn(flat=flat, offsets=offsets, text=ids), ids=ids)}
    vocabulary = Vocabulary(size=30, pad=0, mask=4, special=frozenset(SPECIAL))
    context = ViewContext(
        generator=np.random.default_rng(seed),
        dataset=Examples(ids=ids, columns={}),
        vocabulary=vocabulary,
        companions={},
    )
    view = Masked(of=["positive"], probability=probability)(views, context)["positive.masked"]
    assert len(view.column.flat) == len(view.targets) == len(flat)
    restored = np.where(view.targets == -100, view.column.flat, view.targets)
    assert (restored == flat).all()


def test_names_what_it_needs_and_makes():
    copy = Masked(of=["anchor", "positive"])
    assert copy.needs == {"view:anchor", "view:positive"}
    assert copy.makes == ("anchor.masked", "positive.masked")


def test_a_tokenizer_without_a_mask_is_named(many, context_of):
    context = context_of(many, mask=None)
    with pytest.raises(ModelError, match="no mask token"):
        Masked(of=["anchor"])(Twice()(many, context), context)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"of": []}, "at least 1 item"),
        ({"of": ["anchor", "anchor"]}, "every view once"),
        ({"of": ["anchor"], "probability": 0.0}, "greater than 0"),
        ({"of": ["anchor"], "probability": 1.0}, "less than 1"),
        ({"of": ["anchor"], "mask_share": 0.9, "random_share": 0.2}, "more than 1"),
        ({"of": ["anchor"], "mask_share": -0.1}, "greater than or equal to 0"),
    ],
)
def test_wrong_values(settings_, message):
    with pytest.raises(ValueError, match=message):
        Masked(**settings_)
