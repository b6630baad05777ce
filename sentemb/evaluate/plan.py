"""What a suite needs on this machine: every task ready to run, and everything that is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sentemb.errors import EvaluationError, SentembError
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.pairs import PairSet, read_pairs
from sentemb.evaluate.prompts import prompt_for
from sentemb.evaluate.results import Items, TaskFailure, TaskResult, fingerprint, rounded
from sentemb.evaluate.significance import Interval, bootstrap_mean, bootstrap_spearman, in_points
from sentemb.evaluate.sts import data_root, score_pairs, sts_sets
from sentemb.evaluate.suites import Job, Suite, required


@dataclass(frozen=True)
class Settings:
    """Where the data lies, what is written, how much is resampled."""

    data_dir: Path | None = None
    results_dir: Path | None = None  # of mteb's JSON tree and TREC runs
    resamples: int = 1000
    seed: int = 42
    overwrite: str = "only-missing"
    baselines: bool = True
    index: str | None = None  # kind of FAISS index for mteb's retrieval; None: exact search
    skip_missing: bool = False


@dataclass(frozen=True)
class Work:
    """One task, ready to run. ``texts`` may be encoded ahead, together with those of other tasks."""

    name: str
    run: Callable[[EvalModel], list[TaskResult]]
    texts: Callable[[], Sequence[str]] | None = None
    task_type: str = ""


@dataclass
class Plan:
    """The work of a suite, and what is missing for it."""

    work: list[Work] = field(default_factory=list)
    missing: list[TaskFailure] = field(default_factory=list)


def plan_suite(suite: Suite, settings: Settings) -> Plan:
    """Look for all data of a suite; nothing is encoded."""
    plan = Plan()
    makers = {
        "sts": _plan_sts,
        "pairs": _plan_pairs,
        "retrieval": _plan_retrieval,
        "transfer": _plan_transfer,
        "geometry": _plan_geometry,
        "mteb": _plan_mteb,
    }
    for job in suite.jobs:
        try:
            makers[job.kind](job, settings, plan)
        except SentembError as error:
            plan.missing.append(
                TaskFailure(str(job.options.get("name", job.options.get("path", job.kind))), str(error))
            )
    return plan


def _place(settings: Settings, path: str) -> Path:
    """A path of a suite: as it is, or under the data folder (or its ``hub``)."""
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    try:
        root = data_root(settings.data_dir)
    except EvaluationError:
        return given
    return next((place for place in (root / given, root / "hub" / given) if place.exists()), root / given)


def _plan_sts(job: Job, settings: Settings, plan: Plan) -> None:
    protocol = job.options["protocol"]
    aggregation = job.options.get("aggregation", "all")
    split = job.options.get("split", "test")
    sets = sts_sets(settings.data_dir, protocol, names=job.options.get("sets"), split=split)
    plan.work += [_sts_work(pairs, protocol, aggregation, split, settings) for pairs in sets]


def _plan_pairs(job: Job, settings: Settings, plan: Plan) -> None:
    pairs = read_pairs(required(_place(settings, job.options["path"]), "file"), name=job.options.get("name"))
    plan.work.append(_sts_work(pairs, "file", job.options.get("aggregation", "all"), "", settings))


def _sts_work(pairs: PairSet, protocol: str, aggregation: Any, split: str, settings: Settings) -> Work:
    def run(model: EvalModel) -> list[TaskResult]:
        prompt = prompt_for(model.prompts, task=pairs.name, task_type="STS")
        vectors = model.encode([*pairs.sentence1, *pairs.sentence2], prompt=prompt)
        half = len(pairs)
        score = score_pairs(pairs, vectors[:half], vectors[half:], protocol=protocol, aggregation=aggregation)
        if np.isnan(score.main):
            raise EvaluationError(
                f"{pairs.source or pairs.name}: Spearman does not exist: fewer than two pairs, or the gold scores or "
                "all similarities are constant"
            )
        interval = None
        if aggregation == "all" or pairs.subset is None:
            interval = in_points(
                bootstrap_spearman(score.cosine, score.gold, resamples=settings.resamples, seed=settings.seed)
            )
        metrics = {
            **{f"{name}_spearman": value for name, value in score.spearman.items()},
            **{f"{name}_pearson": value for name, value in score.pearson.items()},
            **{f"subset {name}": value for name, value in score.subsets.items()},
        }
        mark = fingerprint(pairs.sentence1, pairs.sentence2, pairs.score)
        named = protocol if aggregation == "all" else f"{protocol} {aggregation}"
        return [
            TaskResult(
                pairs.name,
                "STS",
                named,
                "cosine_spearman",
                score.main,
                metrics,
                interval,
                Items(mark, predicted=rounded(score.cosine), gold=rounded(score.gold)),
                split=split,
                count=len(pairs),
            )
        ]

    return Work(pairs.name, run, lambda: [*pairs.sentence1, *pairs.sentence2], "STS")


def _plan_retrieval(job: Job, settings: Settings, plan: Plan) -> None:
    from sentemb.evaluate.retrieval import evaluate_retrieval, find_files, read_retrieval
    from sentemb.evaluate.trec import write_run

    folder = _place(settings, job.options["path"])
    split = job.options.get("split", "test")
    metric = job.options.get("metric", "ndcg@10")
    name = job.options.get("name", folder.name)
    find_files(folder, split)

    def run(model: EvalModel) -> list[TaskResult]:
        data = read_retrieval(folder, split=split, name=name)
        ours, *others = evaluate_retrieval(
            model,
            data,
            baselines=settings.baselines and job.options.get("baselines", True),
            ignore_identical_ids=job.options.get("ignore_identical_ids", False),
        )
        if settings.results_dir is not None:
            write_run(settings.results_dir / "runs" / f"{name}.{split}.trec", ours.run)
        interval = bootstrap_mean(ours.values[metric], resamples=settings.resamples, seed=settings.seed)
        return [
            TaskResult(
                name,
                "Retrieval",
                "beir",
                metric,
                ours.metrics[metric],
                ours.metrics,
                in_points(interval),
                Items(fingerprint(ours.queries), values=rounded(ours.values[metric])),
                split=split,
                count=len(ours.queries),
                baselines={other.system: other.metrics[metric] for other in others},
            )
        ]

    plan.work.append(Work(name, run))


def _plan_transfer(job: Job, settings: Settings, plan: Plan) -> None:
    from sentemb.evaluate.labelled import read_splits
    from sentemb.evaluate.transfer import evaluate_transfer

    path = required(_place(settings, job.options["path"]), "file or folder")
    train, test = read_splits(path)
    name = job.options.get("name", train.name)
    train = replace(train, name=name)

    def run(model: EvalModel) -> list[TaskResult]:
        score = evaluate_transfer(model, train, test, job.options["method"], seed=settings.seed)
        interval, items = None, None
        if score.per_text:
            interval = in_points(bootstrap_mean(score.values, resamples=settings.resamples, seed=settings.seed))
            items = Items(fingerprint((test or train).texts, (test or train).labels), values=rounded(score.values))
        kind = "Clustering" if score.method == "clustering" else "Classification"
        return [
            TaskResult(
                name,
                kind,
                f"{score.method} ({score.protocol})",
                score.metric,
                score.main,
                score.metrics,
                interval,
                items,
                count=len(test or train),
            )
        ]

    plan.work.append(Work(name, run))


def _plan_geometry(job: Job, settings: Settings, plan: Plan) -> None:
    from sentemb.evaluate.geometry import geometry_task

    path = required(_place(settings, job.options["path"]), "file")
    panel = settings.results_dir / f"geometry-{path.name.split('.')[0]}.png" if settings.results_dir else None
    plan.work.append(Work(path.name, lambda model: [geometry_task(model, path, panel=panel, seed=settings.seed)]))


def _plan_mteb(job: Job, settings: Settings, plan: Plan) -> None:
    from sentemb.evaluate.mteb_data import data_folder, missing_data, resolve_tasks

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
        parts = {part.metadata.name for part in _parts(task)}
        if not parts & lacking:
            plan.work.append(_mteb_work(task, root, settings, encoders))


def _parts(task: Any) -> list[Any]:
    from sentemb.evaluate.mteb_data import leaves

    return leaves(task)


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
        encoder = encoders[id(model)]
        score = run_task(task, encoder, root=root, results=settings.results_dir, overwrite=settings.overwrite)
        return [
            TaskResult(
                score.name,
                score.type,
                "mteb",
                score.metric,
                score.main,
                _flat(score.scores),
                _interval_of(score.items, settings),
                score.items,
                engine="mteb",
                split=",".join(score.scores),
                count=len(score.items) if score.items else 0,
                seconds=score.seconds,
                notes="from mteb's results tree" if score.is_cached else "",
            )
        ]

    return Work(task.metadata.name, run)


def _interval_of(items: Items | None, settings: Settings) -> Interval | None:
    if items is None:
        return None
    if len(items.gold):
        predicted, gold = np.asarray(items.predicted), np.asarray(items.gold)
        return in_points(bootstrap_spearman(predicted, gold, resamples=settings.resamples, seed=settings.seed))
    return in_points(bootstrap_mean(np.asarray(items.values), resamples=settings.resamples, seed=settings.seed))


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
