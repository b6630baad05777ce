"""Where training texts come from: what a recipe's ``[data]`` table can name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator

from sentemb.data.databases import Query
from sentemb.data.faults import Faults
from sentemb.data.formats import BLOCK, RecordBlock, arrow_blocks, row_blocks
from sentemb.data.roles import ROLES, is_role
from sentemb.data.sources import HUB_ID, Format, source_blocks
from sentemb.data.table import Table, read_table
from sentemb.data.templates import Template
from sentemb.errors import DataError, did_you_mean
from sentemb.parts import Count, NonNegative, Part, Positive

_IN_MEMORY = "data in memory"


def _ascending(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    scores = [score for score, _ in points]
    if not scores or any(second <= first for first, second in pairwise(scores)):
        raise ValueError("must be points [score, weight] whose scores ascend, at least one")
    return tuple(points)


@dataclass(frozen=True, kw_only=True)
class DataSource(Part, room="sources"):
    """Rows of texts with labels and numbers. A source of your own gives ``rows()``; the rest is done here:

        @dataclass(frozen=True, kw_only=True)
        class Dialogues(DataSource):
            '''Every turn of a dialogue and the turn after it.'''

            path: str

            def rows(self):
                for line in open(self.path, encoding="utf-8"):
                    turns = line.split("|")
                    yield from ({"anchor": one, "positive": two} for one, two in zip(turns, turns[1:]))

    Args:
        columns: role -> column name, e.g. ``{ anchor = "premise", positive = "hypothesis" }``; without it a column
            ``anchor`` and its like by name, else by order (see ``roles_of``). Roles are ``anchor`` (``anchor_2`` … are
            for the views ``fields``), ``positive``, ``positive_2`` …, ``negative_1`` …; ``label`` of the anchor and its
            coarser classes ``label_2`` …, finest first; ``score`` of anchor and positive, ``score_k`` of anchor and
            ``negative_k``; ``margin`` by which the positive is to be preferred; ``weight`` of the row; ``grade_0`` of
            the positives and ``grade_k`` of ``negative_k``, at least 0: how relevant they are to the anchor.
        max_rows: only the first rows.
        max_tokens: longest text in tokens, special tokens included; longer ones are cut.
        prefixes: role -> what is put in front of its texts, e.g. ``{ anchor = "query: " }``, or a template that they
            are written into, ``{ anchor = 'This sentence : "{text}" means {mask} .' }``.
        skip_faulty: leave malformed rows out instead of refusing the data.
        weight_of_score: points [score, weight] by ascending score, which make a row's weight of its score: it lies on
            the straight lines between them, and beyond them is that of the nearest. ``[[2.5, 0], [5, 1]]`` gives pairs
            up to 2.5 no weight.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    max_rows: Count | None = None
    max_tokens: Annotated[int, Ge(3)] | None = None  # [CLS] token [SEP]
    prefixes: Mapping[str, str] = field(default_factory=dict)
    skip_faulty: bool = False
    weight_of_score: Annotated[Sequence[tuple[float, NonNegative]], AfterValidator(_ascending)] | None = None

    marks = MappingProxyType({"name": str, "batch_size": Count, "weight": Positive})  # as a part of a mixture
    required: ClassVar[frozenset[str]] = frozenset({"anchor"})
    allowed: ClassVar[frozenset[str] | None] = None  # text columns; None: any

    def __post_init__(self) -> None:
        for role in (*self.columns, *self.prefixes):
            if not is_role(role):
                raise ValueError(f'"{role}" is no column role{did_you_mean(role, ROLES)}')
        for role, prompt in self.prefixes.items():
            try:
                Template.read(prompt)
            except ValueError as error:
                raise ValueError(f"prefixes.{role}: {error}") from None

    @property
    def sources(self) -> Mapping[str, DataSource]:
        """What is loaded, by name: the parts of a mixture, else this source alone, whose name is empty."""
        return {"": self}

    def rows(self) -> Iterable[Mapping[str, object]]:
        """Every row: column name -> value."""
        raise NotImplementedError

    def blocks(self, faults: Faults) -> Iterator[RecordBlock]:
        """The rows in blocks of columns; rows that cannot be read go to ``faults``."""
        return row_blocks(self.rows(), str(self))

    def __str__(self) -> str:
        return str(self.settings.get("path", type(self).__name__))

    def absence(self) -> str | None:
        """Why the data cannot be looked at before the training starts, or None; DataError where there are none."""
        return None

    def load(self, *, max_rows: int | None = None, together: Sequence[frozenset[str]] = ()) -> Table:
        """Read and check the data, or their first ``max_rows`` rows; of the columns of each group of ``together`` a row
        may lack all but one, which are empty texts then.

        Raises: DataError where they cannot be read, or lack or exceed the columns of this kind.
        """
        limits = [limit for limit in (self.max_rows, max_rows) if limit is not None]
        table = read_table(
            self.blocks, str(self), columns=self.columns, max_rows=min(limits, default=None),
            skip_faulty=self.skip_faulty, together=together,
        )  # fmt: skip
        missing = self.required - table.columns.keys()
        extra = table.columns.keys() - self.allowed if self.allowed is not None else set()
        if missing or extra:
            fault = f"no {' and no '.join(sorted(missing))}" if missing else f"{', '.join(sorted(extra))} as well"
            raise DataError(
                f"{table.source}: [data] needs {', '.join(sorted(self.required))}; the columns read as "
                f"{', '.join(table.columns)}: {fault}; name them with columns = {{ anchor = … }} or use = \"table\""
            )
        return replace(table, prefixes=dict(self.prefixes), weight=self._weight(table))

    def _weight(self, table: Table) -> NDArray[np.float32] | None:
        if self.weight_of_score is None:
            return table.weight
        if table.score is None or table.weight is not None:
            fault = "no score" if table.score is None else "a weight as well"
            raise DataError(f"{table.source}: weight_of_score makes weights of the column score; there is {fault}")
        scores, weights = zip(*self.weight_of_score, strict=True)
        weight: NDArray[np.float32] = np.interp(table.score, scores, weights).astype(np.float32)
        return weight


