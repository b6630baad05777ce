"""Plans the tasks that mteb scores, with our model and search underneath."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.results import TaskFailure, TaskResult
from sentemb.evaluate.significance import Interval, bootstrap_mean, in_points
from sentemb.evaluate.suites import Job
from sentemb.evaluate.work import Plan, Settings, Work

if TYPE_CHECKING:
    from sentemb.evaluate.mteb_items import Evidence


def plan_mteb(job: Job, settings: Settings, plan: Plan) -> None:
    """mteb's tasks by name or benchmark."""
    from sentemb.evaluate.mteb_data import data_folder, leaves, missing_data, resolve_tasks

    root = data_folder(settings.data_dir)
    tasks = resolve_tasks(
        job.options.get("tasks", ()), benchmark=job.options.get("benchmark"), subsets=job.options.get("subsets", ())
    )
    lacking: set[str] = set()
    if root is not None:
        for entry in missing_data(tasks, root):
            lacking.add(entry.task)
            plan.missing.append(TaskFailure(entry.task, str(entry)))
    encoders: dict[int, Any] = {}
    for task in tasks:
        if not lacking & {part.metadata.name for part in leaves(task)}:
            plan.work.append(_mteb_work(task, root, settings, encoders))


def _mteb_work(task: Any, root: Path | None, settings: Settings, encoders: dict[int, Any]) -> Work:
    from sentemb.evaluate.mteb_encoder import MtebEncoder
    from sentemb.evaluate.mteb_run import run_task

    def run(model: EvalModel) -> list[TaskResult]:
        if id(model) not in encoders:
            search = None
            if settings.index is not None:
                from sentemb.evaluate.faiss_search import index_search

                search = index_search(settings.index, model.similarity, seed=settings.seed)
            encoders[id(model)] = MtebEncoder(model, search=search)
        score = run_task(
            task, encoders[id(model)], root=root, results=settings.results_dir, overwrite=settings.overwrite
        )
        items = score.evidence.items
        interval, note = _interval(score.evidence, settings)
        return [
            TaskResult(
                score.name,
                score.type,
                "mteb",
                score.metric,
                score.main,
                _flat(score.scores),
                interval,
                items,
                engine="mteb",
                split=",".join(score.scores),
                count=len(items) if items else 0,
                seconds=score.seconds,
                notes="from mteb's results tree" if score.is_cached else "",
                interval_note=note,
            )
        ]

    return Work(task.metadata.name, run)


def _interval(evidence: Evidence, settings: Settings) -> tuple[Interval | None, str]:
    if evidence.items is not None:
        return settings.interval(evidence.items)
    if evidence.repetitions is None:
        return None, evidence.note
    found = bootstrap_mean(
        evidence.repetitions, strata=evidence.strata, resamples=settings.resamples, seed=settings.seed
    )
    return in_points(found), evidence.note


def _flat(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """mteb's scores under one name each: ``test/en/cosine_spearman``; without the parts that there is one of."""
    out: dict[str, float] = {}
    for split, subsets in scores.items():
        for subset, metrics in subsets.items():
            where = [part for part, many in ((split, len(scores) > 1), (subset, len(subsets) > 1)) if many]
            out.update(
                {"/".join([*where, metric]): value for metric, value in metrics.items() if metric != "main_score"}
            )
    return out
