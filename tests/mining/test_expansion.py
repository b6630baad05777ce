"""Pairs that only an expanded search finds, against a loop and a real index."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_search_cli import run
from toy import ToyEncoder, vectors

from sentemb.errors import PartError, SearchError
from sentemb.mining import run as mining_run
from sentemb.mining.expansion import FoundByExpansion, chosen_pairs
from sentemb.mining.run import mine
from sentemb.mining.texts import Lists, MiningTexts, read_texts
from sentemb.search import SearchIndex
from sentemb.search.query.expansion import Feedback

WORDS = "heart attack aspirin dose children garden house music river song".split()


def pairs(rows: int = 200, seed: int = 3) -> list[dict[str, str]]:
    """Short anchors, longer positives; some anchors have several positives, and share them."""
    draw = np.random.default_rng(seed).choice
    positives = [" ".join(draw(WORDS, 4)) + f" x{i % 150}" for i in range(rows)]
    return [{"anchor": " ".join(draw(WORDS, 2)), "positive": text} for text in positives]


def kept_of(texts: MiningTexts) -> set[tuple[str, str]]:
    owners, rows = texts.positives.owners.tolist(), texts.positives.rows.tolist()
    return {(texts.anchors[a], texts.corpus[row]) for a, row in zip(owners, rows, strict=True)}


def loop(texts: MiningTexts, anchors: Any, corpus: Any, rule: FoundByExpansion) -> set[tuple[str, str]]:
    """The rule, one anchor after the other, in plain floats."""
    documents = corpus.astype(float).tolist()

    def first(query: list[float], count: int) -> list[int]:
        length = math.sqrt(math.fsum(x * x for x in query))
        cosine = [math.fsum(x * y for x, y in zip(query, row, strict=True)) / length for row in documents]
        return sorted(range(len(documents)), key=lambda row: -cosine[row])[:count]

    kept = set()
    for a, text in enumerate(texts.anchors):
        query = anchors[a].astype(float).tolist()
        near = first(query, rule.documents)
        mean = [math.fsum(documents[row][j] for row in near) / len(near) for j in range(len(query))]
        moved = [(x + rule.weight * y) / (1 + rule.weight) for x, y in zip(query, mean, strict=True)]
        plain, again = first(query, rule.k), first(moved, rule.k)
        own = texts.positives.part(slice(a, a + 1)).rows.tolist()
        kept |= {(text, texts.corpus[p]) for p in own if p in again and p not in plain}
    return kept


@pytest.mark.parametrize("rule", [
    FoundByExpansion(k=10, documents=5, weight=2.0), FoundByExpansion(k=40, documents=10, weight=1.0),
    FoundByExpansion(k=60, documents=500),
])  # fmt: skip
def test_pairs_by_a_loop(rule: FoundByExpansion, tmp_path: Path) -> None:
    rows = [{"anchor": f"a{i % 90}", "positive": f"p{i}"} for i in range(200)]
    texts = read_texts(rows, [f"extra {i}" for i in range(50)])
    anchors, corpus = vectors(90, seed=1), vectors(250, seed=2)
    kept, vectors_of_kept, report = chosen_pairs(texts, anchors, corpus, rule, tmp_path)
    assert kept_of(kept) == loop(texts, anchors, corpus, rule)
    assert (report.pairs, report.kept) == (200, len(kept.positives.rows))
    assert 0 < report.kept < report.found_expanded
    numbers = [texts.anchors.index(text) for text in kept.anchors]
    np.testing.assert_array_equal(vectors_of_kept, anchors[numbers])
    for number, old in enumerate(numbers):  # what was no negative is none now: also positives that are not kept
        rows, before = (lists.part(slice(i, i + 1)).rows.tolist()
                        for lists, i in ((kept.excluded, number), (texts.excluded, old)))
        assert rows == before


def test_by_hand(tmp_path: Path) -> None:
    """The second document is nearer to the anchor, the third nearer to the anchor's first result."""
    degrees = np.radians([10, -30, 42])
    corpus = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    anchors = np.array([[1, 0], [0, 1]], dtype=np.float32)
    positives = Lists.of([(0, 2), (0, 0), (1, 2)], 2)  # the other anchor finds its own at once
    texts = MiningTexts(anchors=["a", "b"], corpus=["0", "1", "2"], positives=positives, excluded=positives)
    rule = FoundByExpansion(k=2, documents=1, weight=4.0)
    kept, _, report = chosen_pairs(texts, anchors, corpus, rule, tmp_path)
    assert kept_of(kept) == {("a", "2")}
    assert (report.pairs, report.found, report.found_expanded, report.kept) == (3, 2, 3, 1)


