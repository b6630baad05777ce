"""Contenders of bench_start.py: whole commands, from the start of the process to its end; and collecting results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker import peak_mib

Work = Callable[[], dict[str, Any]]

# what a user of sentence-transformers and FAISS writes for one query against a saved index
PEER_SEARCH = """
import json, sys
import faiss
from sentence_transformers import SentenceTransformer
folder, model, query = sys.argv[1:]
index = faiss.read_index(folder + "/index.faiss")
texts = json.load(open(folder + "/texts.json"))
vector = SentenceTransformer(model, device="cpu").encode([query], normalize_embeddings=True)
scores, rows = index.search(vector, 5)
print([(float(score), texts[row]) for score, row in zip(scores[0], rows[0])])
"""


def command(arguments: list[str]) -> Work:
    """``python ARGUMENTS`` from start to end."""

    def work() -> dict[str, Any]:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return {"lines": len(done.stdout.splitlines())}

    return work


def search_folders(place: str, texts: list[str], model: str) -> None:
    """The same documents as sentemb's index and as the peer's FAISS file and list of texts, under ``place``."""
    import json

    import faiss

    from sentemb import Encoder
    from sentemb.search import SearchIndex

    encoder = Encoder.load(model, precision="fp32")
    SearchIndex.build(Path(place) / "ours", texts, encoder=encoder, kind="flat").close()
    theirs = Path(place) / "theirs"
    theirs.mkdir()
    index = faiss.IndexFlatIP(encoder.width)
    index.add(encoder.encode(texts, normalise=True))
    faiss.write_index(index, str(theirs / "index.faiss"))
    (theirs / "texts.json").write_text(json.dumps(texts))


def tiny_model(folder: Path) -> Path:
    """One layer of MiniLM's width with random weights: cheap, so that collecting a million results shows."""
    import torch
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"0123456789", *(f"##{digit}" for digit in range(10))]
    raw = folder / "raw"
    BertTokenizerFast(vocab={word: place for place, word in enumerate(words)}).save_pretrained(raw)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(words), hidden_size=384, num_hidden_layers=1, num_attention_heads=6,
                         intermediate_size=384)).save_pretrained(raw)
    backbone = models.Transformer(str(raw), max_seq_length=16)
    SentenceTransformer(modules=[backbone, models.Pooling(384, "mean")]).save(str(folder / "model"))
    return folder / "model"


def collect_ours(model: str, rows: int) -> Work:
    """A million short texts to one array, by sentemb."""
    from sentemb import Encoder

    encoder = Encoder.load(model, precision="fp32", device="cpu")
    return _collecting(rows, lambda texts: encoder.encode(texts, progress=False))


def collect_theirs(model: str, rows: int) -> Work:
    """The same by sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu")
    return _collecting(rows, lambda texts: encoder.encode(texts, batch_size=512, show_progress_bar=False))


def _collecting(rows: int, encode: Callable[[list[str]], Any]) -> Work:
    texts = [str(number) for number in range(rows)]
    encode(texts[:4096])

    def work() -> dict[str, Any]:
        before = peak_mib()
        found = encode(texts)
        return {"growth_mib": peak_mib() - before, "result_mib": found.nbytes / 2**20}

    return work
