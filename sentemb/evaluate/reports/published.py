"""Scores that others published, to stand beside ours."""

from __future__ import annotations

from dataclasses import dataclass

from sentemb.evaluate.reading.tables import number_of, read_rows, text_of
from sentemb.resources import share_dir


@dataclass(frozen=True, kw_only=True)
class Published:
    """A score that somebody published, ×100."""

    model: str
    task: str
    protocol: str
    score: float
    source: str


def published_scores(model: str) -> list[Published]:
    """Published scores of a model, matched by its name with or without organisation, case ignored.

    Files ``eval/published/*.csv`` with the columns model, task, protocol, score, source.

    Raises: DataError: a malformed file.
    """
    return [entry for entry in _all() if _base_name(entry.model) == _base_name(model)]


def _all() -> list[Published]:
    return [
        Published(
            model=text_of(row, "model"),
            task=text_of(row, "task"),
            protocol=text_of(row, "protocol"),
            score=number_of(row, "score"),
            source=str(row.fields.get("source", path.stem)),
        )
        for path in sorted(share_dir("eval", "published").glob("*.csv"))
        for row in read_rows(path)
    ]


def _base_name(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1].lower()
