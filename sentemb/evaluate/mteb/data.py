"""Data of mteb's tasks on disk: what a task needs and what is missing.

mteb's tasks name their repositories relatively (``mteb/sts12-sts``), and ``datasets`` prefers a folder of that name
over the hub; so tasks are loaded with the data folder as the working folder, whatever way they load. Nothing of a task
is changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentemb.errors import EvaluationError, did_you_mean, first_line, needs_extra


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A data set repository of the hub and the tasks that read it."""

    name: str  # mteb/sts12-sts
    revision: str | None
    tasks: tuple[str, ...]


@contextlib.contextmanager
def local_data(root: Path | None, repository: str = "") -> Iterator[None]:
    """Data sets that ``root`` has are read from there; without a root nothing changes.

    ``datasets`` caches a folder that has a card (README.md with configurations) by its name alone: another mirror, or
    an edited file, would silently give the old rows. So its cache is kept apart by what lies in the folder.
    """
    import datasets

    if root is None:
        yield
        return
    folder = root / repository
    usual = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = Path(usual) / "sentemb-local" / _contents(folder if folder.is_dir() else root)
    try:
        with contextlib.chdir(root):
            yield
    finally:
        datasets.config.HF_DATASETS_CACHE = usual


def _contents(folder: Path) -> str:
    """A hash of the names, sizes and times of a folder's files, and of where it is."""
    total = hashlib.sha256(str(folder).encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            facts = path.stat()
            total.update(f"{path.relative_to(folder)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return total.hexdigest()[:16]


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """mteb, datasets and the hub keep their warnings and bars to themselves."""
    needs_extra("datasets", "data")
    import datasets

    names = ("mteb", "datasets", "huggingface_hub", "sentence_transformers")
    levels = {name: logging.getLogger(name).level for name in names}
    bars = datasets.utils.logging.is_progress_bar_enabled()
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def resolve_tasks(names: Sequence[str] = (), *, benchmark: str | None = None, subsets: Sequence[str] = ()) -> list[Any]:
    """mteb's tasks by name, or those of one of its benchmarks; with both, these tasks as the benchmark has them.

    Raises: EvaluationError: an unknown task, benchmark or subset; proposes the nearest name.
    """
    needs_extra("mteb", "eval")
    import mteb

    if benchmark is not None:
        try:
            tasks = {task.metadata.name: task for task in mteb.get_benchmark(benchmark).tasks}
        except KeyError:
            known = [one.name for one in mteb.get_benchmarks()]
            raise EvaluationError(f'mteb has no benchmark "{benchmark}"{did_you_mean(benchmark, known)}') from None
        unknown = [name for name in names if name not in tasks]
        if unknown:
            raise EvaluationError(f'{benchmark} has no task "{unknown[0]}"{did_you_mean(unknown[0], tasks)}')
        return [tasks[name] for name in names or tasks]
    loaded = []
    for name in names:
        try:
            with quiet_libraries():
                loaded.append(mteb.get_task(name, hf_subsets=list(subsets) or None))
        except KeyError:
            raise EvaluationError(f'mteb has no task "{name}"{_near(name)}') from None
        except ValueError as error:
            raise EvaluationError(f"{name}: {error}") from None
    return loaded


def _near(name: str) -> str:
    import difflib

    from mteb.get_tasks import get_tasks

    known = [task.metadata.name for task in get_tasks()]  # more than a thousand: too many to list
    lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), lower, n=3)
    return f"; did you mean {' or '.join(lower[one] for one in close)}?" if close else ""


def leaves(task: Any) -> list[Any]:
    """The task, or the tasks that an aggregate consists of."""
    return [leaf for part in task.tasks for leaf in leaves(part)] if task.is_aggregate else [task]


def repositories(tasks: Sequence[Any]) -> list[Repository]:
    """Every repository that the tasks read, once."""
    readers: dict[tuple[str, str | None], list[str]] = {}
    for task in tasks:
        for leaf in leaves(task):
            spec = leaf.metadata.dataset
            readers.setdefault((spec["path"], spec.get("revision")), []).append(leaf.metadata.name)
    return [
        Repository(name=name, revision=revision, tasks=tuple(dict.fromkeys(names)))
        for (name, revision), names in readers.items()
    ]


def missing_data(tasks: Sequence[Any], root: Path) -> list[str]:
    """What the tasks lack in a data folder: repositories, or configurations that a repository's card names."""
    from datasets import get_dataset_config_names, get_dataset_split_names

    missing = []
    with quiet_libraries():
        for leaf in (leaf for task in tasks for leaf in leaves(task)):
            repository = leaf.metadata.dataset["path"]
            where = f"{leaf.metadata.name}: {repository}"
            if not (root / repository).is_dir():
                missing.append(f"{where}: no folder {root / repository}")
                continue
            with local_data(root, repository):
                try:
                    for config in get_dataset_config_names(repository):
                        get_dataset_split_names(repository, config)
                except Exception as error:  # datasets raises many kinds for a folder that it cannot make sense of
                    missing.append(f"{where}: cannot be read: {first_line(error)}")
    return missing


def tasks_of_repository(repository: str) -> list[Any]:
    """mteb's tasks that read a repository (it knows the revision); none where mteb does not know it."""
    needs_extra("mteb", "eval")
    import mteb

    with quiet_libraries():
        return [task for task in mteb.get_tasks() if task.metadata.dataset["path"] == repository]
