"""Batch orders: which rows make a batch, one a file."""

from __future__ import annotations

from sentemb.data.orders.order import Batches, BatchOrder

PARTS: dict[str, type | str] = {
    "by_length": "sentemb.data.orders.by_length:ByLength",
    "no_duplicates": "sentemb.data.orders.no_duplicates:NoDuplicates",
    "shuffled": "sentemb.data.orders.shuffled:Shuffled",
}

__all__ = ["PARTS", "BatchOrder", "Batches"]
