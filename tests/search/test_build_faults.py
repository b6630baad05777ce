"""A build that fails leaves nothing, or encoded documents that ``resume`` goes on from, and says which."""

from __future__ import annotations

import errno
import io
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pytest
from toy import ToyEncoder, vectors

from sentemb.encoder.ray_engine import Cluster
from sentemb.errors import DataError, IndexLocked, SearchError
from sentemb.search import SearchIndex
from sentemb.search.store import build as building
from sentemb.search.store import ray_encoding
from sentemb.search.store.disk import Disk
from sentemb.search.store.maintenance import verify
from sentemb.search.store.manifest import Document
from sentemb.search.store.options import BuildOptions
from sentemb.search.store.spool import BLOCK
from sentemb.search.store.writing import write_lock


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
    assert folder.exists() == exists
    if exists:
        assert {path.name for path in folder.iterdir()} <= {"notes.txt", ".lock"}
    SearchIndex.build(folder, ["fine now"], encoder=ToyEncoder(), kind="flat")


def test_vectors_at_fault_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="only 9 documents"):
        SearchIndex.build(tmp_path / "ix", ["x"] * 9, vectors=vectors(10))
    assert not (tmp_path / "ix").exists()


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
def test_a_build_that_ends_after_its_segments_keeps_what_was_encoded(
    segment_rows: int | None, is_killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def attempt(documents: list[Document], encoder: ToyEncoder) -> SearchIndex:
        return SearchIndex.build(
            tmp_path / "ix", documents, encoder=encoder, kind="IVF4,Flat", segment_rows=segment_rows,
            indexed_fields=("i",), resume=True,
        )

    documents = _documents(50)
    with monkeypatch.context() as patched:
        patched.setattr(building, "tune", stopped)
        if is_killed:
            patched.setattr(building, "_tidy", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            attempt(documents, ToyEncoder())
    with pytest.raises(SearchError, match=r"document 1 is not what was encoded.*50 encoded documents are kept"):
        attempt(documents[::-1], ToyEncoder())
    encoder = ToyEncoder()
    index = attempt(documents, encoder)
    assert encoder.encoded == []
    assert index.search("word3 number3", 1)[0].id == "d3"
    assert len(index.search("word3", 50, where="i < 7")) == 7
    verify(index)


def test_vectors_whose_documents_are_lost_are_encoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    documents = _documents(50)
    with monkeypatch.context() as patched:
        patched.setattr(building, "_train", stopped)
        with pytest.raises(KeyboardInterrupt):
            SearchIndex.build(tmp_path, documents, encoder=ToyEncoder(), kind="flat", segment_rows=20)
    (tmp_path / "building" / "documents-0001.sqlite").unlink()
    encoder = ToyEncoder()
    index = SearchIndex.build(
        tmp_path, documents[:20] + documents[:19:-1], encoder=encoder, kind="flat", segment_rows=20, resume=True
    )
    assert len(encoder.encoded) == 30
    for i in (3, 21, 48):
        assert index.search(documents[i].text or "", 1)[0].id == f"d{i}"


class _FullFile(io.FileIO):
    def write(self, _: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class _FullAtTheSecondBlock(Disk):
    def __init__(self) -> None:
        self.blocks = 0

    def write(self, file: BinaryIO, view: memoryview) -> int:
        self.blocks += 1
        if self.blocks == 1:
            return super().write(file, view)
        with _FullFile(file.name, "ab") as full:
            return super().write(full, view)  # type: ignore[arg-type]


def test_a_full_disk_is_named_and_what_was_encoded_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device; 8,192 encoded.*--resume") as caught:
        SearchIndex.build(tmp_path, _documents(), encoder=ToyEncoder(), kind="flat", disk=_FullAtTheSecondBlock())
    assert Path(caught.value.filename).name == "vectors-0000.f32"
    second = ToyEncoder()
    index = SearchIndex.build(tmp_path, _documents(), encoder=second, kind="flat", resume=True)
    assert (len(second.encoded), len(index)) == (50, BLOCK + 50)


class _Prompted(ToyEncoder):
    prompts: ClassVar[dict[str, str]] = {}


class _Encoded:
    """As much of a cluster's shards as a build asks for: every window encoded, nothing left to do."""

    def __init__(self, folder: Path, *_: object) -> None:
        self.folder, self._windows = folder, list[list[str]]()

    def encode(self, windows: Iterable[list[str]]) -> None:
        self.folder.mkdir(exist_ok=True)
        self._windows = list(windows)

    def read(self) -> Iterator[tuple[list[str], Any]]:
        encoder = ToyEncoder()
        for texts in self._windows:
            yield texts, encoder.encode(texts)

    def remove(self) -> None:
        self.folder.rmdir()


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("id", DataError, "'d7' occurs twice.*; finished parts stay in {}: the corrected command goes on from them"),
        ("disk", OSError, "No space left.*; finished parts stay in {}: when that is mended, the same command goes on"),
    ],
)
def test_a_build_on_a_cluster_goes_on_from_its_parts_and_says_so(
    fault: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_encoding, "Shards", _Encoded)
    monkeypatch.setattr(ray_encoding, "ClusterSegments", lambda *_: building.make_segments)
    folder, parts, documents = tmp_path / "ix", tmp_path / "ix.shards", _documents()

    def make(records: list[Document]) -> SearchIndex:
        return ray_encoding.build_on_cluster(
            folder, lambda: records, _Prompted(), BuildOptions(kind="flat"),  # type: ignore[arg-type]
            precision="fp32", cluster=Cluster(), overwrite=False, name="documents",
        )

    wrong = documents if fault == "disk" else [*documents[:-1], Document("d7", "again")]
    with monkeypatch.context() as patched:
        if fault == "disk":
            patched.setattr(ray_encoding, "Disk", _FullAtTheSecondBlock)
        with pytest.raises(error, match=message.format(re.escape(str(parts)))) as told:
            make(wrong)
    assert "--resume" not in str(told.value)
    assert not folder.exists()
    with pytest.raises(SearchError, match="did not finish; the same command goes on from"):
        SearchIndex.open(folder)
    assert len(make(documents)) == len(documents)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("choices", "message"),
    [({"seed": -1}, "seed = -1"), ({"memory_bytes": -5}, "memory = -5"), ({"indexed_fields": ('a"b',)}, "quotes")],
)
def test_impossible_options(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        BuildOptions(**choices).check()


def test_a_folder_that_goes_away_meanwhile_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ix"

    def change() -> None:
        with write_lock(folder):
            shutil.rmtree(folder)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        change()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", lambda *_, **__: None)  # it was there, and another writer removed it
        with pytest.raises(IndexLocked, match="try again"), write_lock(folder):
            pass
    assert not folder.exists()


def test_vectors_may_be_lists_but_not_of_words(tmp_path: Path) -> None:
    rows = vectors(5)
    index = SearchIndex.build(tmp_path / "ix", None, vectors=rows.tolist(), kind="flat")  # type: ignore[arg-type]
    assert index.search(rows[3:4], 1)[0][0].id == 3
    for wrong in ([["a", "b"]], [[None, 1.0]]):
        with pytest.raises(SearchError, match="expected numbers"):
            SearchIndex.build(tmp_path / "other", None, vectors=wrong, kind="flat")  # type: ignore[arg-type]


def test_options_are_given_in_one_way(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="kind"):
        SearchIndex.build(tmp_path / "ix", None, vectors=vectors(3), options=BuildOptions(), kind="hnsw")


def test_an_index_is_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(SearchError, match="is a file"):
        SearchIndex.build(file, None, vectors=vectors(3))
    with pytest.raises(SearchError, match="is a file"):
        SearchIndex.open(file)
    assert file.read_text() == "mine"
