"""SentEval's own files of the STS sets, as its download script leaves them (``data/downstream``)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from sentemb.errors import DataError
from sentemb.evaluate.reading.pairs import PairSet
from sentemb.evaluate.reading.tables import read_lines

_FILES = {
    ("STSBenchmark", "test"): "STS/STSBenchmark/sts-test.csv",
    ("STSBenchmark", "dev"): "STS/STSBenchmark/sts-dev.csv",
    ("SICK-R", "test"): "SICK/SICK_test_annotated.txt",
    ("SICK-R", "dev"): "SICK/SICK_trial.txt",
}


_Row = tuple[str, str, str, str]  # file:line of the score, two sentences, score


def senteval_set(root: Path, name: str, split: str) -> PairSet | None:
    """A set from ``root`` (SentEval's ``data/downstream``, or a folder above it); None where it is not there.

    Raises: DataError: A malformed file; names file and line.
    """
    for base in (root, root / "downstream", root / "data" / "downstream", root / "SentEval" / "data" / "downstream"):
        if (name, split) in _FILES:
            path = base / _FILES[name, split]
            if path.is_file():
                return _benchmark(path, name) if name == "STSBenchmark" else _sick(path, name)
        elif split == "test":
            folder = base / "STS" / f"{name}-en-test"
            if folder.is_dir():
                return _year(folder, name)
    return None


def _year(folder: Path, name: str) -> PairSet:
    """``STS.input.<subset>.txt`` with two tabbed sentences a line and ``STS.gs.<subset>.txt``; unrated pairs are left
    out, as SentEval does."""
    rows: list[_Row] = []
    subset: list[str] = []
    for path in sorted(folder.glob("STS.input.*.txt")):
        part = path.name.removeprefix("STS.input.").removesuffix(".txt")
        gold = folder / f"STS.gs.{part}.txt"
        pairs, ratings = list(read_lines(path)), list(read_lines(gold))
        if len(pairs) != len(ratings):
            raise DataError(f"{path}: {len(pairs):,} pairs, but {len(ratings):,} scores in {gold.name}")
        for (number, pair), (_, rating) in zip(pairs, ratings, strict=True):
            if rating.strip():
                first, second = _fields(path, number, pair, 2, "two sentences with a tab between them")[:2]
                rows.append((f"{gold}:{number}", first, second, rating))
                subset.append(part)
    return _pair_set(name, folder, rows, subset)


def _benchmark(path: Path, name: str) -> PairSet:
    columns = "genre, file, year, id, score and two sentences"
    lines = [(number, _fields(path, number, line, 7, columns)) for number, line in read_lines(path) if line.strip()]
    return _pair_set(name, path, [(f"{path}:{number}", row[5], row[6], row[4]) for number, row in lines])


def _sick(path: Path, name: str) -> PairSet:
    (_, header), *lines = list(read_lines(path)) or [(1, "")]
    columns = header.split("\t")
    wanted = ("sentence_A", "sentence_B", "relatedness_score")
    if any(column not in columns for column in wanted):
        raise DataError(f"{path}:1: columns {', '.join(columns)}; needed are {', '.join(wanted)}")
    a, b, score = (columns.index(column) for column in wanted)
    rows = []
    for number, line in lines:
        if line.strip():
            fields = _fields(path, number, line, len(columns), ", ".join(columns))
            rows.append((f"{path}:{number}", fields[a], fields[b], fields[score]))
    return _pair_set(name, path, rows)


def _fields(path: Path, number: int, line: str, least: int, needed: str) -> list[str]:
    fields = line.split("\t")
    if len(fields) < least:
        raise DataError(f"{path}:{number}: {len(fields)} fields; {needed} are needed")
    return fields


def _pair_set(name: str, source: Path, rows: list[_Row], subset: list[str] | None = None) -> PairSet:
    if not rows:
        raise DataError(f"{source}: no rated pairs in it")
    _, first, second, _ = zip(*rows, strict=True)
    score = np.array([_number(where, rating) for where, _, _, rating in rows])
    return PairSet(name=name, sentence1=first, sentence2=second, score=score, subset=subset, source=str(source))


def _number(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: the score {text!r} is no number")
    return value
