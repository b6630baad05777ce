"""The type checker of annotated functions in tests: beartype, with int where float is written (PEP 484)."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))
