"""Pairs whose hidden words a masked-language model fills."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentemb.cli import main
from sentemb.encoder.filled import Filled, Filler, hide, word_tokens
from sentemb.errors import ModelError

SENTENCES = ["the man plays music in the city", "a dog runs by the river at night", "two women made a film"]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(SENTENCES) + "\n")
    return path


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
def test_a_share_of_the_words_is_hidden(share: float) -> None:
    words = [f"w{i}" for i in range(10)]
    counts = []
    for seed in range(50):
        hidden = hide(words, share, 0.0, np.random.default_rng(seed))
        assert len(hidden) == 10
        assert [word for word in hidden if word] == [word for word, new in zip(words, hidden, strict=True) if new]
        counts.append(hidden.count(None))
    assert set(counts) == {max(1, round(10 * share))}


def test_neighbours_become_one_place() -> None:
    generator = np.random.default_rng(0)
    assert hide(["a", "b", "c"], 1.0, 1.0, generator) == [None]
    lengths = [len(hide(["a", "b"], 1.0, 0.5, generator)) for _ in range(400)]
    assert 0.4 < lengths.count(1) / 400 < 0.6


def test_places_get_the_most_likely_word(tiny_bert: Path) -> None:
    fill = Filler(str(tiny_bert))
    texts = [["the", None, "plays", None], [None, "dog"]]
    filled = fill(texts)
    for words, text in zip(texts, filled, strict=True):
        ids = fill.hub(" ".join(word or "[MASK]" for word in words), return_tensors="pt")
        with torch.no_grad():
            logits = fill.model(**ids).logits[0]
        tokens = fill.hub.convert_ids_to_tokens(list(range(logits.shape[1])))
        allowed = [i for i, token in enumerate(tokens) if token.isalpha()]
        for place, word in enumerate(words):
            best = max(allowed, key=lambda number: float(logits[place + 1, number]))
            assert text.split()[place] == (word or tokens[best])


def test_only_whole_words_fill(tiny_bert: Path) -> None:
    fill = Filler(str(tiny_bert))
    tokens = fill.hub.convert_ids_to_tokens(list(range(len(fill.hub))))
    chosen = {token for token, is_word in zip(tokens, fill.words.tolist(), strict=True) if is_word}
    assert {"the", "dog", "a"} <= chosen
    assert not chosen & {"[MASK]", "[CLS]", "##a", "3", ",", "[UNK]"}


def test_words_of_a_byte_level_vocabulary_start_with_their_sign() -> None:
    class Hub:
        all_special_ids = (0,)

        def __len__(self) -> int:
            return 5

        def convert_ids_to_tokens(self, numbers: list[int]) -> list[str]:
            return [["<s>", "Ġdog", "dog", "Ġ,", "Ġ3"][number] for number in numbers]

    assert word_tokens(Hub(), 7).tolist() == [False, True, False, False, False, False, False]


def test_rows_are_pairs_and_the_same_seed_makes_them_again(tiny_bert: Path, lines: Path) -> None:
    maker = Filled(path=str(lines), model=str(tiny_bert), shares=(0.2, 0.6), batch=2)
    left_out: Counter[str] = Counter()
    rows = list(maker.rows(np.random.default_rng(3), left_out))
    assert [row["anchor"] for row in rows] == [sentence for sentence in SENTENCES for _ in range(2)]
    assert all(row["anchor"] != row["positive"] for row in rows)
    assert all("[MASK]" not in str(row["positive"]) for row in rows)
    assert not left_out
    assert list(maker.rows(np.random.default_rng(3), Counter())) == rows


def test_long_texts_and_texts_with_a_mask_are_left_out(tiny_bert: Path, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("the dog " * 100 + "\nthe [MASK] [MASK] dog\n" + SENTENCES[0] + "\n")
    left_out: Counter[str] = Counter()
    rows = list(Filled(path=str(path), model=str(tiny_bert)).rows(np.random.default_rng(0), left_out))
    assert len(rows) == 1
    assert left_out == {"texts that are longer than the model reads, or have a mask": 2}


def test_the_command_makes_them(tiny_bert: Path, lines: Path, tmp_path: Path, capsys: Any) -> None:
    output, settings = tmp_path / "pairs.jsonl", ["--set", f"model={tiny_bert}", "--set", "shares=[0.4]"]
    with pytest.raises(SystemExit) as caught:
        main(["data", "make", "filled", str(lines), "-o", str(output), *settings])
    assert not caught.value.code, capsys.readouterr().err
    assert [json.loads(line)["anchor"] for line in output.read_text().splitlines()] == SENTENCES


def test_a_model_without_a_head_is_refused(minilm: Path, lines: Path) -> None:
    with pytest.raises(ModelError, match="no masked-language model with its head"):
        next(Filled(path=str(lines), model=str(minilm)).rows(np.random.default_rng(0), Counter()))
    with pytest.raises(ValueError, match="shares"):
        Filled(path="x", model="y", shares=())
