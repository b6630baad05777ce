"""Evaluation tasks: what ``[[tasks]]`` of a suite, ``[[dev]]`` of a recipe and ``sentemb eval --task`` name."""

from __future__ import annotations

from sentemb.evaluate.task import Task

PARTS: dict[str, type[Task] | str] = {
    "sts": "sentemb.evaluate.tasks.sts:Sts",
    "pairs": "sentemb.evaluate.tasks.pairs:Pairs",
    "retrieval": "sentemb.evaluate.tasks.retrieval:Retrieval",
    "reranking": "sentemb.evaluate.tasks.reranking:Reranking",
    "classification": "sentemb.evaluate.tasks.classification:Classification",
    "clustering": "sentemb.evaluate.tasks.clustering:Clustering",
    "geometry": "sentemb.evaluate.tasks.geometry:Geometry",
    "mteb": "sentemb.evaluate.tasks.mteb:Mteb",
}
