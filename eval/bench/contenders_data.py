"""The contenders of the data benchmark: each function prepares, and gives the timed call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Work = Callable[[], dict[str, Any]]


def sentemb_batches(path: str, batch: int) -> Work:
    """Hashing, preparing and one epoch: all that training waits for after reading and tokenising."""
    from sentemb.data import Batches, read_table, text_hashes
    from sentemb.types import Examples, TokenColumn

    texts = read_table(path).columns

    def work() -> dict[str, Any]:
        rows = len(texts["anchor"])
        empty = np.zeros(rows + 1, dtype=np.int64)
        columns = {
            name: TokenColumn(np.zeros(0, dtype=np.int32), empty, text_hashes(column)) for name, column in texts.items()
        }
        batches = Batches(Examples(ids=np.arange(rows), columns=columns), batch_size=batch, seed=0)
        return _facts([rows.tolist() for rows in batches.epoch(0)], len(batches), list(texts.values()))

    return work


def sentence_transformers_batches(path: str, batch: int, hashed: bool) -> Work:
    """NoDuplicatesBatchSampler, in both of its modes."""
    import datasets
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

    from sentemb.data import read_table

    datasets.disable_progress_bars()
    texts = read_table(path).columns
    data = datasets.Dataset.from_dict(dict(texts))

    def work() -> dict[str, Any]:
        sampler = NoDuplicatesBatchSampler(data, batch_size=batch, drop_last=False, seed=0, precompute_hashes=hashed)
        return _facts([list(rows) for rows in sampler], len(sampler), list(texts.values()))

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
    from sentemb.data import read_table

    return lambda: {"rows": len(read_table(path))}


def datasets_read(path: str) -> Work:
    """The datasets library's text loader, without its cache of earlier rounds, to a Python list."""
    import tempfile

    import datasets

    datasets.disable_progress_bars()

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as cache:
            data = datasets.load_dataset("text", data_files=path, split="train", cache_dir=cache)
            return {"rows": len(data["text"][:])}

    return work
