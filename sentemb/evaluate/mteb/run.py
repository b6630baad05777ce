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
from sentemb.evaluate.mteb.items import evidence_of
from sentemb.evaluate.results import Items, TaskResult
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
            source = _read_items(items_file) if is_cached else Path(predictions)
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


def _read_items(path: Path | None) -> Items | None:
    return Items(**json.loads(path.read_text(encoding="utf-8"))) if path is not None and path.is_file() else None


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
