"""Scores of TREC run files, whichever system wrote them."""

from __future__ import annotations

from pathlib import Path

from sentemb.errors import EvaluationError
from sentemb.evaluate.identity import ModelIdentity
from sentemb.evaluate.reading.trec import check_run, read_qrels, read_run
from sentemb.evaluate.reports.results import Results, TaskResult
from sentemb.evaluate.statistics.ranking import check_metric
from sentemb.evaluate.task import EvalSetup
from sentemb.evaluate.tasks.retrieval import score_run
from sentemb.files import sha256_of
from sentemb.provenance import provenance


def score_trec(path: Path, qrels: Path, *, metric: str = "ndcg@10", resamples: int = 1000, seed: int = 42) -> Results:
    """The results of a TREC run file.

    Raises:
        DataError: a malformed file, or a run that answers none of the judged queries.
        EvaluationError: an unknown metric, or judgements without a relevant document.
    """
    try:
        check_metric(metric)
    except ValueError as error:
        raise EvaluationError(f"--metric: {error}") from None
    judged, run = read_qrels(qrels), read_run(path)
    check_run(run, judged, source=str(path))
    means, items = score_run(run, judged, metric)
    interval, note = EvalSetup(resamples=resamples, seed=seed).interval(items)
    task = TaskResult(
        task=qrels.stem,
        kind="Retrieval",
        protocol="trec",
        metric=metric,
        main=means[metric],
        metrics=means,
        interval=interval,
        interval_note=note,
        items=items.rounded(),
        split="",
        count=len(items),
    )
    model = ModelIdentity(name=path.stem, source=str(path), digest=sha256_of(path), backend="run")
    return Results(model=model, suite=qrels.stem, tasks=[task], seed=seed, provenance=provenance())
