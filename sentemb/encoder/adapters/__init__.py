"""Adapters: few new weights that learn inside a backbone whose own weights stand still."""

from __future__ import annotations

from sentemb.encoder.adapters.lora import Lora, has_adapters, merged

PARTS: dict[str, type[Lora]] = {
    "lora": Lora,
}

__all__ = ["PARTS", "Lora", "has_adapters", "merged"]
