"""Files of labelled texts: one file, or a folder with a file a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentemb.errors import DataError
from sentemb.evaluate.reading.tables import read_rows, stem_of, table_file, text_of


@dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """Texts with one label each (labels compared as strings)."""

    name: str
    texts: Sequence[str]
    labels: Sequence[str]
    source: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> list[str]:
        """Distinct labels, sorted."""
        return sorted(set(self.labels))


def read_labelled(path: Path | str, *, name: str | None = None) -> LabelledTexts:
    """A file with the columns ``text`` (or ``sentence``) and ``label``.

    Raises: DataError: missing file or column, an empty label, or no rows; names file and line.
    """
    path = Path(path)
    texts: list[str] = []
    labels: list[str] = []
    for row in read_rows(path):
        texts.append(text_of(row, "sentence" if "sentence" in row.fields and "text" not in row.fields else "text"))
        label = row.fields.get("label", row.fields.get("labels"))
        if isinstance(label, list | dict) or label is None or str(label) == "":
            raise DataError(f'{row.where}: column "label" holds {label!r}; one label a row is needed')
        labels.append(str(label))
    if not labels:
        raise DataError(f"{path}: no rows in it")
    return LabelledTexts(name=name or stem_of(path), texts=texts, labels=labels, source=str(path))


def split_file(folder: Path, split: str) -> Path | None:
    """``<split>.jsonl`` and the like in a folder; ``data/<split>-*.parquet`` as the hub shards them (one shard)."""
    shards = sorted(folder.glob(f"data/{split}-*.parquet"))
    return table_file(folder, split) or (shards[0] if len(shards) == 1 else None)


def split_faults(path: Path) -> list[str]:
    """Why a folder has no train and test split, as a message; empty where it has, and for a file."""
    if not path.is_dir():
        return []
    absent = [split for split in ("train", "test") if split_file(path, split) is None]
    names = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
    return [f"{path}: no file for split {' and '.join(absent)}; found: {names}"] if absent else []


def read_splits(path: Path | str) -> tuple[LabelledTexts, LabelledTexts | None]:
    """Training and test texts of a folder with ``train.*`` and ``test.*``; of one file: all its rows, and None.

    Raises: DataError: what ``read_labelled`` raises, or a folder without the two splits.
    """
    path = Path(path)
    if not path.is_dir():
        return read_labelled(path), None
    train, test = (split_file(path, split) for split in ("train", "test"))
    if train is None or test is None:
        raise DataError(split_faults(path)[0])
    return read_labelled(train, name=path.name), read_labelled(test, name=path.name)
