"""What a score of mteb was computed from, read back from its predictions and its results.

With a value an item (pair, query, text) a score of mteb gets the same interval and the same paired tests as our own.
Several splits or subsets, and the parts of an aggregate, are strata: the score is their mean, however many items each
has. Where mteb repeats an experiment on other draws (clustering, few-shot classification) and no item has a value of
its own, the repetitions are what can be resampled; ``Evidence.note`` says so, or why there is nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.evaluate.metrics import spearman
from sentemb.evaluate.mteb_data import leaves
from sentemb.evaluate.ranking import judged_queries, ranking_scores
from sentemb.evaluate.resampling import STATISTICS, average_precision_of
from sentemb.evaluate.results import Items, fingerprint
from sentemb.evaluate.significance import Strata
from sentemb.files import write_json

_RANKED = {"ndcg_at_": "ndcg", "map_at_": "map", "mrr_at_": "mrr", "recall_at_": "recall", "precision_at_": "precision"}
_TOLERANCE = 1e-4  # mteb rounds rankings' scores to five decimals, we items to seven digits


@dataclass(frozen=True)
class Evidence:
    """What a main score can be resampled over: items, else repetitions of an experiment, else nothing."""

    items: Items | None = None
    repetitions: NDArray[np.float64] | None = None  # main score of every repetition, subset after subset
    strata: Strata | None = None  # of the repetitions
    note: str = ""


Scores = Mapping[str, Sequence[Mapping[str, Any]]]  # split -> a row a subset


def evidence_of(task: Any, source: Path | Items | None, scores: Scores) -> Evidence:
    """What a task's score can be resampled over.

    Args:
        task: mteb's task; its data are loaded if ``source`` is a folder.
        source: The folder with mteb's predictions of a task that was just run; of one whose result was read, the
            items that were kept, if any.
        scores: mteb's scores.
    """
    main = float(np.mean([row["main_score"] for rows in scores.values() for row in rows]))
    if isinstance(source, Path):
        items, why = _items(task, source)
    else:
        items, why = source, "its result was read from mteb's tree, where no items were kept (--overwrite always)"
    if items is not None and not _gives(items, main):
        items, why = None, "the values of its items do not give mteb's score"
    if items is not None:
        return Evidence(items.rounded())
    found = _repetitions(task, scores)
    if found is None:
        return Evidence(note=f"no interval: {why}")
    values, strata = found
    runs = f"{len(values)} repetitions of mteb's experiment"
    mean = sum(weight * float(values[rows].mean()) for rows, weight in strata.parts())
    if len(values) == len(strata.sizes) or abs(mean - main) > _TOLERANCE:
        return Evidence(note=f"no interval: {why}, and {runs} do not make one")
    return Evidence(repetitions=values, strata=strata, note=f"interval over {runs}, not over its texts")


def _gives(items: Items, main: float) -> bool:
    """Whether the items' score is the one that mteb reports: else they are not what it was computed from."""
    total = 0.0
    for rows, weight in (items.parts() or Strata([len(items)])).parts():
        if len(items.gold):
            score = STATISTICS[items.statistic](np.asarray(items.predicted[rows]), np.asarray(items.gold[rows]))
            total += weight * float(score(np.ones((1, len(items.gold[rows]))))[0])
        else:
            total += weight * float(np.mean(items.values[rows]))
    return abs(total - main) <= _TOLERANCE


# ----------------------------------------------------------------------------------------------- items
def _items(task: Any, predictions: Path) -> tuple[Items | None, str]:
    """Items of all parts, splits and subsets as strata; or why there are none."""
    found: list[Items] = []
    weights: list[float] = []
    parts = leaves(task)
    for part in parts:
        path = predictions / part.prediction_file_name
        if not path.is_file():
            return None, "mteb kept no predictions"
        by_subset = json.loads(path.read_text(encoding="utf-8"))
        places = [(split, subset) for split in part.eval_splits for subset in part.hf_subsets]
        for split, subset in places:
            predicted = by_subset.get(subset, {}).get(split)
            if predicted is None:
                return None, f"mteb kept no predictions for {subset}/{split}"
            items = _items_of_subset(part, part.dataset.get(subset, part.dataset)[split], predicted)
            if items is None or not len(items):
                return None, f"its score ({part.metadata.main_score}) is no mean over items"
            found.append(items)
            weights.append(1 / (len(parts) * len(places)))
    return _joined(found, weights), ""


