"""Reading, checking, tokenising and batching text.

    path, folder, hub id, rows ─► blocks ─► DataSource.load ─► Table ─► tokenise ─► Examples ─► Batches ─► row numbers
                                         └─► iter_records, iter_texts (streams, for encode, index and mine)
"""

from __future__ import annotations

from sentemb.data.data_source import DataSource, InMemory, Lines, TableData, TextPairs, Triplets
from sentemb.data.mixture import Mixture
from sentemb.data.sources import Record, iter_records, iter_texts
from sentemb.data.sql import Sql
from sentemb.data.table import Table
from sentemb.data.tokens import text_hashes, tokenise

PARTS: dict[str, type[DataSource]] = {
    "in_memory": InMemory, "lines": Lines, "mixture": Mixture, "pairs": TextPairs, "sql": Sql,
    "table": TableData, "triplets": Triplets,
}  # fmt: skip

__all__ = [
    "PARTS", "DataSource", "InMemory", "Lines", "Mixture", "Record", "Sql", "Table", "TableData", "TextPairs",
    "Triplets", "iter_records", "iter_texts", "text_hashes", "tokenise",
]  # fmt: skip
