"""A tiny random encoder on disk, and sentences for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
WORDS = "the a man woman dog cat child runs eats plays music guitar red blue green big small river house song".split()


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT with random weights, as the hub lays it out."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("backbone")
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    BertTokenizerFast(vocab=vocabulary).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=32,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pairs() -> list[tuple[str, str]]:
    """Forty different sentences with another one each."""
    nouns, verbs, things = WORDS[2:7], WORDS[7:10], WORDS[10:]
    texts = [f"the {noun} {verb} {thing}" for noun in nouns for verb in verbs for thing in things][:80]
    return list(zip(texts[:40], texts[40:], strict=True))
