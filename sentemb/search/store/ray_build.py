"""Segments made on a Ray cluster: every worker fills one segment at a time, the index takes them all at once.

    part's vectors + trained template ─► worker ─► segment-N-KEY/ ─► checked ─► linked into the index ─► its commit

KEY is a hash of the vectors and of everything that decides what becomes of them, so a segment that is there need not
be made again. Kinds that are trained are trained once, before, by the process that builds; a worker does with its part
what that process would do, so the files are the same bit for bit (graphs: where one thread fills them, because FAISS
links a graph's nodes in the order in which its threads arrive). A lost worker's segment is made again by another one.
The folders must be visible to all machines.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sentemb.encoder.ray_engine import Cluster, spread
from sentemb.errors import SearchError
from sentemb.files import atomic_folder, sha256_of
from sentemb.search.store.disk import Disk
from sentemb.search.store.documents import DocumentWriter
from sentemb.search.store.manifest import SegmentEntry, StoredFile
from sentemb.search.store.segment import verify_file
from sentemb.search.store.spool import FileSource, VectorSource
from sentemb.search.store.writing import Recipe, VectorFiles

NOTE = "segment.json"  # names the files of a finished segment, with sizes and checksums


@dataclass(frozen=True)
class ClusterSegments:
    """Makes a build's segments on a cluster; a ``build.MakeSegments``.

    Attributes:
        folder: where finished segments lie until the index has them; what is there already is taken over.
        cluster: whose workers make them.
    """

    folder: Path
    cluster: Cluster

    def __call__(
        self, recipe: Recipe, sources: Sequence[VectorSource], documents: Sequence[DocumentWriter]
    ) -> list[SegmentEntry]:
        """The segments of the sources, in their order.

        Raises:
            ModelError: there is no cluster, or a worker failed for another reason than being lost.
            SearchError: a worker's files are not to be seen here.
        """
        folder = self.folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        recipe = replace(recipe, folder=recipe.folder.resolve())
        parts = {f"segment-{number:04d}-{_key(recipe, number, source)}": (number, _on_disk(source))
                 for number, source in enumerate(sources)}
        missing = [name for name in parts if finished(folder / name) is None]
        if missing:
            for name in missing:
                shutil.rmtree(folder / name, ignore_errors=True)
            spread(
                self.cluster, SegmentWorker,
                {"recipe": replace(recipe, disk=Disk()), "parts": {name: parts[name] for name in missing},
                 "folder": folder},
                missing, title="indexing", unit="segments", done=len(parts) - len(missing), kept=folder,
            )
        return [
            self._taken(recipe, folder / name, number, writer)
            for (name, (number, _)), writer in zip(parts.items(), documents, strict=True)
        ]

    def _taken(self, recipe: Recipe, made: Path, number: int, documents: DocumentWriter) -> SegmentEntry:
        """A finished segment's files under the index's folder; no manifest names them yet."""
        entry = finished(made)
        if entry is None:
            raise SearchError(
                f"{made}: a worker made this segment, but it is not whole here; the folder must be on a disk that all "
                "machines share. Run the same command again"
            )
        rows, files = entry
        for file in (files.index, files.half):
            if file is not None:
                recipe.disk.take(made / file.name, recipe.folder / file.name)
        return recipe.entry(number, rows, files, documents, is_tail=False)


class SegmentWorker:
    """A worker: makes segments, each in a folder of its own that is whole or absent."""

    def __init__(self, recipe: Recipe, parts: Mapping[str, tuple[int, FileSource]], folder: Path) -> None:
        self._recipe, self._parts, self._folder = recipe, parts, folder

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Make the segments named in ``batch["item"]``."""
        for name in batch["item"]:
            number, source = self._parts[name]
            index = self._recipe.filled(source, is_tail=False)
            with atomic_folder(self._folder / name) as temporary:
                files = replace(self._recipe, folder=temporary).vectors(number, source, is_tail=False, index=index)
                (temporary / NOTE).write_text(json.dumps({"rows": source.rows, **asdict(files)}))
        return batch


def finished(folder: Path) -> tuple[int, VectorFiles] | None:
    """Rows and files of a finished segment, every byte of them verified; None where there is no such segment."""
    try:
        note = json.loads((folder / NOTE).read_bytes())
        index, half = (None if note[name] is None else StoredFile(**note[name]) for name in ("index", "half"))
        for file in (index, half):
            if file is not None:
                verify_file(folder, file)
    except (OSError, ValueError, KeyError, TypeError, SearchError):
        return None
    return None if index is None else (int(note["rows"]), VectorFiles(index, half))


def _on_disk(source: VectorSource) -> FileSource:
    """Workers read vectors from a file: those that a build spooled."""
    if not isinstance(source, FileSource):
        raise SearchError("a cluster builds from encoded documents, whose vectors lie on the disk; not from an array")
    return source


def _key(recipe: Recipe, number: int, source: VectorSource) -> str:
    """Hash of a segment's vectors and of what decides the bytes and names of its files."""
    made = recipe.manifest
    facts = {
        "generation": made.generation, "number": number, "dimension": made.dimension, "metric": made.metric,
        "factory": made.factory, "rescored": made.rescored,
        "template": None if made.template is None else made.template.sha256,
        "vectors": sha256_of(_on_disk(source).path), "rows": source.rows,
    }
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=12).hexdigest()
