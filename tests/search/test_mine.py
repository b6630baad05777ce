"""Mining against a loop written from the rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import ToyEncoder, vectors

from sentemb.encoder.crossencoder import CrossEncoderScores
from sentemb.errors import DataError, NumericError, SearchError
from sentemb.mining import mine as mining
from sentemb.mining.files import mine_file, read_pairs
from sentemb.mining.mine import Miner, pairs_of
from sentemb.mining.report import ReportBuilder
from sentemb.mining.rules import MiningRules


def _setup(rows: int = 60) -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(0)
    anchors = [f"a{i % 50}" for i in range(rows)]
    positives = [f"p{generator.integers(0, 45)}" for _ in range(rows)]
    pairs = pairs_of(anchors, positives, ["extra", "a3"])
    return pairs, vectors(len(pairs.anchors), seed=1), vectors(len(pairs.corpus), seed=2)


def _loop(pairs: Any, anchor_vectors: Any, corpus_vectors: Any, rules: MiningRules) -> dict[int, list[int]]:
    """The rules, one anchor and one candidate at a time."""
    found = {}
    for a, text in enumerate(pairs.anchors):
        own = pairs.positive_rows[pairs.positive_offsets[a] : pairs.positive_offsets[a + 1]].tolist()
        least = min(float(anchor_vectors[a] @ corpus_vectors[p]) for p in own)
        ordered = sorted(range(len(pairs.corpus)), key=lambda c: -float(anchor_vectors[a] @ corpus_vectors[c]))
        passing = []
        for c in ordered:
            score = float(anchor_vectors[a] @ corpus_vectors[c])
            if c in own or pairs.corpus[c] == text:
                continue
            if rules.absolute_margin is not None and score + rules.absolute_margin > least:
                continue
            if rules.relative_margin is not None and score > least - abs(least) * rules.relative_margin:
                continue
            if rules.max_score is not None and score > rules.max_score:
                continue
            if rules.min_score is not None and score < rules.min_score:
                continue
            passing.append(c)
        picked = passing[rules.rank_min : rules.rank_max][: rules.negatives]
        if len(picked) == rules.negatives:
            found[a] = picked
    return found


@pytest.mark.parametrize(
    "choices",
    [
        {}, {"rank_min": 3}, {"absolute_margin": 0.1}, {"relative_margin": 0.3}, {"max_score": 0.2},
        {"min_score": -0.1, "rank_min": 1}, {"absolute_margin": 0.05, "max_score": 0.4, "rank_min": 2},
    ],
)  # fmt: skip
def test_dense_negatives_are_those_of_the_rules(choices: dict[str, Any]) -> None:
    pairs, anchor_vectors, corpus_vectors = _setup()
    rules = MiningRules(negatives=4, rank_max=len(pairs.corpus), **choices)
    mined = list(Miner(pairs, anchor_vectors, corpus_vectors, rules).mine())
    found = {a: row for m in mined for a, row in zip(m.anchors.tolist(), m.negatives.tolist(), strict=True)}
    assert found == _loop(pairs, anchor_vectors, corpus_vectors, rules)
    for m in mined:
        expected = np.einsum("nd,nkd->nk", anchor_vectors[m.anchors], corpus_vectors[m.negatives])
        np.testing.assert_allclose(m.scores, expected, atol=1e-5)


def test_mixture_takes_from_every_source_without_repeats_and_never_a_positive() -> None:
    generator = np.random.default_rng(5)
    words = [f"w{i}" for i in range(30)]
    anchors = [" ".join(generator.choice(words, 4)) for _ in range(80)]
    positives = [" ".join(generator.choice(words, 6)) for _ in range(80)]
    pairs = pairs_of(anchors, positives)
    encoder = ToyEncoder()
    norm = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    rules = MiningRules(negatives=6, dense=3, bm25=2, random=1)
    assert rules.counts() == {"dense": 3, "bm25": 2, "random": 1}
    miner = Miner(pairs, norm(encoder.encode(pairs.anchors)), norm(encoder.encode(pairs.corpus)), rules)
    (block,) = miner.mine()
    assert len(block.anchors) == len(pairs.anchors)
    for anchor, row in zip(block.anchors.tolist(), block.negatives.tolist(), strict=True):
        assert len(set(row)) == 6
        texts = {pairs.corpus[c] for c in row}
        assert not texts & {*pairs.positives_of(anchor), pairs.anchors[anchor]}
    (again,) = miner.mine()
    np.testing.assert_array_equal(block.negatives, again.negatives)


def test_ids_exclude_other_wordings() -> None:
    pairs = pairs_of(["q"], ["p one"], ["p two", "far"], anchor_ids=[7], positive_ids=[1], corpus_ids=[1, 2])
    (block,) = Miner(pairs, vectors(1), vectors(3), MiningRules(negatives=1)).mine()
    assert [pairs.corpus[c] for c in block.negatives[0].tolist()] == ["far"]


def test_filter_models_refuse_what_they_rate_above_the_positive() -> None:
    pairs, anchor_vectors, corpus_vectors = _setup()
    rules = MiningRules(negatives=3, rank_max=len(pairs.corpus))

    def rate(asked: list[tuple[str, str]]) -> Any:
        return np.array([1.0 if text.startswith("p") and text.endswith("7") else 0.5 for _, text in asked])

    for m in Miner(pairs, anchor_vectors, corpus_vectors, rules, filter_model=rate).mine():
        sevens = [[pairs.corpus[c].endswith("7") for c in row] for row in m.negatives.tolist()]
        own = [min(1.0 if t.endswith("7") else 0.5 for t in pairs.positives_of(a)) for a in m.anchors.tolist()]
        assert not any(any(row) for row, bar in zip(sevens, own, strict=True) if bar < 1)
        assert m.refused > 0
    reference = (anchor_vectors, corpus_vectors)
    for m in Miner(pairs, anchor_vectors, corpus_vectors, rules, reference=reference).mine():
        assert (m.scores <= m.positive_scores[:, None]).all()


def test_random_sampling_stays_inside_the_window_and_follows_the_seed() -> None:
    pairs, anchor_vectors, corpus_vectors = _setup()
    drawn = MiningRules(negatives=3, rank_min=2, rank_max=12, sampling="random", seed=3)
    (window,) = Miner(pairs, anchor_vectors, corpus_vectors, MiningRules(negatives=10, rank_min=2, rank_max=12)).mine()
    (first,) = Miner(pairs, anchor_vectors, corpus_vectors, drawn).mine()
    (second,) = Miner(pairs, anchor_vectors, corpus_vectors, drawn).mine()
    np.testing.assert_array_equal(first.negatives, second.negatives)
    for row, allowed in zip(first.negatives.tolist(), window.negatives.tolist(), strict=True):
        assert len(set(row)) == 3
        assert set(row) <= set(allowed)
    assert not np.array_equal(first.negatives, window.negatives[:, :3])


def test_file_is_resumed_and_deterministic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "BLOCK", 16)
    records = [{"anchor": f"red w{i}", "positive": f"red w{i} x{i}"} for i in range(50)]
    pairs = read_pairs(records, anchor="anchor", positive="positive")
    rules = MiningRules(negatives=2)
    whole = tmp_path / "whole.jsonl"
    report = mine_file(pairs, whole, ToyEncoder(), rules)
    assert report.kept == 50
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert list(rows[0])[:4] == ["anchor", "positive", "negative_1", "negative_2"]
    assert all(row["negative_1"] not in (row["anchor"], row["positive"]) for row in rows)

    calls = []
    plain = Miner._block

    def stopping(self: Miner, anchors: Any, number: int) -> Any:
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, anchors, number)

    monkeypatch.setattr(Miner, "_block", stopping)
    part = tmp_path / "part.jsonl"
    with pytest.raises(KeyboardInterrupt):
        mine_file(pairs, part, ToyEncoder(), rules)
    assert not part.exists()
    with pytest.raises(SearchError, match="unfinished mining"):
        mine_file(pairs, part, ToyEncoder(), rules)
    with pytest.raises(SearchError, match="other data, models or rules"):
        mine_file(pairs, part, ToyEncoder(), MiningRules(negatives=3), resume=True)
    encoder = ToyEncoder()
    mine_file(pairs, part, encoder, rules, resume=True)
    assert encoder.encoded == []
    assert part.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "part.jsonl.parts").exists()


def test_unlabelled_texts_are_their_own_positives(tmp_path: Path) -> None:
    pairs = read_pairs([{"text": f"w{i} common"} for i in range(9)], anchor="text", positive=None)
    mine_file(pairs, tmp_path / "o.parquet", ToyEncoder(), MiningRules(negatives=2))
    import pyarrow.parquet as pq

    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert len(rows) == 9
    assert all(row["positive"] == row["anchor"] not in (row["negative_1"], row["negative_2"]) for row in rows)


def test_report_is_the_equations_of_its_docstring() -> None:
    draw, margin = np.random.default_rng(3), 0.05
    builder = ReportBuilder(safe_margin=margin)
    positives, negatives = [], []
    for rows in (7, 4):
        positive, negative = draw.uniform(-0.2, 0.9, rows), draw.uniform(-0.4, 0.5, (rows, 3))
        builder.add(np.float32(positive), np.float32(negative), considered=rows, refused=0, looked_at=9)
        positives += positive.tolist()
        negatives += negative.tolist()
    hard, safe = [], []
    for positive, row in zip(positives, negatives, strict=True):
        hard += [min(max(s / max(positive, 1e-6), 0), 1) for s in row]
        safe.append(min(max((positive - max(row)) / margin, 0), 1))
    hardness, safety = sum(hard) / len(hard), sum(safe) / len(safe)
    report = builder.report()
    assert 0 < safety < 1
    assert (report.hardness, report.safety) == pytest.approx((hardness, safety), abs=1e-5)
    assert report.capacity == pytest.approx(np.log(1 + 11 * 3))
    assert report.eci == pytest.approx(np.log(34) * 2 / (1 / hardness + 1 / safety), rel=1e-4)


def test_report_by_hand() -> None:
    builder = ReportBuilder(safe_margin=0.1)
    builder.add(np.float32([0.8, 0.5]), np.float32([[0.4, 0.2], [0.5, 0.1]]), considered=3, refused=1, looked_at=4)
    report = builder.report()
    assert report.hardness == pytest.approx((0.5 + 0.25 + 1 + 0.2) / 4)
    assert report.safety == pytest.approx((1 + 0) / 2)
    assert report.false_negative_rate == pytest.approx(0.25)
    efficiency = 2 * 0.4875 * 0.5 / 0.9875
    assert report.eci == pytest.approx(np.log(5) * efficiency)
    assert (report.kept, report.anchors, report.refused) == (2, 3, 0.25)


def test_what_bm25_cannot_give_comes_from_the_other_sources() -> None:
    anchors = [f"same word{i}" if i < 20 else f"alone{i}" for i in range(40)]
    pairs = pairs_of(anchors, [f"p{i} same" if i < 20 else f"p{i}" for i in range(40)])
    anchor_vectors, corpus_vectors = vectors(40, seed=1), vectors(40, seed=2)
    for sampling in ("top", "random"):
        rules = MiningRules(negatives=4, dense=1, bm25=1, rank_min=1, rank_max=12, sampling=sampling)
        (block,) = Miner(pairs, anchor_vectors, corpus_vectors, rules).mine()
        assert len(block.anchors) == 40
        every = np.argsort(-anchor_vectors @ corpus_vectors.T, axis=1)
        for anchor, row, scores in zip(block.anchors, block.negatives, block.scores, strict=True):
            ordered = [c for c in every[anchor].tolist() if c != anchor][1:12]  # the positive is row "anchor"
            assert len(set(row.tolist())) == 4
            np.testing.assert_allclose(scores, corpus_vectors[row] @ anchor_vectors[anchor], atol=1e-5)
            if anchor >= 20:  # no common word: all four are dense, inside the window
                assert set(row.tolist()) <= set(ordered)
                assert sampling == "random" or set(row.tolist()) == set(ordered[:4])


def test_a_filter_that_gives_no_number_is_refused() -> None:
    pairs, anchor_vectors, corpus_vectors = _setup()
    for wrong in (lambda asked: np.full(len(asked), np.nan), lambda asked: np.zeros(3)):
        miner = Miner(pairs, anchor_vectors, corpus_vectors, MiningRules(negatives=1), filter_model=wrong)
        with pytest.raises(NumericError, match="the filter model gave"):
            list(miner.mine())


def test_candidates_of_an_index(tmp_path: Path) -> None:
    records = [{"anchor": f"red w{i}", "positive": f"red w{i} x{i}"} for i in range(300)]
    pairs = read_pairs(records, anchor="anchor", positive="positive")
    rules = MiningRules(negatives=2)
    mine_file(pairs, tmp_path / "exact.jsonl", ToyEncoder(), rules)
    mine_file(pairs, tmp_path / "graph.jsonl", ToyEncoder(), rules, kind="hnsw")
    exact, graph = (
        [json.loads(line)["negative_1"] for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("exact", "graph")
    )
    assert sum(a == b for a, b in zip(exact, graph, strict=True)) > 280
    assert {path.name for path in tmp_path.iterdir() if ".report" not in path.name} == {"exact.jsonl", "graph.jsonl"}
    with pytest.raises(SearchError, match="did you mean hnsw"):
        mine_file(pairs, tmp_path / "o.jsonl", ToyEncoder(), rules, kind="hsnw")


@pytest.mark.parametrize("kind", ["IVF4,PQ4", "sq8", "rabitq", "IVF4,Flat"])
def test_scores_of_candidates_of_an_index_are_exact(kind: str, tmp_path: Path) -> None:
    records = [{"anchor": f"red w{i}", "positive": f"red w{i} x{i}"} for i in range(300)]
    pairs, encoder = read_pairs(records, anchor="anchor", positive="positive"), ToyEncoder()
    mine_file(pairs, tmp_path / "o.jsonl", encoder, MiningRules(negatives=3), kind=kind)
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert len(rows) == 300
    for row in rows[:20]:
        texts = [row[name] for name in ("anchor", "positive", "negative_1", "negative_2", "negative_3")]
        found = encoder.encode(texts)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        np.testing.assert_allclose(row["negative_scores"], found[2:] @ found[0], atol=1e-5)
        assert row["negative_scores"] == sorted(row["negative_scores"], reverse=True)


@pytest.mark.parametrize("choices", [{"negatives": 100}, {"min_score": 2.0}])
def test_nothing_is_written_where_nothing_is_found(choices: dict[str, Any], tmp_path: Path) -> None:
    pairs = read_pairs([{"text": f"w{i} common"} for i in range(9)], anchor="text", positive=None)
    with pytest.raises(SearchError, match=r"none of 9 anchors has \d+ negatives.*refused"):
        mine_file(pairs, tmp_path / "o.jsonl", ToyEncoder(), MiningRules(**choices))
    assert list(tmp_path.iterdir()) == []


def test_damaged_parts_and_another_filter_are_refused(tmp_path: Path) -> None:
    pairs = read_pairs([{"text": f"w{i} common"} for i in range(9)], anchor="text", positive=None)
    output, parts, rules = tmp_path / "o.jsonl", tmp_path / "o.jsonl.parts", MiningRules(negatives=1)

    class Model:
        def predict(self, asked: Any, **_: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine_file(pairs, output, ToyEncoder(), rules, filter_model=CrossEncoderScores("one", Model(), 8))
    with pytest.raises(SearchError, match="other data, models or rules"):
        mine_file(pairs, output, ToyEncoder(), rules, filter_model=CrossEncoderScores("two", Model(), 8), resume=True)
    (parts / "block-00000.npz").write_bytes(b"PK not a block")
    with pytest.raises(SearchError, match=r"block-00000\.npz: damaged; remove the folder"):
        mine_file(pairs, output, ToyEncoder(), rules, filter_model=CrossEncoderScores("one", Model(), 8), resume=True)
    (parts / "mine.json").write_text("{")
    with pytest.raises(SearchError, match=r"mine\.json: damaged"):
        mine_file(pairs, output, ToyEncoder(), rules, resume=True)
    assert not output.exists()


def test_ids_of_a_corpus_need_one() -> None:
    with pytest.raises(DataError, match="there is no corpus"):
        read_pairs([{"anchor": "a", "positive": "b"}], anchor="anchor", positive="positive", corpus_id="id")


@pytest.mark.parametrize(
    ("choices", "message"),
    [({"negatives": 0}, "at least 1"), ({"rank_min": 5, "rank_max": 6}, "at least 10"), ({"dense": 0}, "parts"),
     ({"sampling": "best"}, "allowed: top, random"), ({"seed": -1}, "seed = -1")],
)  # fmt: skip
def test_impossible_rules_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        MiningRules(**choices).check()


def test_records_without_text_are_named() -> None:
    records = [{"anchor": "a", "positive": "b"}, {"anchor": "a", "positive": " "}]
    with pytest.raises(DataError, match='record 2: column "positive" holds no text'):
        read_pairs(records, anchor="anchor", positive="positive")
