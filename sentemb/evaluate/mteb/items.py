"""What a score of mteb was computed from, so that it gets the same interval and paired tests as our own.

mteb writes its predictions into a folder. Scores of rankings and of STS are computed again from them, item by item,
and the items are believed only if they give mteb's own score. Where mteb repeats an experiment on other draws
(clustering, classification), the repetitions are resampled. Any other score has no interval, and a note says why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.evaluate.metrics import judged_queries, ranking_scores
from sentemb.evaluate.mteb.data import leaves
from sentemb.evaluate.results import Items, fingerprint
from sentemb.evaluate.significance import Interval, score_of_items
from sentemb.evaluate.task import EvalSetup

_TOLERANCE = 1e-4  # mteb rounds rankings' scores to five decimals, we items to seven digits

Scores = Mapping[str, Sequence[Mapping[str, Any]]]  # split -> a row a subset


def evidence_of(
    task: Any, source: Path | Items | None, scores: Scores, setup: EvalSetup
) -> tuple[Items | None, Interval | None, str]:
    """The items behind a task's score, its interval, and a note on what was resampled instead, or why nothing was.

    Args:
        task: mteb's task; its data are loaded if ``source`` is a folder.
        source: the folder with mteb's predictions of a task that was just run; of one whose result was read, the
            items that were stored, if any.
        scores: mteb's scores.
        setup: of this evaluation.
    """
    main = float(np.mean([row["main_score"] for rows in scores.values() for row in rows]))
    items, why = source, "its result was read from mteb's tree, where no items were kept (overwrite = always)"
    if isinstance(source, Path):
        items, why = _items(task, source)
    if isinstance(items, Items):
        if abs(score_of_items(*items.columns, **items.score_options) - main) <= _TOLERANCE:
            return items.rounded(), *setup.interval(items)
        why = "the values of its items do not give mteb's score"
    runs = _repetitions(task, scores)
    values, strata = np.array([score for run in runs for score in run], dtype=np.float64), [len(run) for run in runs]
    is_repeated = len(values) > len(runs) and all(strata)
    if not is_repeated or abs(score_of_items(values, strata=strata) - main) > _TOLERANCE:
        return None, None, f"no interval: {why}"
    note = f"interval over {len(values)} repetitions of mteb's experiment, not over its texts"
    return None, setup.interval_of_runs(values, strata), note


def _items(task: Any, predictions: Path) -> tuple[Items | None, str]:
    """Items of all parts, splits and subsets, a stratum each; or why there are none."""
    strata: list[Items] = []
    for part in leaves(task):
        path = predictions / part.prediction_file_name
        by_subset = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for split, subset in ((split, subset) for split in part.eval_splits for subset in part.hf_subsets):
            predicted = by_subset.get(subset, {}).get(split)
            if predicted is None:
                return None, f"mteb kept no predictions for {subset}/{split}"
            items = _items_of_subset(part, part.dataset.get(subset, part.dataset)[split], predicted)
            if items is None:
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
    )
    return joined, ""


def _items_of_subset(task: Any, data: Any, predicted: Any) -> Items | None:
    metric = str(task.metadata.main_score)
    if isinstance(data, Mapping) and "relevant_docs" in data:
        name, _, cut = metric.partition("_at_")
        qrels = dict(sorted(data["relevant_docs"].items()))
        judged = judged_queries(qrels)
        if name not in ("ndcg", "map", "mrr", "recall", "precision") or not judged:
            return None
        values = ranking_scores(qrels, predicted, (int(cut),))[f"{name}@{cut}"]
        return Items(fingerprint=fingerprint(judged), values=values.tolist())
    if (str(task.metadata.type), metric) == ("STS", "cosine_spearman"):
        gold = [float(score) for score in data["score"]]
        ours = [float(score) for score in predicted["cosine_scores"]]
        return Items(fingerprint=fingerprint(gold), predicted=ours, gold=gold)
    return None


def _repetitions(task: Any, scores: Scores) -> list[Sequence[float]]:
    """The main score of every repetition: a list a subset, or one a level of the labels' hierarchy."""
    runs: list[Sequence[float]] = []
    metric = str(task.metadata.main_score)
    for row in (row for rows in scores.values() for row in rows):
        if metric == "v_measure" and "v_measures" in row:
            repeated = row["v_measures"]
            runs += list(repeated.values()) if isinstance(repeated, Mapping) else [repeated]
        else:
            runs.append([run[metric] for run in row.get("scores_per_experiment", ()) if metric in run])
    return runs
