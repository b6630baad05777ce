"""What holds for every term: its place, its documentation, its weight before it is bound."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from sentemb.terms import PARTS
from sentemb.terms.term import Term

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(PARTS))
def test_every_term_is_documented_tested_and_light(name):
    kind = PARTS[name]
    assert issubclass(kind, Term)
    assert Path(inspect.getfile(kind)).stem == name
    assert (HERE / f"test_{name}.py").is_file()
    doc = inspect.getdoc(kind) or ""
    for heading in ("Source:", "Deviations:"):
        assert heading in doc, heading
    for parameter in list(inspect.signature(kind).parameters.values()):
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert f"{parameter.name}: " in doc, f"{parameter.name} is not explained"
    part = kind()
    assert not list(part.parameters())
    assert not list(part.buffers())
    assert isinstance(part.needs, frozenset)
    assert isinstance(part.encodes, frozenset)
