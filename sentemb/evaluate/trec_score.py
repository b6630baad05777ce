"""Scores of TREC run files, whichever system wrote them."""

from __future__ import annotations

from pathlib import Path

from sentemb.errors import EvaluationError
from sentemb.evaluate.ranking import METRICS
from sentemb.evaluate.results import Items, Results, TaskResult, fingerprint, machine, now, rounded, versions
from sentemb.evaluate.retrieval import score_run
from sentemb.evaluate.significance import bootstrap_mean, in_points
from sentemb.evaluate.trec import check_run, read_qrels, read_run
from sentemb.files import sha256_of


def score_trec(path: Path, qrels: Path, *, metric: str = "ndcg@10", resamples: int = 1000, seed: int = 42) -> Results:
    """The results of a TREC run file.

    Raises:
        DataError: A malformed file, or a run that answers none of the judged queries.
        EvaluationError: An unknown metric, or judgements without a relevant document.
    """
    name, _, cut = metric.partition("@")
    if name not in METRICS or not cut.isdigit() or not int(cut):
        raise EvaluationError(f'--metric "{metric}": NAME@K is needed, NAME one of {", ".join(METRICS)}')
    judged, run = read_qrels(qrels), read_run(path)
    check_run(run, judged, source=str(path))
    score = score_run(qrels.stem, path.stem, run, judged, cuts=sorted({1, 3, 5, 10, 100, 1000, int(cut)}))
    interval = in_points(bootstrap_mean(score.values[metric], resamples=resamples, seed=seed))
    task = TaskResult(
        qrels.stem,
        "Retrieval",
        "trec",
        metric,
        score.metrics[metric],
        score.metrics,
        interval,
        Items(fingerprint(score.queries), values=rounded(score.values[metric])),
        split="",
        count=len(score.queries),
    )
    model = {"name": path.stem, "source": str(path), "digest": sha256_of(path), "backend": "run"}
    return Results(model, qrels.stem, [task], seed=seed, versions=versions(), machine=machine(), started=now())
