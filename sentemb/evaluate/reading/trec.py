"""TREC files: runs (``query Q0 document rank score tag``) and judgements (``query 0 document relevance``)."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

from sentemb.errors import DataError
from sentemb.evaluate.reading.tables import read_lines, read_rows
from sentemb.evaluate.statistics.ranking import Qrels, Run
from sentemb.files import atomic_file


def write_run(path: Path, run: Run, *, tag: str = "sentemb") -> None:
    """Write a run, best first, atomically. Ids with white space would break the format.

    Raises: DataError: an id with white space.
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

    Raises: DataError: malformed lines or none; names file and line.
    """
    run: dict[str, dict[str, float]] = {}
    for where, fields in _lines(path, 6, "query Q0 document rank score tag"):
        try:
            score = float(fields[4])
        except ValueError:
            score = math.nan
        if math.isnan(score):
            raise DataError(f"{where}: the score {fields[4]!r} is no number")
        run.setdefault(fields[0], {})[fields[2]] = score
    if not run:
        raise DataError(f"{path}: empty; lines as `query Q0 document rank score tag` are needed")
    return run


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements: TREC's four columns, BEIR's tsv with a header, or jsonl/parquet with ``query-id``, ``corpus-id``,
    ``score``.

    Raises: DataError: malformed lines or none; names file and line.
    """
    qrels: dict[str, dict[str, int]] = {}
    for where, query, document, relevance in _judgements(path):
        try:
            value = float(relevance)
        except (TypeError, ValueError):
            value = math.nan
        if not value.is_integer():  # neither NaN nor infinity is
            raise DataError(f"{where}: the relevance {relevance!r} is no whole number")
        qrels.setdefault(query, {})[document] = int(value)
    if not qrels:
        raise DataError(f"{path}: no judgements in it")
    return qrels


def _judgements(path: Path) -> list[tuple[str, str, str, Any]]:
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".jsonl", ".parquet", ".csv")) or (name.endswith(".tsv") and _has_header(path)):
        out = []
        for row in read_rows(path):
            cells = row.fields
            missing = [column for column in ("query-id", "corpus-id", "score") if column not in cells]
            if missing:
                raise DataError(f'{row.where}: no column "{missing[0]}"; found: {", ".join(map(str, cells))}')
            out.append((row.where, str(cells["query-id"]), str(cells["corpus-id"]), cells["score"]))
        return out
    return [(where, fields[0], fields[2], fields[3]) for where, fields in _lines(path, 4, "query 0 document relevance")]


def _has_header(path: Path) -> bool:
    return any("query-id" in line for _, line in itertools.islice(read_lines(path), 1))


def _lines(path: Path, width: int, form: str) -> list[tuple[str, list[str]]]:
    out = []
    for number, line in read_lines(path):
        fields = line.split()
        if fields and len(fields) != width:
            raise DataError(f"{path}:{number}: {len(fields)} fields; needed are {width}: {form}")
        if fields:
            out.append((f"{path}:{number}", fields))
    return out


def check_run(run: Run, qrels: Qrels, *, source: str) -> None:
    """A run and judgements that share no query do not belong together.

    Raises: DataError: they share none.
    """
    if not any(query in qrels for query in run):
        raise DataError(
            f'{source}: none of its {len(run):,} queries is judged (first: "{next(iter(run))}", judged: '
            f'"{next(iter(qrels))}")'
        )
