"""TREC files: runs (``query Q0 document rank score tag``) and judgements (``query 0 document relevance``)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sentemb.errors import DataError
from sentemb.evaluate.pairs import open_text, read_rows
from sentemb.evaluate.ranking import Qrels, Run
from sentemb.files import atomic_file


def write_run(path: Path, run: Run, *, tag: str = "sentemb") -> None:
    """Write a run, best first, atomically. Ids with white space would break the format.

    Raises:
        DataError: An id with white space.
    """
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, hits in run.items():
            ranked = sorted(hits.items(), key=lambda hit: (hit[1], hit[0]), reverse=True)
            for rank, (document, score) in enumerate(ranked, start=1):
                if len(query.split()) != 1 or len(document.split()) != 1:
                    raise DataError(
                        f"{path}: the id {query!r} or {document!r} holds white space; TREC's format has none"
                    )
                file.write(f"{query} Q0 {document} {rank} {score!r} {tag}\n")


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """A run file.

    Raises:
        DataError: Malformed lines or none; names file and line.
    """
    run: dict[str, dict[str, float]] = {}
    for number, fields in _lines(path, 6, "query Q0 document rank score tag"):
        try:
            score = float(fields[4])
        except ValueError:
            score = math.nan
        if math.isnan(score):
            raise DataError(f"{path}:{number}: the score {fields[4]!r} is no number")
        run.setdefault(fields[0], {})[fields[2]] = score
    if not run:
        raise DataError(f"{path}: empty; lines as `query Q0 document rank score tag` are needed")
    return run


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements: TREC's four columns, BEIR's tsv with a header, or jsonl/parquet with ``query-id``, ``corpus-id``,
    ``score``.

    Raises:
        DataError: Malformed lines or none; names file and line.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, query, document, relevance in _judgements(path):
        try:
            value = float(relevance)
        except (TypeError, ValueError):
            value = math.nan
        if value != value or value != int(value):
            raise DataError(f"{path}:{number}: the relevance {relevance!r} is no whole number")
        qrels.setdefault(query, {})[document] = int(value)
    if not qrels:
        raise DataError(f"{path}: no judgements in it")
    return qrels


def _judgements(path: Path) -> list[tuple[int, str, str, Any]]:
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".jsonl", ".parquet", ".csv")) or (name.endswith(".tsv") and _has_header(path)):
        out = []
        for number, row in read_rows(path):
            missing = [column for column in ("query-id", "corpus-id", "score") if column not in row]
            if missing:
                raise DataError(f'{path}:{number}: no column "{missing[0]}"; found: {", ".join(map(str, row))}')
            out.append((number, str(row["query-id"]), str(row["corpus-id"]), row["score"]))
        return out
    return [(n, fields[0], fields[2], fields[3]) for n, fields in _lines(path, 4, "query 0 document relevance")]


def _has_header(path: Path) -> bool:
    with open_text(path) as file:
        return "query-id" in file.readline()


def _lines(path: Path, width: int, form: str) -> list[tuple[int, list[str]]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    out = []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != width:
                raise DataError(f"{path}:{number}: {len(fields)} fields; needed are {width}: {form}")
            out.append((number, fields))
    return out


def check_run(run: Run, qrels: Qrels, *, source: str) -> None:
    """A run and judgements that share no query do not belong together.

    Raises:
        DataError: They share none.
    """
    if not any(query in qrels for query in run):
        raise DataError(
            f'{source}: none of its {len(run):,} queries is judged (first: "{next(iter(run))}", judged: '
            f'"{next(iter(qrels))}")'
        )
