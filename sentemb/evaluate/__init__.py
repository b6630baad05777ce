"""Evaluation: STS, MTEB, retrieval, transfer, geometry, significance, reports.

The names below are imported when first used: mteb, scikit-learn and torch are loaded by those who need them.

>>> from sentemb.evaluate import Settings, load_suite, open_model, run_suite
>>> results = run_suite(open_model("runs/simcse/model"), load_suite("sts"), Settings())  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentemb.evaluate.model import EvalModel, ModelOptions, open_model
    from sentemb.evaluate.mteb_encoder import MtebEncoder
    from sentemb.evaluate.pairs import PairSet, read_pairs
    from sentemb.evaluate.results import Results, read_results, write_results
    from sentemb.evaluate.retrieval import evaluate_retrieval, read_retrieval
    from sentemb.evaluate.run import run_suite
    from sentemb.evaluate.sts import evaluate_sts, sts_dev, sts_sets
    from sentemb.evaluate.suites import Suite, load_suite
    from sentemb.evaluate.transfer import evaluate_transfer
    from sentemb.evaluate.work import Settings

_HOME = {
    "EvalModel": "model",
    "ModelOptions": "model",
    "MtebEncoder": "mteb_encoder",
    "PairSet": "pairs",
    "Results": "results",
    "Settings": "work",
    "Suite": "suites",
    "evaluate_retrieval": "retrieval",
    "evaluate_sts": "sts",
    "evaluate_transfer": "transfer",
    "load_suite": "suites",
    "open_model": "model",
    "read_pairs": "pairs",
    "read_results": "results",
    "read_retrieval": "retrieval",
    "run_suite": "run",
    "sts_dev": "sts",
    "sts_sets": "sts",
    "write_results": "results",
}

__all__ = [
    "EvalModel",
    "ModelOptions",
    "MtebEncoder",
    "PairSet",
    "Results",
    "Settings",
    "Suite",
    "evaluate_retrieval",
    "evaluate_sts",
    "evaluate_transfer",
    "load_suite",
    "open_model",
    "read_pairs",
    "read_results",
    "read_retrieval",
    "run_suite",
    "sts_dev",
    "sts_sets",
    "write_results",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
