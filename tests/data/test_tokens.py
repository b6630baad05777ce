from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from sentemb.data import token_files, tokens
from sentemb.data.table import Table
from sentemb.data.token_files import load_columns, store_columns
from sentemb.data.tokens import text_hashes, tokenise
from sentemb.errors import DataError
from sentemb.files import cache_dir, sha256_of
from sentemb.training.checkpoint import hash_of_data
from sentemb.types import TokenColumn


class Counting:
    """A tokenizer's backend as the encoder room wraps it, counting the texts it is given."""

    def __init__(self, hub, max_tokens):
        self.hub, self.max_tokens, self.seen = hub, max_tokens, 0

    def __call__(self, texts, template=None):
        self.seen += len(texts)
        texts = texts if template is None else template.fill(texts)
        self.hub.backend_tokenizer.no_padding()
        self.hub.backend_tokenizer.enable_truncation(self.max_tokens)
        ids = [encoding.ids for encoding in self.hub.backend_tokenizer.encode_batch(texts)]
        offsets = np.cumsum([0, *map(len, ids)])
        return TokenColumn(
            flat=np.array([i for row in ids for i in row], dtype=np.int32), offsets=offsets, text=text_hashes(texts)
        )

    def fingerprint(self):
        rules = json.loads(self.hub.backend_tokenizer.to_str())
        return json.dumps({**rules, "truncation": None, "padding": None})


