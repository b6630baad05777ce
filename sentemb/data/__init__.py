"""Reading, checking, tokenising and batching text.

    path, folder, hub id ─► Source.blocks ─► read_table ─► Table ─► tokenise ─► Examples ─► Batches ─► row numbers
                                         └─► iter_records, iter_texts (streams, for encode, index and mine)
"""

from __future__ import annotations

from sentemb.data.hashing import text_hashes
from sentemb.data.kinds import Lines, Pairs, TableData, Triplets
from sentemb.data.records import Record, iter_records, iter_texts
from sentemb.data.table import Table, read_table
from sentemb.data.tokens import tokenise

PARTS: dict[str, type[TableData]] = {
    "lines": Lines,
    "pairs": Pairs,
    "triplets": Triplets,
    "table": TableData,
}

__all__ = [
    "PARTS", "Record", "Table", "iter_records", "iter_texts", "read_table", "text_hashes", "tokenise",
]  # fmt: skip
