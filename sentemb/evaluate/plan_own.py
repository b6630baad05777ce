"""Plans the tasks that sentemb scores itself: STS, pair files, retrieval, transfer, geometry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sentemb.errors import EvaluationError
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.pairs import PairSet, read_pairs
from sentemb.evaluate.prompts import prompt_for
from sentemb.evaluate.results import Items, TaskResult, fingerprint
from sentemb.evaluate.significance import bootstrap_mean, in_points
from sentemb.evaluate.sts import Aggregation, StsScore, score_pairs, sts_sets, subset_rows
from sentemb.evaluate.suites import Job, required
from sentemb.evaluate.work import Plan, Settings, Work


def plan_sts(job: Job, settings: Settings, plan: Plan) -> None:
    """The STS sets of a protocol."""
    protocol = job.options["protocol"]
    aggregation = job.options.get("aggregation", "all")
    split = job.options.get("split", "test")
    sets = sts_sets(settings.data_dir, protocol, names=job.options.get("sets"), split=split)
    plan.work += [_sts_work(pairs, protocol, aggregation, split, settings) for pairs in sets]


def plan_pairs(job: Job, settings: Settings, plan: Plan) -> None:
    """One file of pairs."""
    pairs = read_pairs(required(settings.place(job.options["path"]), "file"), name=job.options.get("name"))
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
        items = _sts_items(pairs, score, aggregation)
        interval, note = settings.interval(items)
        metrics = {
            **{f"{name}_spearman": value for name, value in score.spearman.items()},
            **{f"{name}_pearson": value for name, value in score.pearson.items()},
            **{f"subset {name}": value for name, value in score.subsets.items()},
        }
        return [
            TaskResult(
                pairs.name,
                "STS",
                protocol if aggregation == "all" else f"{protocol} {aggregation}",
                "cosine_spearman",
                score.main,
                metrics,
                interval,
                items.rounded(),
                split=split,
                count=len(pairs),
                interval_note=note,
            )
        ]

    return Work(pairs.name, run, lambda: [*pairs.sentence1, *pairs.sentence2], "STS")


def _sts_items(pairs: PairSet, score: StsScore, aggregation: Aggregation) -> Items:
    """Pairs in the file's order; subset after subset where the score is a mean over subsets."""
    mark = fingerprint(pairs.sentence1, pairs.sentence2, pairs.score)
    parts = subset_rows(pairs)
    if aggregation == "all" or len(parts) == 1:
        return Items(mark, predicted=score.cosine.tolist(), gold=score.gold.tolist())
    order = np.concatenate(list(parts.values()))
    sizes = [len(rows) for rows in parts.values()]
    weights = sizes if aggregation == "wmean" else ()
    return Items(
        mark,
        predicted=score.cosine[order].tolist(),
        gold=score.gold[order].tolist(),
        strata=sizes,
        weights=weights,
    )


def plan_retrieval(job: Job, settings: Settings, plan: Plan) -> None:
    """A corpus with queries and judgements."""
    from sentemb.evaluate.retrieval import evaluate_retrieval, find_files, read_retrieval
    from sentemb.evaluate.trec import write_run

    folder = settings.place(job.options["path"])
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
        items = Items(fingerprint(ours.queries), values=ours.values[metric].tolist())
        interval, note = settings.interval(items)
        theirs = {
            other.system: settings.interval(replace(items, values=other.values[metric].tolist()))[0] for other in others
        }
        return [
            TaskResult(
                name,
                "Retrieval",
                "beir",
                metric,
                ours.metrics[metric],
                ours.metrics,
                interval,
                items.rounded(),
                split=split,
                count=len(ours.queries),
                baselines={other.system: other.metrics[metric] for other in others},
                baseline_intervals={system: found for system, found in theirs.items() if found is not None},
                interval_note=note,
            )
        ]

    plan.work.append(Work(name, run))


def plan_transfer(job: Job, settings: Settings, plan: Plan) -> None:
    """Labelled texts."""
    from sentemb.evaluate.labelled import read_splits
    from sentemb.evaluate.transfer import evaluate_transfer

    path = required(settings.place(job.options["path"]), "file or folder")
    train, test = read_splits(path)
    name = job.options.get("name", train.name)
    train = replace(train, name=name)

    def run(model: EvalModel) -> list[TaskResult]:
        score = evaluate_transfer(model, train, test, job.options["method"], seed=settings.seed)
        items = None
        if score.per_text:
            items = Items(fingerprint((test or train).texts, (test or train).labels), values=score.values.tolist())
            interval, note = settings.interval(items)
        else:
            interval = in_points(bootstrap_mean(score.values, resamples=settings.resamples, seed=settings.seed))
            note = f"interval over the repetitions ({score.protocol}), not over its texts"
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
                items and items.rounded(),
                count=len(test or train),
                interval_note=note,
            )
        ]

    plan.work.append(Work(name, run))


def plan_geometry(job: Job, settings: Settings, plan: Plan) -> None:
    """Texts whose space is described."""
    from sentemb.evaluate.geometry import geometry_task

    path = required(settings.place(job.options["path"]), "file")
    panel = settings.results_dir / f"geometry-{path.name.split('.')[0]}.png" if settings.results_dir else None
    plan.work.append(Work(path.name, lambda model: [geometry_task(model, path, panel=panel, seed=settings.seed)]))
