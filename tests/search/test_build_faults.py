"""A build that fails leaves nothing, or encoded documents that ``resume`` goes on from, and says which."""

from __future__ import annotations

import errno
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from toy import ToyEncoder, vectors

from sentemb.errors import DataError, SearchError
from sentemb.search import BuildOptions, Document, SearchIndex
from sentemb.search.store import build as building
from sentemb.search.store import disk, embedding, records
from sentemb.search.store.disk import write_lock
from sentemb.search.store.segment import BLOCK


def _documents(count: int = BLOCK + 50) -> list[Document]:
    return [Document(f"d{i}", f"word{i % 97} number{i}", {"i": i}) for i in range(count)]


@pytest.mark.parametrize(
    ("data", "choices", "error"),
    [
        ([], {}, SearchError), (["  "], {}, DataError), ([{"title": "x"}], {}, DataError),
        ([Document("a", "x"), Document("a", "y")], {}, DataError), (["a"], {"dim": 99}, SearchError),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_left_where_nothing_was_encoded(
    data: Any, choices: dict[str, Any], error: type[Exception], exists: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "ix"
    if exists:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    with pytest.raises(error):
        SearchIndex.build(folder, data, encoder=ToyEncoder(), kind="flat", **choices)
    assert {path.name for path in folder.iterdir()} == {".sentemb-lock"} | ({"notes.txt"} if exists else set())
    SearchIndex.build(folder, ["fine now"], encoder=ToyEncoder(), kind="flat")


def test_vectors_at_fault_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="only 9 documents"):
        SearchIndex.build(tmp_path / "ix", ["x"] * 9, vectors=vectors(10))
    assert [path.name for path in (tmp_path / "ix").iterdir()] == [".sentemb-lock"]


def test_a_repeated_id_is_told_before_its_block_is_encoded_and_the_rest_is_kept(tmp_path: Path) -> None:
    documents = _documents()
    wrong = [*documents[:-1], Document("d7", "again")]
    encoder = ToyEncoder()
    places = rf"documents 8 and {BLOCK + 50}"
    with pytest.raises(DataError, match=rf"'d7' occurs twice \({places}\).*8,192 encoded.*--resume"):
        SearchIndex.build(tmp_path / "ix", wrong, encoder=encoder, kind="flat")
    assert len(encoder.encoded) == BLOCK
    second = ToyEncoder()
    index = SearchIndex.build(tmp_path / "ix", documents, encoder=second, kind="flat", resume=True)
    assert len(second.encoded) == 50
    assert len(index) == BLOCK + 50


@pytest.mark.parametrize("segment_rows", [None, 3000])
@pytest.mark.parametrize("field", ["id", "text", "metadata"])
def test_resume_refuses_documents_that_changed(field: str, segment_rows: int | None, tmp_path: Path) -> None:
    documents = _documents()

    def interrupted() -> Iterator[Document]:
        yield from documents[: BLOCK + 1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SearchIndex.build(
            tmp_path / "ix", interrupted(), encoder=ToyEncoder(), kind="flat", segment_rows=segment_rows
        )
    changed = list(documents)
    changed[5000] = Document(**{"id": "d5000", "text": documents[5000].text, "metadata": {"i": 5000}}
                             | {field: {"i": 1} if field == "metadata" else "other"})
    with pytest.raises(SearchError, match="document 5001 is not what was encoded"):
        SearchIndex.build(
            tmp_path / "ix", changed, encoder=ToyEncoder(), kind="flat", segment_rows=segment_rows, resume=True
        )
    index = SearchIndex.build(
        tmp_path / "ix", documents, encoder=ToyEncoder(), kind="flat", segment_rows=segment_rows, resume=True
    )
    assert index.get(["d5000"])["d5000"] == documents[5000]


def test_a_choice_that_fails_after_encoding_keeps_the_vectors(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"at least as large as number of clusters.*50 encoded documents are kept"):
        SearchIndex.build(tmp_path, _documents(50), encoder=ToyEncoder(), kind="IVF500,Flat")
    encoder = ToyEncoder()
    with pytest.raises(SearchError, match=r"multiple of.*50 encoded documents are kept"):
        SearchIndex.build(tmp_path, _documents(60), encoder=encoder, kind="IVF4,PQ7", resume=True)
    SearchIndex.build(tmp_path, _documents(50), encoder=encoder, kind="flat", resume=True)
    assert encoder.encoded == []


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("segment_rows", [None, 20])
def test_a_build_that_ends_after_its_segments_makes_none_of_them_again(
    segment_rows: int | None, is_killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def attempt(documents: list[Document], encoder: ToyEncoder, kind: str = "IVF4,Flat") -> SearchIndex:
        return SearchIndex.build(
            tmp_path / "ix", documents, encoder=encoder, kind=kind, segment_rows=segment_rows, indexed_fields=("i",),
            resume=True,
        )

    documents = _documents(50)
    with monkeypatch.context() as patched:
        patched.setattr(building, "least_effort", stopped)
        if is_killed:
            patched.setattr(building, "_tidy", lambda *_: 0)
        with pytest.raises(KeyboardInterrupt):
            attempt(documents, ToyEncoder())
    with pytest.raises(SearchError, match=r"document 1 is not what was encoded.*50 encoded documents are kept"):
        attempt(documents[::-1], ToyEncoder())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ix").glob("*.index")}
    assert len(before) == (4 if segment_rows else 2)  # one of them has the encoded rows
    encoder = ToyEncoder()
    index = attempt(documents, encoder)
    assert encoder.encoded == []
    assert {path: path.stat().st_mtime_ns for path in before if path.exists()}.items() <= before.items()
    assert {segment.index.name for segment in index.manifest.segments} <= {path.name for path in before}
    assert index.search("word3 number3", 1)[0].id == "d3"
    assert len(index.search("word3", 50, where="i < 7")) == 7
    index.verify()
    assert {path.name for path in index.folder.iterdir()} == (
        {file.name for file in index.manifest.files} | {"manifest.json", ".sentemb-lock"}
    )


def test_a_build_goes_on_with_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(building, "least_effort", stopped)
        with pytest.raises(KeyboardInterrupt):
            SearchIndex.build(tmp_path, _documents(50), encoder=ToyEncoder(), kind="IVF4,Flat", segment_rows=20)
    encoder = ToyEncoder()
    index = SearchIndex.build(tmp_path, _documents(50), encoder=encoder, kind="hnsw:m=8", segment_rows=30, resume=True)
    assert encoder.encoded == []
    assert [segment.rows for segment in index.segments] == [30, 20]
    assert index.manifest.kind == {"use": "hnsw", "m": 8}
    index.verify()


def test_a_build_killed_after_its_commit_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(disk, "sweep", stopped)
        patched.setattr(building, "_tidy", lambda *_: 0)
        with pytest.raises(KeyboardInterrupt):
            SearchIndex.build(tmp_path, _documents(50), encoder=ToyEncoder(), kind="flat")
    assert (tmp_path / "draft.json").exists()
    index = SearchIndex.open(tmp_path, encoder=ToyEncoder())
    index.delete(["d3"])
    assert not (tmp_path / "draft.json").exists()
    assert len(index) == 49
    index.verify()


def test_an_unfinished_build_over_an_index_outlives_changes_of_that_index(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Document]:
        yield from _documents(BLOCK)
        raise KeyboardInterrupt

    index = SearchIndex.build(tmp_path, ["a b", "c d"], encoder=ToyEncoder(), kind="flat")
    with pytest.raises(KeyboardInterrupt):
        SearchIndex.build(tmp_path, interrupted(), encoder=ToyEncoder(), kind="flat", overwrite=True)
    index.add(["e f"])
    index.compact()
    encoder = ToyEncoder()
    again = SearchIndex.build(
        tmp_path, _documents(BLOCK + 9), encoder=encoder, kind="flat", overwrite=True, resume=True
    )
    assert (len(encoder.encoded), len(again)) == (9, BLOCK + 9)
    again.verify()


def test_what_was_encoded_before_an_error_is_kept_to_the_last_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "BLOCK", 10)
    monkeypatch.setattr(embedding, "BLOCK", 10)
    monkeypatch.setattr(building, "BLOCK", 2)
    monkeypatch.setattr(building, "SHARE", 1)  # the second commit takes five blocks

    def interrupted() -> Iterator[Document]:
        yield from _documents(45)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SearchIndex.build(tmp_path, interrupted(), encoder=ToyEncoder(), kind="flat")
    encoder = ToyEncoder()
    index = SearchIndex.build(tmp_path, _documents(50), encoder=encoder, kind="flat", resume=True)
    assert (len(encoder.encoded), len(index)) == (10, 50)


class _FullFile(io.FileIO):
    def write(self, _: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_and_what_was_encoded_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, files = disk.write, []

    def full_at_the_second_index(file: BinaryIO, view: memoryview) -> int:
        if str(file.name).endswith(".index") and file.name not in files:
            files.append(file.name)
        if len(files) < 2:
            return write(file, view)
        with _FullFile(file.name, "ab") as full:
            return write(full, view)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(disk, "write", full_at_the_second_index)
        with pytest.raises(OSError, match=r"No space left on device; 8,192 encoded.*--resume") as caught:
            SearchIndex.build(tmp_path, _documents(), encoder=ToyEncoder(), kind="flat")
    assert caught.value.filename == files[1]
    second = ToyEncoder()
    index = SearchIndex.build(tmp_path, _documents(), encoder=second, kind="flat", resume=True)
    assert (len(second.encoded), len(index)) == (50, BLOCK + 50)


@pytest.mark.parametrize(
    ("choices", "message"),
    [({"seed": -1}, "seed = -1"), ({"memory_bytes": -5}, "memory = -5"), ({"indexed_fields": ('a"b',)}, "quotes")],
)
def test_impossible_options(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        BuildOptions(**choices).check()


def test_a_folder_that_goes_away_meanwhile_hides_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "ix"

    def change() -> None:
        with write_lock(folder):
            shutil.rmtree(folder)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        change()
    assert not folder.exists()


def test_vectors_may_be_lists_but_not_of_words(tmp_path: Path) -> None:
    rows = vectors(5)
    index = SearchIndex.build(tmp_path / "ix", None, vectors=rows.tolist(), kind="flat")  # type: ignore[arg-type]
    assert index.search(rows[3:4], 1)[0][0].id == 3
    for wrong in ([["a", "b"]], [[None, 1.0]]):
        with pytest.raises(SearchError, match="expected numbers"):
            SearchIndex.build(tmp_path / "other", None, vectors=wrong, kind="flat")  # type: ignore[arg-type]


def test_an_index_is_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(SearchError, match="is a file"):
        SearchIndex.build(file, None, vectors=vectors(3))
    with pytest.raises(SearchError, match="is a file"):
        SearchIndex.open(file)
    assert file.read_text() == "mine"
