"""Runs mteb's own tasks, one after the other; a task that fails does not lose the others.

Results are written in mteb's JSON tree (``<folder>/results/<model>/<revision>/<task>.json``), which its leaderboard
tools read, and a later run continues with what is missing there. What a score was computed from lies beside the tree
(``<folder>/items/…``), so that a resumed task keeps its interval and its paired tests.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentemb.errors import EvaluationError
from sentemb.evaluate.mteb_data import leaves, local_data, quiet_libraries
from sentemb.evaluate.mteb_encoder import MtebEncoder
from sentemb.evaluate.mteb_items import Evidence, evidence_of, read_items, write_items


@dataclass(frozen=True)
class MtebScore:
    """One task's scores ×100 (main) and as mteb has them (``scores``: split → subset → metric → value)."""

    name: str
    type: str
    metric: str
    main: float
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    dataset_revision: str | None
    mteb_version: str
    seconds: float
    is_cached: bool = False
    languages: tuple[str, ...] = field(default=())
    evidence: Evidence = field(default_factory=Evidence, repr=False)


def run_task(
    task: Any,
    encoder: MtebEncoder,
    *,
    root: Path | None = None,
    results: Path | None = None,
    overwrite: str = "only-missing",
) -> MtebScore:
    """Run one task through ``mteb.evaluate``.

    Args:
        task: What ``resolve_tasks`` gave.
        encoder: The model.
        root: The data folder; None: the hub.
        results: Folder of mteb's results tree; None: nothing is written or resumed.
        overwrite: mteb's strategy: ``only-missing``, ``always``, ``never`` or ``only-cache``.

    Raises:
        EvaluationError: The task needs a network, or its scores are incomplete. Anything else that mteb or the model
            raises comes through unchanged.
    """
    import mteb

    cache = mteb.ResultCache(cache_path=results.resolve()) if results is not None else None
    if cache is not None and not _is_identified(encoder):
        overwrite = "always"  # a callable without a digest may have changed since
    start = time.perf_counter()
    parts = leaves(task)
    is_cached = _is_complete(task, encoder, cache, overwrite)
    with quiet_libraries(), tempfile.TemporaryDirectory(prefix="sentemb-mteb-") as predictions:
        try:
            if not is_cached:
                _load(parts, root)
            found = mteb.evaluate(
                encoder,
                task,
                cache=cache,
                overwrite_strategy=overwrite,
                show_progress_bar=False,
                co2_tracker=False,
                encode_kwargs={"show_progress_bar": False, "batch_size": 512},
                prediction_folder=predictions,
            )
            if not found.task_results:
                raise EvaluationError(f"{task.metadata.name}: mteb gave no result")
            result = found.task_results[0]
            kept = _items_path(task, encoder, results, cache)
            if is_cached:
                evidence = evidence_of(task, read_items(kept), result.scores)
            else:
                evidence = evidence_of(task, Path(predictions), result.scores)
                write_items(kept, evidence.items)
        finally:
            for part in parts:
                if part.data_loaded:
                    part.unload_data()
    return _score(task, result, time.perf_counter() - start, is_cached, evidence)


def _items_path(task: Any, encoder: MtebEncoder, results: Path | None, cache: Any) -> Path | None:
    """``<folder>/items/<model>/<revision>/<task>.json``, as the tree has it under ``results``."""
    if results is None or not _is_identified(encoder):
        return None
    place: Path = cache.get_task_result_path(task.metadata.name, encoder.mteb_model_meta)
    return results / "items" / place.relative_to(results.resolve() / "results")


def _is_identified(encoder: MtebEncoder) -> bool:
    """Whether the model is identified well enough for its earlier results to be reused."""
    return bool(encoder.model.provenance.revision or encoder.model.provenance.digest)


def _is_complete(task: Any, encoder: MtebEncoder, cache: Any, overwrite: str) -> bool:
    """Whether the results tree already holds the task, so that its data need not be loaded."""
    if cache is None or overwrite == "always":
        return False
    stored = cache.load_task_result(task.metadata.name, encoder.mteb_model_meta)
    return stored is not None and not stored.get_missing_evaluations(task)


def _load(parts: list[Any], root: Path | None) -> None:
    for part in parts:
        try:
            with local_data(root, part.metadata.dataset["path"]):
                part.load_data()
        except Exception as error:
            if _is_offline(error):
                name = part.metadata.name
                raise EvaluationError(
                    f"{name}: its data set {part.metadata.dataset['path']} is not here and the hub did not give it; "
                    f"where there is a network: sentemb data fetch --task {name} --data-dir FOLDER"
                ) from error
            raise


def _is_offline(error: BaseException) -> bool:
    """Whether an error, or one of its causes, says that the hub could not be asked."""
    names = {
        "ConnectionError",
        "OfflineModeIsEnabled",
        "LocalEntryNotFoundError",
        "ConnectError",
        "ConnectTimeout",
        "MaxRetryError",
        "DatasetNotFoundError",
        "NameResolutionError",
    }
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ in names:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _score(task: Any, result: Any, seconds: float, is_cached: bool, evidence: Evidence) -> MtebScore:
    scores = {split: {row["hf_subset"]: _numbers(row) for row in rows} for split, rows in result.scores.items()}
    main = [metrics["main_score"] for subsets in scores.values() for metrics in subsets.values()]
    if not main:
        raise EvaluationError(f"{task.metadata.name}: mteb gave no scores")
    return MtebScore(
        task.metadata.name,
        str(task.metadata.type),
        str(task.metadata.main_score),
        100 * float(result.get_score()),
        scores,
        result.dataset_revision,
        str(result.mteb_version),
        seconds,
        is_cached,
        tuple(sorted({language for rows in result.scores.values() for row in rows for language in row["languages"]})),
        evidence,
    )


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in row.items() if isinstance(value, int | float)}
