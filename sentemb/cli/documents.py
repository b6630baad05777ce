"""The documents and vectors that the verbs of ``sentemb index`` are given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from sentemb.data.faults import Faults


@contextmanager
def documents_of(
    data: list[str] | None, split: str | None, text_field: str | None, id_field: str | None, skip_faulty: bool,
    are_files: bool,
) -> Iterator[tuple[Any, Faults | None]]:
    """The documents of all files, and where faulty ones are counted; says at the end how many there were."""
    from sentemb.data import iter_records
    from sentemb.data.document_files import iter_files
    from sentemb.data.faults import Faults
    from sentemb.search.store.records import read_documents

    skipped = Faults() if skip_faulty else None
    records: Iterator[Any] = chain.from_iterable(
        iter_files(path, skipped=skipped) if are_files else iter_records(path, split=split, skipped=skipped)
        for path in data or ()
    )
    documents = read_documents(records, text_field=text_field, id_field=id_field, skipped=skipped)
    yield (documents if data else None), skipped
    if skipped is not None and skipped.count:
        typer.echo(f"left out {skipped.count:,} faulty documents", err=True)


def array_of(path: Path | None) -> Any:
    """The vectors of a file, not read yet."""
    if path is None:
        return None
    from sentemb.data.vector_files import open_npy

    return open_npy(path, kinds="fiu")


def changed_at(sources: list[str]) -> dict[str, tuple[int, int]]:
    """Size and time of every file, also of databases that are queried."""
    from sentemb.data.databases import Query

    named = [query.path if (query := Query.read(source)) else Path(source) for source in sources]
    paths = [file for source in named for file in (source, *source.rglob("*")) if file.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}
