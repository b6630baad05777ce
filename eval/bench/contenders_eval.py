"""Who evaluates: sentemb's own path, mteb with sentemb's encoder, mteb with sentence-transformers (as its users do)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Work = Callable[[], dict[str, Any]]


def ours(tasks: list[str], data: str, model: str, precision: str, path: str) -> Work:
    """sentemb's encoder and search, intervals included, a fresh memory every round; ``path`` is ``own`` (sentemb's
    protocols) or ``mteb`` (under mteb.evaluate)."""
    from sentemb.evaluate import ModelOptions, evaluate_model, open_model
    from sentemb.evaluate.model import VectorMemory

    opened = open_model(model, ModelOptions(precision=precision))
    chosen = own_tasks(tasks) if path == "own" else _mteb_tasks(tasks)

    def work() -> dict[str, Any]:
        opened.memory = VectorMemory()
        before = opened.seconds
        results = evaluate_model(opened, chosen, data_dir=data)
        assert not results.failures, results.failures
        return {"scores": {task.task: task.main for task in results.tasks}, "texts": results.texts,
                "encode_s": opened.seconds - before}

    return work


def own_tasks(names: list[str]) -> list[Any]:
    from sentemb.evaluate import Retrieval, Sts
    from sentemb.evaluate.tasks.sts import SEVEN

    sts = tuple(name for name in names if name in SEVEN)
    retrieval = [Retrieval(path=f"mteb/{name.lower()}", name=name, baselines=False)
                 for name in names if name not in SEVEN]
    return [*([Sts(protocol="mteb", sets=sts)] if sts else []), *retrieval]


def _mteb_tasks(names: list[str]) -> list[Any]:
    from sentemb.evaluate import Mteb

    return [Mteb(tasks=tuple(names))]


def peer(tasks: list[str], data: str, model: str) -> Work:
    """mteb.evaluate on a SentenceTransformer, both with their defaults, on the same local data."""
    import mteb
    from sentence_transformers import SentenceTransformer

    from sentemb.encoder.source import locate
    from sentemb.evaluate.data_folder import DataFolder
    from sentemb.evaluate.mteb.data import local_data, quiet_libraries, resolve_tasks

    opened = SentenceTransformer(str(locate(model)), device="cpu")
    root = DataFolder.find(data).hub

    def work() -> dict[str, Any]:
        scores = {}
        with quiet_libraries():
            for task in resolve_tasks(tasks):
                with local_data(root, task.metadata.dataset["path"]):
                    task.load_data()
                found = mteb.evaluate(opened, task, cache=None, show_progress_bar=False, co2_tracker=False)
                scores[task.metadata.name] = 100 * found.task_results[0].get_score()
        return {"scores": scores}

    return work
