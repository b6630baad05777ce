"""What mined negatives are like, against a loop and hand-worked cases."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import ToyEncoder, vectors

from sentemb.mining.judge import WordOverlap, judge
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


def test_the_means_by_a_loop() -> None:
    blocks, texts, anchors, corpus = mined()
    (block,) = blocks
    frequency: dict[str, int] = {}
    split = [{word for word in text.split() if len(word) > 1} for text in texts.corpus]
    for words in split:
        for word in words:
            frequency[word] = frequency.get(word, 0) + 1
    idf = {w: math.log(1 + (len(split) - f + 0.5) / (f + 0.5)) for w, f in frequency.items()}
    hard, safe, lexical = [], [], []
    for a, rows in zip(block.anchors.tolist(), block.negatives.tolist(), strict=True):
        own = texts.positives.part(slice(a, a + 1)).rows.tolist()
        p = min(own, key=lambda row: float(corpus[row] @ anchors[a]))
        s_p = float(corpus[p] @ anchors[a])
        s_n = [float(corpus[row] @ anchors[a]) for row in rows]
        hard += [min(max(s / max(s_p, 1e-6), 0), 1) for s in s_n]
        safe.append(min(max((s_p - max(s_n)) / 0.05, 0), 1))
        for row in rows:
            lexical.append(1 - sum(idf[w] for w in split[row] & split[p]) / sum(idf[w] for w in split[row]))
    found = judge(blocks, texts, anchors, corpus)
    assert found.hardness == pytest.approx(np.mean(hard), abs=1e-5)
    assert found.safety == pytest.approx(np.mean(safe), abs=1e-5)
    assert found.lexical == pytest.approx(np.mean(lexical), abs=1e-5)
    halves = [replace(block, **{name: getattr(block, name)[part] for name in ("anchors", "negatives", "similarity",
                                                                               "positive")})
              for part in (slice(10, None), slice(10))]
    again = judge(halves, texts, anchors, corpus)
    assert (again.hardness, again.safety, again.lexical) == pytest.approx((found.hardness, found.safety, found.lexical))


def test_word_overlap_by_hand() -> None:
    overlap = WordOverlap(["red dog", "red cat", "the"])
    red, dog = (math.log(1 + (3 - n + 0.5) / (n + 0.5)) for n in (2, 1))
    assert overlap.of(np.array([[0, 2]]), np.array([1]))[0].tolist() == [pytest.approx(red / (red + dog)), 0.0]


def test_mine_judges_where_it_is_asked(tmp_path: Path) -> None:
    output = tmp_path / "mined.jsonl"
    result = mine(PAIRS, encoder=ToyEncoder(), output=output, negatives=2, judge=True)
    assert result.judgement is not None
    report = json.loads((tmp_path / "mined.jsonl.report.json").read_text())
    assert report["judgement"]["hardness"] == result.judgement.hardness > 0
    assert mine(PAIRS, encoder=ToyEncoder(), negatives=2).judgement is None
