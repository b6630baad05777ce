"""Where evaluation data lies: the one place that turns a path of a task, a suite or the command line into a file.

A data folder mirrors the hub, ``ROOT/<organisation>/<repository>/…`` (or the same under ``ROOT/hub``), and may hold the
STS sets of SimCSE's protocol in ``ROOT/sts-simcse``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sentemb.errors import EvaluationError

VARIABLE = "SENTEMB_DATA"


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """A folder with evaluation data; ``root`` is None where none was named (mteb then asks the hub)."""

    root: Path | None = None

    @classmethod
    def find(cls, folder: Path | str | None = None) -> DataFolder:
        """``folder``, or the one that ``SENTEMB_DATA`` names, or none.

        Raises: EvaluationError: the folder does not exist.
        """
        chosen = folder or os.environ.get(VARIABLE)
        if not chosen:
            return cls()
        root = Path(chosen).expanduser()
        if not root.is_dir():
            raise EvaluationError(f"{root}: no such data folder (--data-dir or {VARIABLE})")
        return cls(root=root.resolve())

    @property
    def hub(self) -> Path | None:
        """The folder that holds ``<organisation>/<repository>``."""
        below = self.root / "hub" if self.root is not None else None
        return below if below is not None and below.is_dir() else self.root

    def required(self) -> Path:
        """The folder itself.

        Raises: EvaluationError: none was named.
        """
        if self.root is None:
            raise EvaluationError(f"no data folder: give one with --data-dir, or set {VARIABLE} to one")
        return self.root

    def path(self, given: str) -> Path:
        """The file or folder that a task names: absolute, below the working folder, or below the data folder.

        A path that begins with ``./``, ``../`` or ``~`` is never looked for in the data folder.

        Raises: EvaluationError: nothing is there, or both folders hold something of that name.
        """
        path = Path(given).expanduser()
        places = [Path.cwd() / path]  # the path itself where it is absolute
        if not path.is_absolute() and not given.startswith(("./", "../")):
            places += dict.fromkeys(folder / path for folder in (self.root, self.hub) if folder is not None)
        existing = {place.resolve(): place for place in places if place.exists()}
        if len(existing) > 1:
            both = " and ".join(map(str, existing.values()))
            raise EvaluationError(f"{given}: found twice, {both}; give the absolute path of one, or ./{given}")
        if not existing:
            looked = " or ".join(str(place) for place in places)
            raise EvaluationError(f"{given}: no such file or folder (looked for {looked})")
        return next(iter(existing.values()))
