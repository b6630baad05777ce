"""Reranking: how well a model orders the candidates that a first stage gave each query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sentemb.evaluate.metrics import check_metric
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import RetrievalSet, read_candidates, read_retrieval, retrieval_files
from sentemb.evaluate.results import TaskResult
from sentemb.evaluate.retrievers import rerank
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
        retrieval_files(setup.data.path(self.path), self.split)
        self._candidates_file(setup)
        return []

    def _candidates_file(self, setup: EvalSetup) -> Path:
        beside = setup.data.path(self.path) / self.candidates
        return beside if beside.is_file() else setup.data.path(self.candidates)

    def load(self, setup: EvalSetup) -> tuple[RetrievalSet, Candidates]:
        data = read_retrieval(setup.data.path(self.path), self.split)
        return data, read_candidates(self._candidates_file(setup), data)

    def texts(self, data: tuple[RetrievalSet, Candidates]) -> Sequence[Texts]:
        judged, candidates = data
        documents = [judged.documents[document] for document in _distinct(candidates)]
        return [Texts(texts=list(judged.queries.values()), role="query"), Texts(texts=documents, role="document")]

    def run(self, data: tuple[RetrievalSet, Candidates], model: EvalModel, setup: EvalSetup) -> TaskResult:
        judged, candidates = data
        queries, documents = (self.encode(model, column.texts, column.role) for column in self.texts(data))
        run = rerank(
            dict(zip(judged.queries, queries, strict=True)),
            dict(zip(_distinct(candidates), documents, strict=True)),
            candidates,
            similarity=model.identity.similarity,
        )
        means, items = score_run(run, judged.qrels, self.metric)
        protocol = "given candidates"
        return self.result(setup, metric=self.metric, metrics=means, protocol=protocol, items=items, split=self.split)


def _distinct(candidates: Candidates) -> list[str]:
    return list(dict.fromkeys(document for documents in candidates.values() for document in documents))
