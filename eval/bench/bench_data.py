"""Reading text, and batches without duplicate texts: ours against sentence-transformers' sampler and datasets' reader.

    SENTEMB_DATA=… python eval/bench/run.py data [--batch 64] [--rounds 3] [--rows N]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from harness import Contender, Lane, Work, data, lanes_table, machine, race, ratio, write_report

OURS, PEER = "sentemb", "sentence-transformers"


def sentemb_batches(path: str, batch: int, rows: int | None) -> Work:
    """Hashing, preparing and one epoch: all that training waits for after reading and tokenising."""
    import numpy as np

    from sentemb.data import Triplets, text_hashes
    from sentemb.data.orders import Batches, NoDuplicates
    from sentemb.types import Examples, TokenColumn

    texts = Triplets(path=path, max_rows=rows).load().columns

    def work() -> dict[str, Any]:
        count = len(texts["anchor"])
        empty = np.zeros(count + 1, dtype=np.int64)
        columns = {
            name: TokenColumn(flat=np.zeros(0, dtype=np.int32), offsets=empty, text=text_hashes(column))
            for name, column in texts.items()
        }
        examples = Examples(ids=np.arange(count), columns=columns)
        batches = Batches(examples, NoDuplicates(), batch_size=batch, seed=0)
        return _facts([numbers.tolist() for numbers in batches.epoch(0)], len(batches), list(texts.values()))

    return work


def sentence_transformers_batches(path: str, batch: int, rows: int | None, hashed: bool) -> Work:
    """NoDuplicatesBatchSampler, in both of its modes."""
    import datasets
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

    from sentemb.data import Triplets

    datasets.disable_progress_bars()
    texts = Triplets(path=path, max_rows=rows).load().columns
    dataset = datasets.Dataset.from_dict(dict(texts))

    def work() -> dict[str, Any]:
        sampler = NoDuplicatesBatchSampler(dataset, batch_size=batch, drop_last=False, seed=0, precompute_hashes=hashed)
        return _facts([list(numbers) for numbers in sampler], len(sampler), list(texts.values()))

    return work


def _facts(batches: Sequence[Sequence[int]], length: int, columns: Sequence[Sequence[str]]) -> dict[str, Any]:
    recurring = 0
    for rows in batches[:50]:  # checked outside any doubt, by the texts themselves
        own = [{column[row] for column in columns} for row in rows]
        recurring += sum(map(len, own)) != len(set().union(*own))
    rows = sum(map(len, batches))
    return {"rows": rows, "batches": len(batches), "len": length, "batches with a recurring text": recurring}


def sentemb_read(path: str) -> Work:
    """Every sentence of a compressed file, checked and stripped."""
    from sentemb.data import Lines

    return lambda: {"rows": len(Lines(path=path).load())}


def datasets_read(path: str) -> Work:
    """The datasets library's text loader, without its cache of earlier rounds, to a Python list."""
    import tempfile

    import datasets

    datasets.disable_progress_bars()

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as cache:
            texts = datasets.load_dataset("text", data_files=path, split="train", cache_dir=cache)["text"][:]
            return {"rows": len(texts)}

    return work


def main(arguments: list[str]) -> None:
    """Race and report."""
    parser = argparse.ArgumentParser(prog="run.py data", description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="of the triplets; by default all")
    parser.add_argument("--lines", default=str(data() / "text" / "wiki1m.txt.zst"), help="the file to read")
    options, facts = parser.parse_args(arguments), machine()
    triplets = {"path": str(data() / "nli" / "snli_triplets.tsv.zst"), "batch": options.batch, "rows": options.rows}
    batches = race(
        [
            Contender(OURS, __file__, "sentemb_batches", triplets),
            Contender(PEER, __file__, "sentence_transformers_batches", {**triplets, "hashed": False}),
            Contender(f"{PEER}, hashed", __file__, "sentence_transformers_batches", {**triplets, "hashed": True}),
        ],
        rounds=options.rounds,
    )
    lines = {"path": options.lines}
    reading = race(
        [Contender(OURS, __file__, "sentemb_read", lines), Contender("datasets", __file__, "datasets_read", lines)],
        rounds=options.rounds, warmups=0,
    )
    text = (
        f"Batches of {options.batch} without duplicate texts from SNLI triplets, hashing included, one epoch.\n\n"
        f"{_table(batches)}\nReading sentences from {options.lines.rpartition('/')[2]}.\n\n{_table(reading)}"
    )
    write_report("data", "Data", text, facts, {"batches": batches, "reading": reading})


def _table(lanes: dict[str, Lane]) -> str:
    def cells(lane: Lane) -> list[object]:
        rows = lane.facts["rows"]
        others = "; ".join(f"{key} {value:,}" for key, value in lane.facts.items() if key != "rows")
        faster = "" if lane.name == OURS else ratio(lane, lanes[OURS])
        return [f"{lane.median_s:.3f}", f"{rows / lane.median_s:,.0f}", f"{rows:,}", others, faster]

    return lanes_table(["contender", "seconds", "rows/s", "rows", "facts", "ours is faster by"], lanes, cells)
