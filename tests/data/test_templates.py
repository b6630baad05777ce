"""Templates: what is read, filled and refused, and where their tokens stand without a text."""

from __future__ import annotations

import numpy as np
import pytest

from sentemb.data import TableData
from sentemb.data.templates import Template, empty_rows, prompted_texts, require_one_mask
from sentemb.errors import ModelError
from sentemb.types import Frame, TokenColumn, Vocabulary

VOCABULARY = Vocabulary(size=30, pad=0, mask=4, special=frozenset({0, 2, 3, 4}))


def test_a_prompt_is_a_prefix_unless_it_says_where_the_text_stands():
    assert Template.read("query: ") == Template(before="query: ") == Template.read("query: {text}")
    assert Template.read('say "{text}" now') == Template(before='say "', after='" now')
    assert Template.read("query: ").fill(["a", "b"]) == ["query: a", "query: b"]
    assert Template.read("{mask} {mask}: {text}").masks == 2


def test_masks_are_the_templates_alone():
    template = Template.read("{text} is {mask}.")
    assert template.fill(["a [MASK] b"], "[MASK]") == ["a [ MASK ] b is [MASK]."]
    assert template.fill(["x"], "<mask>") == ["x is <mask>."]
    assert Template.read("q: ").fill(["a [MASK] b"], "[MASK]") == ["q: a [MASK] b"]
    with pytest.raises(ValueError, match="no mask token"):
        template.fill(["x"], None)


@pytest.mark.parametrize(("prompt", "found"), [("means {mask} .", "none"), ("{text} and {text}", "2")])
def test_a_template_has_one_text(prompt, found):
    with pytest.raises(ValueError, match=f"must have one {{text}}, where the text stands; it has {found}"):
        Template.read(prompt)
    with pytest.raises(ValueError, match=r"prefixes.anchor: .*must have one {text}"):
        TableData(path="x.txt", prefixes={"anchor": prompt})


@pytest.mark.parametrize("prompt", [None, "{text}", "query: ", "{mask} {text} {mask}"])
def test_a_pooling_of_the_mask_needs_exactly_one(prompt):
    with pytest.raises(ValueError, match=r"must be a template with one \{mask\}"):
        require_one_mask(prompt)
    require_one_mask("{text} {mask}")


def test_models_that_take_nothing_but_texts_get_them_in_their_prompt():
    assert prompted_texts(["a"], None) == prompted_texts(["a"], "") == ["a"]
    assert prompted_texts(["a", "b"], "q: ") == ["q: a", "q: b"]
    assert prompted_texts(["a"], 'say "{text}"') == ['say "a"']
    with pytest.raises(ModelError, match="no mask token"):
        prompted_texts(["a"], "{text} {mask}")
    with pytest.raises(ModelError, match="must have one"):
        prompted_texts(["a"], "{text} {text}")


def test_empty_rows_by_hand():
    frames = [Frame(begin=(2, 7), end=(8, 4, 3)), Frame(begin=(2,), end=(4, 3))]
    rows = empty_rows(frames, np.array([2, 0]), VOCABULARY)
    assert rows.input_ids.tolist() == [[2, 7, 4, 4, 8, 4, 3], [2, 4, 3, 0, 0, 0, 0]]
    assert rows.attention_mask.tolist() == [[1, 1, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]]


def test_the_room_of_a_text_is_what_the_template_leaves():
    column = TokenColumn(flat=np.arange(9, dtype=np.int32), offsets=np.array([0, 6, 9]), text=np.arange(2))
    assert Frame(begin=(2, 7), end=(3,)).room_in(column).tolist() == [3, 0]
    assert Frame(begin=(2, 7), end=(8, 3)).room_in(column).tolist() == [2, 0]  # two words became one token
