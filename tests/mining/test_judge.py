"""Scores of mined negatives, against loops and hand-worked cases."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import ToyEncoder, vectors

from sentemb.mining.judge import WordOverlap, harmonic, judge
from sentemb.mining.miner import MinedBlock, Miner, MiningOptions
from sentemb.mining.run import mine
from sentemb.mining.texts import MiningTexts, read_texts

PAIRS = [{"anchor": f"red w{i}", "positive": f"red w{i} x{i}"} for i in range(50)]


def mined(rows: int = 40, negatives: int = 3) -> tuple[list[MinedBlock], MiningTexts, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    words = "red blue green dog cat house river song".split()
    texts = read_texts(
        [{"anchor": f"a{i % 30}", "positive": " ".join(generator.choice(words, 4)) + f" {i}"} for i in range(rows)],
        [{"text": " ".join(generator.choice(words, 4))} for _ in range(60)],
    )
    anchors, corpus = vectors(len(texts.anchors), seed=1), vectors(len(texts.corpus), seed=2)
    blocks = list(Miner(texts, anchors, corpus, MiningOptions(negatives=negatives)).mine())
    return blocks, texts, anchors, corpus


def test_both_scores_by_a_loop() -> None:
    blocks, texts, anchors, corpus = mined()
    (block,) = blocks
    width, count = corpus.shape[1], block.negatives.size
    frequency: dict[str, int] = {}
    split = [{word for word in text.split() if len(word) > 1} for text in texts.corpus]
    for words in split:
        for word in words:
            frequency[word] = frequency.get(word, 0) + 1
    idf = {w: math.log(1 + (len(split) - f + 0.5) / (f + 0.5)) for w, f in frequency.items()}
    hard, safe, information, squares, factors = [], [], np.zeros((width, width)), 0.0, []
    for a, rows in zip(block.anchors.tolist(), block.negatives.tolist(), strict=True):
        own = texts.positives.part(slice(a, a + 1)).rows.tolist()
        p = min(own, key=lambda row: float(corpus[row] @ anchors[a]))
        s_p = float(corpus[p] @ anchors[a])
        s_n = [float(corpus[row] @ anchors[a]) for row in rows]
        hard += [min(max(s / max(s_p, 1e-6), 0), 1) for s in s_n]
        safe.append(min(max((s_p - max(s_n)) / 0.05, 0), 1))
        for row, s in zip(rows, s_n, strict=True):
            r = corpus[row] - float(corpus[row] @ corpus[p]) * corpus[p]
            shared = sum(idf[w] for w in split[row] & split[p]) / sum(idf[w] for w in split[row])
            three = 1 / (1 + math.exp(-(s_p - s) / 0.05)), min(max(s / max(s_p, 1e-6), 0), 1), 1 - shared
            factors.append(three)
            information += math.prod(three) * np.outer(r, r)
            squares += float(r @ r)
    found = judge(blocks, texts, anchors, corpus)
    assert found.hardness == pytest.approx(np.mean(hard), abs=1e-5)
    assert found.safety == pytest.approx(np.mean(safe), abs=1e-5)
    both = harmonic(float(np.mean(hard)), float(np.mean(safe)))
    assert found.eci == pytest.approx(math.log(1 + count) * both, abs=1e-4)
    assert found.eci_low <= found.eci <= found.eci_high
    assert [found.safe, found.near, found.lexical] == pytest.approx(np.mean(factors, axis=0), abs=1e-5)
    inside = np.eye(width) + information / (squares / width)
    assert found.eci_sem == pytest.approx(math.log(np.linalg.det(inside)) / width, abs=1e-5)


def test_order_does_not_matter_and_copies_are_worth_less() -> None:
    (block,), texts, anchors, corpus = mined()
    found = judge([block], texts, anchors, corpus)
    order = np.random.default_rng(1).permutation(len(block.anchors))
    shuffled = replace(block, **{name: getattr(block, name)[order]
                                 for name in ("anchors", "negatives", "similarity", "positive")})
    again = judge([shuffled], texts, anchors, corpus)
    assert again.eci_sem == pytest.approx(found.eci_sem, abs=1e-9)
    assert again.eci == pytest.approx(found.eci, abs=1e-9)
    halves = [replace(block, **{name: getattr(block, name)[part] for name in ("anchors", "negatives", "similarity",
                                                                               "positive")})
              for part in (slice(10), slice(10, None))]
    assert judge(halves, texts, anchors, corpus).eci_sem == pytest.approx(found.eci_sem, abs=1e-9)
    copied = replace(block, negatives=np.repeat(block.negatives[:, :1], 3, axis=1),
                     similarity=np.repeat(block.similarity[:, :1], 3, axis=1))
    one = judge([copied], texts, anchors, corpus)
    assert one.eci_sem < found.eci_sem


def test_a_negative_equal_to_the_positive_has_nothing_left() -> None:
    texts = read_texts([{"anchor": "a", "positive": "red dog"}, {"anchor": "b", "positive": "blue cat"}])
    corpus = np.eye(2, 4, dtype=np.float32)
    corpus[1] = corpus[0]
    anchors = np.full((2, 4), 0.5, dtype=np.float32)
    block = MinedBlock(anchors=np.array([0, 1]), negatives=np.array([[1], [0]]), similarity=np.float32([[0.5], [0.5]]),
                       positive=np.float32([0.5, 0.5]), considered=2, proposed=2, refused=0)
    assert judge([block], texts, anchors, corpus).eci_sem == 0
    assert harmonic(0, 0) == 0


def test_word_overlap_by_hand() -> None:
    overlap = WordOverlap(["red dog", "red cat", "the"])
    red, dog = (math.log(1 + (3 - n + 0.5) / (n + 0.5)) for n in (2, 1))
    assert overlap.of(np.array([[0, 2]]), np.array([1]))[0].tolist() == [pytest.approx(red / (red + dog)), 0.0]


def test_mine_judges_where_it_is_asked(tmp_path: Path) -> None:
    output = tmp_path / "mined.jsonl"
    result = mine(PAIRS, encoder=ToyEncoder(), output=output, negatives=2, judge=True)
    assert result.judgement is not None
    report = json.loads((tmp_path / "mined.jsonl.report.json").read_text())
    assert report["judgement"]["eci"] == result.judgement.eci > 0
    assert mine(PAIRS, encoder=ToyEncoder(), negatives=2).judgement is None
