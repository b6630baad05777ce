"""Runs one task of mteb's; its score gets our interval.

Results are written in mteb's JSON tree (``<folder>/results/<model>/<revision>/<task>.json``), which its leaderboard
tools read, and a later run continues with what is missing there. What a score was computed from lies beside the tree
(``<folder>/items/<digest>/<task>.json``), so that a resumed task keeps its interval and its paired tests.

mteb writes its predictions into a folder. Scores of rankings and of STS are computed again from them, item by item,
and the items are believed only if they give mteb's own score. Where mteb repeats an experiment on other draws
(clustering, classification), the repetitions are resampled. Any other score has no interval, and a note says why.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.errors import EvaluationError, first_line
from sentemb.evaluate.metrics import judged_queries, ranking_scores
from sentemb.evaluate.mteb.data import leaves, local_data, quiet_libraries
from sentemb.evaluate.mteb.encoder import MtebEncoder
from sentemb.evaluate.results import Items, TaskResult, fingerprint
from sentemb.evaluate.significance import Interval, score_of_items
from sentemb.evaluate.task import EvalSetup
from sentemb.files import write_json

_TOLERANCE = 1e-4  # mteb rounds rankings' scores to five decimals, we items to seven digits

Scores = Mapping[str, Sequence[Mapping[str, Any]]]  # split -> a row a subset


def run_task(task: Any, encoder: MtebEncoder, *, setup: EvalSetup, overwrite: str = "only-missing") -> TaskResult:
    """Run one task (what ``resolve_tasks`` gave) through ``mteb.evaluate``; ``overwrite`` is mteb's strategy.

    Raises:
        EvaluationError: the task needs a network, its data are incomplete, or its scores are. Anything else that mteb
            or the model raises comes through unchanged.
    """
    import mteb

    name, identity = task.metadata.name, encoder.model.identity
    cache = mteb.ResultCache(cache_path=setup.output.resolve()) if setup.output is not None else None
    revision = identity.digest or identity.revision
    if not revision:
        overwrite = "always"  # a callable without a digest may have changed since
    items_file = setup.output / "items" / revision / f"{name}.json" if setup.output is not None and revision else None
    start = time.perf_counter()
    parts = leaves(task)
    stored_result = cache.load_task_result(name, encoder.mteb_model_meta) if cache is not None else None
    # then its data need not be loaded
    is_cached = overwrite != "always" and stored_result is not None and not stored_result.get_missing_evaluations(task)
    with quiet_libraries(), tempfile.TemporaryDirectory(prefix="sentemb-mteb-") as predictions:
        try:
            for part in () if is_cached else parts:
                _load(part, setup.data.hub)
            results = mteb.evaluate(
                encoder, task, cache=cache, overwrite_strategy=overwrite, prediction_folder=predictions,
                show_progress_bar=False, co2_tracker=False,
                encode_kwargs={"show_progress_bar": False, "batch_size": 512},
            )  # fmt: skip
            if not results.task_results or not any(results.task_results[0].scores.values()):
                raise EvaluationError(f"{name}: mteb gave no scores")
            result = results.task_results[0]
            source: Path | Items | None = Path(predictions)
            if is_cached:
                stored = items_file.read_text(encoding="utf-8") if items_file and items_file.is_file() else None
                source = Items(**json.loads(stored)) if stored else None
            items, interval, note = evidence_of(task, source, result.scores, setup)
            if items is not None and items_file is not None and not is_cached:
                write_json(items_file, asdict(items))
        finally:
            for part in parts:
                if part.data_loaded:
                    part.unload_data()
    return TaskResult(
        task=name, kind=str(task.metadata.type), protocol="mteb", engine="mteb", metric=str(task.metadata.main_score),
        main=100 * float(result.get_score()), metrics=_flat(result.scores), split=",".join(result.scores), items=items,
        count=len(items or ()), interval=interval, interval_note=note, seconds=time.perf_counter() - start,
        notes="from mteb's results tree" if is_cached else "",
    )  # fmt: skip


def _load(part: Any, root: Path | None) -> None:
    name, repository = part.metadata.name, part.metadata.dataset["path"]
    try:
        with local_data(root, repository):
            part.load_data()
    except Exception as error:  # datasets and the hub's client raise many kinds
        raise EvaluationError(
            f"{name}: its data set {repository} cannot be read from {root or 'the hub'} "
            f"({type(error).__name__}: {first_line(error)}); where there is a network: "
            f"sentemb data fetch --task {name} --data-dir FOLDER"
        ) from error
    absent = [subset for subset in part.hf_subsets if part.metadata.is_multilingual and subset not in part.dataset]
    if absent:
        raise EvaluationError(
            f"{name}: {root or 'the hub'}: {repository} has no rows of {', '.join(absent)}; "
            f"choose subsets that are there with --task 'mteb:tasks=[\"{name}\"],subsets=[…]', or fetch it anew"
        )


def _flat(scores: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, float]:
    """mteb's scores under one name each, ``test/en/cosine_spearman``, without the parts that there is one of; as mteb
    has them, not ×100."""
    flat: dict[str, float] = {}
    for split, rows in scores.items():
        for row in rows:
            parts = [split] if len(scores) > 1 else []
            parts += [str(row["hf_subset"])] if len(rows) > 1 else []
            for key, value in row.items():
                if isinstance(value, int | float) and key != "main_score":
                    flat["/".join([*parts, key])] = float(value)
    return flat


# ---------------------------------------------------------------------------- what a score was computed from
def evidence_of(
    task: Any, source: Path | Items | None, scores: Scores, setup: EvalSetup
) -> tuple[Items | None, Interval | None, str]:
    """The items behind a task's score, its interval, and a note on what was resampled instead, or why nothing was.

    ``source`` is the folder with mteb's predictions of a task that was just run (its data are loaded); of one whose
    result was read, the items that were stored, if any.
    """
    main = float(np.mean([row["main_score"] for rows in scores.values() for row in rows]))
    why = "its result was read from mteb's tree, where no items were kept (overwrite = always)"
    items, why = _items(task, source) if isinstance(source, Path) else (source, why)
    if items is not None:
        if abs(score_of_items(*items.columns, **items.score_options) - main) <= _TOLERANCE:
            rounded_items = items.rounded()  # also for the interval: a resumed task has the same
            return rounded_items, *setup.interval(rounded_items)
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
