"""Grades, weights, several positives and levels of labels: which columns they are, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sentemb.data.data_source import InMemory, TableData
from sentemb.data.roles import ROLES, is_role, kind_of, roles_of
from sentemb.data.table import Table
from sentemb.errors import DataError

ROW = {"anchor": "a", "positive": "b", "negative_1": "c", "negative_2": "d", "grade_0": 3, "grade_1": 1, "grade_2": 0}


def load(*rows: dict, **options: object) -> Table:
    return InMemory(data=list(rows), **options).load()


def fault(*rows: dict, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load(*rows, **options)
    return str(caught.value)


def test_grades_are_those_of_their_texts():
    table = load(ROW, {**ROW, "grade_2": 2.5})
    assert list(table.columns) == ["anchor", "positive", "negative_1", "negative_2"]
    assert {name: grade.tolist() for name, grade in table.grades.items()} == {
        "positive": [3, 3], "negative_1": [1, 1], "negative_2": [0, 2.5],
    }
    assert load({"anchor": "a"}).grades == {}


def test_grades_are_renumbered_with_their_negatives():
    roles = roles_of(["anchor", "positive", "negative_9", "negative_4", "grade_9", "grade_4", "grade_0"], {}, "x")
    assert roles == {
        "anchor": "anchor", "positive": "positive", "negative_1": "negative_4", "negative_2": "negative_9",
        "grade_0": "grade_0", "grade_1": "grade_4", "grade_2": "grade_9",
    }
    bare = roles_of(["anchor", "positive", "negative", "grade_0", "grade_1"], {}, "x")
    assert bare["negative_1"] == "negative"
    assert bare["grade_1"] == "grade_1"


def test_columns_by_order_and_by_mapping():
    roles = roles_of(["question", "answer", "wrong", "grade_0", "grade_1", "weights", "label_2", "labels"], {}, "x")
    assert list(roles.items()) == [
        ("anchor", "question"), ("positive", "answer"), ("negative_1", "wrong"), ("label", "labels"),
        ("label_2", "label_2"), ("weight", "weights"), ("grade_0", "grade_0"), ("grade_1", "grade_1"),
    ]
    mapping = {"anchor": "q", "positive": "a", "weight": "clicks", "label": "fine", "label_3": "coarse"}
    assert list(roles_of(list(mapping.values()), mapping, "x")) == ["anchor", "positive", "label", "label_2", "weight"]


def test_anchors_may_have_fields():
    mapping = {"anchor": "query", "positive": "title", "positive_2": "text", "anchor_5": "shop", "anchor_3": "user"}
    assert list(roles_of(list(mapping.values()), mapping, "x").items()) == [
        ("anchor", "query"), ("anchor_2", "user"), ("anchor_3", "shop"), ("positive", "title"), ("positive_2", "text"),
    ]
    assert "no anchor" in fault({"anchor_2": "a", "positive": "b"}, columns={"anchor_2": "anchor_2"})


def test_scores_of_a_list():
    names = ["anchor", "positive", "negative_3", "negative_1", "score", "score_3", "score_1"]
    assert roles_of(names, {}, "x")["score_2"] == "score_3"
    table = load({"anchor": "a", "positive": "b", "negative": "c", "score": 2, "score_1": -1.5})
    assert table.score is not None
    assert table.score.tolist() == [2]
    assert {name: score.tolist() for name, score in table.negative_scores.items()} == {"negative_1": [-1.5]}
    assert "score" in roles_of(["anchor", "positive", "negative", "score"], {}, "x")  # of the pair alone
    assert roles_of(["anchor", "score"], {}, "x") == {"anchor": "anchor", "score": "score"}


def test_several_positives_in_order():
    table = load({"anchor": "a", "positive_10": "p10", "positive": "p", "positive_2": "p2", "negative": "n"})
    assert {name: column[0] for name, column in table.columns.items()} == {
        "anchor": "a", "positive": "p", "positive_2": "p2", "positive_3": "p10", "negative_1": "n",
    }


def test_levels_and_weights_are_read():
    rows = [("a", "x", "u", 0), ("b", "y", "u", 0.5), ("c", "x", "u", 2), ("d", "z", "v", 1)]
    table = load(*({"anchor": t, "label": f, "label_2": c, "label_3": 7, "weight": w} for t, f, c, w in rows))
    assert table.label is not None
    assert table.label.tolist() == [0, 1, 0, 2]
    assert table.levels is not None
    assert table.levels.tolist() == [[0, 7], [0, 7], [0, 7], [1, 7]]
    assert table.weight is not None
    assert table.weight.tolist() == [0, 0.5, 2, 1]


@pytest.mark.parametrize(("change", "words"), [
    ({"grade_1": -1}, 'column "grade_1" is -1; it must be at least 0'),
    ({"grade_1": float("nan")}, 'column "grade_1" is nan; it must be a finite number'),
    ({"grade_0": 0, "grade_1": 0}, "has no grade above 0"),
    ({"weight": -0.5}, 'column "weight" is -0.5; it must be at least 0'),
    ({"weight": "much"}, "column \"weight\" is 'much'; it must be a finite number"),
])  # fmt: skip
def test_a_bad_number_names_its_row(change, words):
    good = {**ROW, "weight": 1}
    message = fault(good, {**good, **change})
    assert "row 2" in message
    assert words in message
    assert len(load(good, {**good, **change}, skip_faulty=True)) == 1


def test_labels_that_are_no_hierarchy_name_both_rows(tmp_path: Path):
    path = tmp_path / "labels.jsonl"
    rows = [("a", "lost card", "card"), ("b", "top up", "money"), ("c", "lost card", "account")]
    records = [dict(zip(("text", "intent", "group"), row, strict=True)) for row in rows]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    columns = {"anchor": "text", "label": "intent", "label_2": "group"}
    with pytest.raises(DataError) as caught:
        TableData(path=str(path), columns=columns).load()
    message = str(caught.value).replace(str(path), path.name)
    assert "labels.jsonl:3" in message
    assert (
        "column \"intent\" is 'lost card' below \"group\" 'account', but labels.jsonl:1 has it below 'card'" in message
    )
    # unknown classes lie nowhere
    unknown = load({"anchor": "a", "label": -1, "label_2": 1}, {"anchor": "b", "label": -1, "label_2": 2})
    assert len(unknown) == 2


@pytest.mark.parametrize(("names", "words"), [
    (["anchor", "positive", "negative_1", "grade_0"], "found grade_0, expected grade_0, grade_1"),
    (["anchor", "positive", "negative_1", "grade_1"], "found grade_1, expected grade_0, grade_1"),
    (["anchor", "grade_0"], "found grade_0, expected none"),
    (["anchor", "positive", "negative_1", "score_1"], "found score_1, expected score, score_1"),
    (["anchor", "positive", "negative_1", "negative_2", "score", "score_1"], "expected score, score_1, score_2"),
    (["anchor", "positive_2"], "a column positive_2 without a column positive"),
    (["anchor", "label_2"], "a column label_2 without a column label"),
    (["anchor", "positive", "negative", "negative_1"], "both a column negative and a column negative_1"),
])  # fmt: skip
def test_columns_that_lack_another_are_refused(names, words):
    with pytest.raises(DataError, match="data: ") as caught:
        roles_of(names, {}, "data")
    assert words in str(caught.value)


def test_what_is_a_role():
    assert all(is_role(role) for role in ROLES if not role.endswith("_n"))
    assert not any(is_role(name) for name in ("positive_1", "label_1", "grade", "grade_01", "negative_0", "x"))
    assert [kind_of(role) for role in ("positive_12", "label_3", "grade_0")] == ["text", "label", "grade"]


def test_a_batch_of_the_examples_takes_its_rows():
    from sentemb.types import Examples

    examples = Examples(
        ids=np.arange(3), columns={}, weight=np.float32([1, 2, 3]), levels=np.array([[1], [2], [3]]),
        grades={"positive": np.float32([4, 5, 6])},
    )
    part = examples.take(np.array([2, 0]))
    assert part.weight is not None
    assert part.weight.tolist() == [3, 1]
    assert part.levels is not None
    assert part.levels.tolist() == [[3], [1]]
    assert part.grades["positive"].tolist() == [6, 4]


@pytest.mark.parametrize("column", ["weight", "label_2", "score_1", "grade_1"])
def test_a_run_is_not_resumed_on_other_numbers(column):
    """The hash of the data reads every number."""
    from sentemb.training.checkpoint import hash_of_data
    from sentemb.types import Examples

    row = {"anchor": "a", "positive": "b", "negative": "c", "label": 1, "label_2": 2, "weight": 1, "score": 1,
           "score_1": 0, "grade_0": 1, "grade_1": 0}
    hashes = set()
    for change in ({}, {column: 5}):
        table = load({**row, **change})
        hashes.add(hash_of_data(Examples(
            ids=np.arange(1), columns={}, label=table.label, levels=table.levels, score=table.score,
            weight=table.weight, negative_scores=table.negative_scores, grades=table.grades,
        )))
    assert len(hashes) == 2
