"""Runs one task of mteb's; its score gets our interval.

Results are written in mteb's JSON tree (``<folder>/results/<model>/<revision>/<task>.json``), which its leaderboard
tools read, and a later run continues with what is missing there. What a score was computed from lies beside the tree
(``<folder>/items/<digest>/<task>.json``), so that a resumed task keeps its interval and its paired tests.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sentemb.errors import EvaluationError, first_line
from sentemb.evaluate.mteb.data import leaves, local_data, quiet_libraries
from sentemb.evaluate.mteb.encoder import MtebEncoder
from sentemb.evaluate.mteb.items import Evidence, evidence_of
from sentemb.evaluate.reports.results import Items, TaskResult
from sentemb.evaluate.statistics.significance import in_points
from sentemb.evaluate.task import EvalSetup
from sentemb.files import write_json


def run_task(task: Any, encoder: MtebEncoder, *, setup: EvalSetup, overwrite: str = "only-missing") -> TaskResult:
    """Run one task through ``mteb.evaluate``.

    Args:
        task: what ``resolve_tasks`` gave.
        encoder: the model.
        setup: where its data lies, and the folder of mteb's results tree (none: nothing is written or resumed).
        overwrite: mteb's strategy: ``only-missing``, ``always``, ``never`` or ``only-cache``.

    Raises:
        EvaluationError: the task needs a network, its data are incomplete, or its scores are. Anything else that mteb
            or the model raises comes through unchanged.
    """
    import mteb

    cache = mteb.ResultCache(cache_path=setup.output.resolve()) if setup.output is not None else None
    if not (encoder.model.identity.revision or encoder.model.identity.digest):
        overwrite = "always"  # a callable without a digest may have changed since
    start = time.perf_counter()
    parts = leaves(task)
    stored_result = cache.load_task_result(task.metadata.name, encoder.mteb_model_meta) if cache is not None else None
    # then its data need not be loaded
    is_cached = overwrite != "always" and stored_result is not None and not stored_result.get_missing_evaluations(task)
    with quiet_libraries(), tempfile.TemporaryDirectory(prefix="sentemb-mteb-") as predictions:
        try:
            if not is_cached:
                _load(parts, setup.data.hub)
            results = mteb.evaluate(
                encoder, task, cache=cache, overwrite_strategy=overwrite, prediction_folder=predictions,
                show_progress_bar=False, co2_tracker=False,
                encode_kwargs={"show_progress_bar": False, "batch_size": 512},
            )  # fmt: skip
            if not results.task_results:
                raise EvaluationError(f"{task.metadata.name}: mteb gave no result")
            result = results.task_results[0]
            items_file = _items_file(task, encoder, setup.output)
            stored = _read_items(items_file) if is_cached else Path(predictions)
            evidence = evidence_of(task, stored, result.scores)
            if evidence.items is not None and items_file is not None and not is_cached:
                write_json(items_file, asdict(evidence.items))
        finally:
            for part in parts:
                if part.data_loaded:
                    part.unload_data()
    return _task_result(task, result, evidence, setup, seconds=time.perf_counter() - start, is_cached=is_cached)


def _load(parts: list[Any], root: Path | None) -> None:
    for part in parts:
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


def _items_file(task: Any, encoder: MtebEncoder, output: Path | None) -> Path | None:
    facts = encoder.model.identity
    revision = facts.digest or facts.revision
    return output / "items" / revision / f"{task.metadata.name}.json" if output is not None and revision else None


def _read_items(path: Path | None) -> Items | None:
    if path is None or not path.is_file():
        return None
    return Items(**json.loads(path.read_text(encoding="utf-8")))


# ---------------------------------------------------------------------------------------------------- result
def _task_result(
    task: Any, result: Any, evidence: Evidence, setup: EvalSetup, *, seconds: float, is_cached: bool
) -> TaskResult:
    if not any(rows for rows in result.scores.values()):
        raise EvaluationError(f"{task.metadata.name}: mteb gave no scores")
    interval, note = None, evidence.note
    if evidence.items is not None:
        interval, note = setup.interval(evidence.items)
    elif evidence.repetitions is not None and setup.resamples:
        interval = in_points(setup.interval_of_mean(evidence.repetitions, evidence.strata))
    facts, count = task.metadata, len(evidence.items) if evidence.items else 0
    return TaskResult(
        task=facts.name, kind=str(facts.type), protocol="mteb", engine="mteb", metric=str(facts.main_score),
        main=100 * float(result.get_score()), metrics=_flat(result.scores), split=",".join(result.scores),
        items=evidence.items, count=count, interval=interval, interval_note=note, seconds=seconds,
        notes="from mteb's results tree" if is_cached else "",
    )  # fmt: skip


def _flat(scores: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, float]:
    """mteb's scores under one name each, ``test/en/cosine_spearman``, without the parts that there is one of; as mteb
    has them, not ×100."""
    flat: dict[str, float] = {}
    for split, rows in scores.items():
        for row in rows:
            parts = [split] if len(scores) > 1 else []
            parts += [str(row["hf_subset"])] if len(rows) > 1 else []
            numbers = {key: float(value) for key, value in row.items() if isinstance(value, int | float)}
            flat.update({"/".join([*parts, key]): value for key, value in numbers.items() if key != "main_score"})
    return flat
