"""Retrieval: how high a query's relevant documents rank among all documents of a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading.retrieval import RetrievalSet, find_files, read_retrieval
from sentemb.evaluate.reading.trec import write_run
from sentemb.evaluate.reports.results import Items, TaskResult, fingerprint
from sentemb.evaluate.retrievers import bm25_search, fuse, search
from sentemb.evaluate.statistics.ranking import CUTS, Qrels, check_metric, judged_queries, ranking_scores
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.types import Hits

DEPTH = 1000  # hits of a query that are scored, as trec_eval and MTEB


@dataclass(frozen=True, kw_only=True)
class Retrieval(Task):
    """nDCG@10, or another metric of ranked lists, of dense search over a whole corpus.

    Queries whose judgements are all 0 are left out, as in BEIR and MTEB.

    Args:
        path: a folder with corpus, queries and qrels/SPLIT, in BEIR's or the hub's layout.
        split: of the judgements.
        metric: ``ndcg``, ``map``, ``mrr``, ``recall``, ``precision`` or ``hit_rate``, then ``@K``.
        baselines: report BM25 and its fusion with the model (RRF) beside it.
        ignore_identical_ids: leave out a hit whose id is the query's (duplicate questions, ArguAna).
        index: search through an index of this kind (``hnsw``, ``sq8``, …) instead of exactly.

    Source: Thakur et al. 2021, NeurIPS (BEIR); scores by trec_eval.
    Deviations: MRR is cut at K, which trec_eval does not do.
    """

    task_type: ClassVar[str] = "Retrieval"
    packages: ClassVar[tuple[str, ...]] = ("pytrec_eval",)

    path: str
    split: str = "test"
    metric: str = "ndcg@10"
    baselines: bool = True
    ignore_identical_ids: bool = False
    index: str | None = None

    def __post_init__(self) -> None:
        check_metric(self.metric)

    def missing(self, setup: EvalSetup) -> list[str]:
        lacking = super().missing(setup)
        if not lacking:
            try:
                find_files(setup.data.path(self.path), self.split)
            except DataError as error:
                return [str(error)]
        return lacking

    def load(self, setup: EvalSetup) -> RetrievalSet:
        return read_retrieval(setup.data.path(self.path), split=self.split, name=self.label)

    def texts(self, data: RetrievalSet) -> Sequence[Texts]:
        return [
            Texts(texts=list(data.queries.values()), role="query"),
            Texts(texts=list(data.documents.values()), role="document"),
        ]

    def run(self, data: RetrievalSet, model: EvalModel, setup: EvalSetup) -> TaskResult:
        ours, *others = evaluate_retrieval(
            model,
            data,
            baselines=self.baselines,
            cuts=sorted({*CUTS, int(self.metric.partition("@")[2])}),
            ignore_identical_ids=self.ignore_identical_ids,
            index=self.index,
            seed=setup.seed,
        )
        if setup.output is not None:
            write_run(setup.output / "runs" / f"{data.name}.{data.split}.trec", ours.run)
        items = Items(fingerprint=fingerprint(ours.queries), values=ours.values[self.metric].tolist())
        result = self.result(
            setup,
            metric=self.metric,
            main=ours.metrics[self.metric],
            metrics=ours.metrics,
            protocol="beir",
            items=items,
            split=self.split,
        )
        intervals = {
            other.system: setup.interval(replace(items, values=other.values[self.metric].tolist()))[0]
            for other in others
        }
        return replace(
            result,
            baselines={other.system: other.metrics[self.metric] for other in others},
            baseline_intervals={system: interval for system, interval in intervals.items() if interval is not None},
        )


@dataclass(frozen=True, kw_only=True)
class RetrievalScore:
    """Means ×100 over the judged queries, and the values of every query."""

    name: str
    system: str  # the model, "BM25", or their fusion
    metrics: Mapping[str, float]
    queries: Sequence[str]
    values: Mapping[str, NDArray[np.float64]] = field(repr=False)  # metric -> (queries,)
    run: Mapping[str, Mapping[str, float]] = field(repr=False)


def evaluate_retrieval(
    model: EvalModel,
    data: RetrievalSet,
    *,
    baselines: bool = True,
    depth: int = DEPTH,
    cuts: Sequence[int] = CUTS,
    ignore_identical_ids: bool = False,
    index: str | None = None,
    seed: int = 42,
) -> list[RetrievalScore]:
    """Scores of dense retrieval; with ``baselines`` also of BM25 and the fusion of the two (RRF).

    Args:
        model: what ``open_model`` gave.
        data: what ``read_retrieval`` gave.
        baselines: add the systems ``BM25`` and ``RRF``.
        depth: hits of a query that are scored.
        cuts: the k of the metrics.
        ignore_identical_ids: leave out a hit whose id is the query's.
        index: a kind of index to search through; None: exactly.
        seed: of the index.

    Raises:
        NumericError, EvaluationError: what the model returned cannot be used.
    """
    query_ids, document_ids = list(data.queries), list(data.documents)
    query_texts, document_texts = list(data.queries.values()), list(data.documents.values())
    prompts = {
        role: model.prompt(task=data.name, task_type=Retrieval.task_type, role=role) for role in ("query", "document")
    }
    name = model.identity.name
    hits_wanted = depth + ignore_identical_ids

    def run_of(hits: Hits, floor: float | None = None) -> dict[str, dict[str, float]]:
        return to_run(hits, query_ids, document_ids, drop_own=ignore_identical_ids, depth=depth, floor=floor)

    hits = search(
        model.encode(query_texts, prompt=prompts["query"]),
        model.encode(document_texts, prompt=prompts["document"]),
        hits_wanted,
        similarity=model.identity.similarity,
        index=index,
        seed=seed,
    )
    runs = {name: run_of(hits)}
    if baselines:
        runs["BM25"] = run_of(bm25_search(document_texts, query_texts, hits_wanted), floor=0.0)
        runs[f"RRF({name}, BM25)"] = fuse([runs[name], runs["BM25"]], k=depth)
    return [score_run(data.name, system, run, data.qrels, cuts=cuts) for system, run in runs.items()]


def to_run(
    hits: Hits,
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    *,
    drop_own: bool = False,
    depth: int = DEPTH,
    floor: float | None = None,
) -> dict[str, dict[str, float]]:
    """Positions and scores as a run; hits with position -1 or a score not above ``floor`` are left out."""
    names = np.array(document_ids, dtype=object)
    run: dict[str, dict[str, float]] = {}
    for query, positions, scores in zip(query_ids, hits.ids, hits.scores, strict=True):
        keep = positions >= 0
        if floor is not None:
            keep &= scores > floor
        ranked = dict(zip(names[positions[keep]].tolist(), scores[keep].tolist(), strict=True))
        if drop_own:
            ranked.pop(query, None)
        while len(ranked) > depth:
            ranked.popitem()  # hits come best first
        run[query] = ranked
    return run


def score_run(
    name: str, system: str, run: Mapping[str, Mapping[str, float]], qrels: Qrels, *, cuts: Sequence[int] = CUTS
) -> RetrievalScore:
    """Score any run (also one read from a TREC file) against judgements."""
    values = ranking_scores(qrels, run, cuts)
    means = {metric: 100 * float(array.mean()) for metric, array in values.items()}
    return RetrievalScore(
        name=name, system=system, metrics=means, queries=judged_queries(qrels), values=values, run=run
    )