def test_the_pairs_are_those_of_an_index_searched_with_expand(tmp_path: Path) -> None:
    texts, k = read_texts(pairs()), 40
    rule = FoundByExpansion(k=k, documents=5, weight=2.0)
    index = SearchIndex.build(tmp_path / "ix", texts.corpus, encoder=ToyEncoder())
    plain, wide = (
        [{hit.text for hit in hits} for hits in index.search(texts.anchors, k, expand=expand)]
        for expand in (None, Feedback(documents=5, weight=2.0))
    )
    expected = {
        (text, own) for a, text in enumerate(texts.anchors) for own in texts.positives_of(a)
        if own in wide[a] and own not in plain[a]
    }
    result = mine(texts, encoder=ToyEncoder(), negatives=2, found_by_expansion=rule, judge=True)
    assert {(row["anchor"], row["positive"]) for row in result.rows} == expected
    assert len(result.rows) == len(expected) > 2
    assert result.expansion is not None
    assert result.expansion.kept == len(expected)
    assert result.judgement is not None
    positives = {text: set(texts.positives_of(a)) for a, text in enumerate(texts.anchors)}
    for row in result.rows:
        assert not {row["negative_1"], row["negative_2"]} & positives[row["anchor"]]


def test_the_order_of_the_pairs_does_not_matter() -> None:
    rows, rule = pairs(), FoundByExpansion(k=10, documents=5, weight=1.0)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    one, two = (
        mine(data, encoder=ToyEncoder(), negatives=2, found_by_expansion=rule).rows
        for data in (rows, [rows[i] for i in order])
    )
    assert {(row["anchor"], row["positive"]) for row in one} == {(row["anchor"], row["positive"]) for row in two}


def test_a_stopped_run_goes_on_without_searching_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, output = FoundByExpansion(k=10, documents=5, weight=1.0), tmp_path / "m.jsonl"
    options: dict[str, Any] = {"encoder": ToyEncoder(), "negatives": 2, "found_by_expansion": rule}
    whole = mine(pairs(), **options).rows

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mining_run, "_mine_blocks", stopped)
        with pytest.raises(KeyboardInterrupt):
            mine(pairs(), output=output, **options)
    with pytest.raises(SearchError, match="other data, models or options"):
        mine(pairs(), output=output, resume=True, **{**options, "found_by_expansion": None})
    monkeypatch.setattr("sentemb.mining.expansion._in_first_k", stopped)
    mine(pairs(), output=output, resume=True, **options)
    assert [json.loads(line) for line in output.read_text().splitlines()] == whole
    report = json.loads(Path(f"{output}.report.json").read_text())
    assert report["expansion"]["kept"] == len(whole)
    assert "documents=5" in report["options"]["found_by_expansion"]


def test_nothing_is_written_where_no_pair_is_kept(tmp_path: Path) -> None:
    options: dict[str, Any] = {"encoder": ToyEncoder(), "output": tmp_path / "m.jsonl"}
    with pytest.raises(SearchError, match=r"of 200 pairs none .* 500 only by expansion \(200 without it, 200 with"):
        mine(pairs(), found_by_expansion=FoundByExpansion(k=500), **options)
    assert list(tmp_path.iterdir()) == []


def test_the_verb(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, output = tmp_path / "p.jsonl", tmp_path / "m.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in pairs()))
    command = ["mine", str(data), "-o", str(output), "-m", str(tiny_bert), "-n", "1", "--found-by-expansion"]
    code, out, err = run(capsys, *command, "k=10,documents=5,weight=2")
    assert code == 0, err
    assert "of 200 pairs are found by expansion alone (" in out
    code, out, err = run(capsys, *command, "k=10,documents=5,weight=2", "--json")
    assert code == 0, err
    assert json.loads(out)["expansion"]["kept"] == len(output.read_text().splitlines())
    for wrong, message in (("k=0", "--found-by-expansion: k"), ("prf:10", "--found-by-expansion: prf:10"),
                           ("documents=5,terms=3", "--found-by-expansion: terms")):
        code, _, err = run(capsys, *command, wrong)
        assert (code, message in err) == (2, True), err


@pytest.mark.parametrize("settings", [{"k": 0}, {"documents": 0}, {"weight": 0.0}])
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(PartError, match=next(iter(settings))):
        FoundByExpansion(**settings)
