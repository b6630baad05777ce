"""Scores of TREC run files, whichever system wrote them."""

from __future__ import annotations

from pathlib import Path

from sentemb.errors import DataError
from sentemb.evaluate.model import ModelIdentity
from sentemb.evaluate.reading.trec import read_qrels, read_run
from sentemb.evaluate.reports.results import Results
from sentemb.evaluate.task import EvalSetup
from sentemb.evaluate.tasks.retrieval import Retrieval, score_run
from sentemb.files import sha256_of
from sentemb.provenance import provenance


def score_trec(path: Path, qrels: Path, *, metric: str = "ndcg@10", resamples: int = 1000, seed: int = 42) -> Results:
    """The results of a TREC run file.

    Raises:
        DataError: a malformed file, or a run that answers none of the judged queries.
        PartError: an unknown metric.
        EvaluationError: judgements without a relevant document.
    """
    task = Retrieval(path=str(qrels), name=qrels.stem, metric=metric)
    judged, run = read_qrels(qrels), read_run(path)
    if not any(query in judged for query in run):
        examples = f'first: "{next(iter(run))}", judged: "{next(iter(judged))}"'
        raise DataError(f"{path}: none of its {len(run):,} queries is judged ({examples})")
    means, items = score_run(run, judged, metric)
    setup = EvalSetup(resamples=resamples, seed=seed)
    result = task.result(setup, metric=metric, metrics=means, protocol="trec", items=items)
    model = ModelIdentity(name=path.stem, source=str(path), digest=sha256_of(path), backend="run")
    return Results(model=model, suite=qrels.stem, tasks=[result], seed=seed, provenance=provenance())
