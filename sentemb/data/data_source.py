"""Where training texts come from: what a recipe's ``[data]`` table can name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge

from sentemb.data.faults import Faults
from sentemb.data.formats import RecordBlock, row_blocks
from sentemb.data.roles import ROLES, is_role
from sentemb.data.sources import HUB_ID, Format, source_blocks
from sentemb.data.table import Table, read_table
from sentemb.errors import DataError, did_you_mean
from sentemb.parts import Count, Part


@dataclass(frozen=True, kw_only=True)
class DataSource(Part, room="sources"):
    """Rows of texts with labels and scores. A source of your own gives ``rows()``; the rest is done here:

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
            ``anchor`` and its like by name, else by order (see ``roles_of``).
        max_rows: only the first rows.
        max_tokens: longest text in tokens, special tokens included; longer ones are cut.
        prefixes: role -> what is put in front of its texts, e.g. ``{ anchor = "query: " }``.
        skip_faulty: leave malformed rows out instead of refusing the data.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    max_rows: Count | None = None
    max_tokens: Annotated[int, Ge(3)] | None = None  # [CLS] token [SEP]
    prefixes: Mapping[str, str] = field(default_factory=dict)
    skip_faulty: bool = False

    required: ClassVar[frozenset[str]] = frozenset({"anchor"})
    allowed: ClassVar[frozenset[str] | None] = None  # text columns; None: any

    def __post_init__(self) -> None:
        for role in (*self.columns, *self.prefixes):
            if not is_role(role):
                raise ValueError(f'"{role}" is no column role{did_you_mean(role, ROLES)}')

    def rows(self) -> Iterable[Mapping[str, object]]:
        """Every row: column name -> value."""
        raise NotImplementedError

    def blocks(self, faults: Faults) -> Iterator[RecordBlock]:
        """The rows in blocks of columns; rows that cannot be read go to ``faults``."""
        return row_blocks(self.rows(), str(self))

    def __str__(self) -> str:
        return str(self.settings.get("path", type(self).__name__))

    def absence(self) -> str | None:
        """Why the data cannot be looked at before the training starts, or None where they can.

        Raises:
            DataError: there are no such data.
        """
        return None

    def load(self, *, max_rows: int | None = None) -> Table:
        """Read and check the data, or their first ``max_rows`` rows.

        Raises:
            DataError: they cannot be read, or lack or exceed the columns of this kind.
        """
        limits = [limit for limit in (self.max_rows, max_rows) if limit is not None]
        table = read_table(
            self.blocks, str(self), columns=self.columns, max_rows=min(limits, default=None),
            skip_faulty=self.skip_faulty,
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
class TableData(DataSource):
    """Texts in any columns: anchor, positive, negatives, label, score, as the file has them.

    Args:
        path: a file, a folder of files, a folder made by ``datasets``, a hub id, or ``-`` for standard input.
        split: of a folder or a hub data set; without it ``train`` if there is one, or the only one.
        config: configuration name of a hub data set.
        revision: branch, tag or commit of a hub data set.
        format: overrides what the file's suffix says.
        quoted: whether fields of csv and tsv files may be quoted; by default in csv only.
        has_header: whether the first row of csv and tsv files holds column names.
    """

    path: str
    split: str | None = None
    config: str | None = None
    revision: str | None = None
    format: Format | None = None
    quoted: bool | None = None
    has_header: bool = True

    def __str__(self) -> str:
        name = "standard input" if self.path == "-" else self.path
        return name + "".join(f" ({word})" for word in (self.config, self.split) if word)

    def blocks(self, faults: Faults) -> Iterator[RecordBlock]:
        """The rows in blocks of columns."""
        return source_blocks(
            self.path, faults, split=self.split, config=self.config, revision=self.revision, format=self.format,
            quoted=self.quoted, has_header=self.has_header,
        )  # fmt: skip

    def absence(self) -> str | None:
        """Standard input and hub ids are looked at when the training starts."""
        if self.path == "-":
            return "standard input is read when training starts"
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
    """Anchor and positive; label and score if there are any.
    """

    required: ClassVar[frozenset[str]] = frozenset({"anchor", "positive"})
    allowed: ClassVar[frozenset[str] | None] = frozenset({"anchor", "positive"})


@dataclass(frozen=True, kw_only=True)
class Triplets(TableData):
    """Anchor, positive and one or more hard negatives.

    Source: the training data of supervised SimCSE (Gao, Yao & Chen 2021).
    """

    required: ClassVar[frozenset[str]] = frozenset({"anchor", "positive", "negative_1"})
