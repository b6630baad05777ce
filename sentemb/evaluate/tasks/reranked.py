"""Retrieval in two stages: a model's best documents in a cross-encoder's order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sentemb.encoder.pretrained import load_cross_encoder
from sentemb.encoder.source import locate
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import RetrievalSet
from sentemb.evaluate.results import TaskResult
from sentemb.evaluate.retrievers import Ranking
from sentemb.evaluate.significance import bootstrap
from sentemb.evaluate.task import EvalSetup
from sentemb.evaluate.tasks.retrieval import Retrieval, score_run
from sentemb.parts import Count


@dataclass(frozen=True, kw_only=True)
class Reranked(Retrieval):
    """nDCG@10, or another metric of ranked lists, after a cross-encoder has ordered the model's best documents.

    The report has the model alone beside it, and the gain of reranking query by query, with its paired interval.

    Args:
        reranker: a cross-encoder: a folder or hub id.
        depth: documents of a query that are reranked; those behind them are left out.

    Source: Thakur et al. 2021, NeurIPS (BEIR); scores by trec_eval.
    Deviations: as ``retrieval``; documents that are not reranked count as not found.
    """

    reranker: str
    depth: Count = 50
    baselines: bool = False

    def missing(self, setup: EvalSetup) -> list[str]:
        locate(self.reranker)
        return super().missing(setup)

    def run(self, data: RetrievalSet, model: EvalModel, setup: EvalSetup) -> TaskResult:
        first = next(iter(self.runs(data, model).values()))
        run = self.reordered(first, data)
        (means, items), (before, values) = (score_run(one, data.qrels, self.metric) for one in (run, first))
        name, gains = model.identity.name, np.subtract(items.values, values.values)
        alone, gain = setup.interval(values)[0], None
        if setup.resamples and len(gains) > 1:
            gain = bootstrap(gains, resamples=setup.resamples, seed=setup.seed).in_points()
        result = self.result(
            setup, metric=self.metric, metrics=means, protocol=f"beir, {self.depth} reranked", items=items,
            split=self.split,
        )
        intervals = {f"{name} alone": alone, "gain": gain}
        return replace(
            result, baselines={f"{name} alone": before[self.metric], "gain": 100 * float(gains.mean())},
            baseline_intervals={system: interval for system, interval in intervals.items() if interval is not None},
        )

    def reordered(self, run: Ranking, data: RetrievalSet) -> Ranking:
        """The first ``depth`` documents of every query in the cross-encoder's order."""
        chosen = {query: list(hits)[: self.depth] for query, hits in run.items()}
        pairs = [(data.queries[query], data.documents[name]) for query, names in chosen.items() for name in names]
        scores = iter(np.asarray(load_cross_encoder(self.reranker)(pairs), dtype=np.float32).tolist())
        return {query: {name: next(scores) for name in names} for query, names in chosen.items()}
