"""Indexes that sentemb 0.1's first format wrote (in ``format_1/``) open, answer, change, and are upgraded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toy import ToyEncoder, vectors

from sentemb.search import Document, SearchIndex

WRITTEN = Path(__file__).parent / "format_1"
BEST = {
    "flat": [(3, 1.0), ("d24", 0.6158), (31, 0.5966)], "ivf": [(3, 0.9999), ("d24", 0.6157), (31, 0.5965)],
}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    shutil.copytree(WRITTEN, tmp_path / "written")
    return tmp_path / "written"


@pytest.mark.parametrize("kind", list(BEST))
@pytest.mark.parametrize("is_upgraded", [False, True])
def test_old_indexes_answer_as_before_and_change(kind: str, is_upgraded: bool, written: Path) -> None:
    index = SearchIndex.open(written / kind, encoder=ToyEncoder())
    if is_upgraded:
        index.upgrade(words="unicode")
        assert index.manifest.words == "unicode"
        index = SearchIndex.open(written / kind, encoder=ToyEncoder())
    hits = index.search("word3 number3", 3)
    assert [(hit.id, round(hit.score, 4)) for hit in hits] == BEST[kind]
    assert index.hybrid(["number24"], 1)[0][0].id == "d24"
    assert index.search("word3", 50, where="year < 2003")[0].metadata["year"] < 2003
    index.verify()
    before = len(index)
    index.add(["without an id"])  # numbered above every integer id
    assert index.search("without an id", 1)[0].id == max(int(h.id) for h in index.search("w", 50) if h.id != "x" and
                                                          str(h.id).isdigit())
    index.upsert([Document("3", "another three"), Document(None, "one more")])
    assert len(index) == before + 2
    assert index.search("another three", 1)[0].id == "3"
    assert index.delete([5, "d4"]) == 2
    index.compact()
    assert index.manifest.live == index.manifest.rows == before
    index.verify()
    again = SearchIndex.open(written / kind, encoder=ToyEncoder())
    assert again.search("another three", 1)[0].id == "3"


def test_old_indexes_of_given_vectors_open(written: Path) -> None:
    index = SearchIndex.open(written / "hnsw", mapped=True)
    assert index.manifest.kind == {"use": "hnsw"}
    row = ToyEncoder().encode(["word3 number3"])
    assert index.search(row, 1)[0][0].id == 3
    index.upsert([Document(3, None)], vectors=vectors(1))
    index.merge([SearchIndex.build(written / "more", None, vectors=vectors(5), kind="flat")], renumber=True)
    index.compact()
    assert len(index) == 45
    index.verify()
