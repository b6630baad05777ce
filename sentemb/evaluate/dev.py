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
from sentemb.evaluate.evaluation import encode_ahead, plans_of
from sentemb.evaluate.opening import ModelOptions, of_encoder, open_model
from sentemb.evaluate.suites import Suite
from sentemb.evaluate.task import EvalSetup, Task
from sentemb.types import DevScores, Embedder


def check_dev(tasks: Sequence[Task], *, data_dir: str | Path | None = None, seed: int = 42) -> list[str]:
    """What is wrong with dev tasks or lacking for them, a message each."""
    faults = [
        f"{task.label}: a {task.task_type} score is a description; it cannot choose a checkpoint"
        for task in tasks
        if not task.higher_is_better
    ]
    suite = Suite(name="dev", title="dev", tasks=tuple(task for task in tasks if task.higher_is_better))
    (plan,) = plans_of([suite], _setup(data_dir, seed), skip_missing=True)
    return faults + [entry.error for entry in plan.missing]


def dev_score(
    tasks: Sequence[Task], *, data_dir: str | Path | None = None, precision: str = "auto", seed: int = 42
) -> Callable[[Embedder], DevScores]:
    """A function that scores the encoder as it is now; the data are read here, once.

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
    labels = [task.label for task in tasks]
    # with a number where a name occurs again
    names = [f"{name} {labels[:i].count(name) + 1}" if name in labels[:i] else name for i, name in enumerate(labels)]

    def evaluate(encoder: Embedder) -> DevScores:
        from sentemb.encoder import Encoder

        if isinstance(encoder, Encoder):
            model = of_encoder(encoder, "the encoder", ModelOptions(precision=precision), is_training=True)
        else:
            model = open_model(encoder)
        encode_ahead(model, [pair for group in loaded for pair in group])
        scores = {
            name: float(np.mean([one.run(data, model, setup).main for one, data in group]))
            for name, group in zip(names, loaded, strict=True)
        }
        return DevScores(value=float(np.mean(list(scores.values()))), scores=scores)

    return evaluate


def _setup(data_dir: str | Path | None, seed: int) -> EvalSetup:
    return EvalSetup(data=DataFolder.find(data_dir), resamples=0, seed=seed)
