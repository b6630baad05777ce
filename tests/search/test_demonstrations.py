"""Labelled examples for prompts: every label once before any twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_search_cli import run
from toy import ToyEncoder

from sentemb.errors import SearchError
from sentemb.search import Document, SearchIndex
from sentemb.search.query.diversity import marginal

ROWS = [("red cat", "cat"), ("red red cat", "cat"), ("blue cat", "cat"), ("red dog", "dog"), ("old house", "house"),
        ("red cat", "cat")]


@pytest.fixture
def index(tmp_path: Path) -> SearchIndex:
    documents = [Document(i, text, {"label": label}) for i, (text, label) in enumerate(ROWS)]
    return SearchIndex.build(tmp_path / "ix", documents, encoder=ToyEncoder())


def test_picking_by_a_loop() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(9, 4)).astype(np.float32)
    relevance, groups = generator.random(9).astype(np.float32), list("aaabbbcca")
    picked: list[int] = []
    for _ in range(7):
        best, value = -1, -np.inf
        counts = {group: sum(groups[i] == group for i in picked) for group in groups}
        least = min(counts[groups[i]] for i in range(9) if i not in picked)
        for i in range(9):
            if i in picked or counts[groups[i]] > least:
                continue
            near = max((float(vectors[i] @ vectors[p]) for p in picked), default=0.0)
            if (now := 0.6 * float(relevance[i]) - 0.4 * near) > value:
                best, value = i, now
        picked.append(best)
    assert marginal(relevance, vectors, 7, 0.6, groups) == picked
    assert sorted(marginal(relevance, vectors, 99, 0.6, groups)) == list(range(9))
    ties = np.ones(4, dtype=np.float32)
    assert marginal(ties, np.eye(4, dtype=np.float32), 4, 1.0, list("aabb")) == [0, 2, 1, 3]


def test_every_label_comes_once_before_any_twice_and_the_own_text_never(index: SearchIndex) -> None:
    hits = index.demonstrations(["red cat"], 4, cover="label")[0]
    assert {hit.metadata["label"] for hit in hits[:3]} == {"cat", "dog", "house"}
    assert hits[3].metadata["label"] == "cat"
    assert all(hit.text != "red cat" for hit in hits)
    assert index.demonstrations(["red cat"], 4, cover="label") == index.demonstrations(["red cat"], 4, cover="label")
    dogs = index.demonstrations(["red cat"], 9, cover="label", where='label == "dog"')[0]
    assert [hit.text for hit in dogs] == ["red dog"]
    with pytest.raises(SearchError, match=r'no document has the field "labels".*did you mean label'):
        index.demonstrations(["red cat"], 4, cover="labels")


def test_a_template_prints_the_nearest_last(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = tmp_path / "d.jsonl", str(tmp_path / "ix")
    rows = [{"text": text, "label": label} for text, label in ROWS[:5]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(capsys, "index", str(data), "-o", folder, "-m", str(tiny_bert))[0] == 0
    plain = json.loads(run(capsys, "search", folder, "red cat", "-k", "3", "--cover", "label", "--json")[1])["hits"]
    cover = ("-k", "3", "--cover", "label")
    code, out, _ = run(capsys, "search", folder, "red cat", *cover, "--template", "{text} -> {label}")
    assert code == 0
    assert out.splitlines() == [f"{hit['text']} -> {hit['metadata']['label']}" for hit in reversed(plain)]
    for arguments, message in (
        (("--template", "{topic}"), 'has no field "topic"'), (("--cover", "label", "--words"), "do not go together"),
        (("--template", "x", "--json"), "two forms of output"), (("--expand", "rm3"), "write prf:DOCUMENTS,TERMS"),
        (("--expand", "prf:2", "--cover", "label"), "--expand does not go with --cover"),
    ):
        code, _, err = run(capsys, "search", folder, "red cat", *arguments)
        assert code == 2, arguments
        assert message in err
    code, out, _ = run(capsys, "search", folder, "red cat", "--words", "--expand", "prf:2,3", "-k", "5")
    assert code == 0
    assert "red dog" in out
