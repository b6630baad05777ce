"""Known ids: every repetition is a suspicion, whatever the runs are, and few others are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ToyEncoder, vectors

from sentemb.errors import DataError
from sentemb.search import Document, SearchIndex
from sentemb.search.store.known_ids import KnownIds
from sentemb.search.store.spool import BLOCK

IDS = st.lists(st.one_of(st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1), st.text(max_size=2)), max_size=20)


@settings(deadline=None)
@given(st.lists(IDS, max_size=12))
def test_every_repetition_is_suspected(blocks: list[list[int | str]]) -> None:
    known, seen = KnownIds(), set()
    for block in blocks:
        repeated = [name for i, name in enumerate(block) if name in seen or name in block[:i]]
        assert set(repeated) <= set(known.suspects(block))
        known.add(block)
        seen |= set(block)


def test_runs_stay_few_and_nothing_new_is_suspected() -> None:
    known = KnownIds()
    names: list[int | str] = [f"{random.Random(i).getrandbits(64):x}" for i in range(20_000)]
    for start in range(0, len(names), 100):
        assert known.suspects(names[start : start + 100]) == []
        known.add(names[start : start + 100])
    assert len(known._runs) < 12
    assert known.suspects(["new", names[0], 7, names[-1], names[12_345]]) == [names[0], names[-1], names[12_345]]


@pytest.mark.parametrize("segment_rows", [None, 3000])
def test_equal_hashes_are_not_equal_ids(segment_rows: int | None, tmp_path: Path) -> None:
    assert hash(-1) == hash(-2)
    documents = [Document(i, f"w{i % 50}") for i in range(-9000, 9000)]
    index = SearchIndex.build(
        tmp_path / "ix", documents, encoder=ToyEncoder(), kind="flat", segment_rows=segment_rows
    )
    assert len(index) == 18_000
    with pytest.raises(DataError, match=r"id -1 occurs twice \(documents 9000 and 18001\)"):
        SearchIndex.build(
            tmp_path / "other", [*documents, Document(-1, "again")], encoder=ToyEncoder(), kind="flat",
            segment_rows=segment_rows,
        )


def test_an_id_in_two_segments_of_given_vectors_is_told(tmp_path: Path) -> None:
    documents = [Document(f"d{i % 35}", "x") for i in range(40)]
    with pytest.raises(DataError, match=r"'d[0-4]' occurs twice"):
        SearchIndex.build(tmp_path / "ix", documents, vectors=vectors(40), kind="flat", segment_rows=10)


def test_ids_of_before_an_interruption_are_known(tmp_path: Path) -> None:
    def documents(last: str) -> Iterator[Document]:
        yield from (Document(f"d{i}", f"w{i % 50}") for i in range(BLOCK))
        yield Document(last, "again")

    with pytest.raises(DataError, match="'d7' occurs twice"):
        SearchIndex.build(tmp_path, documents("d7"), encoder=ToyEncoder(), kind="flat")
    encoder = ToyEncoder()
    with pytest.raises(DataError, match=rf"'d9' occurs twice \(documents 10 and {BLOCK + 1}\)"):
        SearchIndex.build(tmp_path, documents("d9"), encoder=encoder, kind="flat", resume=True)
    assert encoder.encoded == []
