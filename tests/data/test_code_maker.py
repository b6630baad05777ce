"""Names, docstrings and rewritten functions out of Python source."""

from __future__ import annotations

import ast
from collections import Counter

import numpy as np
import pytest

from sentemb.data.docstrings import in_words
from sentemb.data.makers import Code
from sentemb.data.makers.code import rewritten
from sentemb.errors import DataError

SOURCE = '''
"""A module."""

def total_price(items: list, *, tax: float = 0.2) -> float:
    """Sum up the prices of all items."""
    # taxes come last
    amount: float = 0
    for item in items:
        amount += item.price
    return round(number=amount * (1 + tax), ndigits=2)

class HTTPServer2:
    """Serve the files of a folder."""

    def close(self):
        """Stop serving and free the port."""
'''


def rows_of(path, pairs):
    left_out: Counter[str] = Counter()
    return list(Code(path=str(path), pairs=pairs).rows(np.random.default_rng(0), left_out)), left_out


@pytest.fixture
def file(tmp_path):
    (tmp_path / "shop.py").write_text(SOURCE)
    return tmp_path / "shop.py"


@pytest.mark.parametrize(("name", "words"), [
    ("HTTPServer2", "http server 2"), ("__init__", "init"), ("snake_CASE", "snake case"), ("LinearSVC", "linear svc"),
])
def test_names_are_split(name, words):
    assert in_words(name) == words


def test_names_and_functions_with_what_their_authors_say(file):
    assert rows_of(file, "names")[0] == [
        {"anchor": "total price", "positive": "Sum up the prices of all items."},
        {"anchor": "http server 2", "positive": "Serve the files of a folder."},
        {"anchor": "http server 2 close", "positive": "Stop serving and free the port."},
    ]
    (row,), left_out = rows_of(file, "functions")
    assert row["anchor"] == "Sum up the prices of all items."
    assert row["positive"].startswith("def total_price(items: list, *, tax: float = 0.2) -> float:\n    # taxes")
    assert "Sum up" not in row["positive"]
    assert left_out == {"functions and classes without such a pair": 2}  # a class, and a function that is all docstring


def test_a_rewritten_function_by_hand(file):
    (row,), _ = rows_of(file, "rewritten")
    assert row["positive"] == (
        "def total_price(items, *, tax=0.2):\n    v1 = 0\n    for v2 in items:\n        v1 += v2.price\n"
        "    return round(ndigits=2, number=v1 * (1 + tax))"
    )


def test_a_rewritten_function_computes_the_same_and_keeps_its_docstring():
    source = '''def f(data, key=None):
    """Count things."""
    import math as m
    seen, v1 = {}, 0
    def inner(x):
        return x + len(seen)
    try:
        for entry in data:
            seen[entry] = inner(entry)
            squares = [entry * entry for entry in data]
    except TypeError as error:
        return str(error)
    match squares:
        case [first, *others]:
            v1 = first
    return sorted(seen.items(), reverse=True, key=key), v1, m.floor(1.5)
'''
    other = rewritten(source)
    assert ast.get_docstring(ast.parse(other).body[0]) == "Count things."
    one, two = {}, {}
    exec(source, one)
    exec(other, two)
    for argument in ([3, 1, 2], [1], None):
        assert one["f"](argument) == two["f"](argument)
    assert "seen" not in other
    assert "first" in other  # bound by a pattern


def test_functions_that_look_at_their_names_keep_them():
    source = "def f(a):\n    b = a\n    return locals()"
    assert rewritten(source) == source


def test_every_function_of_the_standard_library_can_be_rewritten():
    rows, _ = rows_of(ast.__file__, "rewritten")
    assert len(rows) > 10
    assert all(ast.parse(row["positive"]) for row in rows)


def test_files_that_cannot_be_used(tmp_path):
    (tmp_path / "broken.py").write_text("def f(:")
    assert rows_of(tmp_path, "names") == ([], {"files that Python cannot parse": 1})
    with pytest.raises(DataError, match=r"no \.py file in this folder"):
        rows_of(_empty(tmp_path), "names")
    with pytest.raises(DataError, match="no such file or folder"):
        rows_of(tmp_path / "absent", "names")


def _empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"
