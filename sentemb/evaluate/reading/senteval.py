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


def senteval_set(root: Path, name: str, split: str) -> PairSet | None:
    """A set from ``root`` (SentEval's ``data/downstream``, or a folder above it); None where it is not there.

    Raises:
        DataError: A malformed file; names file and line.
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
    first: list[str] = []
    second: list[str] = []
    score: list[float] = []
    subset: list[str] = []
    for path in sorted(folder.glob("STS.input.*.txt")):
        part = path.name.removeprefix("STS.input.").removesuffix(".txt")
        pairs, gold = _lines(path), _lines(folder / f"STS.gs.{part}.txt")
        if len(pairs) != len(gold):
            raise DataError(f"{path}: {len(pairs):,} pairs, but {len(gold):,} scores in STS.gs.{part}.txt")
        for number, (pair, rating) in enumerate(zip(pairs, gold, strict=True), start=1):
            if not rating.strip():
                continue
            fields = pair.split("\t")
            if len(fields) < 2:
                raise DataError(f"{path}:{number}: two sentences with a tab between them are needed")
            first.append(fields[0])
            second.append(fields[1])
            score.append(_number(folder / f"STS.gs.{part}.txt", number, rating))
            subset.append(part)
    return _pair_set(name, folder, first, second, score, subset)


def _benchmark(path: Path, name: str) -> PairSet:
    rows = [(number, line.split("\t")) for number, line in enumerate(_lines(path), start=1) if line.strip()]
    for number, fields in rows:
        if len(fields) < 7:
            raise DataError(
                f"{path}:{number}: {len(fields)} fields; genre, file, year, id, score and two sentences are needed"
            )
    score = [_number(path, number, fields[4]) for number, fields in rows]
    return _pair_set(name, path, [f[5] for _, f in rows], [f[6] for _, f in rows], score, None)


def _sick(path: Path, name: str) -> PairSet:
    header, *lines = _lines(path) or [""]
    columns = header.split("\t")
    wanted = ("sentence_A", "sentence_B", "relatedness_score")
    if any(column not in columns for column in wanted):
        raise DataError(f"{path}:1: columns {', '.join(columns)}; needed are {', '.join(wanted)}")
    a, b, rated = (columns.index(column) for column in wanted)
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, start=2) if line.strip()]
    for number, fields in rows:
        if len(fields) != len(columns):
            raise DataError(f"{path}:{number}: {len(fields)} fields; the header has {len(columns)}")
    score = [_number(path, number, fields[rated]) for number, fields in rows]
    return _pair_set(name, path, [f[a] for _, f in rows], [f[b] for _, f in rows], score, None)


def _pair_set(
    name: str, source: Path, first: list[str], second: list[str], score: list[float], subset: list[str] | None
) -> PairSet:
    if not score:
        raise DataError(f"{source}: no rated pairs in it")
    return PairSet(
        name=name, sentence1=first, sentence2=second, score=np.array(score), subset=subset, source=str(source)
    )


def _lines(path: Path) -> list[str]:
    return [line for _, line in read_lines(path)]


def _number(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}:{number}: the score {text!r} is no number")
    return value
