"""Tasks that mteb itself runs and scores, with our model and search underneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.results import TaskResult
from sentemb.evaluate.task import EvalSetup, Task


@dataclass(frozen=True, kw_only=True)
class Mteb(Task):
    """mteb's own score of one of its tasks; its results tree under the output folder is read and continued.

    Args:
        tasks: names of mteb's tasks.
        benchmark: a benchmark of mteb's, all of it or, with ``tasks``, these tasks as it has them.
        subsets: of each task: only these subsets (languages).
        overwrite: what happens to results in the output folder, in mteb's words.

    Source: Muennighoff et al. 2023, EACL; Enevoldsen et al. 2025, ICLR.
    Deviations: none; the scores are mteb's, the intervals are ours.
    """

    task_type: ClassVar[str] = "mteb"

    tasks: tuple[str, ...] = ()
    benchmark: str | None = None
    subsets: tuple[str, ...] = ()
    overwrite: Literal["only-missing", "always", "never", "only-cache"] = "only-missing"

    def __post_init__(self) -> None:
        if not self.tasks and self.benchmark is None:
            raise ValueError("tasks or benchmark is needed")

    @property
    def label(self) -> str:
        return self.name or (self.tasks[0] if len(self.tasks) == 1 else self.benchmark or "mteb")

    def mteb_tasks(self) -> list[Any]:
        """mteb's own task objects.

        Raises: EvaluationError: an unknown task, benchmark or subset.
        """
        from sentemb.evaluate.mteb.data import resolve_tasks

        return resolve_tasks(self.tasks, benchmark=self.benchmark, subsets=self.subsets)

    def expand(self, setup: EvalSetup) -> Sequence[Task]:
        return [replace(self, tasks=(task.metadata.name,)) for task in self.mteb_tasks()]

    def missing(self, setup: EvalSetup) -> list[str]:
        from sentemb.evaluate.mteb.data import missing_data

        root = setup.data.hub
        return [] if root is None else missing_data(self.mteb_tasks(), root)

    def load(self, setup: EvalSetup) -> Any:
        return self.mteb_tasks()[0]

    def run(self, data: Any, model: EvalModel, setup: EvalSetup) -> TaskResult:
        from sentemb.evaluate.mteb.encoder import MtebEncoder
        from sentemb.evaluate.mteb.run import run_task

        return run_task(data, MtebEncoder(model), setup=setup, overwrite=self.overwrite)
