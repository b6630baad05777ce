"""Numbers for documents without ids, and ids that occur twice: told before anything is encoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ToyEncoder, vectors

from sentemb.errors import DataError
from sentemb.search import Document, SearchIndex
from sentemb.search.store.records import Numbering
from sentemb.search.store.segment import BLOCK

IDS = st.lists(st.one_of(st.none(), st.integers(-3, 9), st.integers(0, 9).map(str), st.text(max_size=1)), max_size=9)


@settings(deadline=None)
@given(st.lists(IDS, max_size=6), st.integers(0, 5))
def test_numbers_and_repetitions_are_those_of_a_loop(blocks: list[list[int | str | None]], start: int) -> None:
    numbering, seen, number = Numbering(start, is_unique=True), dict[str, int](), start
    for block in blocks:
        names: list[str] | None = []
        for row, name in enumerate(block, start=len(seen)):
            key = str(number if name is None else name)
            if names is not None and key in seen:
                names = None
            if names is not None:
                seen[key] = row
                names.append(key)
                if key.lstrip("-").isdecimal() and key.isascii() and str(int(key)) == key:
                    number = max(number, int(key) + 1)
        documents = [Document(name, "x") for name in block]
        if names is None:
            with pytest.raises(DataError, match="occurs twice"):
                numbering.ids(documents)
            return
        assert list(map(str, numbering.ids(documents))) == names


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
