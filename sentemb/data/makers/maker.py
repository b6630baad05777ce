"""What a maker is, and how its rows become a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json import dumps
from pathlib import Path

import numpy as np

from sentemb.data.sources import Record, iter_records
from sentemb.errors import DataError
from sentemb.files import atomic_file
from sentemb.parts import Part
from sentemb.progress import Progress

Row = Mapping[str, object]  # column -> text, number


@dataclass(frozen=True, kw_only=True)
class Maker(Part, room="makers"):
    """Makes rows of training data. One of your own gives ``rows``:

        @dataclass(frozen=True, kw_only=True)
        class Reversed(Maker):
            '''Every line and the line read backwards.'''

            def rows(self, generator, left_out):
                for line in open(self.path, encoding="utf-8"):
                    yield {"anchor": line.strip(), "positive": line.strip()[::-1]}

    Args:
        path: the file or folder that the rows are made of.
    """

    path: str

    def rows(self, generator: np.random.Generator, left_out: Counter[str]) -> Iterator[Row]:
        """The rows, in order. ``left_out`` takes what was not used: a reason -> how many.

        Raises: DataError: the input cannot be used; names file and line.
        """
        raise NotImplementedError

    def records(self) -> Iterator[Record]:
        """The rows of the input."""
        return iter_records(self.path, advice="correct these rows, or leave them out")

    def cell(self, record: Record, *columns: str) -> object:
        """What stands in the first of the columns that there is.

        Raises: DataError: there is none, or it is empty.
        """
        for column in columns:
            value = record.fields.get(column)
            if value is not None and str(value).strip():
                return value
        names = " or ".join(f'"{column}"' for column in columns)
        raise DataError(f"{record.where}: nothing in column {names}; found: {', '.join(record.fields) or 'no column'}")


@dataclass(frozen=True, kw_only=True)
class MadeData:
    """What ``make_data`` wrote."""

    output: Path
    rows: int
    left_out: Mapping[str, int]  # what of the input was not used: a reason -> how many


def make_data(maker: Maker, output: str | Path, *, seed: int = 42) -> MadeData:
    """Write a maker's rows as JSON lines that ``[data]`` of a recipe reads; the same input and seed give the same file.

    >>> make_data(LabelPairs(path="train.jsonl"), "pairs.jsonl")  # doctest: +SKIP

    Raises: DataError: the output's name does not end in .jsonl, the input cannot be used, or no row came of it;
        nothing is written then.
    """
    target = Path(output)
    if target.suffix != ".jsonl":
        raise DataError(f"{target}: write to a file that ends in .jsonl")
    left_out: Counter[str] = Counter()
    with (
        atomic_file(target) as temporary, temporary.open("w", encoding="utf-8") as file,
        Progress("making", total=None, unit="rows") as bar,
    ):  # fmt: skip
        for row in maker.rows(np.random.default_rng(seed), left_out):
            file.write(dumps(row, ensure_ascii=False) + "\n")
            bar.advance()
        if not bar.done:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
            raise DataError(f"{maker.path}: no row can be made of it" + (f": {reasons}" if reasons else ""))
    return MadeData(output=target, rows=bar.done, left_out=dict(left_out))
