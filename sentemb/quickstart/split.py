"""Training pairs and a held-out retrieval task, from docstrings of different modules."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.errors import DataError
from sentemb.files import write_text
from sentemb.quickstart.corpus import Docstring

DOCUMENTS, QUERIES = 3_000, 1_500


@dataclass(frozen=True)
class Split:
    """No module is on both sides."""

    train: Sequence[Docstring]
    documents: Sequence[Docstring]  # held out
    queries: Sequence[Docstring]  # those of the documents that are asked for by name


def split(
    docs: Sequence[Docstring], *, pairs: int, seed: int, documents: int = DOCUMENTS, queries: int = QUERIES
) -> Split:
    """Hold out whole modules until there are enough documents; draw ``pairs`` for training from the other modules.

    Raises: DataError where there are too few docstrings for both.
    """
    generator = np.random.default_rng(seed)
    by_module: dict[str, list[Docstring]] = {}
    for doc in docs:
        by_module.setdefault(doc.module, []).append(doc)
    names = list(by_module)
    held_out: list[Docstring] = []
    trainable: list[Docstring] = []
    for i in generator.permutation(len(names)):
        side = held_out if len(held_out) < documents else trainable
        side += by_module[names[i]]
    if len(trainable) < 2 or len(held_out) < documents:
        raise DataError(
            f"only {len(docs):,} docstrings found; {documents:,} are held out for evaluation and training needs more: "
            "install some packages, or pass other folders"
        )
    held_out = held_out[:documents]
    queried = sorted(generator.choice(len(held_out), min(queries, len(held_out)), replace=False))
    chosen = sorted(generator.choice(len(trainable), min(pairs, len(trainable)), replace=False))
    return Split([trainable[i] for i in chosen], held_out, [held_out[i] for i in queried])


def write_training(pairs: Sequence[Docstring], path: Path) -> None:
    """``anchor`` and ``positive``, one JSON object a line."""
    _write_lines(path, ({"anchor": doc.query, "positive": doc.text} for doc in pairs))


def write_task(held_out: Split, folder: Path) -> None:
    """The retrieval task in BEIR's layout, as ``sentemb eval`` and others read it."""
    _write_lines(folder / "corpus.jsonl", ({"_id": doc.name, "text": doc.text} for doc in held_out.documents))
    _write_lines(folder / "queries.jsonl", ({"_id": f"q:{doc.name}", "text": doc.query} for doc in held_out.queries))
    judged = ({"query-id": f"q:{doc.name}", "corpus-id": doc.name, "score": 1} for doc in held_out.queries)
    _write_lines(folder / "qrels" / "test.jsonl", judged)


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
