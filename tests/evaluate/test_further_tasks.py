"""Label retrieval, episodes, probes, demonstrations, map@r, tolerance: against loops and planted answers."""

from __future__ import annotations

from itertools import combinations
from math import comb

import hub_data
import numpy as np
import pytest

from sentemb.errors import EvaluationError, PartError
from sentemb.evaluate import Demonstrations, Episodes, Geometry, LabelRetrieval, Probe, evaluate_model
from sentemb.evaluate.metrics import check_metric, map_at_r
from sentemb.evaluate.tasks.episodes import accuracy
from sentemb.evaluate.tasks.geometry import geometry
from sentemb.evaluate.tasks.label_retrieval import ranked_by_label


class Given:
    """Vectors of known texts."""

    def __init__(self, vectors):
        self.vectors = vectors

    def encode(self, texts):
        return np.stack([self.vectors[text] for text in texts]).astype(np.float32)


def score(model, task, **options):
    results = evaluate_model(model, task, resamples=0, **options)
    assert not results.failures, results.failures
    return results.tasks[0]


def blobs(folder, per_label=8, labels=4, spread=0.6, seed=0, name="labelled.jsonl"):
    """Labelled texts around centres; the model that knows their vectors, the rows."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(labels, 6))
    rows, vectors = [], {}
    for label in range(labels):
        for i in range(per_label):
            text = f"text {name} {label} {i}"
            rows.append({"text": text, "label": f"l{label}"})
            vectors[text] = centres[label] + spread * generator.normal(size=6)
    hub_data.jsonl(folder / name, rows)
    return Given(vectors), rows


def test_map_at_r_by_a_loop_and_by_hand():
    right = np.array([[True, False, True, True]])
    scores = ranked_by_label(right, np.array([3]))
    assert scores["map@r"].tolist() == [pytest.approx((1 + 2 / 3) / 3)]
    assert scores["r_precision"].tolist() == [pytest.approx(2 / 3)]
    generator = np.random.default_rng(0)
    qrels, run = {}, {}
    for query in "abcde":
        qrels[query] = {str(d): int(generator.random() < 0.4) for d in range(9)} | {"0": 1}
        run[query] = {str(d): float(generator.random()) for d in range(9)}
    for value, query in zip(map_at_r(qrels, run), qrels, strict=True):
        relevant = [d for d, r in qrels[query].items() if r]
        ranking, hits, total = sorted(run[query], key=run[query].get, reverse=True), 0, 0.0
        for rank, document in enumerate(ranking[: len(relevant)], 1):
            if document in relevant:
                hits += 1
                total += hits / rank
        assert value == pytest.approx(total / len(relevant))
    check_metric("map@r")
    with pytest.raises(ValueError, match=r"or map@r"):
        check_metric("map@x")


def test_label_retrieval_by_a_loop(tmp_path):
    model, rows = blobs(tmp_path)
    hub_data.jsonl(tmp_path / "labelled.jsonl", [*rows, {"text": "alone", "label": "z"}])
    model.vectors["alone"] = np.ones(6)
    result = score(model, LabelRetrieval(path=str(tmp_path / "labelled.jsonl")))
    texts = [*rows, {"text": "alone", "label": "z"}]
    unit = {row["text"]: model.vectors[row["text"]] / np.linalg.norm(model.vectors[row["text"]]) for row in texts}
    values = []
    for row in rows:
        others = [one for one in texts if one is not row]
        others.sort(key=lambda one: -float(unit[row["text"]] @ unit[one["text"]]))
        right = [one["label"] == row["label"] for one in others[:7]]
        values.append(sum(sum(right[: i + 1]) / (i + 1) for i in range(7) if right[i]) / 7)
    assert result.count == len(rows)
    assert result.main == pytest.approx(100 * np.mean(values), abs=1e-4)
    hub_data.jsonl(tmp_path / "single.jsonl", [{"text": str(i), "label": i} for i in range(3)])
    assert "two labels" in evaluate_model(model, LabelRetrieval(path=str(tmp_path / "single.jsonl"))).failures[0].error


def test_episodes_are_fixed_by_the_seed_and_classify_by_prototypes(tmp_path):
    model, _ = blobs(tmp_path)
    task = Episodes(path=str(tmp_path / "labelled.jsonl"), ways=3, shots=2, queries=4, episodes=20)
    one, same, other = score(model, task), score(model, task), score(model, task, seed=1)
    assert one.main == same.main != other.main
    assert 50 < one.main <= 100
    assert accuracy(np.eye(2, dtype=np.float32), np.float32([[[2, 1]], [[3, 1]]])) == 0.5


def test_unlabelled_texts_join_prototypes(tmp_path):
    model, rows = blobs(tmp_path, per_label=14, spread=1.2)
    (tmp_path / "more.txt").write_text("\n".join(f"more {i}" for i in range(40)) + "\n")
    of_label = [[model.vectors[row["text"]] for row in rows if row["label"] == f"l{label}"] for label in range(4)]
    centres = [np.mean(vectors, axis=0) for vectors in of_label]
    for i in range(40):
        model.vectors[f"more {i}"] = centres[i % 4]
    task = {"path": str(tmp_path / "labelled.jsonl"), "ways": 4, "queries": 6, "episodes": 40}
    plain = score(model, Episodes(**task))
    unlabelled = str(tmp_path / "more.txt")
    assert score(model, Episodes(**task, unlabelled=unlabelled, mix=0.0)).main == plain.main
    assert score(model, Episodes(**task, unlabelled=unlabelled, mix=0.5)).main > plain.main + 3
    chosen = score(model, Episodes(**task, shots=3, unlabelled=unlabelled))
    assert 0 <= chosen.metrics["mix"] <= 0.75
    with pytest.raises(PartError, match=r"give mix, e\.g\. mix = 0\.5"):
        Episodes(path="x", unlabelled="y")
    with pytest.raises(PartError, match="nothing is mixed in"):
        Episodes(path="x", mix=0.5)
    failed = evaluate_model(model, Episodes(path=task["path"], ways=5, queries=6)).failures[0].error
    assert "4 of 4 labels have 1 + 6 texts" in failed


@pytest.mark.parametrize("fit", ["pairwise", "ridge"])
def test_a_planted_direction_is_found_and_shuffled_ranks_are_not(tmp_path, fit):
    generator = np.random.default_rng(0)
    direction, rows, vectors = generator.normal(size=8), [], {}
    for number in range(30):
        offset, order = generator.normal(size=8), generator.permutation(6)
        for rank in order.tolist():
            item = f"item {number} {rank}"
            vectors[item] = offset + 0.5 * rank * direction + 0.2 * generator.normal(size=8)
            rows.append({"list": f"l{number}", "item": item, "rank": rank + 1})
    hub_data.jsonl(tmp_path / "ranks.jsonl", rows)
    assert score(Given(vectors), Probe(path=str(tmp_path / "ranks.jsonl"), fit=fit)).main > 90
    shuffled = [{**row, "rank": int(rank)} for row, rank in zip(rows, generator.random(len(rows)) * 1000, strict=True)]
    hub_data.jsonl(tmp_path / "shuffled.jsonl", shuffled)
    assert abs(score(Given(vectors), Probe(path=str(tmp_path / "shuffled.jsonl"), fit=fit)).main) < 25
    hub_data.jsonl(tmp_path / "flat.jsonl", [{**row, "rank": 1} for row in rows])
    failure = evaluate_model(Given(vectors), Probe(path=str(tmp_path / "flat.jsonl"), fit=fit)).failures[0]
    assert 'list "l0" has one rank' in failure.error


def test_demonstrations_cover_labels_and_leave_out_the_text_itself(tmp_path):
    model, train = blobs(tmp_path, per_label=6, spread=1.5, name="train.jsonl")
    model.vectors["query"] = model.vectors[train[0]["text"]]
    test = [("query", "l1"), (train[0]["text"], "l0"), (train[9]["text"], "l1")]
    hub_data.jsonl(tmp_path / "test.jsonl", [{"text": text, "label": label} for text, label in test])
    result = score(model, Demonstrations(path=str(tmp_path), k=4))
    assert result.main == 100  # four demonstrations show all four labels
    assert result.metrics["coverage@1"] == result.metrics["nearest coverage@1"]
    assert result.metrics["nearest coverage@4"] <= 100
    assert result.baselines["k at random"] == pytest.approx(100 * (1 - comb(18, 4) / comb(24, 4)))
    assert score(model, Demonstrations(path=str(tmp_path), k=23)).main == 100  # two texts have 23 others, one has 24
    failed = evaluate_model(model, Demonstrations(path=str(tmp_path), k=24)).failures[0].error
    assert "k = 24 must be fewer" in failed


def test_tolerance_by_a_loop(tmp_path):
    model, rows = blobs(tmp_path)
    unit = [model.vectors[row["text"]] / np.linalg.norm(model.vectors[row["text"]]) for row in rows]
    cosines = [unit[i] @ unit[j] for i, j in combinations(range(len(rows)), 2) if rows[i]["label"] == rows[j]["label"]]
    result = score(model, Geometry(path=str(tmp_path / "labelled.jsonl"), metric="tolerance"))
    assert result.main == pytest.approx(np.mean(cosines), abs=1e-5)
    hub_data.jsonl(tmp_path / "plain.jsonl", [{"text": row["text"]} for row in rows])
    plain = evaluate_model(model, Geometry(path=str(tmp_path / "plain.jsonl"), metric="tolerance")).failures[0]
    assert "needs texts with a column label" in plain.error
    assert "tolerance" not in score(model, Geometry(path=str(tmp_path / "plain.jsonl"))).metrics
    with pytest.raises(EvaluationError, match="no label has two texts"):
        geometry(np.eye(4, dtype=np.float32), labels=list("abcd"))
