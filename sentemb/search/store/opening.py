"""Opening the segments of one consistent generation, while another process may be replacing it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from sentemb.errors import SearchError
from sentemb.search.store import manifest as manifests
from sentemb.search.store.generation import Generation
from sentemb.search.store.manifest import SegmentEntry
from sentemb.search.store.segment import Segment, verify_file

ATTEMPTS = 20  # a reader meets a writer's clean-up at most this often in a row


def open_generation(
    folder: Path, *, is_mapped: bool, device: str | None, verify: bool, known: Mapping[str, Segment] | None = None
) -> Generation:
    """The newest generation; starts over where a writer replaced it meanwhile.

    Args:
        is_mapped, device: see ``Segment``.
        known: segments that are open already, by the name of their index file.

    Raises:
        SearchError: no index, a damaged or altered file, or a newer format.
    """
    for attempt in range(ATTEMPTS):
        manifest = manifests.read(folder)
        try:
            if manifest.template is not None and verify:
                verify_file(folder, manifest.template)
            segments = tuple(
                _known(folder, entry, known or {}, verify=verify)
                or Segment(folder, entry, manifest, is_mapped=is_mapped, verify=verify, device=device)
                for entry in manifest.segments
            )
            return Generation(folder=folder, manifest=manifest, segments=segments)
        except (FileNotFoundError, SearchError) as error:
            if manifests.read(folder).generation == manifest.generation:
                if isinstance(error, SearchError):
                    raise
                raise SearchError(f"{error.filename}: is missing; restore the index from a copy") from None
            time.sleep(0.01 * attempt)
    raise SearchError(f"{folder}: changes faster than it can be opened; try again")


def _known(folder: Path, entry: SegmentEntry, known: Mapping[str, Segment], *, verify: bool) -> Segment | None:
    """The entry's segment where its files are open already, with the entry's deletions."""
    old = known.get(entry.index.name)
    if old is None or old.entry.index != entry.index or old.entry.documents != entry.documents:
        return None
    if entry.deleted is not None and verify:
        verify_file(folder, entry.deleted)
    return old.with_entry(entry, folder)
