from __future__ import annotations

import pytest

from sentemb.data import PARTS
from sentemb.errors import DataError


@pytest.fixture
def triplets(tmp_path):
    path = tmp_path / "triplets.csv"
    path.write_text("anchor,positive,negative,score\na,b,c,1\nd,e,f,0\n")
    return str(path)


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("a\nb\nc\n")
    return str(path)


def test_lines(lines, triplets):
    assert PARTS["lines"](path=lines).load().columns == {"anchor": ["a", "b", "c"]}
    assert PARTS["lines"](path=lines, max_rows=2).load().columns == {"anchor": ["a", "b"]}
    assert PARTS["lines"](path=triplets, columns={"anchor": "positive"}).load().columns == {"anchor": ["b", "e"]}
    with pytest.raises(DataError, match="negative_1, positive as well; name them with columns"):
        PARTS["lines"](path=triplets).load()


def test_pairs(lines, triplets):
    table = PARTS["pairs"](path=triplets, columns={"anchor": "anchor", "positive": "negative", "score": "score"}).load()
    assert table.columns == {"anchor": ["a", "d"], "positive": ["c", "f"]}
    assert table.score.tolist() == [1, 0]
    with pytest.raises(DataError, match=r"\[data\] needs anchor, positive; the columns read as anchor: no positive"):
        PARTS["pairs"](path=lines).load()
    with pytest.raises(DataError, match="negative_1 as well"):
        PARTS["pairs"](path=triplets).load()


def test_triplets_and_table(lines, triplets):
    assert list(PARTS["triplets"](path=triplets).load().columns) == ["anchor", "positive", "negative_1"]
    assert list(PARTS["table"](path=triplets).load().columns) == ["anchor", "positive", "negative_1"]
    assert PARTS["table"](path=lines, prefixes={"anchor": "q: "}).load().prefixes == {"anchor": "q: "}
    with pytest.raises(DataError, match="no negative_1 and no positive"):
        PARTS["triplets"](path=lines).load()


@pytest.mark.parametrize("kind", sorted(PARTS))
def test_options_are_checked_before_anything_is_read(kind):
    with pytest.raises(DataError, match=r'"ancor" is no column role.*did you mean anchor'):
        PARTS[kind](path="nowhere.txt", columns={"ancor": "text"})
    with pytest.raises(DataError, match="is no column role"):
        PARTS[kind](path="nowhere.txt", prefixes={"negative_0": "x"})
    with pytest.raises(DataError, match="max_rows = 0; it must be at least 1"):
        PARTS[kind](path="nowhere.txt", max_rows=0)
