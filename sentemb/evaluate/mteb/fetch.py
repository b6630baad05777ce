"""Mirrors data set repositories of the hub into a data folder, and checks that a mirror is whole.

``ROOT/<organisation>/<repository>/`` gets the repository's files at the revision that the task names, then
``.sentemb-fetched.json`` with the SHA-256 of each; an interrupted fetch lacks that file and is continued.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentemb.errors import EvaluationError, first_line
from sentemb.evaluate.mteb.data import Repository
from sentemb.files import sha256_of, write_json
from sentemb.progress import Progress

MARK = ".sentemb-fetched.json"
# what `datasets` reads, and the card with the configurations; never code
_ENDINGS = "json jsonl csv tsv txt parquet arrow gz zst xz bz2 zip"
PATTERNS = [*(f"*.{ending}" for ending in _ENDINGS.split()), "README.md"]


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What became of one repository."""

    repository: str
    files: int
    bytes: int
    is_new: bool


def fetch(
    repositories: list[Repository], root: Path, *, endpoint: str | None = None, token: str | None = None
) -> tuple[list[Fetched], list[str]]:
    """Fetch every repository that is not there whole; one that fails does not stop the others.

    Args:
        repositories: What ``mteb_data.repositories`` gave.
        root: The data folder.
        endpoint: Another hub than huggingface.co.
        token: Of a hub account, for gated data.

    Returns:
        What was fetched, and one message for each repository that could not be.
    """
    from huggingface_hub import snapshot_download

    fetched: list[Fetched] = []
    failed: list[str] = []
    with Progress("fetching", total=len(repositories), unit="repositories") as bar:
        for repository in repositories:
            folder = root / repository.name
            known = _marked(folder)
            if known is not None and known.get("revision") == repository.revision and not damage(folder):
                fetched.append(_counted(repository.name, folder, is_new=False))
                bar.advance(1)
                continue
            try:
                snapshot_download(
                    repository.name,
                    repo_type="dataset",
                    revision=repository.revision,
                    local_dir=folder,
                    allow_patterns=PATTERNS,
                    endpoint=endpoint,
                    token=token,
                )
                _mark(folder, repository)
                fetched.append(_counted(repository.name, folder, is_new=True))
            except Exception as error:  # the hub's client raises many kinds: network, rights, no such revision
                tasks = ", ".join(repository.tasks)
                failed.append(f"{repository.name} (for {tasks}): {type(error).__name__}: {first_line(error)}")
            bar.advance(1, repository=repository.name)
    return fetched, failed


def damage(folder: Path) -> list[str]:
    """What a fetched folder lacks or has altered, against its mark; empty where it was not fetched by sentemb."""
    mark = _marked(folder)
    if mark is None:
        return []
    faults = []
    for name, digest in mark["files"].items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{path}: missing")
        elif sha256_of(path) != digest:
            faults.append(f"{path}: altered since it was fetched")
    return faults


def _mark(folder: Path, repository: Repository) -> None:
    files = {str(path.relative_to(folder)): sha256_of(path) for path in _files(folder)}
    if not files:
        raise EvaluationError(f"{repository.name}: the repository holds no data files")
    write_json(folder / MARK, {"repository": repository.name, "revision": repository.revision, "files": files})


def _marked(folder: Path) -> dict[str, Any] | None:
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return mark if isinstance(mark, dict) and isinstance(mark.get("files"), dict) else None


def _files(folder: Path) -> list[Path]:
    """Files of the repository itself: nothing hidden (the hub client keeps its notes in ``.cache``)."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _counted(name: str, folder: Path, *, is_new: bool) -> Fetched:
    files = _files(folder)
    return Fetched(
        repository=name, files=len(files), bytes=sum(path.stat().st_size for path in files), is_new=is_new
    )
