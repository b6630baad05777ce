"""Who evaluates: sentemb's own path, mteb with sentemb's encoder, mteb with sentence-transformers (as its users do)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[], dict[str, Any]]


def own(tasks: list[str], data: str, model: str, precision: str) -> Work:
    """`sentemb eval` on its own protocols, intervals included; a fresh memory every round."""
    from sentemb.evaluate.memo import Memo
    from sentemb.evaluate.model import open_model
    from sentemb.evaluate.plan import Settings
    from sentemb.evaluate.run import run_suite
    from sentemb.evaluate.sts import SEVEN
    from sentemb.evaluate.suites import Job, Suite

    opened = open_model(model, precision=precision)
    sts = [name for name in tasks if name in SEVEN]
    jobs = [Job("sts", {"protocol": "mteb", "sets": sts})] if sts else []
    jobs += [Job("retrieval", {"path": f"mteb/{name.lower()}", "name": name, "baselines": False})
             for name in tasks if name not in SEVEN]
    suite = Suite("bench", "", jobs)

    def work() -> dict[str, Any]:
        opened.memo = Memo()
        before = opened.seconds
        found = run_suite(opened, suite, Settings(data_dir=Path(data)))
        assert not found.failures, found.failures
        return {"scores": {task.task: task.main for task in found.tasks}, "texts": found.texts,
                "encode_s": opened.seconds - before}

    return work


def through_mteb(tasks: list[str], data: str, model: str, precision: str) -> Work:
    """mteb.evaluate with sentemb's encoder and search; a fresh memory every round."""
    from sentemb.evaluate.memo import Memo
    from sentemb.evaluate.model import open_model
    from sentemb.evaluate.plan import Settings
    from sentemb.evaluate.run import run_suite
    from sentemb.evaluate.suites import Job, Suite

    opened = open_model(model, precision=precision)
    suite = Suite("bench", "", [Job("mteb", {"tasks": tasks})])

    def work() -> dict[str, Any]:
        opened.memo = Memo()
        before = opened.seconds
        found = run_suite(opened, suite, Settings(data_dir=Path(data)))
        assert not found.failures, found.failures
        return {"scores": {task.task: task.main for task in found.tasks}, "texts": found.texts,
                "encode_s": opened.seconds - before}

    return work


def peer(tasks: list[str], data: str, model: str) -> Work:
    """mteb.evaluate on a SentenceTransformer, both with their defaults, on the same local data."""
    import mteb
    from sentence_transformers import SentenceTransformer

    from sentemb.encoder.source import locate
    from sentemb.evaluate.mteb_data import data_folder, local_data, quiet_libraries, resolve_tasks

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