def _items_of_subset(task: Any, data: Any, predicted: Any) -> Items | None:
    metric = str(task.metadata.main_score)
    kind = str(task.metadata.type)
    if metric == "cosine_spearman" and kind == "STS":
        gold = np.asarray(data["score"], dtype=np.float64)
        scores = np.asarray(predicted["cosine_scores"], dtype=np.float64)
        return Items(fingerprint(gold.tolist()), predicted=scores.tolist(), gold=gold.tolist())
    if metric == "cosine_spearman" and kind == "Summarization":
        rated = list(zip(predicted["human_scores"], predicted["cosine_scores"], strict=True))
        rho = np.array([spearman(ours, human) for human, ours in rated])
        return Items(fingerprint([human for human, _ in rated]), values=rho.tolist())
    if metric == "max_ap" and kind == "PairClassification":
        return _paired(task, data, predicted)
    if metric == "accuracy" and hasattr(task, "label_column_name") and isinstance(predicted, list):
        return _classified(np.asarray(data[task.label_column_name], dtype=object), predicted)
    if metric == "f1" and kind == "BitextMining" and "gold" not in data:
        (hits,) = predicted.values()
        return _mined(np.array([hit["corpus_id"] for hit in hits]), data)
    for prefix, name in _RANKED.items():
        if metric.startswith(prefix) and isinstance(data, dict) and "relevant_docs" in data:
            return _ranked(data["relevant_docs"], predicted, name, int(metric.removeprefix(prefix)))
    return None


def _paired(task: Any, data: Any, predicted: Mapping[str, Any]) -> Items:
    """Pairs under the similarity whose average precision is the highest, which is the score."""
    column = task.label_column_name
    gold = np.asarray(data[0][column] if len(data) == 1 else data[column], dtype=np.float64).ravel()
    sides = [np.asarray(values, dtype=np.float64) * (-1 if name.endswith("_distances") else 1)
             for name, values in predicted.items()]
    once = np.ones((1, len(gold)))
    best = max(sides, key=lambda side: float(average_precision_of(side, gold)(once)[0]))
    return Items(fingerprint(gold.tolist()), predicted=best.tolist(), gold=gold.tolist(), statistic="average precision")


def _classified(labels: NDArray[Any], predicted: list[Any]) -> Items | None:
    """A text's value is the share of the draws that had it right; folds of a cross-validation are not aligned."""
    if any(not isinstance(draw, list) or len(draw) != len(labels) for draw in predicted):
        return None
    draws = np.asarray(predicted, dtype=object)
    if draws.ndim != 2:  # several labels a text
        return None
    return Items(fingerprint(labels.tolist()), values=(draws == labels).astype(np.float64).mean(axis=0).tolist())


def _mined(found: NDArray[np.int64], data: Any) -> Items:
    """Weighted F1, with one gold pair a sentence, is the mean of 2·hit / (1 + how often its translation is found)."""
    often = np.bincount(found, minlength=len(found))[: len(found)]
    hit = found == np.arange(len(found))
    mark = fingerprint(list(data["sentence1"]), list(data["sentence2"]))
    return Items(mark, values=(2.0 * hit / (1 + often)).tolist())


def _ranked(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]], name: str, k: int) -> Items | None:
    ordered = {query: qrels[query] for query in sorted(qrels)}
    judged = judged_queries(ordered)
    if not judged:
        return None
    return Items(fingerprint(judged), values=ranking_scores(ordered, run, (k,))[f"{name}@{k}"].tolist())


def _joined(found: Sequence[Items], weights: Sequence[float]) -> Items:
    if len(found) == 1:
        return found[0]
    return Items(
        fingerprint([items.fingerprint for items in found]),
        values=[value for items in found for value in items.values],
        predicted=[value for items in found for value in items.predicted],
        gold=[value for items in found for value in items.gold],
        strata=[len(items) for items in found],
        weights=list(weights) if len(set(weights)) > 1 else (),
        statistic=found[0].statistic,
    )


def write_items(path: Path | None, items: Items | None) -> None:
    """Keep the items of a result that mteb's tree holds, and no older ones."""
    if path is None:
        return
    if items is not None:
        write_json(path, asdict(items))
    else:
        path.unlink(missing_ok=True)


def read_items(path: Path | None) -> Items | None:
    """The kept items; None where there are none that can be read."""
    try:
        return Items(**json.loads(path.read_text(encoding="utf-8"))) if path is not None else None
    except (OSError, ValueError, TypeError):
        return None


# ----------------------------------------------------------------------------------------- repetitions
def _repetitions(task: Any, scores: Scores) -> tuple[NDArray[np.float64], Strata] | None:
    """The main score of every repetition, a stratum a subset (and level of a hierarchy); None where one has none."""
    values: list[float] = []
    sizes: list[int] = []
    weights: list[float] = []
    for rows in scores.values():
        for row in rows:
            runs = _runs(row, str(task.metadata.main_score))
            if not runs or any(not len(run) for run in runs):
                return None
            for run in runs:
                values += run
                sizes.append(len(run))
                weights.append(len(run) / sum(map(len, runs)))
    return (np.array(values), Strata(sizes, weights)) if values else None


def _runs(row: Mapping[str, Any], metric: str) -> list[list[float]]:
    """Lists of repeated scores in a row of mteb's: one, or one a level of the labels' hierarchy."""
    many = row.get("v_measures" if metric == "v_measure" else f"{metric}_scores")
    if isinstance(many, Mapping):
        return [[float(value) for value in level] for level in many.values()]
    if isinstance(many, Sequence):
        return [[float(value) for value in many]]
    runs = row.get("scores_per_experiment")
    if isinstance(runs, Sequence) and all(isinstance(run, Mapping) and metric in run for run in runs):
        return [[float(run[metric]) for run in runs]]
    return []
