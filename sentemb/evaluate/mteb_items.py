"""What a score of mteb was computed from, item by item, read back from mteb's predictions.

With it a score of mteb gets the same interval and the same paired tests as our own. Tasks with several splits or
subsets, and task types whose score is no mean over items (clustering), have none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.evaluate.ranking import judged_queries, ranking_scores
from sentemb.evaluate.results import Items, fingerprint, rounded

_RANKED = {"ndcg_at_": "ndcg", "map_at_": "map", "mrr_at_": "mrr", "recall_at_": "recall", "precision_at_": "precision"}


def items_of(task: Any, predictions: Path) -> Items | None:
    """Items of a loaded task from ``predictions/<task>_predictions.json``; None where its type has none."""
    path = predictions / task.prediction_file_name
    if task.is_aggregate or not path.is_file() or len(task.eval_splits) != 1 or len(task.hf_subsets) != 1:
        return None
    split, subset = task.eval_splits[0], task.hf_subsets[0]
    predicted = json.loads(path.read_text(encoding="utf-8")).get(subset, {}).get(split)
    if predicted is None:
        return None
    data = task.dataset.get(subset, task.dataset)[split]
    metric = str(task.metadata.main_score)
    if metric == "cosine_spearman" and "cosine_scores" in predicted and "score" in data.column_names:
        gold = np.asarray(data["score"], dtype=np.float64)
        scores = np.asarray(predicted["cosine_scores"], dtype=np.float64)
        return Items(fingerprint(gold.tolist()), predicted=rounded(scores), gold=rounded(gold))
    if metric == "accuracy" and hasattr(task, "label_column_name") and isinstance(predicted, list):
        labels = np.asarray(data[task.label_column_name])
        draws = np.asarray(predicted)
        if draws.ndim == 2 and draws.shape[1] == len(labels):
            return Items(fingerprint(labels.tolist()), values=rounded((draws == labels).mean(axis=0)))
        return None
    for prefix, name in _RANKED.items():
        if metric.startswith(prefix) and isinstance(data, dict) and "relevant_docs" in data:
            return _ranked_items(data["relevant_docs"], predicted, name, int(metric.removeprefix(prefix)))
    return None


def _ranked_items(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]], name: str, k: int) -> Items:
    ordered = {query: qrels[query] for query in sorted(qrels)}
    values = ranking_scores(ordered, run, (k,))[f"{name}@{k}"]
    return Items(fingerprint(judged_queries(ordered)), values=rounded(values))
