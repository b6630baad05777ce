"""What a score of mteb was computed from, so that it gets the same interval and paired tests as our own.

mteb writes its predictions into a folder. Scores of rankings and of pairs are computed again from them, item by item,
and the items are believed only if they give mteb's own score. Where mteb repeats an experiment on other draws
(clustering, classification), the repetitions are resampled. Any other score has no interval, and ``Evidence.note`` says
why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.evaluate.mteb.data import leaves
from sentemb.evaluate.reports.results import Items, fingerprint
from sentemb.evaluate.statistics.ranking import judged_queries, ranking_scores
from sentemb.evaluate.statistics.significance import STATISTICS, average_precision_of, parts_of

_TOLERANCE = 1e-4  # mteb rounds rankings' scores to five decimals, we items to seven digits

Scores = Mapping[str, Sequence[Mapping[str, Any]]]  # split -> a row a subset


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a main score can be resampled over: items, else repetitions of an experiment, else nothing."""

    items: Items | None = None
    repetitions: NDArray[np.float64] | None = None  # main score of every repetition, subset after subset
    strata: Sequence[int] = ()  # of the repetitions
    note: str = ""


def evidence_of(task: Any, source: Path | Items | None, scores: Scores) -> Evidence:
    """What a task's score can be resampled over.

    Args:
        task: mteb's task; its data are loaded if ``source`` is a folder.
        source: the folder with mteb's predictions of a task that was just run; of one whose result was read, the
            items that were stored, if any.
        scores: mteb's scores.
    """
    main = float(np.mean([row["main_score"] for rows in scores.values() for row in rows]))
    if isinstance(source, Path):
        items, why = _items(task, source)
    else:
        items, why = source, "its result was read from mteb's tree, where no items were kept (overwrite = always)"
    if items is not None and abs(_score(items) - main) <= _TOLERANCE:
        return Evidence(items=items.rounded())
    if items is not None:
        why = "the values of its items do not give mteb's score"
    values, sizes = _repetitions(task, scores)
    if not len(values):
        return Evidence(note=f"no interval: {why}")
    runs = f"{len(values)} repetitions of mteb's experiment"
    mean = float(np.mean([values[rows].mean() for rows in parts_of(len(values), sizes)]))
    if len(values) == len(sizes) or abs(mean - main) > _TOLERANCE:
        return Evidence(note=f"no interval: {why}, and {runs} do not make one")
    return Evidence(repetitions=values, strata=sizes, note=f"interval over {runs}, not over its texts")


def _score(items: Items) -> float:
    """The main score that items give."""
    scores = []
    for rows in parts_of(len(items), items.strata):
        if len(items.gold):
            statistic = STATISTICS[items.statistic](np.asarray(items.predicted[rows]), np.asarray(items.gold[rows]))
            scores.append(statistic(np.ones((1, rows.stop - rows.start)))[0])
        else:
            scores.append(np.mean(items.values[rows]))
    return float(np.mean(scores))


# ----------------------------------------------------------------------------------------------------- items
def _items(task: Any, predictions: Path) -> tuple[Items | None, str]:
    """Items of all parts, splits and subsets, a stratum each; or why there are none."""
    strata: list[Items] = []
    for part in leaves(task):
        path = predictions / part.prediction_file_name
        if not path.is_file():
            return None, "mteb kept no predictions"
        by_subset = json.loads(path.read_text(encoding="utf-8"))
        for split in part.eval_splits:
            for subset in part.hf_subsets:
                predicted = by_subset.get(subset, {}).get(split)
                if predicted is None:
                    return None, f"mteb kept no predictions for {subset}/{split}"
                items = _items_of_subset(part, part.dataset.get(subset, part.dataset)[split], predicted)
                if items is None or not len(items):
                    return None, f"its score ({part.metadata.main_score}) is not resampled"
                strata.append(items)
    if len(strata) == 1:
        return strata[0], ""
    joined = Items(
        fingerprint=fingerprint([items.fingerprint for items in strata]),
        values=[value for items in strata for value in items.values],
        predicted=[value for items in strata for value in items.predicted],
        gold=[value for items in strata for value in items.gold],
        strata=[len(items) for items in strata],
        statistic=strata[0].statistic,
    )
    return joined, ""


def _items_of_subset(task: Any, data: Any, predicted: Any) -> Items | None:
    metric, kind = str(task.metadata.main_score), str(task.metadata.type)
    if isinstance(data, Mapping) and "relevant_docs" in data:
        return _ranked_queries(data["relevant_docs"], predicted, metric)
    if (kind, metric) == ("STS", "cosine_spearman"):
        gold = [float(score) for score in data["score"]]
        ours = [float(score) for score in predicted["cosine_scores"]]
        return Items(fingerprint=fingerprint(gold), predicted=ours, gold=gold)
    if (kind, metric) == ("PairClassification", "max_ap"):
        return _duplicate_pairs(task.label_column_name, data, predicted)
    return None


def _ranked_queries(qrels: dict[str, dict[str, int]], run: Mapping[str, Any], metric: str) -> Items | None:
    name, _, cut = metric.partition("_at_")
    judged = judged_queries({query: qrels[query] for query in sorted(qrels)})
    if name not in ("ndcg", "map", "mrr", "recall", "precision") or not judged:
        return None
    values = ranking_scores({query: qrels[query] for query in judged}, run, (int(cut),))[f"{name}@{cut}"]
    return Items(fingerprint=fingerprint(judged), values=values.tolist())


def _duplicate_pairs(column: str, data: Any, predicted: Mapping[str, Any]) -> Items:
    """Pairs under the similarity whose average precision is the highest, which is the score."""
    gold = np.asarray(data[0][column] if len(data) == 1 else data[column], dtype=np.float64).ravel()
    sides = [np.asarray(side) * (-1 if name.endswith("_distances") else 1) for name, side in predicted.items()]
    best = max(sides, key=lambda side: float(average_precision_of(side, gold)(np.ones((1, len(gold))))[0]))
    mark = fingerprint(gold.tolist())
    return Items(fingerprint=mark, predicted=best.tolist(), gold=gold.tolist(), statistic="average precision")


# ----------------------------------------------------------------------------------------------- repetitions
def _repetitions(task: Any, scores: Scores) -> tuple[NDArray[np.float64], list[int]]:
    """The main score of every repetition, and how many each subset (and level of a hierarchy) has; both empty where a
    subset has none."""
    runs: list[Sequence[float]] = []
    for row in (row for rows in scores.values() for row in rows):
        of_row = _runs(row, str(task.metadata.main_score))
        if not of_row or not all(of_row):
            return np.zeros(0), []
        runs += of_row
    return np.array([float(value) for run in runs for value in run]), [len(run) for run in runs]


def _runs(row: Mapping[str, Any], metric: str) -> list[Sequence[float]]:
    """Lists of repeated scores in a row of mteb's: one, or one a level of the labels' hierarchy."""
    repeated = row.get("v_measures") if metric == "v_measure" else None
    if repeated is not None:
        return list(repeated.values()) if isinstance(repeated, Mapping) else [repeated]
    experiments = row.get("scores_per_experiment", ())
    return [[run[metric] for run in experiments if metric in run]]
