"""What an index is: one small JSON file that names, sizes and hashes every other file of the folder.

Replacing ``manifest.json`` is the commit point of every change: whatever it does not name is not part of the index.
All named files are immutable, so a reader that opened a manifest keeps a consistent picture while writers go on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from sentemb.errors import SearchError

NAME = "manifest.json"
VERSION = 1

Metric = Literal["cosine", "dot", "l2"]
Count = Annotated[int, Field(ge=0)]
FileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]  # never a path out of the folder
_STRICT = ConfigDict(strict=True, extra="forbid")


@checked(frozen=True, config=_STRICT)
class StoredFile:
    """An immutable file of the index."""

    name: FileName
    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@checked(frozen=True, config=_STRICT)
class SegmentEntry:
    """Rows that were written together: their vectors, documents and which of them were deleted since."""

    rows: Annotated[int, Field(ge=1)]
    is_tail: bool  # exact vectors of a small addition, not yet of the index's kind
    index: StoredFile
    documents: StoredFile
    half: StoredFile | None = None  # (rows, dimension) float16, for exact re-scoring
    deleted: StoredFile | None = None  # one bit a row, little-endian bit order
    deleted_rows: Count = 0


@checked(frozen=True, config=_STRICT)
class Model:
    """The encoder that filled the index."""

    source: str
    digest: str
    width: Annotated[int, Field(ge=1)]  # of its vectors, before truncation
    query_prompt: str = ""
    document_prompt: str = ""


@checked(frozen=True, config=_STRICT)
class Tuned:
    """Search effort that reached a recall on a held-out sample."""

    effort: Annotated[int, Field(ge=1)] | None  # nprobe or efSearch; None where the kind has no such knob
    oversample: Annotated[int, Field(ge=1)]  # candidates per asked neighbour that are re-scored
    target_recall: Annotated[float, Field(gt=0, le=1)]
    recall: Annotated[float, Field(ge=0, le=1)]  # recall@10 against exact search
    queries: Count
    reached: bool


@checked(frozen=True, config=_STRICT)
class Manifest:
    """One generation of an index."""

    generation: Annotated[int, Field(ge=1)]
    dimension: Annotated[int, Field(ge=1)]
    metric: Metric
    kind: str
    factory: str
    reason: str  # why this kind
    seed: int
    next_id: Count  # for documents that come without an id
    model: Model | None = None
    template: StoredFile | None = None  # trained, empty index that segments are made from
    rescored: bool = False
    tuned: Tuned | None = None
    indexed_fields: tuple[str, ...] = ()  # metadata fields with a database index
    segments: tuple[SegmentEntry, ...] = ()

    @property
    def files(self) -> list[StoredFile]:
        """Every file that this generation consists of."""
        found = [] if self.template is None else [self.template]
        for segment in self.segments:
            found += [f for f in (segment.index, segment.documents, segment.half, segment.deleted) if f is not None]
        return found

    @property
    def rows(self) -> int:
        """Rows in all segments, deleted ones included."""
        return sum(segment.rows for segment in self.segments)

    @property
    def live(self) -> int:
        """Documents that a search can find."""
        return self.rows - sum(segment.deleted_rows for segment in self.segments)


_ADAPTER = TypeAdapter(Manifest)


def damaged(path: Path, what: str) -> SearchError:
    """The error for a file that is not as it was written."""
    return SearchError(f"{path}: {what}; restore the index from a copy")


def to_text(manifest: Manifest) -> str:
    """The manifest as JSON with its own checksum."""
    body = asdict(manifest)
    record = {"format": "sentemb-index", "version": VERSION, "checksum": _checksum(body), "index": body}
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def read(folder: Path) -> Manifest:
    """The manifest of an index folder, verified.

    Raises:
        SearchError: there is none, it is damaged, or a newer sentemb wrote it.
    """
    path = folder / NAME
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise SearchError(f"{folder}: {_why_absent(folder)}") from None
    except (ValueError, RecursionError):
        raise damaged(path, "not readable as JSON, so it was altered") from None
    if not isinstance(record, dict) or record.get("format") != "sentemb-index":
        raise SearchError(f"{path}: not the manifest of a sentemb index")
    version = record.get("version")
    if isinstance(version, int) and version > VERSION:
        raise SearchError(
            f"{path}: format version {version}; this sentemb reads up to {VERSION}; upgrade sentemb to open this index"
        )
    if version != VERSION:
        raise SearchError(f"{path}: format version {version!r}; this sentemb reads {VERSION}")
    body = record.get("index")
    if record.get("checksum") != _checksum(body):
        raise damaged(path, "its checksum does not match its content")
    return parse(body, path)


def parse(body: Any, path: Path) -> Manifest:
    """A manifest from decoded JSON whose checksum was verified.

    Raises:
        SearchError: a field is missing, unknown or impossible.
    """
    try:
        manifest = _ADAPTER.validate_json(json.dumps(body))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise damaged(path, f"{where}: {first['msg']}") from None
    for segment in manifest.segments:
        if segment.deleted_rows > segment.rows or (segment.deleted is None) != (segment.deleted_rows == 0):
            raise damaged(path, f"deleted rows of {segment.index.name} do not add up")
    names = [file.name for file in manifest.files]
    if len(set(names)) != len(names):
        raise damaged(path, "names a file twice")
    return manifest


def _checksum(body: Any) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def parts_of(folder: Path) -> Path:
    """Where the parts that a cluster finished lie until the index is whole."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.shards")


def _why_absent(folder: Path) -> str:
    if parts_of(folder).is_dir() and not folder.is_file():
        return f"its build on a cluster did not finish; the same command goes on from {parts_of(folder)}"
    if not folder.exists():
        return "there is no such folder; build an index with: sentemb index build DATA --out FOLDER"
    if not folder.is_dir():
        return "is a file; an index is a folder; build one with: sentemb index build DATA --out FOLDER"
    if (folder / "building").is_dir():
        return "its build did not finish; continue it with the same command and --resume"
    return "holds no index (no manifest.json); build one with: sentemb index build DATA --out FOLDER"


@dataclass(frozen=True)
class Document:
    """What is kept beside a vector."""

    id: int | str | None  # None: the index numbers it
    text: str | None
    metadata: dict[str, Any] = field(default_factory=dict)
