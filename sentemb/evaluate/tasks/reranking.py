"""Reranking: how well a model orders the candidates that a first stage gave each query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading.retrieval import RetrievalSet, folder_faults, read_candidates, read_retrieval
from sentemb.evaluate.reports.results import TaskResult
from sentemb.evaluate.retrievers import rerank
from sentemb.evaluate.statistics.ranking import check_metric
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.evaluate.tasks.retrieval import score_run

Candidates = dict[str, list[str]]  # query -> documents


@dataclass(frozen=True, kw_only=True)
class Reranking(Task):
    """MAP, or another metric of ranked lists, of each query's own candidates in the model's order.

    Args:
        path: a folder with corpus, queries and qrels/SPLIT, in BEIR's or the hub's layout.
        candidates: a file in that folder, or any path: rows with ``query-id`` and ``corpus-ids``, or a TREC run.
        split: of the judgements.
        metric: ``map``, ``ndcg``, ``mrr``, ``recall``, ``precision`` or ``hit_rate``, then ``@K``.

    Source: Muennighoff et al. 2023, EACL, section 3.2.
    Deviations: none; relevant documents that are no candidates count as not found.
    """

    task_type: ClassVar[str] = "Reranking"
    packages: ClassVar[tuple[str, ...]] = ("pytrec_eval",)

    path: str
    candidates: str = "top_ranked.jsonl"
    split: str = "test"
    metric: str = "map@1000"

    def __post_init__(self) -> None:
        check_metric(self.metric)

    def missing(self, setup: EvalSetup) -> list[str]:
        if lacking := super().missing(setup):
            return lacking
        folder = setup.data.path(self.path)
        lacking = folder_faults(folder, self.split)
        return lacking if (folder / self.candidates).is_file() else [*lacking, *setup.data.lacks(self.candidates)]

    def load(self, setup: EvalSetup) -> tuple[RetrievalSet, Candidates]:
        folder = setup.data.path(self.path)
        data = read_retrieval(folder, split=self.split, name=self.label)
        beside = folder / self.candidates
        return data, read_candidates(beside if beside.is_file() else setup.data.path(self.candidates), data)

    def texts(self, data: tuple[RetrievalSet, Candidates]) -> Sequence[Texts]:
        judged = data[0]
        documents = [judged.documents[document] for document in self._documents(data)]
        return [Texts(texts=list(judged.queries.values()), role="query"), Texts(texts=documents, role="document")]

    def _documents(self, data: tuple[RetrievalSet, Candidates]) -> list[str]:
        """Every candidate, once."""
        judged, candidates = data
        return list(dict.fromkeys(document for query in judged.queries for document in candidates[query]))

    def run(self, data: tuple[RetrievalSet, Candidates], model: EvalModel, setup: EvalSetup) -> TaskResult:
        judged, candidates = data
        queries, documents = self.texts(data)
        vectors = self.encode(model, documents.texts, "document")
        row = {document: i for i, document in enumerate(self._documents(data))}
        by_query = dict(zip(judged.queries, self.encode(model, queries.texts, "query"), strict=True))
        run = rerank(by_query, vectors, row, candidates, similarity=model.identity.similarity)
        means, items = score_run(run, judged.qrels, self.metric)
        protocol = "given candidates"
        return self.result(setup, metric=self.metric, metrics=means, protocol=protocol, items=items, split=self.split)
