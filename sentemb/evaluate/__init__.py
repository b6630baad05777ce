"""Evaluation: STS, pairs, retrieval, reranking, classification, clustering, geometry, mteb; significance; reports.

>>> from sentemb.evaluate import Sts, evaluate_model
>>> evaluate_model("runs/simcse/model", "sts", data_dir="data").averages  # doctest: +SKIP
>>> evaluate_model("runs/simcse/model", [Sts(path="pairs.csv")]).tasks[0].main  # doctest: +SKIP
"""

from sentemb.evaluate.evaluation import dev_score, evaluate_model
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.opening import ModelOptions, open_model
from sentemb.evaluate.report import compare
from sentemb.evaluate.results import Items, Results, TaskResult, fingerprint, read_results, write_results
from sentemb.evaluate.suites import Suite, load_suite
from sentemb.evaluate.task import EvalSetup, Task, Texts
from sentemb.evaluate.tasks.classification import Classification
from sentemb.evaluate.tasks.clustering import Clustering
from sentemb.evaluate.tasks.demonstrations import Demonstrations
from sentemb.evaluate.tasks.episodes import Episodes
from sentemb.evaluate.tasks.geometry import Geometry
from sentemb.evaluate.tasks.label_retrieval import LabelRetrieval
from sentemb.evaluate.tasks.mteb import Mteb
from sentemb.evaluate.tasks.pairs import Pairs
from sentemb.evaluate.tasks.probe import Probe
from sentemb.evaluate.tasks.reranking import Reranking
from sentemb.evaluate.tasks.retrieval import Retrieval
from sentemb.evaluate.tasks.sts import Sts

__all__ = [
    "Classification", "Clustering", "Demonstrations", "Episodes", "EvalModel", "EvalSetup", "Geometry", "Items",
    "LabelRetrieval", "ModelOptions", "Mteb", "Pairs", "Probe", "Reranking", "Results", "Retrieval", "Sts", "Suite",
    "Task", "TaskResult", "Texts", "compare", "dev_score", "evaluate_model", "fingerprint", "load_suite", "open_model",
    "read_results", "write_results",
]  # fmt: skip
