"""One opened segment: its vectors, documents, deletions and half-precision store."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import SearchError
from sentemb.files import sha256_of
from sentemb.parts import PartError, room
from sentemb.search.store.documents import Condition, Documents
from sentemb.search.store.manifest import Manifest, SegmentEntry, StoredFile, damaged
from sentemb.search.vectors.choice import kind_of
from sentemb.search.vectors.kind import Mask, Rows, VectorIndex, Vectors

if TYPE_CHECKING:
    from sentemb.maths.inner_products import ExactSearch

KEPT_FILTERS = 16


def verify_file(folder: Path, file: StoredFile) -> None:
    """Size and checksum of a file, before anything parses it.

    Raises:
        SearchError: it was altered.
        FileNotFoundError: it is missing.
    """
    path = folder / file.name
    size = path.stat().st_size
    if size != file.bytes:
        raise damaged(path, f"{size} bytes, the manifest says {file.bytes}")
    if sha256_of(path) != file.sha256:
        raise damaged(path, "its SHA-256 is not the manifest's, so it was altered")


def stored_kind(manifest: Manifest) -> VectorIndex:
    """A new, empty index of the kind that a manifest names.

    Raises:
        SearchError: no such kind; code of others is not imported because an index names it.
    """
    settings = dict(manifest.kind)
    try:
        kind = room("kinds").find(settings.pop("use", None), may_import=False)(**settings)
    except PartError as error:
        raise SearchError(
            f"kind of the index: {error}; import the module of a kind of your own before you open the index, or "
            "install it as an entry point"
        ) from None
    assert isinstance(kind, VectorIndex)
    return kind


def empty_index(folder: Path, manifest: Manifest, rows: int) -> VectorIndex:
    """An empty index of the manifest's kind that takes vectors: trained where the kind needs it.

    Raises:
        SearchError: the trained template was altered.
    """
    index = stored_kind(manifest)
    if manifest.template is None:
        index.create(dimension=manifest.dimension, metric=manifest.metric, rows=rows)
    else:
        verify_file(folder, manifest.template)
        index.load(folder / manifest.template.name, dimension=manifest.dimension, metric=manifest.metric)
    return index


def empty_tail(manifest: Manifest) -> VectorIndex:
    """An empty exact index, for a small addition."""
    index = kind_of("flat")
    index.create(dimension=manifest.dimension, metric=manifest.metric, rows=0)
    return index


class Segment:
    """Rows that were written together; immutable but for what the manifest says of deletions.

    Args:
        is_mapped: leave vectors in their file.
        device: torch device that searches exact vectors; None: the CPU.
    """

    def __init__(
        self, folder: Path, entry: SegmentEntry, manifest: Manifest, *, is_mapped: bool, verify: bool,
        device: str | None = None,
    ) -> None:
        self.entry = entry
        self.rows = entry.rows
        for file in entry.files if verify else ():
            verify_file(folder, file)
        path = folder / entry.index.name
        self.vectors = kind_of("flat") if entry.is_tail else stored_kind(manifest)
        self.vectors.load(path, dimension=manifest.dimension, metric=manifest.metric, is_mapped=is_mapped)
        if (self.vectors.rows, self.vectors.dimension) != (entry.rows, manifest.dimension):
            raise SearchError(
                f"{path}: {self.vectors.rows} vectors of dimension {self.vectors.dimension}, the manifest says "
                f"{entry.rows} of {manifest.dimension}; restore the index from a copy"
            )
        self.documents = Documents(folder / entry.documents.name, entry.rows)
        self.half = _open_half(folder, entry, manifest.dimension)
        self.live = _open_live(folder, entry)
        self.exact: ExactSearch | None = None
        if device is not None and self.vectors.is_exact:
            from sentemb.search.vectors.device import on_device

            self.exact = on_device(self.vectors, device)
        self._filters: OrderedDict[Condition, Mask] = OrderedDict()
        self._filters_lock = Lock()

    @property
    def live_rows(self) -> int:
        """Rows that are not deleted."""
        return self.rows - self.entry.deleted_rows

    def with_entry(self, entry: SegmentEntry, folder: Path) -> Segment:
        """The same files under another set of deletions (nothing is opened again)."""
        other = object.__new__(Segment)
        other.__dict__.update(self.__dict__)
        other.entry = entry
        other.live = _open_live(folder, entry)
        other._filters, other._filters_lock = OrderedDict(), Lock()
        return other

    def allowed(self, condition: Condition | None) -> Mask | None:
        """Rows that a search may find: live ones that satisfy the condition; None where that is every row."""
        if condition is None:
            return self.live
        mask = self._filters.get(condition)
        if mask is None:
            mask = np.zeros(self.rows, dtype=bool)
            mask[self.documents.rows_where(condition)] = True
            if self.live is not None:
                mask &= self.live
        with self._filters_lock:  # several threads search
            self._filters[condition] = mask
            self._filters.move_to_end(condition)
            while len(self._filters) > KEPT_FILTERS:
                self._filters.popitem(last=False)
        return mask

    def exact_vectors(self, rows: Rows) -> Vectors:
        """Vectors at the best precision that is kept."""
        if self.half is not None:
            return self.half[rows].astype(np.float32)
        return self.vectors.reconstruct(rows)

    def close(self) -> None:
        """Close the files."""
        self.documents.close()


def _open_half(folder: Path, entry: SegmentEntry, dimension: int) -> NDArray[np.float16] | None:
    if entry.half is None:
        return None
    if entry.half.bytes != entry.rows * dimension * 2:
        raise damaged(folder / entry.half.name, f"its size does not fit {entry.rows} rows")
    return np.memmap(folder / entry.half.name, dtype=np.float16, mode="r", shape=(entry.rows, dimension))


def _open_live(folder: Path, entry: SegmentEntry) -> Mask | None:
    if entry.deleted is None:
        return None
    path = folder / entry.deleted.name
    deleted = np.unpackbits(np.fromfile(path, dtype=np.uint8), bitorder="little").astype(bool)
    if len(deleted) < entry.rows or int(deleted.sum()) != entry.deleted_rows:
        raise damaged(path, "its deletions are not those of the manifest")
    return ~deleted[: entry.rows]
