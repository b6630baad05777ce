from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest

from sentemb.data import Lines, TableData, TextPairs, Triplets
from sentemb.data.data_source import DataSource, InMemory
from sentemb.errors import DataError, PartError


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
    assert Lines(path=lines).load().columns == {"anchor": ["a", "b", "c"]}
    assert Lines(path=lines, max_rows=2).load().columns == {"anchor": ["a", "b"]}
    assert Lines(path=triplets, columns={"anchor": "positive"}).load().columns == {"anchor": ["b", "e"]}
    with pytest.raises(DataError, match="negative_1, positive as well; name them with columns"):
        Lines(path=triplets).load()


def test_pairs(lines, triplets):
    table = TextPairs(path=triplets, columns={"anchor": "anchor", "positive": "negative", "score": "score"}).load()
    assert table.columns == {"anchor": ["a", "d"], "positive": ["c", "f"]}
    assert table.score.tolist() == [1, 0]
    with pytest.raises(DataError, match=r"\[data\] needs anchor, positive; the columns read as anchor: no positive"):
        TextPairs(path=lines).load()
    with pytest.raises(DataError, match="negative_1 as well"):
        TextPairs(path=triplets).load()


def test_triplets_and_table(lines, triplets):
    assert list(Triplets(path=triplets).load().columns) == ["anchor", "positive", "negative_1"]
    assert list(TableData(path=triplets).load().columns) == ["anchor", "positive", "negative_1"]
    assert TableData(path=lines, prefixes={"anchor": "q: "}).load().prefixes == {"anchor": "q: "}
    with pytest.raises(DataError, match="no negative_1 and no positive"):
        Triplets(path=lines).load()


@pytest.mark.parametrize("kind", [Lines, TextPairs, Triplets, TableData])
def test_options_are_checked_before_anything_is_read(kind):
    with pytest.raises(PartError, match=r'"ancor" is no column role.*did you mean anchor'):
        kind(path="nowhere.txt", columns={"ancor": "text"})
    with pytest.raises(PartError, match="is no column role"):
        kind(path="nowhere.txt", prefixes={"negative_0": "x"})
    with pytest.raises(PartError, match="max_rows = 0"):
        kind(path="nowhere.txt", max_rows=0)


@pytest.mark.parametrize("limit", [0, 1, 2, -3])
def test_a_limit_that_leaves_no_word_is_refused(limit):
    with pytest.raises(PartError, match=f"max_tokens = {limit}: must be greater than or equal to 3"):
        Lines(path="a.txt", max_tokens=limit)


@dataclass(frozen=True, kw_only=True)
class Dialogues(DataSource):
    """Every turn of a dialogue and the turn after it."""

    path: str

    def rows(self):
        for line in Path(self.path).read_text().splitlines():
            turns = line.split("|")
            yield from ({"anchor": one, "positive": two} for one, two in itertools.pairwise(turns))


def test_a_source_of_ones_own_gives_rows(tmp_path):
    (tmp_path / "talk.txt").write_text("hello|hi there|how are you\ngood bye|see you\n")
    source = Dialogues(path=str(tmp_path / "talk.txt"), max_rows=2, prefixes={"anchor": "a: "})
    table = source.load()
    assert table.columns == {"anchor": ["hello", "hi there"], "positive": ["hi there", "how are you"]}
    assert table.prefixes == {"anchor": "a: "}
    assert source.absence() is None
    (tmp_path / "talk.txt").write_text("hello| \n")
    with pytest.raises(DataError, match=r'talk.txt: row 1: column "positive" is empty'):
        source.load()


def test_weights_of_scores_lie_on_straight_lines():
    rows = [{"anchor": "a", "positive": "b", "score": score} for score in (0, 2.5, 3, 5, 9)]
    table = InMemory(data=rows, weight_of_score=[(2.5, 0), (5, 1)]).load()
    assert table.weight is not None
    assert table.weight.tolist() == pytest.approx([0, 0, 0.2, 1, 1])
    constant = InMemory(data=rows, weight_of_score=[(0, 2)]).load().weight
    assert constant is not None
    assert constant.tolist() == [2] * 5


def test_bad_weights_of_scores_are_refused():
    for points in ([], [(1, 0), (1, 1)], [(1, -1)]):
        with pytest.raises(PartError, match="weight_of_score"):
            InMemory(data=[], weight_of_score=points)
    with pytest.raises(DataError, match="weight_of_score makes weights of the column score; there is no score"):
        InMemory(data=[{"anchor": "a"}], weight_of_score=[(0, 1)]).load()
    with pytest.raises(DataError, match="there is a weight as well"):
        InMemory(data=[{"anchor": "a", "score": 1, "weight": 1}], weight_of_score=[(0, 1)]).load()
