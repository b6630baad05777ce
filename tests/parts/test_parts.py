"""The part mechanism: values, names, refusals, help."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import pytest
from torch import nn

from sentemb.errors import PartError, RecipeError
from sentemb.parts import Count, Fraction, Part, Positive, describe, room, rooms, schema_of, spell, to_table
from sentemb.terms.term import Term


class Scaled(Term):
    """The mean cosine, scaled.

        L = f · mean(s)

    Args:
        factor: f, what the mean is
            multiplied with.
        mode, rows: which of them.
    Source: nobody.
    """

    def __init__(
        self, *, factor: Positive = 1.0, mode: Literal["one", "both"] = "one", rows: Sequence[int] = ()
    ) -> None:
        super().__init__()
        if mode == "both" and factor > 100:
            raise ValueError("a factor above 100 goes with one mode only")
        self.factor, self.mode, self.rows = factor, mode, rows


@dataclass(frozen=True, kw_only=True)
class Plan(Part, room="plans"):
    """A dataclass part that holds parts."""

    size: Count
    share: Fraction = 0.5
    terms: tuple[Term, ...] = ()


USE = f"{__name__}:Scaled"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules[Scaled.__module__])


def test_equal_settings_are_equal_values_but_two_modules() -> None:
    one, two = Scaled(factor=2), Scaled(factor=2.0)
    assert one == two
    assert one != Scaled(factor=3)
    assert len(set(nn.ModuleList([one, two]).modules())) == 3
    assert repr(one) == "Scaled(factor=2.0)"
    assert one.settings == {"factor": 2.0, "mode": "one", "rows": ()}


def test_copies_keep_the_settings() -> None:
    assert copy.deepcopy(Scaled(factor=2)) == Scaled(factor=2)
    assert pickle.loads(pickle.dumps(Plan(size=3))) == Plan(size=3)


def test_fresh_has_no_state() -> None:
    one = Scaled(factor=2).marked(weight=0.5)
    one.register_buffer("state", None)
    again = one.fresh()
    assert again == one
    assert again is not one
    assert "state" not in again._buffers


def test_dataclass_parts_print_the_python_that_makes_them() -> None:
    plan = Plan(size=2, terms=(Scaled(factor=2),))
    assert repr(plan) == "Plan(size=2, terms=(Scaled(factor=2.0),))"
    assert eval(repr(plan)) == plan


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": 0}, "Scaled: factor = 0: must be greater than 0"),
        ({"factor": "2"}, 'Scaled: factor = "2": must be number above 0'),
        ({"factor": True}, "Scaled: factor = true: must be number above 0"),
        ({"factor": float("inf")}, "Scaled: factor = inf: must be a finite number"),
        ({"factr": 1}, "Scaled: factr is not a known key; known: factor, mode, rows; did you mean factor?"),
        ({"mode": "two"}, "Scaled: mode = \"two\": must be 'one' or 'both'"),
        ({"rows": ["x"]}, 'Scaled: rows[0] = "x": must be a valid integer, unable to parse string as an integer'),
        ({"factor": 200, "mode": "both"}, "Scaled: a factor above 100 goes with one mode only"),
    ],
)
def test_wrong_settings_have_the_same_words_everywhere(settings: dict[str, object], message: str) -> None:
    with pytest.raises(PartError) as python:
        Scaled(**settings)
    assert str(python.value) == message
    with pytest.raises(PartError) as table:
        room("terms").make({"use": USE, **settings})
    assert str(table.value) == message
    assert isinstance(table.value, RecipeError)
    assert isinstance(table.value, ValueError)


def test_every_fault_at_once_with_its_path() -> None:
    with pytest.raises(PartError) as raised:
        Plan(share=2, terms=[{"use": USE, "factor": -1, "weight": "x"}, {"use": "infonce"}])
    lines = raised.value.located("suite.toml: plans[0].")
    assert lines[0] == "suite.toml: plans[0] needs size = … (whole number at least 1)"
    assert lines[1] == "suite.toml: plans[0].share = 2: must be less than or equal to 1"
    assert lines[2] == "suite.toml: plans[0].terms[0].factor = -1: must be greater than 0"
    assert lines[3].startswith('suite.toml: plans[0].terms[0].weight = "x": must be')
    assert 'plans[0].terms[1].use = "infonce"' in lines[4]
    assert "did you mean info_nce?" in lines[4]
    assert len(lines) == 5


def test_settings_go_by_name() -> None:
    with pytest.raises(PartError, match="takes its settings by name: factor, mode, rows"):
        Scaled(2)  # type: ignore[misc]


def test_a_table_makes_the_part_and_the_part_its_table() -> None:
    table = {"use": USE, "factor": 2.0, "rows": [1, 2], "weight": 0.1, "name": "second"}
    term = room("terms").make(table)
    assert isinstance(term, Scaled)
    assert to_table(term) == table
    assert room("terms").make(to_table(term)) == term
    assert Plan(size=2, terms=[table]).terms == (term,)


def test_every_listed_part_has_a_name_and_a_document() -> None:
    for name in ("terms", "edits", "companions"):
        for use, cls in room(name).classes().items():
            assert room(name).name_of(cls) == use
            assert describe(cls).summary, use


def test_own_parts_may_lie_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts_of_mine.py").write_text(
        "from sentemb.terms.term import Term\n\nclass Mine(Term):\n    pass\n\nclass Plain:\n    pass\n"
    )
    with pytest.raises(PartError, match="no module parts_of_mine, neither installed nor in"):
        room("terms").find("parts_of_mine:Mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PartError, match="imported only where it is trusted"):
        room("terms").find("parts_of_mine:Mine", may_import=False)
    assert room("terms").find("parts_of_mine:Mine").__name__ == "Mine"
    assert room("terms").find("parts_of_mine:Mine", may_import=False).__name__ == "Mine"
    assert str(tmp_path) not in sys.path
    with pytest.raises(PartError, match=r'"parts_of_mine:Plain" is no Term: it must inherit sentemb.terms.term.Term'):
        room("terms").find("parts_of_mine:Plain")
    with pytest.raises(PartError, match="parts_of_mine has no class Other"):
        room("terms").find("parts_of_mine:Other")
    with pytest.raises(PartError, match='is no Edit'):
        room("edits").find("parts_of_mine:Mine")
    monkeypatch.delitem(sys.modules, "parts_of_mine")


def test_installed_packages_add_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(name="terms.scaled", value=USE, group="sentemb")
    monkeypatch.setattr(rooms, "entry_points_of_sentemb", lambda: (entry,))
    assert "scaled" in room("terms").names()
    assert room("terms").make({"use": "scaled", "factor": 2}) == Scaled(factor=2)
    assert to_table(Scaled())["use"] == "scaled"


def test_marks_are_checked_and_kept() -> None:
    term = Scaled(factor=2).marked(weight=0.5)
    assert term != Scaled(factor=2)
    assert repr(term) == "Scaled(factor=2.0).marked(weight=0.5)"
    assert term.marked(name="x").given_marks == {"weight": 0.5, "name": "x"}
    assert term.marked(weight=None) == Scaled(factor=2)
    with pytest.raises(PartError, match="wheight is not a known key"):
        term.marked(wheight=1)


def test_unknown_rooms_are_refused() -> None:
    with pytest.raises(PartError, match="did you mean terms"):
        room("term")


def test_docstrings_are_read() -> None:
    facts = describe(Scaled)
    assert facts.summary == "The mean cosine, scaled."
    assert facts.formula == "L = f · mean(s)"
    assert facts.settings["factor"] == "f, what the mean is multiplied with."
    assert facts.settings["mode"] == facts.settings["rows"] == "which of them."
    assert facts.source == "nobody."
    assert facts.location.endswith(f"test_parts.py:{Scaled.__init__.__code__.co_firstlineno - 12}")


def test_schema_completes_and_refuses() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = schema_of("terms")
    jsonschema.validate({"use": "info_nce", "temperature": 0.1, "weight": 2}, schema)
    jsonschema.validate({"use": USE, "anything": 1}, schema)
    for wrong in ({"use": "info_nce", "temprature": 0.1}, {"use": "info_nce", "directions": "two"}, {"temperature": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_annotations_in_words() -> None:
    assert spell(Positive) == "number above 0"
    assert spell(Fraction | None) == "number at least 0 and at most 1"
    assert spell(Literal["a", "b"]) == '"a" or "b"'
    assert spell(Sequence[tuple[float, Positive]]) == "list of [number, number above 0]"
    assert spell(Mapping[str, str] | None) == "table of text to text"
    assert spell(tuple[int, ...]) == "list of whole number"


def test_a_part_of_a_notebook_has_facts_without_a_file():
    class InCell(Scaled):
        """Made in a cell."""

    InCell.__module__ = "__main__"  # as in a notebook, whose main module has no such class
    facts = describe(InCell)
    assert (facts.summary, facts.location) == ("Made in a cell.", "__main__")
