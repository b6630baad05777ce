"""Building, searching and changing an index of every kind, against brute force."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from toy import DIMENSION, ToyEncoder, vectors

from sentemb.data.faults import Faults
from sentemb.errors import DataError, IndexLocked, NumericError, SearchError
from sentemb.search import Document, SearchIndex
from sentemb.search.store import manifest as manifests
from sentemb.search.store.disk import write_lock
from sentemb.search.vectors import PARTS

ROWS = 1200
KIND_NAMES = [*(name for name in PARTS if name != "faiss"), "OPQ8,IVF8,PQ8", "PQ8", "HNSW16,SQ8", "IVF8,PQ8x4fs"]
DOCUMENTS = [{"id": f"d{i}", "text": f"text {i}", "year": 2000 + i % 20} for i in range(ROWS)]


def _recall(found: Any, truth: Any) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


def _truth(queries: Any, rows: Any, metric: str, k: int = 10) -> Any:
    if metric == "l2":
        return np.argsort(((queries[:, None] - rows[None]) ** 2).sum(-1), axis=1, kind="stable")[:, :k]
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.argsort(-queries @ rows.T, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_every_kind_lives_a_whole_life(kind: str, tmp_path: Path) -> None:
    rows, queries = np.split(vectors(ROWS + 20), [ROWS])
    index = SearchIndex.build(tmp_path / "ix", DOCUMENTS, vectors=rows, kind=kind, target_recall=0.9)
    coarse = kind in ("PQ8", "OPQ8,IVF8,PQ8")
    ids = index.search_positions(queries, 10).ids
    assert _recall(ids, _truth(queries, rows, "cosine")) >= (0.3 if coarse else 0.85)

    filtered = index.search(queries, 10, where="year >= 2018")
    assert all(len(hits) == 10 and all(hit.metadata["year"] >= 2018 for hit in hits) for hits in filtered)
    recent = np.array([i for i in range(ROWS) if i % 20 >= 18])
    if not coarse:
        found = np.array([[int(hit.id[1:]) for hit in hits] for hits in filtered])  # type: ignore[index]
        assert _recall(found, recent[_truth(queries, rows[recent], "cosine")]) >= 0.85

    assert index.add([{"id": "new", "text": "new"}], vectors=rows[:1] * 3) == 1
    assert index.delete(["d0", "nobody"]) == 1
    assert index.search(rows[:1], 1)[0][0].id == "new"
    assert index.upsert([{"id": "new", "text": "newer"}, {"id": "d6", "text": "six"}], vectors=rows[5:7]) == 2
    assert len(index) == ROWS
    assert "d0" not in index
    assert index.get(["new"])["new"].text == "newer"
    deepest = index.search(rows[:1], ROWS + 5)[0]
    assert "d0" not in [hit.id for hit in deepest]

    index.compact()
    assert len(index.segments) == 1
    assert index.manifest.live == index.manifest.rows == ROWS
    if not coarse:
        now = rows.copy()
        now[6], names = rows[6], [f"d{i}" for i in range(ROWS)]
        now[0], names[0] = rows[5], "new"  # d0 went, new came
        hits = [[names.index(hit.id) for hit in row] for row in index.search(queries, 10)]  # type: ignore[arg-type]
        assert _recall(np.array(hits), _truth(queries, now, "cosine")) >= 0.85
    with SearchIndex.open(tmp_path / "ix", mapped=True) as again:
        assert [h.id for h in again.search(queries[0:1], 5)[0]] == [h.id for h in index.search(queries[0:1], 5)[0]]


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_flat_is_exact_whatever_the_segments_and_deletions(metric: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(500, DIMENSION)).astype(np.float32)
    queries = generator.normal(size=(30, DIMENSION)).astype(np.float32)
    index = SearchIndex.build(tmp_path, None, vectors=rows[:300], kind="flat", metric=metric)
    for start in range(300, 500, 40):
        index.add(range_documents(start, 40), vectors=rows[start : start + 40])
    gone = list(range(0, 500, 7))
    index.delete(gone)
    left = np.setdiff1d(np.arange(500), gone)
    expected = left[_truth(queries, rows[left], metric)]
    hits = index.search(queries, 10)
    assert [[hit.id for hit in row] for row in hits] == expected.tolist()
    best = [[hit.score for hit in row] for row in hits]
    sign = 1 if metric == "l2" else -1
    assert (np.diff(sign * np.array(best), axis=1) >= 0).all()
    index.compact()
    assert [[hit.id for hit in row] for row in index.search(queries, 10)] == expected.tolist()


def range_documents(start: int, count: int) -> list[Document]:
    return [Document(start + i, None) for i in range(count)]


def test_text_is_encoded_once_and_found(tmp_path: Path) -> None:
    encoder = ToyEncoder()
    texts = ["a red cat", "a blue dog", "a red cat", "the old house"]
    index = SearchIndex.build(tmp_path, texts, encoder=encoder)
    assert sorted(encoder.encoded) == sorted(set(texts))
    hits = index.search("red cat", k=2)
    assert [hit.id for hit in hits] == [0, 2]
    assert hits[0].text == "a red cat"
    assert hits[0].score == pytest.approx(hits[1].score)
    index.add(["a grey wolf"])
    assert index.search("grey wolf", k=1)[0].id == 4


def test_progress_moves_inside_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentemb.progress import Progress
    from sentemb.search.store.embedding import encode

    class Reporting(ToyEncoder):
        def encode(self, texts: Any, *, progress: Any = None) -> Any:
            if progress is not None:
                for _ in texts:
                    progress.advance(1)
            return super().encode(texts)

    done: list[int] = []
    advance = Progress.advance
    monkeypatch.setattr(Progress, "advance", lambda bar, amount=1: done.append(amount) or advance(bar, amount))
    texts = [f"w{i % 30}" for i in range(40)]
    for encoder, steps in ((Reporting(), [1] * 30 + [0, 10]), (ToyEncoder(), [30, 10])):
        done.clear()
        SearchIndex.build(tmp_path / type(encoder).__name__, texts, encoder=encoder, kind="flat").add(["x y"])
        assert done[: len(steps)] == steps
        assert sum(done) == 40 + 40 + 1  # encoded and indexed, and one added
    with Progress("encoding", total=None, unit="texts", enabled=False) as bar:
        encode(Reporting(), ["a", "b"], "", bar)
    assert bar.done == 2


def test_an_integer_and_its_text_are_one_id(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'1' occurs twice \(documents 1 and 2\)"):
        SearchIndex.build(tmp_path, [Document(1, "a"), Document("1", "b")], vectors=vectors(2), kind="flat")
    documents = [Document(3, "three"), Document("007", "agent"), Document(7, "seven"), Document("-5", "minus")]
    index = SearchIndex.build(tmp_path, documents, vectors=vectors(4), kind="flat")
    (tmp_path / "more.csv").write_text("id,text\n3,drei\n8,acht\n")
    assert index.upsert(tmp_path / "more.csv", vectors=vectors(2)) == 2
    assert (len(index), index.get(["3"])["3"].text, index.get([3])[3].text) == (5, "drei", "drei")
    with pytest.raises(DataError, match="in the index already"):
        index.add([Document("7", "again")], vectors=vectors(1))
    assert index.delete(["007", "²", "--5", "99999999999999999999"]) == 1
    assert index.delete(["7", -5]) == 2
    assert index.delete([3]) == 1
    assert sorted(map(str, index.get(["3", "007", 7, "-5", 8]))) == ["8"]
    for name in (2**63, -(2**63) - 1):
        with pytest.raises(SearchError, match="64 bits"):
            index.delete([name])


def test_truncated_vectors_are_normalised_again(tmp_path: Path) -> None:
    rows = vectors(50)
    index = SearchIndex.build(tmp_path, None, vectors=rows, dim=4, kind="flat")
    hits = index.search(rows[:1], 1)[0]
    assert index.manifest.dimension == 4
    assert hits[0].score == pytest.approx(1.0)


def test_segments_of_a_build_are_searched_as_one(tmp_path: Path) -> None:
    rows, queries = vectors(1000), vectors(10, seed=5)
    whole = SearchIndex.build(tmp_path / "a", None, vectors=rows, kind="ivf-sq8", target_recall=1.0)
    parts = SearchIndex.build(tmp_path / "b", None, vectors=rows, kind="ivf-sq8", target_recall=1.0, segment_rows=300)
    assert len(parts.segments) == 4
    np.testing.assert_array_equal(whole.search_positions(queries, 10).ids, parts.search_positions(queries, 10).ids)
    parts.compact()
    np.testing.assert_array_equal(whole.search_positions(queries, 10).ids, parts.search_positions(queries, 10).ids)


def test_resumed_build_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    from sentemb.search.store.segment import BLOCK

    texts = [f"word{i % 977} word{i % 13} number{i}" for i in range(BLOCK + 500)]

    def interrupted() -> Any:
        yield from texts[: BLOCK + 100]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SearchIndex.build(tmp_path / "ix", interrupted(), encoder=ToyEncoder(), kind="flat")
    with pytest.raises(SearchError, match=r"did not finish.*--resume"):
        SearchIndex.open(tmp_path / "ix")
    with pytest.raises(SearchError, match="unfinished build"):
        SearchIndex.build(tmp_path / "ix", texts, encoder=ToyEncoder(), kind="flat")
    with pytest.raises(SearchError, match="digest"):
        SearchIndex.build(tmp_path / "ix", texts, encoder=ToyEncoder(1), kind="flat", resume=True)
    second = ToyEncoder()
    index = SearchIndex.build(tmp_path / "ix", texts, encoder=second, kind="flat", resume=True)
    assert len(second.encoded) == 500
    plain = SearchIndex.build(tmp_path / "plain", texts, encoder=ToyEncoder(), kind="flat")
    queries = ToyEncoder().encode(["word3 number8", "word900"])
    np.testing.assert_array_equal(index.search_positions(queries, 20).ids, plain.search_positions(queries, 20).ids)
    assert not (tmp_path / "ix" / "building").exists()


def test_merge_moves_documents_and_refuses_other_models(tmp_path: Path) -> None:
    first = SearchIndex.build(tmp_path / "a", [Document("a", "red cat")], encoder=ToyEncoder(), kind="flat")
    second = SearchIndex.build(tmp_path / "b", [Document("b", "blue dog")], encoder=ToyEncoder(), kind="flat")
    assert first.merge([second]) == 1
    assert first.search("blue dog", 1)[0].id == "b"
    with pytest.raises(DataError, match="'b' is in"):
        first.merge([second])
    assert len(first) == 2
    other = SearchIndex.build(tmp_path / "c", [Document("c", "x")], encoder=ToyEncoder(1), kind="flat")
    with pytest.raises(SearchError, match="its model is"):
        first.merge([other])


def test_index_of_another_model_is_refused(tmp_path: Path) -> None:
    SearchIndex.build(tmp_path, ["a", "b"], encoder=ToyEncoder())
    with pytest.raises(SearchError, match="built by toy"):
        SearchIndex.open(tmp_path, encoder=ToyEncoder(1))
    SearchIndex.open(tmp_path, encoder=ToyEncoder(0))


def test_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    index = SearchIndex.build(tmp_path, ["a b", "c"], encoder=ToyEncoder())
    with write_lock(tmp_path), pytest.raises(IndexLocked, match=r"process \d+ is writing"):
        index.delete([0])
    assert index.delete([0]) == 1


def test_reader_keeps_its_generation_until_refresh(tmp_path: Path) -> None:
    writer = SearchIndex.build(tmp_path, [Document(i, f"word{i}") for i in range(20)], encoder=ToyEncoder())
    reader = SearchIndex.open(tmp_path, encoder=ToyEncoder())
    writer.delete([3])
    writer.compact()
    assert reader.search("word3", 1)[0].id == 3
    assert reader.refresh()
    assert 3 not in [hit.id for hit in reader.search("word3", 20)]
    assert not reader.refresh()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda i: i.add([Document(0, "again")]), DataError, "0 is in the index already"),
        (lambda i: i.add([Document(9, "x"), Document(9, "y")]), DataError, "9 occurs twice"),
        (lambda i: i.add([Document(9, "  ")]), DataError, "no text to encode"),
        (lambda i: i.add([Document(True, "x")]), DataError, "True"),
        (lambda i: i.add([Document(9, "x", {"a": float("nan")})]), DataError, "JSON"),
        (lambda i: i.add([Document(9, "x")], vectors=np.full((1, DIMENSION), np.nan, np.float32)), NumericError, "NaN"),
        (lambda i: i.add([Document(9, "x")], vectors=np.zeros((1, DIMENSION), np.float32)), NumericError, "zeros"),
        (lambda i: i.add([Document(9, "x")], vectors=vectors(2)), SearchError, "only 1 documents"),
        (lambda i: i.add([Document(9, "x")], vectors=vectors(1, 8)), SearchError, "needs 16"),
        (lambda i: i.search(vectors(1), 0), SearchError, "k = 0"),
        (lambda i: i.search(vectors(1, 2 * DIMENSION)), SearchError, "32 values a vector; the index needs 16"),
        (lambda i: i.add(["x"], vectors=vectors(1, 2 * DIMENSION)), SearchError, "32 values"),
        (lambda i: i.delete("01"), SearchError, "ids are a list"),
        (lambda i: i.get("0"), SearchError, "ids are a list"),
        (lambda i: i.delete([0.0]), SearchError, "id 0.0"),
        (lambda i: i.delete([[1]]), SearchError, "an id is a text or a whole number"),
        (lambda i: i.search(vectors(1), 3, where="year >"), SearchError, "ends where a value"),
    ],
)
def test_mistakes_are_refused_and_change_nothing(
    change: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    index = SearchIndex.build(tmp_path, ["a b", "c d"], encoder=ToyEncoder())
    before = (tmp_path / manifests.NAME).read_bytes()
    with pytest.raises(error, match=message):
        change(index)
    assert (tmp_path / manifests.NAME).read_bytes() == before
    files = {path.name for path in tmp_path.iterdir() if path.name not in (manifests.NAME, ".sentemb-lock")}
    assert files == {file.name for file in index.manifest.files}
    assert index.add([Document(9, "e f")]) == 1


def test_all_documents_can_go_and_new_ones_come(tmp_path: Path) -> None:
    index = SearchIndex.build(tmp_path, ["a b", "c d"], encoder=ToyEncoder())
    assert index.delete([0, 1]) == 2
    assert index.search("a", 3) == []
    assert len(SearchIndex.open(tmp_path, encoder=ToyEncoder())) == 0
    index.add(["e f"])
    assert [hit.id for hit in index.search("a", 3)] == [2]


def test_build_over_an_index_needs_permission_and_replaces_it_whole(tmp_path: Path) -> None:
    SearchIndex.build(tmp_path, ["a b"], encoder=ToyEncoder())
    with pytest.raises(SearchError, match="holds an index already"):
        SearchIndex.build(tmp_path, ["c"], encoder=ToyEncoder())
    index = SearchIndex.build(tmp_path, ["c", "d"], encoder=ToyEncoder(), overwrite=True)
    assert len(index) == 2
    assert index.manifest.generation == 2
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {file.name for file in index.manifest.files} | {manifests.NAME, ".sentemb-lock"}


def test_options_are_checked_before_anything_is_encoded(tmp_path: Path) -> None:
    encoder = ToyEncoder()
    with pytest.raises(SearchError, match="did you mean flat"):
        SearchIndex.build(tmp_path, ["a"], encoder=encoder, kind="flatt")
    with pytest.raises(SearchError, match="metric"):
        SearchIndex.build(tmp_path, ["a"], encoder=encoder, metric="cos")  # type: ignore[arg-type]
    assert encoder.encoded == []


def test_documents_without_ids_replace_no_others(tmp_path: Path) -> None:
    documents = [Document(i, f"old {i}") for i in range(10, 30)]
    index = SearchIndex.build(tmp_path, documents, vectors=vectors(20), kind="flat")
    assert index.upsert([f"new {i}" for i in range(20)], vectors=vectors(20)) == 20
    assert len(index) == 40
    assert index.get(range(10, 30))[29].text == "old 29"  # type: ignore[arg-type]
    assert index.get([30])[30].text == "new 0"
    index.upsert([Document("777", "text"), Document(None, "after")], vectors=vectors(2))
    assert index.get([778])[778].text == "after"
    with pytest.raises(DataError, match="occurs twice"):  # the second would replace the first, which has a number
        index.upsert([Document(None, "x"), Document(779, "y")], vectors=vectors(2))
    assert len(index) == 42


def test_vectors_of_another_width_are_refused(tmp_path: Path) -> None:
    index = SearchIndex.build(tmp_path / "plain", None, vectors=vectors(20), kind="flat")
    short = SearchIndex.build(tmp_path / "short", None, vectors=vectors(20), dim=4, kind="flat")
    for change in (
        lambda i, rows: i.search(rows), lambda i, rows: i.upsert(["x"], vectors=rows),
        lambda i, rows: i.within(rows, 0.5), lambda i, rows: i.combined(rows),
    ):
        for width in (8, 2 * DIMENSION):
            for made in (index, short):
                with pytest.raises(SearchError, match=f"{width} values a vector"):
                    change(made, vectors(1, width))
        change(index, vectors(1))
        change(short, vectors(1)[:, :4])
        change(short, vectors(1))


def test_two_numbered_indexes_merge_when_one_is_numbered_anew(tmp_path: Path) -> None:
    first = SearchIndex.build(tmp_path / "a", ["red cat", "red dog"], encoder=ToyEncoder(), kind="flat")
    second = SearchIndex.build(tmp_path / "b", ["blue cat", "blue dog"], encoder=ToyEncoder(), kind="flat")
    with pytest.raises(DataError, match="renumber"):
        first.merge([second])
    assert first.merge([second], renumber=True) == 2
    assert [hit.id for hit in first.search("blue dog", 1)] == [3]
    first.add(["old house"])
    assert first.search("old house", 1)[0].id == 4
    first.verify()


def test_overlong_documents_are_refused_or_left_out(tmp_path: Path) -> None:
    texts = ["a cat", "x" * 1_000_001, "", "a dog"]
    encoder = ToyEncoder()
    with pytest.raises(DataError, match="document 2, id None: 1,000,001 characters; at most 1,000,000"):
        SearchIndex.build(tmp_path, texts, encoder=encoder)
    assert encoder.encoded == []
    skipped = Faults()
    index = SearchIndex.build(tmp_path, texts, encoder=encoder, skipped=skipped)
    assert (len(index), skipped.count) == (2, 2)
    with pytest.raises(DataError, match="1,000,001 characters"):
        skipped.raise_if_any("")


def test_metadata_that_cannot_be_kept_is_told_before_encoding(tmp_path: Path) -> None:
    encoder = ToyEncoder()
    index = SearchIndex.build(tmp_path, ["a"], encoder=encoder)
    for change in (index.add, index.upsert):
        with pytest.raises(DataError, match="JSON"):
            change([Document("x", "b", {"n": float("nan")})])
    assert encoder.encoded == ["a"]


def test_documents_that_the_model_cuts_are_counted(tmp_path: Path) -> None:
    class Cutting(ToyEncoder):
        cut_count = 0

        def encode(self, texts: Any) -> Any:
            self.cut_count += sum(len(text.split()) > 3 for text in texts)
            return super().encode(texts)

    index = SearchIndex.build(tmp_path, ["a b", "a b c d", "e"], encoder=Cutting(), kind="flat")
    assert index.stats().cut == 1
    index.add(["f g h i j"])
    assert index.stats().cut == 2
    index.compact()
    assert index.stats().cut == 2


def test_another_writer_can_be_waited_for(tmp_path: Path) -> None:
    index = SearchIndex.build(tmp_path, ["a b", "c"], encoder=ToyEncoder(), wait_s=60)

    def hold() -> None:
        with write_lock(tmp_path):
            held.set()
            go.wait()

    held, go = Event(), Event()
    writer = Thread(target=hold)
    writer.start()
    held.wait()
    go.set()
    assert index.delete([0]) == 1
    writer.join()


def test_searches_see_one_generation_while_another_thread_changes_it(tmp_path: Path) -> None:
    encoder = ToyEncoder()
    index = SearchIndex.build(tmp_path, [Document(i, f"word{i}") for i in range(60)], encoder=encoder, kind="flat")
    wrong: list[str] = []
    done = Event()

    def ask() -> None:
        while not done.is_set():
            for i in (3, 21, 48):
                for hit in index.search(f"word{i}", 3, where="id >= 0"):
                    if (hit.text or "").split()[0] != f"word{hit.id}":
                        wrong.append(f"{hit.id}: {hit.text}")

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        for step in range(12):
            index.upsert([Document(i, f"word{i} {step}") for i in range(step, 60, 7)])
            index.delete([step])
            if step % 4 == 3:
                index.compact()
        done.set()
        for result in asking:
            result.result()
    assert wrong == []


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    for name in ("building/a.txt", "changing/b.txt", "manifest.json.new", ".lock", "g1.txt", "notes.documents"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    index = SearchIndex.build(tmp_path, ["a b", "c"], encoder=ToyEncoder())
    index.delete([0])
    SearchIndex.build(tmp_path, ["a b", "c"], encoder=ToyEncoder(), overwrite=True)
    assert {path: path.read_text() for path in before} == before


@pytest.mark.parametrize("name", ["manifest.json", "draft.json"])
def test_files_of_others_with_our_names_are_not_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"name": "mine"}')
    with pytest.raises(SearchError, match=f"{name}: not "):
        SearchIndex.build(tmp_path, ["a b"], encoder=ToyEncoder(), overwrite=True)
    assert (tmp_path / name).read_text() == '{"name": "mine"}'


def test_the_lock_follows_no_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "ix").mkdir()
    (tmp_path / "ix" / ".sentemb-lock").symlink_to(target)
    with pytest.raises(SearchError, match="not a plain file"):
        SearchIndex.build(tmp_path / "ix", ["a b"], encoder=ToyEncoder())
    assert target.read_text() == "mine"


def test_more_results_than_memory_holds_are_those_that_there_are(tmp_path: Path) -> None:
    index = SearchIndex.build(tmp_path, ["a b", "c d"], encoder=ToyEncoder())
    assert len(index.search("a", 10**11)) == 2
    assert len(index.hybrid(["a"], 10**11)[0]) == 2
def test_fields_with_an_index_are_looked_up_in_it(tmp_path: Path) -> None:
    from sentemb.search.query.expression import condition

    documents = [Document(i, "x", {"year": 1900 + i}) for i in range(300)]
    index = SearchIndex.build(tmp_path, documents, vectors=vectors(300), indexed_fields=("year",))
    store = index.segments[0].documents
    for where in ("year = 1950", "year >= 2190", "year in (1950, 1960)", {"year": (1950, 1960)}):
        filter_ = condition(where)
        assert filter_ is not None
        plan = store.query(f"EXPLAIN QUERY PLAN SELECT row FROM documents WHERE {filter_.sql}", filter_.values)
        assert "field_0" in str(plan), where
    assert len(index.search(vectors(1), 300, where="not year >= 2190")[0]) == 290


