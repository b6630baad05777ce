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
    found = []
    for name in names:
        try:
            with quiet_libraries():
                found.append(mteb.get_task(name, hf_subsets=list(subsets) or None))
        except KeyError:
            raise EvaluationError(f'mteb has no task "{name}"{_near(name)}') from None
        except ValueError as error:
            raise EvaluationError(f"{name}: {error}") from None
    return found


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
    """What the tasks lack in a data folder: repositories, configurations, splits, languages."""
    missing = []
    with quiet_libraries():
        for leaf in (leaf for task in tasks for leaf in leaves(task)):
            name, repository = leaf.metadata.name, leaf.metadata.dataset["path"]
            with local_data(root, repository):
                try:
                    is_there = (root / repository).is_dir()
                    faults = [*_faults(leaf, repository)] if is_there else [f"no folder {root / repository}"]
                except Exception as error:  # datasets raises many kinds for a folder that it cannot make sense of
                    faults = [f"cannot be read: {first_line(error)}"]
            missing += [f"{name}: {repository}: {fault}" for fault in faults]
    return missing


def _faults(task: Any, repository: str) -> Iterator[str]:
    from datasets import get_dataset_config_names
    from mteb.abstasks import AbsTask, AbsTaskRetrieval

    configs = get_dataset_config_names(repository)
    loader = type(task).load_data
    if loader is AbsTaskRetrieval.load_data:
        yield from _retrieval_faults(task, repository, configs)
    elif loader is AbsTask.load_data:
        yield from _plain_faults(task, repository, configs)
    # any other task loads in its own way: that its repository is there is all that can be known without loading


def _plain_faults(task: Any, repository: str, configs: list[str]) -> Iterator[str]:
    from mteb.abstasks import AbsTask

    is_multilingual = task.metadata.is_multilingual
    if is_multilingual and not task.fast_loading:
        wanted = list(task.hf_subsets)
    else:
        wanted = [task.metadata.dataset.get("name") or "default"]
        if wanted == ["default"] and "default" not in configs and len(configs) == 1:
            wanted = configs  # load_dataset takes the only one there is
    # a task may make its splits in dataset_transform; then the files' splits say nothing
    makes_splits = type(task).dataset_transform is not AbsTask.dataset_transform
    train = None if getattr(task, "is_cross_validation", False) else getattr(task, "train_split", None)
    for config in wanted:
        if config not in configs:
            yield f'no configuration "{config}" (found: {_listed(configs)})'
            continue
        splits = _splits(repository, config)
        for split in dict.fromkeys([*task.eval_splits, *([train] if train else [])]):
            if split in splits:
                if is_multilingual and task.fast_loading:
                    yield from _language_faults(task, repository, config, split)
            elif not (makes_splits and splits):
                yield _no_split(config, split, splits)


def _language_faults(task: Any, repository: str, config: str, split: str) -> Iterator[str]:
    """Of a task whose subsets are told apart by a column: the ones that no row has."""
    import datasets

    rows = datasets.load_dataset(repository, None if config == "default" else config, split=split)
    languages = set(rows.unique("lang")) if "lang" in rows.column_names else set()
    absent = [subset for subset in task.hf_subsets if subset not in languages]
    if absent:
        yield f'split "{split}" has no rows of {_listed(absent)} (found: {_listed(sorted(map(str, languages)))})'


def _retrieval_faults(task: Any, repository: str, configs: list[str]) -> Iterator[str]:
    for subset in task.hf_subsets if task.metadata.is_multilingual else ["default"]:
        prefix = "" if subset == "default" else f"{subset}-"
        qrels = [f"{prefix}qrels"] if prefix else ["default", "qrels"]
        for names in ([f"{prefix}corpus"], [f"{prefix}queries", "query"], qrels):
            config = next((name for name in names if name in configs), None)
            if config is None:
                yield f'no configuration "{names[0]}" (found: {_listed(configs)})'
                continue
            splits = _splits(repository, config)
            for split in task.eval_splits:
                if split not in splits and len(splits) != 1:  # mteb takes the only one there is
                    yield _no_split(config, split, splits)


def _no_split(config: str, split: str, splits: Sequence[str]) -> str:
    return f'configuration "{config}" has no split "{split}" (found: {_listed(splits)})'


def _splits(repository: str, config: str) -> list[str]:
    from datasets import get_dataset_split_names

    return [str(split) for split in get_dataset_split_names(repository, config)]


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names)})" if len(names) > most else "") if names else "none"


def tasks_of_repository(repository: str) -> list[Any]:
    """mteb's tasks that read a repository (it knows the revision); none where mteb does not know it."""
    needs_extra("mteb", "eval")
    import mteb

    with quiet_libraries():
        return [task for task in mteb.get_tasks() if task.metadata.dataset["path"] == repository]
