"""Why a filter found nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentemb.errors import did_you_mean
from sentemb.search.query.conditions import OWN
from sentemb.search.query.expression import comparisons_of
from sentemb.search.store.generation import Generation

_KINDS = {"text": "text", "integer": "numbers", "real": "numbers", "true": "true or false", "false": "true or false",
          "array": "lists", "object": "fields of its own"}


def why_nothing(generation: Generation, where: str | Mapping[str, Any] | None) -> str | None:
    """What a filter names that no document has, or compares with what it never is; None where all is possible.

    A look through every document, so for filters that found nothing.
    """
    documents = [segment.documents for segment in generation.segments]
    for name, value in comparisons_of(where):
        if name in OWN:
            continue
        kinds = {_KINDS[kind] for part in documents for kind in part.kinds_of(name) if kind != "null"}
        if not kinds and not any(part.kinds_of(name) for part in documents):
            known = {field for part in documents for field in part.fields()}
            return f'no document has the field "{name}"{did_you_mean(name, {*known, *OWN})}'
        compared = "true or false" if isinstance(value, bool) else "text" if isinstance(value, str) else "numbers"
        if value is not None and kinds and not kinds & {compared, "lists"}:
            return f'"{name}" holds {" and ".join(sorted(kinds))}, and the filter compares it with {compared}'
    return None
