"""Evaluation tasks: what ``[[tasks]]`` of a suite, ``[[dev]]`` of a recipe and ``sentemb eval --task`` name."""

from __future__ import annotations

from sentemb.evaluate.task import Task

PARTS: dict[str, type[Task] | str] = {
    "sts": "sentemb.evaluate.tasks.sts:Sts",
    "pairs": "sentemb.evaluate.tasks.pairs:Pairs",
    "retrieval": "sentemb.evaluate.tasks.retrieval:Retrieval",
    "reranked": "sentemb.evaluate.tasks.reranked:Reranked",
    "reranking": "sentemb.evaluate.tasks.reranking:Reranking",
    "classification": "sentemb.evaluate.tasks.classification:Classification",
    "clustering": "sentemb.evaluate.tasks.clustering:Clustering",
    "demonstrations": "sentemb.evaluate.tasks.demonstrations:Demonstrations",
    "episodes": "sentemb.evaluate.tasks.episodes:Episodes",
    "label_retrieval": "sentemb.evaluate.tasks.label_retrieval:LabelRetrieval",
    "probe": "sentemb.evaluate.tasks.probe:Probe",
    "geometry": "sentemb.evaluate.tasks.geometry:Geometry",
    "mteb": "sentemb.evaluate.tasks.mteb:Mteb",
}
