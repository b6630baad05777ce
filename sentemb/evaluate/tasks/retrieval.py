"""Retrieval: how high a query's relevant documents rank among all documents of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from sentemb.evaluate.metrics import CUTS, Qrels, Run, check_metric, judged_queries, map_at_r, ranking_scores
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import RetrievalSet, read_retrieval, retrieval_files, write_run
from sentemb.evaluate.results import Items, TaskResult, fingerprint
from sentemb.evaluate.retrievers import Ranking, bm25_search, fuse, to_run
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.maths.neighbours import top
from sentemb.types import Hits

DEPTH = 1000  # hits of a query that are scored, as trec_eval and MTEB


@dataclass(frozen=True, kw_only=True)
class Retrieval(Task):
    """nDCG@10, or another metric of ranked lists, of dense search over a whole corpus.

    Queries whose judgements are all 0 are left out, as in BEIR and MTEB.

    Args:
        path: a folder with corpus, queries and qrels/SPLIT, in BEIR's or the hub's layout.
        split: of the judgements.
        metric: ``ndcg``, ``map``, ``mrr``, ``recall``, ``precision`` or ``hit_rate``, then ``@K``; or ``map@r``, cut at
            the number of a query's relevant documents.
        baselines: report BM25 and its fusion with the model (RRF) beside it.
        ignore_identical_ids: leave out a hit whose id is the query's (duplicate questions, ArguAna).

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

    def __post_init__(self) -> None:
        check_metric(self.metric)

    def missing(self, setup: EvalSetup) -> list[str]:
        retrieval_files(setup.data.path(self.path), self.split)
        return []

    def load(self, setup: EvalSetup) -> RetrievalSet:
        return read_retrieval(setup.data.path(self.path), self.split)

    def texts(self, data: RetrievalSet) -> Sequence[Texts]:
        return [
            Texts(texts=list(data.queries.values()), role="query"),
            Texts(texts=list(data.documents.values()), role="document"),
        ]

    def run(self, data: RetrievalSet, model: EvalModel, setup: EvalSetup) -> TaskResult:
        runs = self.runs(data, model)
        ours, *others = runs
        if setup.output is not None:
            write_run(setup.output / "runs" / f"{self.label}.{self.split}.trec", runs[ours])
        scores = {system: score_run(run, data.qrels, self.metric) for system, run in runs.items()}
        means, items = scores[ours]
        intervals = {system: setup.interval(scores[system][1])[0] for system in others}
        return replace(
            self.result(setup, metric=self.metric, metrics=means, protocol="beir", items=items, split=self.split),
            baselines={system: scores[system][0][self.metric] for system in others},
            baseline_intervals={system: interval for system, interval in intervals.items() if interval is not None},
        )

    def runs(self, data: RetrievalSet, model: EvalModel) -> dict[str, Ranking]:
        """The ranked documents of every query: the model's own, then those of BM25 and of the fusion of the two."""
        query_ids, document_ids = list(data.queries), list(data.documents)
        queries, documents = (column.texts for column in self.texts(data))
        depth = DEPTH + self.ignore_identical_ids

        def run_of(hits: Hits) -> Ranking:
            run = to_run(hits, query_ids, document_ids)
            if not self.ignore_identical_ids:
                return run
            return {query: dict([hit for hit in row.items() if hit[0] != query][:DEPTH]) for query, row in run.items()}

        name, similarity = model.identity.name, model.identity.similarity
        vectors = self.encode(model, queries, "query"), self.encode(model, documents, "document")
        runs = {name: run_of(top(*vectors, depth, metric=similarity))}
        if self.baselines:
            runs["BM25"] = run_of(bm25_search(documents, queries, depth))
            runs[f"RRF({name}, BM25)"] = fuse([runs[name], runs["BM25"]], DEPTH)
        return runs


def score_run(run: Run, qrels: Qrels, metric: str) -> tuple[dict[str, float], Items]:
    """Every metric ×100, and the values of ``metric`` query by query."""
    cut = metric.partition("@")[2]
    cuts = sorted({*CUTS, int(cut)} if cut.isdigit() else CUTS)
    values = ranking_scores(qrels, run, cuts) | {"map@r": map_at_r(qrels, run)}
    means = {name: 100 * float(of_queries.mean()) for name, of_queries in values.items()}
    return means, Items(fingerprint=fingerprint(judged_queries(qrels)), values=values[metric].tolist())