@pytest.fixture
def tokeniser(tiny_bert: Path) -> Counting:
    return Counting(AutoTokenizer.from_pretrained(tiny_bert), 6)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where token ids lie, also those of few texts."""
    monkeypatch.setenv("SENTEMB_CACHE", str(tmp_path))
    monkeypatch.setattr(tokens, "CACHED_FROM", 1)
    return tmp_path / "tokens"


TABLE = Table(columns={
    "anchor": ["the dog runs", "a cat", "the dog runs", "the man plays the guitar and the music"],
    "positive": ["a cat", "the dog runs", "a blue car", "one"],
}, label=np.arange(4), score=np.ones(4, dtype=np.float32), margin=np.zeros(4, dtype=np.float32))  # fmt: skip


def rows(column: TokenColumn) -> list[list[int]]:
    return [column.flat[a:b].tolist() for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]


def test_equals_the_tokenizer_row_by_row(tokeniser):
    examples = tokenise(TABLE, tokeniser)
    for role, texts in TABLE.columns.items():
        expected = tokeniser.hub(texts, truncation=True, max_length=6)["input_ids"]
        assert rows(examples.columns[role]) == expected
        assert examples.columns[role].text.tolist() == text_hashes(texts).tolist()
    assert examples.ids.tolist() == [0, 1, 2, 3]
    assert examples.label is TABLE.label
    assert examples.score is TABLE.score
    assert examples.margin is TABLE.margin


def test_every_distinct_text_is_tokenised_once(tokeniser, tmp_path, monkeypatch):
    monkeypatch.setenv("SENTEMB_CACHE", str(tmp_path))
    tokenise(TABLE, tokeniser)
    assert tokeniser.seen == 5
    assert not list(tmp_path.iterdir())  # few texts are not worth a file


def test_prefixes_are_tokenised_and_leave_the_identity_of_a_text_alone(tokeniser):
    table = Table(columns=TABLE.columns, prefixes={"anchor": "two "})
    examples = tokenise(table, tokeniser)
    assert rows(examples.columns["anchor"]) == rows(tokeniser(["two " + text for text in TABLE.columns["anchor"]]))
    assert rows(examples.columns["positive"]) == rows(tokeniser(TABLE.columns["positive"]))
    assert examples.columns["anchor"].text[1] == examples.columns["positive"].text[0]
    with pytest.raises(DataError, match="prefixes for negative_1; columns: anchor, positive"):
        tokenise(Table(columns=TABLE.columns, prefixes={"negative_1": "x"}), tokeniser)


def test_the_encoders_own_tokenizer_fits(tiny_bert, cache):
    from sentemb.encoder import Encoder

    own = Encoder.load(tiny_bert, max_tokens=6).tokeniser
    first = tokenise(TABLE, own)
    assert rows(first.columns["anchor"]) == rows(own(TABLE.columns["anchor"]))
    second = tokenise(TABLE, own)
    assert rows(second.columns["anchor"]) == rows(first.columns["anchor"])


def test_a_second_time_comes_from_the_cache(tokeniser, cache):
    first = tokenise(TABLE, tokeniser)
    tokeniser.seen = 0
    second = tokenise(TABLE, tokeniser)
    assert tokeniser.seen == 0
    for role in TABLE.columns:
        assert rows(first.columns[role]) == rows(second.columns[role])
        assert (first.columns[role].text == second.columns[role].text).all()


@pytest.mark.parametrize("change", ["text", "order", "max_tokens", "prefix", "tokenizer"])
def test_the_cache_answers_for_nothing_else(tokeniser, cache, tiny_bert, change):
    tokenise(TABLE, tokeniser)
    table = TABLE
    if change == "text":
        table = Table(columns={**TABLE.columns, "positive": ["a cat", "the dog runs", "a blue car", "two"]})
    elif change == "order":
        table = Table(columns={role: texts[::-1] for role, texts in TABLE.columns.items()})
    elif change == "max_tokens":
        tokeniser.max_tokens = 5
    elif change == "prefix":
        table = Table(columns=TABLE.columns, prefixes=dict.fromkeys(TABLE.columns, "one "))
    else:
        hub = AutoTokenizer.from_pretrained(tiny_bert)
        hub.add_tokens(["guitarist"])
        tokeniser = Counting(hub, 6)
    tokeniser.seen = 0
    examples = tokenise(table, tokeniser)
    assert tokeniser.seen == 5
    prefix = table.prefixes.get("anchor", "")
    assert rows(examples.columns["anchor"]) == rows(tokeniser([prefix + text for text in table.columns["anchor"]]))


@pytest.mark.parametrize("damage", ["flip", "cut", "absent", "pickle", "other-rows", "no-json"])
def test_a_damaged_entry_is_made_anew(tokeniser, cache, damage):
    good = tokenise(TABLE, tokeniser)
    (entry,) = (path for path in cache.iterdir() if path.is_dir())
    ids, offsets = entry / "anchor.bin", entry / "anchor.offsets.npy"
    data = bytearray(ids.read_bytes())
    if damage == "flip":
        data[1] ^= 1
        ids.write_bytes(data)
    elif damage == "cut":
        ids.write_bytes(data[:-4])
    elif damage == "absent":
        ids.unlink()
    elif damage == "no-json":
        (entry / "entry.json").write_text("[]")
    else:  # whoever can write the checksums could also plant objects to unpickle, which np.load must refuse
        np.save(offsets, np.array([{}], dtype=object) if damage == "pickle" else np.array([0, len(data) // 2]))
        known = json.loads((entry / "entry.json").read_text())
        known["sha256"][offsets.name] = sha256_of(offsets)
        (entry / "entry.json").write_text(json.dumps(known))
    tokeniser.seen = 0
    again = tokenise(TABLE, tokeniser)
    assert tokeniser.seen == 5
    assert rows(again.columns["positive"]) == rows(good.columns["positive"])
    tokenise(TABLE, tokeniser)
    assert tokeniser.seen == 5  # the entry is whole again


def test_a_cache_that_cannot_be_written_costs_only_time(tokeniser, cache):
    cache.write_text("no folder")
    examples = tokenise(TABLE, tokeniser)
    assert len(examples) == 4


def test_the_least_recently_used_entries_go(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "CACHE_BYTES", 5_000)
    column = TokenColumn(flat=np.zeros(1000, dtype=np.int32), offsets=np.array([0, 1000]), text=np.array([1]))
    for i, key in enumerate("ab"):
        store_columns(tmp_path / key, ["anchor"], [{"anchor": column}])
        os.utime(tmp_path / key, (i, i))
    assert load_columns(tmp_path / "a", {"anchor": column.text}) is not None  # now the younger of the two
    store_columns(tmp_path / "c", ["anchor"], [{"anchor": column}])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def test_ids_beyond_two_bytes_are_written_with_four(tmp_path):
    small = TokenColumn(flat=np.array([1, 65_535], np.int32), offsets=np.array([0, 2]), text=np.array([1]))
    large = TokenColumn(flat=np.array([65_536, 3], np.int32), offsets=np.array([0, 1, 2]), text=np.array([2, 3]))
    store_columns(tmp_path / "a", ["anchor"], [{"anchor": small}, {"anchor": large}])
    column = load_columns(tmp_path / "a", {"anchor": np.array([1, 2, 3])})["anchor"]
    assert rows(column) == [[1, 65_535], [65_536], [3]]
    assert (tmp_path / "a" / "anchor.bin").stat().st_size == 16
    store_columns(tmp_path / "b", ["anchor"], [{"anchor": small}])
    column = load_columns(tmp_path / "b", {"anchor": np.array([1])})["anchor"]
    assert (tmp_path / "b" / "anchor.bin").stat().st_size == 4
    assert column.take(np.array([0, 0])).flat.dtype == np.int32


def test_blocks_of_rows_are_what_they_are_together(tokeniser, cache, monkeypatch):
    whole = tokenise(TABLE, tokeniser)
    monkeypatch.setattr(tokens, "_CHUNK", 3)
    for folder in (path for path in cache.iterdir() if path.is_dir()):
        shutil.rmtree(folder)
    parts = tokenise(TABLE, tokeniser)
    for role, column in whole.columns.items():
        assert rows(column) == rows(parts.columns[role])
        assert column.text.tolist() == parts.columns[role].text.tolist()
    assert hash_of_data(whole) == hash_of_data(parts)


def test_a_text_of_which_nothing_is_left():
    class Silent:
        max_tokens = 4

        def fingerprint(self):
            return "silent"

        def __call__(self, texts):
            return TokenColumn(
                flat=np.zeros(0, np.int32), offsets=np.zeros(len(texts) + 1, np.int64), text=text_hashes(texts)
            )

    with pytest.raises(DataError, match=r"leaves nothing of 1 texts, e\.g\. of row 1"):
        tokenise(Table(columns={"anchor": ["\u200b"]}), Silent())


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("SENTEMB_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("SENTEMB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_dir() == Path("/cache/sentemb")
