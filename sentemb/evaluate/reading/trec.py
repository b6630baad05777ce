"""TREC files: runs (``query Q0 document rank score tag``) and judgements (``query 0 document relevance``)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from sentemb.data import Record
from sentemb.errors import DataError
from sentemb.evaluate.reading.tables import cell_of, number_of, read_lines, read_rows
from sentemb.evaluate.statistics.ranking import Run
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
    for row in _lines(path, "query Q0 document rank score tag"):
        run.setdefault(row.fields["query"], {})[row.fields["document"]] = number_of(row, "score")
    if not run:
        raise DataError(f"{path}: empty; lines as `query Q0 document rank score tag` are needed")
    return run


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements: TREC's four columns, BEIR's tsv with a header, or jsonl/parquet with ``query-id``, ``corpus-id``,
    ``score``.

    Raises: DataError: malformed lines or none; names file and line.
    """
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    is_table = name.endswith((".jsonl", ".parquet", ".csv")) or (name.endswith(".tsv") and _has_header(path))
    qrels: dict[str, dict[str, int]] = {}
    for row in read_rows(path) if is_table else _lines(path, "query-id 0 corpus-id score"):
        relevance = number_of(row, "score")
        if not relevance.is_integer():
            raise DataError(f"{row.where}: the relevance {row.fields['score']!r} is no whole number")
        query, document = (str(cell_of(row, column)) for column in ("query-id", "corpus-id"))
        qrels.setdefault(query, {})[document] = int(relevance)
    if not qrels:
        raise DataError(f"{path}: no judgements in it")
    return qrels


def _has_header(path: Path) -> bool:
    return any("query-id" in line for _, line in itertools.islice(read_lines(path), 1))


def _lines(path: Path, form: str) -> Iterator[Record]:
    """Lines of TREC's as rows; ``form`` names their columns."""
    columns = form.split()
    for number, line in read_lines(path):
        fields = line.split()
        if fields and len(fields) != len(columns):
            raise DataError(f"{path}:{number}: {len(fields)} fields; needed are {len(columns)}: {form}")
        if fields:
            yield Record(where=f"{path}:{number}", fields=dict(zip(columns, fields, strict=True)))
