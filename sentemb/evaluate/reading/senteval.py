"""SentEval's own files of the STS sets, as its download script leaves them (``data/downstream``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sentemb.data import Record
from sentemb.errors import DataError
from sentemb.evaluate.reading.pairs import PairSet, pairs_of
from sentemb.evaluate.reading.tables import read_lines

_FILES = {
    ("STSBenchmark", "test"): "STS/STSBenchmark/sts-test.csv",
    ("STSBenchmark", "dev"): "STS/STSBenchmark/sts-dev.csv",
    ("SICK-R", "test"): "SICK/SICK_test_annotated.txt",
    ("SICK-R", "dev"): "SICK/SICK_trial.txt",
}


def senteval_set(root: Path, name: str, split: str) -> PairSet | None:
    """A set from ``root`` (SentEval's ``data/downstream``, or a folder above it); None where it is not there.

    Raises: DataError: A malformed file; names file and line.
    """
    for base in (root, root / "downstream", root / "data" / "downstream", root / "SentEval" / "data" / "downstream"):
        if (name, split) in _FILES:
            path = base / _FILES[name, split]
            if path.is_file():
                return pairs_of(_benchmark(path) if name == "STSBenchmark" else _sick(path), name=name, source=path)
        elif split == "test":
            folder = base / "STS" / f"{name}-en-test"
            if folder.is_dir():
                return pairs_of(_year(folder), name=name, source=folder)
    return None


def _year(folder: Path) -> Iterator[Record]:
    """``STS.input.<subset>.txt`` with two tabbed sentences a line and ``STS.gs.<subset>.txt``; unrated pairs are left
    out, as SentEval does."""
    for path in sorted(folder.glob("STS.input.*.txt")):
        subset = path.name.removeprefix("STS.input.").removesuffix(".txt")
        gold = folder / f"STS.gs.{subset}.txt"
        pairs, ratings = list(read_lines(path)), list(read_lines(gold))
        if len(pairs) != len(ratings):
            raise DataError(f"{path}: {len(pairs):,} pairs, but {len(ratings):,} scores in {gold.name}")
        for (number, pair), (_, rating) in zip(pairs, ratings, strict=True):
            if rating.strip():
                row = _row(f"{path}:{number}", ["sentence1", "sentence2"], pair)
                yield Record(where=f"{gold}:{number}", fields={**row.fields, "score": rating, "subset": subset})


def _benchmark(path: Path) -> Iterator[Record]:
    columns = ["genre", "file", "year", "id", "score", "sentence1", "sentence2"]
    return (_row(f"{path}:{number}", columns, line) for number, line in read_lines(path) if line.strip())


def _sick(path: Path) -> Iterator[Record]:
    ours = {"sentence_A": "sentence1", "sentence_B": "sentence2", "relatedness_score": "score"}
    (_, header), *lines = list(read_lines(path)) or [(1, "")]
    columns = [ours.get(column, column) for column in header.split("\t")]
    return (_row(f"{path}:{number}", columns, line) for number, line in lines if line.strip())


def _row(where: str, columns: list[str], line: str) -> Record:
    """A line with tabs between its fields; more fields than columns are left aside."""
    fields = line.split("\t")
    if len(fields) < len(columns):
        raise DataError(f"{where}: {len(fields)} fields; needed are {', '.join(columns)}")
    return Record(where=where, fields=dict(zip(columns, fields, strict=False)))
