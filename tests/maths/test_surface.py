"""Surface similarity: character trigram sets in bit tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sentemb.maths.surface import BITS, ngram_bits, surface_of_pairs, surface_table, unpack_bits

TEXTS = [
    "The cat sat on the mat.", "the  CAT sat on\tthe mat.", "A cat sat on a mat.", "Stock prices fell in Tokyo.", "",
    "a", "Łódź is a city", "the cat sat on the mat. the cat sat on the mat. and then it left for the river",
]


def bucket(gram: bytes) -> int:
    """The hash, one trigram at a time."""
    code = gram[0] << 16 | gram[1] << 8 | gram[2]
    return (code * 2654435761 % 2**32) >> 20


def set_of(text: str) -> set[int]:
    framed = f" {' '.join(text.lower().split())} ".encode()
    return {bucket(framed[i : i + 3]) for i in range(len(framed) - 2)}


def test_bits_are_the_hashed_trigrams():
    bits = np.unpackbits(ngram_bits(TEXTS), axis=1)
    assert bits.shape == (len(TEXTS), BITS)
    for row, text in zip(bits, TEXTS, strict=True):
        assert set(np.flatnonzero(row).tolist()) == set_of(text)


def test_no_trigram_crosses_two_texts():
    alone = np.concatenate([ngram_bits([text]) for text in TEXTS])
    assert np.array_equal(ngram_bits(TEXTS), alone)


def test_chunks_change_nothing(monkeypatch):
    whole = ngram_bits(TEXTS)
    left, right = np.arange(8).repeat(8), np.tile(np.arange(8), 8)
    pairs = surface_of_pairs(whole, left, right)
    monkeypatch.setattr("sentemb.maths.surface._CHUNK", 3)
    assert np.array_equal(ngram_bits(TEXTS), whole)
    assert np.array_equal(surface_of_pairs(whole, left, right), pairs)


def test_pairs_and_table_equal_the_loop():
    bits = ngram_bits(TEXTS)
    sets = [set_of(text) for text in TEXTS]
    expected = np.array([[len(a & b) / max(len(a), len(b), 1) for b in sets] for a in sets])
    table = surface_table(torch.from_numpy(bits), torch.from_numpy(bits))
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-6)
    left, right = np.arange(8).repeat(8), np.tile(np.arange(8), 8)
    np.testing.assert_allclose(surface_of_pairs(bits, left, right), expected.ravel(), rtol=1e-6)


def test_means_what_it_says():
    table = surface_table(*(torch.from_numpy(ngram_bits(TEXTS)),) * 2)
    assert table[0, 1] == 1  # case and white space do not count
    assert table[0, 0] == 1
    assert table[0, 2] > 0.5 > 0.2 > table[0, 3]
    # the same words at another length: overlap 1, but the length ratio counts
    assert table[0, 7] < 0.5
    assert table[4].tolist() == [0.0] * 8  # an empty text is like none


def test_product_of_overlap_and_length_ratio():
    a, b = set_of(TEXTS[0]), set_of(TEXTS[2])
    overlap, ratio = len(a & b) / min(len(a), len(b)), min(len(a), len(b)) / max(len(a), len(b))
    bits = torch.from_numpy(ngram_bits([TEXTS[0], TEXTS[2]]))
    assert float(surface_table(bits[:1], bits[1:])) == pytest.approx(overlap * ratio)


def test_unpacks_as_numpy_does():
    packed = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)
    assert np.array_equal(unpack_bits(torch.from_numpy(packed)).numpy(), np.unpackbits(packed, axis=1))


def test_no_texts():
    assert ngram_bits([]).shape == (0, BITS // 8)
