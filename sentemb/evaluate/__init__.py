"""Evaluation: STS, pairs, retrieval, reranking, classification, clustering, geometry, mteb; significance; reports.

The names below are imported when first used: mteb, scikit-learn and torch are loaded by those who need them.

>>> from sentemb.evaluate import Sts, evaluate_model
>>> evaluate_model("runs/simcse/model", "sts", data_dir="data").averages  # doctest: +SKIP
>>> evaluate_model("runs/simcse/model", [Sts(path="pairs.csv")]).tasks[0].main  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentemb.evaluate.comparison import compare
    from sentemb.evaluate.dev import dev_score
    from sentemb.evaluate.evaluation import evaluate_model
    from sentemb.evaluate.model import EvalModel
    from sentemb.evaluate.opening import ModelOptions, open_model
    from sentemb.evaluate.results import Items, Results, TaskResult, fingerprint, read_results, write_results
    from sentemb.evaluate.suites import Suite, load_suite
    from sentemb.evaluate.task import EvalSetup, Task, Texts
    from sentemb.evaluate.tasks.classification import Classification
    from sentemb.evaluate.tasks.clustering import Clustering
    from sentemb.evaluate.tasks.geometry import Geometry
    from sentemb.evaluate.tasks.mteb import Mteb
    from sentemb.evaluate.tasks.pairs import Pairs
    from sentemb.evaluate.tasks.reranking import Reranking
    from sentemb.evaluate.tasks.retrieval import Retrieval
    from sentemb.evaluate.tasks.sts import Sts

_HOME = {
    "comparison": "compare",
    "dev": "dev_score",
    "evaluation": "evaluate_model",
    "model": "EvalModel",
    "opening": "ModelOptions open_model",
    "results": "Items Results TaskResult fingerprint read_results write_results",
    "suites": "Suite load_suite",
    "task": "EvalSetup Task Texts",
    **{f"tasks.{name.lower()}": name for name in (
        "Classification", "Clustering", "Geometry", "Mteb", "Pairs", "Reranking", "Retrieval", "Sts"
    )},
}  # fmt: skip

__all__ = [
    "Classification", "Clustering", "EvalModel", "EvalSetup", "Geometry", "Items", "ModelOptions", "Mteb",
    "Pairs", "Reranking", "Results", "Retrieval", "Sts", "Suite", "Task", "TaskResult", "Texts", "compare", "dev_score",
    "evaluate_model", "fingerprint", "load_suite", "open_model", "read_results", "write_results",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _HOME.items() if name in names.split()), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
