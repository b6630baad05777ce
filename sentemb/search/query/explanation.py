"""Why a filter finds nothing."""

from __future__ import annotations

from sentemb.errors import did_you_mean
from sentemb.search.query.expression import OWN, Where, comparisons_of
from sentemb.search.store.generation import Generation

_KINDS = {"text": "text", "integer": "numbers", "real": "numbers", "true": "true or false", "false": "true or false",
          "array": "lists", "object": "fields of its own"}


def why_nothing(generation: Generation, where: Where) -> str | None:
    """Why a filter finds nothing: it names what no document has, or compares it with what it never is."""
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
