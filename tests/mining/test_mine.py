"""Mining against a loop written from the rules."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import ToyEncoder, vectors

from sentemb.errors import DataError, NumericError, PartError, SearchError
from sentemb.mining import miner as mining
from sentemb.mining import rules as rules_module
from sentemb.mining.miner import MinedBlock, Miner, MiningOptions
from sentemb.mining.rules import (
    AbsoluteMargin,
    CandidateTable,
    CrossEncoderRule,
    MiningRule,
    RankWindow,
    RelativeMargin,
    ScoreRange,
    allowed_by,
)
from sentemb.mining.run import mine, report_of
from sentemb.mining.sources import Nearest, Random, SharedWords
from sentemb.mining.texts import Lists, MiningColumns, MiningTexts, read_texts

PAIRS = [{"anchor": f"red w{i}", "positive": f"red w{i} x{i}"} for i in range(50)]


def pairs_of(anchors: list[str], positives: list[str], corpus: list[str] | None = None) -> MiningTexts:
    records = [{"anchor": a, "positive": p} for a, p in zip(anchors, positives, strict=True)]
    return read_texts(records, [{"text": text} for text in corpus or ()])


def setup(rows: int = 60) -> tuple[MiningTexts, Any, Any]:
    generator = np.random.default_rng(0)
    anchors = [f"a{i % 50}" for i in range(rows)]
    texts = pairs_of(anchors, [f"p{generator.integers(0, 45)}" for _ in range(rows)], ["extra", "a3"])
    return texts, vectors(len(texts.anchors), seed=1), vectors(len(texts.corpus), seed=2)


def miner_of(texts: MiningTexts, anchors: Any, corpus: Any, **options: Any) -> Miner:
    return Miner(texts, anchors, corpus, MiningOptions(**options))


def loop(
    texts: MiningTexts, anchors: Any, corpus: Any, rules: list[MiningRule], negatives: int
) -> dict[int, list[int]]:
    """The rules, one anchor and one candidate at a time."""
    chosen = {}
    for a, text in enumerate(texts.anchors):
        own = texts.positives.part(slice(a, a + 1)).rows.tolist()
        similarity = [float(anchors[a] @ vector) for vector in corpus]
        least = min(similarity[p] for p in own)
        passing = [c for c in sorted(range(len(corpus)), key=lambda c: -similarity[c])
                   if c not in own and texts.corpus[c] != text]
        for rule in rules:
            match rule:
                case AbsoluteMargin():
                    passing = [c for c in passing if similarity[c] + rule.margin <= least]
                case RelativeMargin():
                    passing = [c for c in passing if similarity[c] <= least - abs(least) * rule.fraction]
                case ScoreRange():
                    passing = [c for c in passing if (rule.most is None or similarity[c] <= rule.most)
                               and (rule.least is None or similarity[c] >= rule.least)]
                case RankWindow():
                    passing = passing[rule.skip : rule.last]
        if len(passing) >= negatives:
            chosen[a] = passing[:negatives]
    return chosen


@pytest.mark.parametrize(
    "rules",
    [
        [], [RankWindow(skip=3)], [AbsoluteMargin(margin=0.1)], [RelativeMargin(fraction=0.3)], [ScoreRange(most=0.2)],
        [ScoreRange(least=-0.1), RankWindow(skip=1)], [RankWindow(skip=2, last=20), ScoreRange(most=0.4)],
        [AbsoluteMargin(margin=0.05), ScoreRange(most=0.4), RankWindow(skip=2)],
    ],
)  # fmt: skip
def test_nearest_negatives_are_those_of_the_rules(rules: list[MiningRule]) -> None:
    texts, anchors, corpus = setup()
    blocks = list(miner_of(texts, anchors, corpus, negatives=4, rules=rules, candidates=len(corpus)).mine())
    mined = {a: row for m in blocks for a, row in zip(m.anchors.tolist(), m.negatives.tolist(), strict=True)}
    assert mined == loop(texts, anchors, corpus, rules, 4)
    for m in blocks:
        expected = np.einsum("nd,nkd->nk", anchors[m.anchors], corpus[m.negatives])
        np.testing.assert_allclose(m.similarity, expected, atol=1e-5)


def test_rules_work_on_a_table_alone() -> None:
    table = CandidateTable(
        ids=np.array([[4, 2, 0, -1]]), similarity=np.array([[0.9, 0.7, 0.5, -np.inf]], dtype=np.float32),
        positive=np.array([0.8], dtype=np.float32), allowed=np.array([[True, True, True, False]]),
        positives=Lists.of([(0, 3)], 1),
    )
    assert allowed_by([AbsoluteMargin(margin=0.2)], table).tolist() == [[False, False, True, False]]
    assert allowed_by([ScoreRange(most=0.8), RankWindow(skip=1)], table).tolist() == [[False, False, True, False]]
    assert RelativeMargin(fraction=0.1).refused(table)[0, :3].tolist() == [True, False, False]
    with pytest.raises(SearchError, match="only vectors are mined"):
        CrossEncoderRule(model="m").refused(table)


def test_vectors_alone_are_mined_as_while_training() -> None:
    rows = vectors(40, seed=1)
    own = Lists.of([(i, i) for i in range(40)], 40)
    options = MiningOptions(negatives=3, rules=[RankWindow(skip=2)], sources=[Nearest(), Random()])
    texts = MiningTexts(anchors=[], corpus=[], positives=own, excluded=own)
    (block,) = Miner(texts, rows, rows, options).mine()
    assert block.negatives.shape == (40, 3)
    assert (block.negatives != block.anchors[:, None]).all()
    with pytest.raises(SearchError, match="shared_words: needs texts"):
        Miner(texts, rows, rows, MiningOptions(sources=[SharedWords()]))


def test_mixture_takes_from_every_source_without_repeats_and_never_a_positive() -> None:
    generator = np.random.default_rng(5)
    words = [f"w{i}" for i in range(30)]
    texts = pairs_of([" ".join(generator.choice(words, 4)) for _ in range(80)],
                     [" ".join(generator.choice(words, 6)) for _ in range(80)])
    encoder = ToyEncoder()
    norm = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    choices = {"negatives": 6, "sources": [Nearest(share=3), SharedWords(share=2), Random(share=1)]}
    assert MiningOptions(**choices).counts() == [3, 2, 1]
    miner = miner_of(texts, norm(encoder.encode(texts.anchors)), norm(encoder.encode(texts.corpus)), **choices)
    (block,) = miner.mine()
    assert len(block.anchors) == len(texts.anchors)
    for anchor, row in zip(block.anchors.tolist(), block.negatives.tolist(), strict=True):
        assert len(set(row)) == 6
        assert not {texts.corpus[c] for c in row} & {*texts.positives_of(anchor), texts.anchors[anchor]}
    (again,) = miner.mine()
    np.testing.assert_array_equal(block.negatives, again.negatives)


def test_ids_exclude_other_wordings() -> None:
    texts = read_texts(
        [{"q": "q", "p": "p one", "qid": 7, "pid": 1}], [{"text": "p two", "id": 1}, {"text": "far", "id": 2}],
        columns=MiningColumns(anchor="q", positive="p", anchor_id="qid", positive_id="pid", corpus_id="id"),
    )
    (block,) = miner_of(texts, vectors(1), vectors(3), negatives=1).mine()
    assert [texts.corpus[c] for c in block.negatives[0].tolist()] == ["far"]


def test_models_refuse_what_they_rate_above_the_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, anchors, corpus = setup()

    def rate(pairs: list[tuple[str, str]]) -> Any:
        return np.array([1.0 if text.startswith("p") and text.endswith("7") else 0.5 for _, text in pairs])

    monkeypatch.setattr(rules_module, "_cross_encoder", lambda model: rate)
    for m in miner_of(texts, anchors, corpus, negatives=3, rules=[CrossEncoderRule(model="m")]).mine():
        sevens = [[texts.corpus[c].endswith("7") for c in row] for row in m.negatives.tolist()]
        own = [min(1.0 if t.endswith("7") else 0.5 for t in texts.positives_of(a)) for a in m.anchors.tolist()]
        assert not any(any(row) for row, bar in zip(sevens, own, strict=True) if bar < 1)
        assert m.refused > 0
    for wrong in (lambda pairs: np.full(len(pairs), np.nan), lambda pairs: np.zeros(3)):
        monkeypatch.setattr(rules_module, "_cross_encoder", lambda model, wrong=wrong: wrong)
        with pytest.raises(NumericError, match="m gave"):
            list(miner_of(texts, anchors, corpus, rules=[CrossEncoderRule(model="m")]).mine())


def test_random_sampling_stays_inside_the_window_and_follows_the_seed() -> None:
    texts, anchors, corpus = setup()
    rules = [RankWindow(skip=2, last=12)]
    (window,) = miner_of(texts, anchors, corpus, negatives=10, rules=rules).mine()
    drawn = [
        next(iter(miner_of(texts, anchors, corpus, negatives=3, rules=rules, sampling="random", seed=seed).mine()))
        for seed in (3, 3, 4)
    ]
    np.testing.assert_array_equal(drawn[0].negatives, drawn[1].negatives)
    assert not np.array_equal(drawn[0].negatives, drawn[2].negatives)
    for row, allowed in zip(drawn[0].negatives.tolist(), window.negatives.tolist(), strict=True):
        assert len(set(row)) == 3
        assert set(row) <= set(allowed)


def test_what_words_cannot_give_comes_from_the_other_sources() -> None:
    anchors = [f"same word{i}" if i < 20 else f"alone{i}" for i in range(40)]
    texts = pairs_of(anchors, [f"p{i} same" if i < 20 else f"p{i}" for i in range(40)])
    anchor_vectors, corpus = vectors(40, seed=1), vectors(40, seed=2)
    sources, rules = [Nearest(), SharedWords()], [RankWindow(skip=1, last=12)]
    for sampling in ("top", "random"):
        (block,) = miner_of(texts, anchor_vectors, corpus, negatives=4, sources=sources, rules=rules,
                            sampling=sampling, candidates=12).mine()
        assert len(block.anchors) == 40
        every = np.argsort(-anchor_vectors @ corpus.T, axis=1)
        for anchor, row, scores in zip(block.anchors, block.negatives, block.similarity, strict=True):
            ordered = [c for c in every[anchor].tolist() if c != anchor][1:12]  # the positive is row "anchor"
            assert len(set(row.tolist())) == 4
            np.testing.assert_allclose(scores, corpus[row] @ anchor_vectors[anchor], atol=1e-5)
            if anchor >= 20:  # no common word: all four are the nearest, inside the window
                assert set(row.tolist()) <= set(ordered)
                assert sampling == "random" or set(row.tolist()) == set(ordered[:4])


def test_file_is_resumed_and_deterministic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "BLOCK", 16)
    whole = tmp_path / "whole.jsonl"
    result = mine(PAIRS, encoder=ToyEncoder(), output=whole, negatives=2)
    assert (result.report.mined, result.output) == (50, whole)
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert list(rows[0])[:4] == ["anchor", "positive", "negative_1", "negative_2"]
    assert all(row["negative_1"] not in (row["anchor"], row["positive"]) for row in rows)
    assert mine(PAIRS, encoder=ToyEncoder(), negatives=2).rows == rows

    calls = []
    plain = Miner.block

    def stopping(self: Miner, number: int) -> MinedBlock:
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, number)

    monkeypatch.setattr(Miner, "block", stopping)
    part = tmp_path / "part.jsonl"
    with pytest.raises(KeyboardInterrupt):
        mine(PAIRS, encoder=ToyEncoder(), output=part, negatives=2)
    assert not part.exists()
    with pytest.raises(SearchError, match="unfinished mining"):
        mine(PAIRS, encoder=ToyEncoder(), output=part, negatives=2)
    for others in ({"negatives": 3}, {"negatives": 2, "rules": [RankWindow(skip=1)]}):
        with pytest.raises(SearchError, match="other data, models or options"):
            mine(PAIRS, encoder=ToyEncoder(), output=part, resume=True, **others)
    encoder = ToyEncoder()
    mine(PAIRS, encoder=encoder, output=part, negatives=2, resume=True)
    assert encoder.encoded == []
    assert part.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "part.jsonl.parts").exists()


def test_unlabelled_texts_are_their_own_positives() -> None:
    records = [{"text": f"w{i} common"} for i in range(9)]
    rows = mine(records, encoder=ToyEncoder(), negatives=2, columns=MiningColumns(anchor="text", positive=None)).rows
    assert len(rows) == 9
    assert all(row["positive"] == row["anchor"] not in (row["negative_1"], row["negative_2"]) for row in rows)


def test_tuples_and_a_corpus_are_data() -> None:
    rows = mine([("red cat", "cat"), ("blue dog", "dog")], encoder=ToyEncoder(), corpus=["red fox"], negatives=2).rows
    assert len(rows) == 2
    assert {rows[0]["negative_1"], rows[0]["negative_2"]} == {"dog", "red fox"}


def test_report_by_hand() -> None:
    block = MinedBlock(
        anchors=np.arange(2), negatives=np.zeros((2, 2), np.int64), similarity=np.float32([[0.4, 0.2], [0.49, 0.1]]),
        positive=np.float32([0.8, 0.5]), considered=3, proposed=4, refused=1,
    )
    report = report_of([block], 2)
    assert asdict(report) == pytest.approx({
        "anchors": 3, "mined": 2, "negatives": 2, "positive_similarity": 0.65, "negative_similarity": 1.19 / 4,
        "hardest_similarity": 0.445, "false_negatives": 0.25, "refused": 0.25,
    })


def test_candidates_of_an_index(tmp_path: Path) -> None:
    records = [{"anchor": f"red w{i}", "positive": f"red w{i} x{i}"} for i in range(300)]
    for name, kind in (("exact", "flat"), ("graph", "hnsw")):
        sources = [Nearest(kind=kind)]
        mine(records, encoder=ToyEncoder(), output=tmp_path / f"{name}.jsonl", negatives=2, sources=sources)
    exact, graph = (
        [json.loads(line)["negative_1"] for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("exact", "graph")
    )
    assert sum(a == b for a, b in zip(exact, graph, strict=True)) > 280
    assert {path.name for path in tmp_path.iterdir() if ".report" not in path.name} == {"exact.jsonl", "graph.jsonl"}
    with pytest.raises(SearchError, match="did you mean hnsw"):
        Nearest(kind="hsnw")


@pytest.mark.parametrize("kind", ["IVF4,PQ4", "sq8", "rabitq", "IVF4,Flat"])
def test_scores_of_candidates_of_an_index_are_exact(kind: str) -> None:
    records = [{"anchor": f"red w{i}", "positive": f"red w{i} x{i}"} for i in range(300)]
    encoder = ToyEncoder()
    rows = mine(records, encoder=encoder, negatives=3, sources=[Nearest(kind=kind)]).rows
    assert len(rows) == 300
    for row in rows[:20]:
        texts = [row[name] for name in ("anchor", "positive", "negative_1", "negative_2", "negative_3")]
        encoded = encoder.encode(texts)
        encoded /= np.linalg.norm(encoded, axis=1, keepdims=True)
        np.testing.assert_allclose(row["negative_scores"], encoded[2:] @ encoded[0], atol=1e-5)
        assert row["negative_scores"] == sorted(row["negative_scores"], reverse=True)


@pytest.mark.parametrize("choices", [{"negatives": 100}, {"rules": [ScoreRange(least=2.0)]}])
def test_nothing_is_written_where_nothing_is_mined(choices: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"none of 50 anchors has \d+ negatives.*refused"):
        mine(PAIRS, encoder=ToyEncoder(), output=tmp_path / "o.jsonl", **choices)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("choices", "message"),
    [({"negatives": 0}, "at least 1"), ({"candidates": 4}, "at least 5"), ({"sources": [Nearest(share=0)]}, "share"),
     ({"sampling": "best"}, "allowed: top, random"), ({"seed": -1}, "seed = -1")],
)  # fmt: skip
def test_impossible_options_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        MiningOptions(**choices)


def test_faults_of_data_are_named() -> None:
    records = [{"anchor": "a", "positive": "b"}, {"anchor": "a", "positive": " "}]
    with pytest.raises(DataError, match='record 2: column "positive" holds no text'):
        read_texts(records)
    with pytest.raises(DataError, match='no column "ancor"; known: anchor, positive; did you mean anchor'):
        read_texts(records, columns=MiningColumns(anchor="ancor"))
    with pytest.raises(DataError, match="no further texts"):
        read_texts(records[:1], columns=MiningColumns(corpus_id="id"))
    with pytest.raises(DataError, match="two different texts"):
        read_texts(records[:1])
    with pytest.raises(PartError, match="last must be larger"):
        RankWindow(skip=5, last=5)
