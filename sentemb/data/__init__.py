"""Reading, checking, tokenising and batching text.

    path, folder, hub id, rows ─► blocks ─► DataSource.load ─► Table ─► tokenise ─► Examples ─► Batches ─► row numbers
                                         └─► iter_records, iter_texts (streams, for encode, index and mine)
"""

from __future__ import annotations

from sentemb.data.data_source import DataSource, Lines, TableData, TextPairs, Triplets
from sentemb.data.distinct import text_hashes
from sentemb.data.records import Record, iter_records, iter_texts
from sentemb.data.table import Table
from sentemb.data.tokens import tokenise

PARTS: dict[str, type[DataSource] | str] = {
    "in_memory": "sentemb.data.in_memory:InMemory",
    "lines": Lines,
    "pairs": TextPairs,
    "triplets": Triplets,
    "table": TableData,
}

__all__ = [
    "PARTS",
    "DataSource",
    "Lines",
    "Record",
    "Table",
    "TableData",
    "TextPairs",
    "Triplets",
    "iter_records",
    "iter_texts",
    "text_hashes",
    "tokenise",
]  # fmt: skip
