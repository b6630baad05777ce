"""Who evaluates: sentemb's own path, mteb with sentemb's encoder, mteb with sentence-transformers (as its users do)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[], dict[str, Any]]


def ours(tasks: list[str], data: str, model: str, precision: str, path: str) -> Work:
    """sentemb's encoder and search, intervals included, a fresh memory every round; ``path`` is ``own`` (sentemb's
    protocols) or ``mteb`` (under mteb.evaluate)."""
    from sentemb.evaluate.memo import Memo
    from sentemb.evaluate.work import Settings

    from sentemb.evaluate.evaluation import run_suite
    from sentemb.evaluate.opening import ModelOptions, open_model
    from sentemb.evaluate.suites import Job, Suite

    opened = open_model(model, ModelOptions(precision=precision))
    suite = Suite("bench", "", _own_jobs(tasks) if path == "own" else [Job("mteb", {"tasks": tasks})])

    def work() -> dict[str, Any]:
        opened.memo = Memo()
        before = opened.seconds
        found = run_suite(opened, suite, Settings(data_dir=Path(data)))
        assert not found.failures, found.failures
        return {"scores": {task.task: task.main for task in found.tasks}, "texts": found.texts,
                "encode_s": opened.seconds - before}

    return work


def _own_jobs(tasks: list[str]) -> list[Any]:
    from sentemb.evaluate.suites import Job
    from sentemb.evaluate.tasks.sts import SEVEN

    sts = [name for name in tasks if name in SEVEN]
    jobs = [Job("sts", {"protocol": "mteb", "sets": sts})] if sts else []
    return jobs + [Job("retrieval", {"path": f"mteb/{name.lower()}", "name": name, "baselines": False})
                   for name in tasks if name not in SEVEN]


def peer(tasks: list[str], data: str, model: str) -> Work:
    """mteb.evaluate on a SentenceTransformer, both with their defaults, on the same local data."""
    import mteb
    from sentence_transformers import SentenceTransformer

    from sentemb.encoder.source import locate
    from sentemb.evaluate.mteb.data import data_folder, local_data, quiet_libraries, resolve_tasks

    opened = SentenceTransformer(str(locate(model)), device="cpu")
    root = data_folder(data)

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
