"""The data sets that a recipe's ``[data]`` table can name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from sentemb.data.roles import ROLES, is_role
from sentemb.data.sources import Format
from sentemb.data.table import Table, read_table
from sentemb.errors import DataError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class TableData:
    """Texts in any columns: anchor, positive, negatives, label, score, as the file has them.

    Args:
        path: a file, a folder of files, a folder made by ``datasets``, a hub id, or ``-`` (see ``Source``).
        split, config, revision, format: see ``Source``.
        columns: role -> column name, e.g. ``{ anchor = "premise", positive = "hypothesis" }``; without it a column
            ``anchor`` and its like by name, else by order (see ``roles_of``).
        max_rows: only the first rows.
        max_tokens: longest text, special tokens included; longer ones are cut.
        prefixes: role -> what is put in front of its texts, e.g. ``{ anchor = "query: " }``.
        skip_faulty: leave malformed rows out instead of refusing the data.
    """

    path: str
    split: str | None = None
    config: str | None = None
    revision: str | None = None
    format: Format | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    max_rows: int | None = None
    max_tokens: int | None = None
    prefixes: Mapping[str, str] = field(default_factory=dict)
    skip_faulty: bool = False

    required: ClassVar[frozenset[str]] = frozenset({"anchor"})
    allowed: ClassVar[frozenset[str] | None] = None  # text columns; None: any

    def __post_init__(self) -> None:
        for role in (*self.columns, *self.prefixes):
            if not is_role(role):
                raise DataError(f'"{role}" is no column role{did_you_mean(role, ROLES)}')
        if self.max_rows is not None and self.max_rows < 1:
            raise DataError(f"max_rows = {self.max_rows}; it must be at least 1")

    def load(self) -> Table:
        """Read and check the data.

        Raises: DataError where they cannot be read, or lack or exceed the columns of this kind.
        """
        table = read_table(
            self.path, columns=self.columns, split=self.split, max_rows=self.max_rows,
            skip_faulty=self.skip_faulty, format=self.format, config=self.config, revision=self.revision,
        )  # fmt: skip
        missing = set(self.required) - set(table.columns)
        extra = set(table.columns) - self.allowed if self.allowed is not None else set()
        if missing or extra:
            fault = f"no {' and no '.join(sorted(missing))}" if missing else f"{', '.join(sorted(extra))} as well"
            raise DataError(
                f"{table.source}: [data] needs {', '.join(sorted(self.required))}; the columns read as "
                f"{', '.join(table.columns)}: {fault}; name them with columns = {{ anchor = … }} or use = \"table\""
            )
        return replace(table, prefixes=dict(self.prefixes))

@dataclass(frozen=True, kw_only=True)
class Lines(TableData):
    """Single sentences: one a line of a txt file, or one column of another.

    Source: the training data of unsupervised SimCSE (Gao, Yao & Chen 2021).
    """

    allowed: ClassVar[frozenset[str] | None] = frozenset({"anchor"})


@dataclass(frozen=True, kw_only=True)
class Pairs(TableData):
    """Anchor and positive; label and score if there are any."""

    required: ClassVar[frozenset[str]] = frozenset({"anchor", "positive"})
    allowed: ClassVar[frozenset[str] | None] = frozenset({"anchor", "positive"})


@dataclass(frozen=True, kw_only=True)
class Triplets(TableData):
    """Anchor, positive and one or more hard negatives.

    Source: the training data of supervised SimCSE (Gao, Yao & Chen 2021).
    """

    required: ClassVar[frozenset[str]] = frozenset({"anchor", "positive", "negative_1"})
