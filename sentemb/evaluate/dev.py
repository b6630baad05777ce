"""What ``[[dev]]`` of a recipe evaluates while training: any tasks, each by its main metric, and their mean.

>>> from sentemb.evaluate import Retrieval, Sts
>>> score = dev_score([Sts(protocol="simcse", split="dev"), Retrieval(path="dev", metric="mrr@10")])  # doctest: +SKIP
>>> score(encoder).value  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sentemb.errors import EvaluationError
from sentemb.evaluate.data_folder import DataFolder
from sentemb.evaluate.evaluation import EvalPlan
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.opening import of_encoder, open_model
from sentemb.evaluate.suites import Suite
from sentemb.evaluate.task import EvalSetup, Task, texts_by_prompt
from sentemb.types import DevScores, Embedder


def check_dev(tasks: Sequence[Task], *, data_dir: str | Path | None = None, seed: int = 42) -> list[str]:
    """What is wrong with dev tasks or lacking for them, a message each; reads no rows."""
    faults = [
        f"{task.label}: a {task.task_type} score is a description; it cannot choose a checkpoint"
        for task in tasks
        if not task.higher_is_better
    ]
    suite = Suite(name="dev", title="dev", tasks=tuple(task for task in tasks if task.higher_is_better))
    return faults + [entry.error for entry in EvalPlan.of(suite, _setup(data_dir, seed)).missing]


def dev_score(
    tasks: Sequence[Task], *, data_dir: str | Path | None = None, precision: str = "auto", seed: int = 42
) -> Callable[[Embedder], DevScores]:
    """A function that scores the encoder as it is now; the data are read here, once.

    The texts of all tasks are encoded in one pass, every distinct text once.

    Args:
        tasks: several are weighted equally; a task that stands for several sets (``sts``) counts once, by their mean.
        data_dir: the data folder; by default ``SENTEMB_DATA``.
        precision: overrides the encoder's own; ``auto`` leaves it.
        seed: of draws and folds: the same at every evaluation.

    Raises: EvaluationError, DataError: something is missing or malformed; lists all that is missing.
    """
    faults = check_dev(tasks, data_dir=data_dir, seed=seed)
    if faults or not tasks:
        raise EvaluationError("\n".join(faults) or "dev: no task is given")
    setup = _setup(data_dir, seed)
    loaded = [[(one, one.load(setup)) for one in task.expand(setup)] for task in tasks]
    names = _distinct([task.label for task in tasks])

    def evaluate(encoder: Embedder) -> DevScores:
        model = _model(encoder, precision)
        for prompt, texts in texts_by_prompt(model, [pair for group in loaded for pair in group]).items():
            model.encode(texts, prompt=prompt)
        scores = {
            name: float(np.mean([one.run(data, model, setup).main for one, data in group]))
            for name, group in zip(names, loaded, strict=True)
        }
        return DevScores(value=float(np.mean(list(scores.values()))), scores=scores)

    return evaluate


def _setup(data_dir: str | Path | None, seed: int) -> EvalSetup:
    return EvalSetup(data=DataFolder.find(data_dir), resamples=0, seed=seed)


def _model(encoder: Embedder, precision: str) -> EvalModel:
    from sentemb.encoder import Encoder

    if isinstance(encoder, Encoder):
        return of_encoder(encoder, name="the encoder", precision=precision, is_training=True)
    return open_model(encoder)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names with a number where one occurs again."""
    return [name if name not in names[:i] else f"{name} {names[:i].count(name) + 1}" for i, name in enumerate(names)]
