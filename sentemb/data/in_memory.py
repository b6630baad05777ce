"""Training rows that are Python objects: lists, data frames, Arrow tables, a ``datasets.Dataset``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import BeforeValidator

from sentemb.data.data_source import DataSource
from sentemb.data.faults import Faults
from sentemb.data.formats import BLOCK, RecordBlock, arrow_blocks, row_blocks
from sentemb.errors import DataError

_NAME = "data in memory"
_DESCRIPTION = re.compile(r"([\d,]+) rows in memory, fingerprint ([0-9a-f]{32})")


class MemoryRows:
    """Rows of any of the accepted kinds, or what a recipe file remembers of them."""

    def __init__(self, data: object) -> None:
        if isinstance(data, Iterator):
            data = list(data)  # read more than once
        self.data = data

    @classmethod
    def of(cls, data: object) -> MemoryRows:
        """The rows of ``data``; of a text, what a recipe file remembers."""
        if isinstance(data, str) and not _DESCRIPTION.fullmatch(data):
            raise ValueError("must be rows: dicts, tuples or texts, a data frame, a datasets.Dataset")
        return data if isinstance(data, cls) else cls(data)

    def blocks(self, faults: Faults) -> Iterator[RecordBlock]:
        """The rows in blocks of columns.

        Raises:
            DataError: these are no rows, or the recipe file only remembers that there were some.
        """
        data: Any = self.data
        if isinstance(data, str):
            raise DataError(f"this recipe was trained on {data}; give them again: train(recipe, data=rows)")
        if isinstance(data, Mapping) and any(hasattr(value, "column_names") for value in data.values()):
            raise DataError(f"data: choose one of the splits: {', '.join(data)}")
        if hasattr(data, "column_names") and hasattr(data, "with_format"):  # datasets.Dataset
            return arrow_blocks(data.with_format("arrow").iter(BLOCK), _NAME, faults)
        if hasattr(data, "to_batches"):  # pyarrow.Table
            return arrow_blocks(data.to_batches(BLOCK), _NAME, faults)
        if hasattr(data, "columns") and not isinstance(data, Mapping):  # pandas, polars
            data = {str(name): data[name].to_list() for name in data.columns}
        if isinstance(data, Mapping):  # of columns
            names, columns = tuple(data), tuple(map(list, data.values()))
            if len(set(map(len, columns))) > 1:
                raise DataError(f"data: columns of different lengths: {', '.join(map(str, map(len, columns)))}")
            rows = range(1, len(columns[0]) + 1 if columns else 1)
            return iter([RecordBlock(file=_NAME, names=names, columns=columns, lines=rows, has_lines=False)])
        if not isinstance(data, Iterable):
            raise DataError(f"data: {type(data).__name__} holds no rows")
        return row_blocks(data, _NAME)

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
        return _NAME