@dataclass(frozen=True, kw_only=True)
class TableData(DataSource):
    """Texts in any columns, as the file has them.

    Args:
        path: a file (txt, csv, tsv, jsonl, parquet; also .gz and .zst), a folder of files, a folder made by
            ``datasets``, a hub id, a database with a query (see ``sql``), or ``-`` for standard input: JSON objects if
            the first line is one, else sentences.
        split: of a folder or a hub data set; without it ``train`` if there is one, or the only one.
        config: configuration name of a hub data set.
        revision: branch, tag or commit of a hub data set.
        format: overrides what the file's suffix says.
    """

    path: str
    split: str | None = None
    config: str | None = None
    revision: str | None = None
    format: Format | None = None

    def __str__(self) -> str:
        name = "standard input" if self.path == "-" else self.path
        return name + "".join(f" ({word})" for word in (self.config, self.split) if word)

    def blocks(self, faults: Faults) -> Iterator[RecordBlock]:
        """The rows in blocks of columns."""
        where = {"split": self.split, "config": self.config, "revision": self.revision}
        return source_blocks(self.path, faults, **where, format=self.format)

    def absence(self) -> str | None:
        """Standard input and hub ids are looked at when the training starts."""
        if self.path == "-":
            return "standard input is read when training starts"
        if query := Query.read(self.path):
            query.require_file()
            return None
        if Path(self.path).expanduser().exists():
            return None
        if HUB_ID.fullmatch(self.path) and "." not in self.path:
            return f"{self.path} would come from the hub; it is looked at when training starts"
        raise DataError(f"data.path = {self.path}: no such file; give yours with --set data.path=FILE")


@dataclass(frozen=True, kw_only=True)
class Lines(TableData):
    """Single sentences: one a line of a txt file, or one column of another.

    Source: the training data of unsupervised SimCSE (Gao, Yao & Chen 2021).
    """

    allowed: ClassVar[frozenset[str] | None] = frozenset({"anchor"})


