"""Data of mteb's tasks on disk: what a task needs, what is missing, and mirroring it from the hub.

mteb's tasks name their repositories relatively (``mteb/sts12-sts``), and ``datasets`` prefers a folder of that name
over the hub; so tasks are loaded with the data folder as the working folder, whatever way they load. Nothing of a task
is changed.

A mirror, ``ROOT/<organisation>/<repository>/``, has the repository's files at the revision that the task names, and
``.sentemb-fetched.json`` with the SHA-256 of each; an interrupted fetch lacks that file and is continued.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentemb.errors import EvaluationError, first_line, needs_extra
from sentemb.files import sha256_of, write_json
from sentemb.progress import Progress

MARK = ".sentemb-fetched.json"
# what `datasets` reads, and the card with the configurations; never code
PATTERNS = [
    "*.json", "*.jsonl", "*.csv", "*.tsv", "*.txt", "*.parquet", "*.arrow", "*.gz", "*.zst", "*.xz", "*.bz2", "*.zip",
    "README.md",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A data set repository of the hub and the tasks that read it."""

    name: str  # mteb/sts12-sts
    revision: str | None
    tasks: tuple[str, ...]


# ---------------------------------------------------------------------------------------------- reading
@contextlib.contextmanager
def local_data(root: Path | None, repository: str) -> Iterator[None]:
    """Data sets that ``root`` has are read from there; without a root nothing changes.

    ``datasets`` caches a folder that has a card (README.md with configurations) by its name alone: another mirror, or
    an edited file, would silently give the old rows. So its cache is kept apart by what lies in the folder.
    """
    import datasets

    if root is None:
        yield
        return
    contents = hashlib.sha256(str(root / repository).encode())
    for path in sorted((root / repository).rglob("*")):
        facts = path.stat()
        contents.update(f"{path.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    usual = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = Path(usual) / "sentemb-local" / contents.hexdigest()[:16]
    try:
        with contextlib.chdir(root):
            yield
    finally:
        datasets.config.HF_DATASETS_CACHE = usual


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """mteb, datasets and the hub keep their warnings and bars to themselves."""
    needs_extra("datasets", "data")
    import datasets

    loggers = [logging.getLogger(name) for name in ("mteb", "datasets", "huggingface_hub", "sentence_transformers")]
    levels = [logger.level for logger in loggers]
    bars = datasets.utils.logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def resolve_tasks(names: Sequence[str] = (), *, benchmark: str | None = None, subsets: Sequence[str] = ()) -> list[Any]:
    """mteb's tasks by name, or those of one of its benchmarks; with both, these tasks as the benchmark has them.

    Raises: EvaluationError: an unknown task, benchmark or subset; proposes the nearest name.
    """
    needs_extra("mteb", "eval")
    import mteb

    try:
        with quiet_libraries():
            if benchmark is None:
                return [mteb.get_task(name, hf_subsets=list(subsets) or None) for name in names]
            tasks = {task.metadata.name: task for task in mteb.get_benchmark(benchmark).tasks}
            return [tasks[name] for name in names or tasks]
    except (KeyError, ValueError) as error:
        raise EvaluationError(f"{benchmark or 'mteb'}: no such task, benchmark or subset: {error.args[0]}") from None


def tasks_of_repository(repository: str) -> list[Any]:
    """mteb's tasks that read a repository (it knows the revision); none where mteb does not know it."""
    needs_extra("mteb", "eval")
    import mteb

    with quiet_libraries():
        return [task for task in mteb.get_tasks() if task.metadata.dataset["path"] == repository]


def leaves(task: Any) -> list[Any]:
    """The task, or the tasks that an aggregate consists of."""
    return [leaf for part in task.tasks for leaf in leaves(part)] if task.is_aggregate else [task]


def repositories(tasks: Sequence[Any]) -> list[Repository]:
    """Every repository that the tasks read, once."""
    readers: dict[tuple[str, str | None], dict[str, None]] = {}
    for leaf in (leaf for task in tasks for leaf in leaves(task)):
        spec = leaf.metadata.dataset
        readers.setdefault((spec["path"], spec.get("revision")), {})[leaf.metadata.name] = None
    return [Repository(name=name, revision=revision, tasks=tuple(users)) for (name, revision), users in readers.items()]


def missing_data(tasks: Sequence[Any], root: Path) -> list[str]:
    """What the tasks lack in a data folder: repositories, or configurations that a repository's card names."""
    from datasets import get_dataset_config_names, get_dataset_split_names

    missing = []
    for leaf in (leaf for task in tasks for leaf in leaves(task)):
        repository = leaf.metadata.dataset["path"]
        where = f"{leaf.metadata.name}: {repository}"
        if not (root / repository).is_dir():
            missing.append(f"{where}: no folder {root / repository}")
            continue
        try:
            with quiet_libraries(), local_data(root, repository):
                for config in get_dataset_config_names(repository):
                    get_dataset_split_names(repository, config)
        except Exception as error:  # datasets raises many kinds for a folder that it cannot make sense of
            missing.append(f"{where}: cannot be read: {first_line(error)}")
    return missing


# -------------------------------------------------------------------------------------------- mirroring
def fetch(wanted: Sequence[Repository], root: Path, *, endpoint: str | None = None) -> tuple[list[str], list[str]]:
    """Fetch every repository that is not there whole into ``root/<organisation>/<repository>``; one that fails does not
    stop the others. Gives a message for each that is there now, and for each that could not be fetched."""
    from huggingface_hub import snapshot_download

    fetched: list[str] = []
    failed: list[str] = []
    with Progress("fetching", total=len(wanted), unit="repositories") as bar:
        for one in wanted:
            folder = root / one.name
            mark = _mark_of(folder)
            is_there = mark.get("revision", "") == one.revision and not damage(folder)
            try:
                if not is_there:
                    snapshot_download(
                        one.name, repo_type="dataset", revision=one.revision, local_dir=folder,
                        allow_patterns=PATTERNS, endpoint=endpoint,
                    )  # fmt: skip
                    mark = {"repository": one.name, "revision": one.revision, "files": _checksums(folder)}
                    write_json(folder / MARK, mark)
                fetched.append(f"{one.name}: {len(mark['files'])} files{' (was here)' if is_there else ''}")
            except Exception as error:  # the hub's client raises many kinds: network, rights, no such revision
                failed.append(f"{one.name} (for {', '.join(one.tasks)}): {type(error).__name__}: {first_line(error)}")
            bar.advance(1, repository=one.name)
    return fetched, failed


def damage(folder: Path) -> list[str]:
    """Files that a fetched folder lacks or has altered, by its mark; empty where it was not fetched by sentemb."""
    marked = _mark_of(folder).get("files", {})
    there = _checksums(folder) if marked else {}
    wrong = [name for name, checksum in marked.items() if there.get(name) != checksum]
    return [f"{folder / name}: {'altered since it was fetched' if name in there else 'missing'}" for name in wrong]


def _mark_of(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / MARK).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the repository's own files: nothing hidden (the hub's client keeps its notes in ``.cache``)."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {path: path.relative_to(folder) for path in files}
    return {
        str(name): sha256_of(path) for path, name in names.items() if not any(part[0] == "." for part in name.parts)
    }
