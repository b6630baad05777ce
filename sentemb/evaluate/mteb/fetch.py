"""Mirrors data set repositories of the hub into a data folder, and checks that a mirror is whole.

``ROOT/<organisation>/<repository>/`` gets the repository's files at the revision that the task names, then
``.sentemb-fetched.json`` with the SHA-256 of each; an interrupted fetch lacks that file and is continued.
"""

from __future__ import annotations

import json
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


def fetch(repositories: list[Repository], root: Path, *, endpoint: str | None = None) -> tuple[list[str], list[str]]:
    """Fetch every repository that is not there whole; one that fails does not stop the others.

    Args:
        repositories: what ``mteb.data.repositories`` gave.
        root: the folder that holds ``<organisation>/<repository>``.
        endpoint: another hub than huggingface.co.

    Returns:
        One message for each repository that is there now, and one for each that could not be fetched.
    """
    from huggingface_hub import snapshot_download

    fetched: list[str] = []
    failed: list[str] = []
    with Progress("fetching", total=len(repositories), unit="repositories") as bar:
        for repository in repositories:
            name, folder = repository.name, root / repository.name
            mark = _mark_of(folder)
            is_there = mark is not None and mark.get("revision") == repository.revision and not damage(folder)
            try:
                if not is_there:
                    snapshot_download(
                        name, repo_type="dataset", revision=repository.revision, local_dir=folder,
                        allow_patterns=PATTERNS, endpoint=endpoint,
                    )  # fmt: skip
                    _write_mark(folder, repository)
                files = _files(folder)
                size = sum(path.stat().st_size for path in files) / 2**20
                fetched.append(f"{name}: {len(files)} files, {size:.1f} MiB{' (was here)' if is_there else ''}")
            except Exception as error:  # the hub's client raises many kinds: network, rights, no such revision
                tasks = ", ".join(repository.tasks)
                failed.append(f"{name} (for {tasks}): {type(error).__name__}: {first_line(error)}")
            bar.advance(1, repository=name)
    return fetched, failed


def damage(folder: Path) -> list[str]:
    """What a fetched folder lacks or has altered, against its mark; empty where it was not fetched by sentemb."""
    files = (_mark_of(folder) or {"files": {}})["files"]
    there = {name: folder / name for name in files if (folder / name).is_file()}
    missing = [f"{folder / name}: missing" for name in files if name not in there]
    altered = [path for name, path in there.items() if sha256_of(path) != files[name]]
    return [*missing, *(f"{path}: altered since it was fetched" for path in altered)]


def _write_mark(folder: Path, repository: Repository) -> None:
    files = {str(path.relative_to(folder)): sha256_of(path) for path in _files(folder)}
    if not files:
        raise EvaluationError(f"{repository.name}: the repository holds no data files")
    write_json(folder / MARK, {"repository": repository.name, "revision": repository.revision, "files": files})


def _mark_of(folder: Path) -> dict[str, Any] | None:
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return mark if isinstance(mark, dict) and isinstance(mark.get("files"), dict) else None


def _files(folder: Path) -> list[Path]:
    """Files of the repository itself: nothing hidden (the hub client keeps its notes in ``.cache``)."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if not any(part[0] == "." for part in path.relative_to(folder).parts))