@dataclass(frozen=True, kw_only=True)
class TextPairs(TableData):
    """Anchor and positive; labels and numbers if there are any."""

    required: ClassVar[frozenset[str]] = frozenset({"anchor", "positive"})
    allowed: ClassVar[frozenset[str] | None] = required


@dataclass(frozen=True, kw_only=True)
class Triplets(TableData):
    """Anchor, positive and one or more hard negatives.

    Source: the training data of supervised SimCSE (Gao, Yao & Chen 2021).
    """

    required: ClassVar[frozenset[str]] = frozenset({"anchor", "positive", "negative_1"})


# ----------------------------------------------------------------------------------------- in memory
class MemoryRows:
    """Rows of any of the accepted kinds, or what a recipe file remembers of them."""

    def __init__(self, data: object) -> None:
        if isinstance(data, str) and not re.fullmatch(r"[\d,]+ rows in memory, fingerprint [0-9a-f]{32}", data):
            raise ValueError("must be rows: dicts, tuples or texts, a data frame, a datasets.Dataset")
        self.data: Any = list(data) if isinstance(data, Iterator) else data  # read more than once

    @classmethod
    def of(cls, data: object) -> MemoryRows:
        return data if isinstance(data, cls) else cls(data)

    def blocks(self, faults: Faults) -> Iterator[RecordBlock]:
        """Raises: DataError where these are no rows, or the recipe file only remembers that there were some."""
        data = self.data
        if isinstance(data, str):
            raise DataError(f"this recipe was trained on {data}; give them again: train(recipe, data=rows)")
        if isinstance(data, Mapping) and any(hasattr(value, "column_names") for value in data.values()):
            raise DataError(f"data: choose one of the splits: {', '.join(data)}")
        if hasattr(data, "with_format"):  # datasets.Dataset
            return arrow_blocks(data.with_format("arrow").iter(BLOCK), _IN_MEMORY, faults)
        if hasattr(data, "to_batches"):  # pyarrow.Table
            return arrow_blocks(data.to_batches(BLOCK), _IN_MEMORY, faults)
        if hasattr(data, "columns"):  # pandas, polars
            data = {str(name): data[name].to_list() for name in data.columns}
        if isinstance(data, Mapping):  # of columns
            columns = tuple(map(list, data.values()))
            if len(set(map(len, columns))) > 1:
                raise DataError(f"data: columns of different lengths: {', '.join(str(len(c)) for c in columns)}")
            lines = range(1, 1 + max(map(len, columns), default=0))
            block = RecordBlock(file=_IN_MEMORY, names=tuple(data), columns=columns, lines=lines, has_lines=False)
            return iter([block])
        if not isinstance(data, Iterable):
            raise DataError(f"data: {type(data).__name__} holds no rows")
        return row_blocks(data, _IN_MEMORY)

    def __str__(self) -> str:
        return self.data if isinstance(self.data, str) else self._description

    @cached_property
    def _description(self) -> str:
        digest, rows = hashlib.sha256(), 0
        for block in self.blocks(Faults()):
            digest.update(repr((block.names, block.columns)).encode("utf-8", "surrogatepass"))
            rows += len(block)
        return f"{rows:,} rows in memory, fingerprint {digest.hexdigest()[:32]}"

    def __repr__(self) -> str:
        return f"<{self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoryRows) and str(self) == str(other)

    __hash__ = object.__hash__


@dataclass(frozen=True, kw_only=True)
class InMemory(DataSource):
    """Rows given in Python: what ``train(recipe, data=rows)`` makes of them.

    A recipe file keeps their number and fingerprint only; training such a file again needs ``data=rows`` again.

    Args:
        data: rows that are dicts, tuples (anchor, positive, negatives) or texts; a mapping of columns; a pandas or
            polars data frame; a ``datasets.Dataset``; a pyarrow table.
    """

    data: Annotated[object, BeforeValidator(MemoryRows.of)]

    def blocks(self, faults: Faults) -> Iterator[RecordBlock]:
        """The rows in blocks of columns."""
        assert isinstance(self.data, MemoryRows)
        return self.data.blocks(faults)

    def __str__(self) -> str:
        return _IN_MEMORY
