"""Adapters: few new weights that learn inside a backbone whose own weights stand still."""

from __future__ import annotations

from sentemb.encoder.adapters.adapter import Adapter
from sentemb.encoder.adapters.lora import Lora, has_adapters, merged

PARTS: dict[str, type[Adapter]] = {
    "lora": Lora,
}

__all__ = ["PARTS", "Adapter", "Lora", "has_adapters", "merged"]
