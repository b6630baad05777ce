"""sentemb: train, evaluate and search with sentence embeddings.

The public names below are imported when they are first used, so that ``import sentemb`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentemb.classify import TextClassifier
    from sentemb.companions.companion import Companion
    from sentemb.data.data_source import DataSource
    from sentemb.edits.edit import Edit
    from sentemb.encoder import Encoder
    from sentemb.encoder.convert import convert
    from sentemb.encoder.cross_encoder import CrossEncoder
    from sentemb.encoder.distil import distil
    from sentemb.encoder.export import export
    from sentemb.encoder.merging import merge
    from sentemb.encoder.poolings import Pooling
    from sentemb.errors import SentembError
    from sentemb.evaluate.evaluation import evaluate_model
    from sentemb.evaluate.task import Task
    from sentemb.machine.resources import share_processors
    from sentemb.maths.table import score_table
    from sentemb.mining.run import mine
    from sentemb.parts import Part
    from sentemb.recipe.check import check
    from sentemb.recipe.recipe import EncoderSettings, Recipe
    from sentemb.recipe.train import build, train
    from sentemb.reporting import report
    from sentemb.rerank.train import RerankSettings, train_reranker
    from sentemb.search import SearchIndex
    from sentemb.search.vectors import VectorIndex
    from sentemb.terms.term import Term
    from sentemb.training.callbacks import Callback
    from sentemb.training.run import Run
    from sentemb.training.settings import TrainSettings
    from sentemb.views.view import ViewCopy, ViewMaker

__version__ = "0.1.0"

_HOMES = {
    "classify": "TextClassifier", "companions.companion": "Companion", "data.data_source": "DataSource",
    "edits.edit": "Edit", "encoder": "Encoder", "encoder.convert": "convert",
    "encoder.distil": "distil", "encoder.export": "export", "encoder.merging": "merge",
    "encoder.cross_encoder": "CrossEncoder", "encoder.poolings": "Pooling", "errors": "SentembError",
    "evaluate.evaluation": "evaluate_model", "evaluate.task": "Task", "machine.resources": "share_processors",
    "maths.table": "score_table",
    "mining.run": "mine", "parts": "Part", "recipe.check": "check", "recipe.recipe": "EncoderSettings Recipe",
    "recipe.train": "build train", "reporting": "report", "rerank.train": "RerankSettings train_reranker",
    "search": "SearchIndex", "search.vectors": "VectorIndex",
    "terms.term": "Term", "training.callbacks": "Callback", "training.run": "Run",
    "training.settings": "TrainSettings", "views.view": "ViewCopy ViewMaker",
}  # fmt: skip

__all__ = [
    "Callback", "Companion", "CrossEncoder", "DataSource", "Edit", "Encoder", "EncoderSettings", "Part", "Pooling",
    "Recipe", "RerankSettings", "Run", "SearchIndex", "SentembError", "Task", "Term", "TextClassifier", "TrainSettings",
    "VectorIndex", "ViewCopy", "ViewMaker", "__version__", "build", "check", "convert", "distil", "evaluate_model",
    "export", "merge", "mine", "report", "score_table", "share_processors", "train", "train_reranker",
]  # fmt: skip


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names.split():
            return getattr(importlib.import_module(f"sentemb.{module}"), name)
    raise AttributeError(f"module 'sentemb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
