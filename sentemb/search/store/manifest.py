"""What an index is: one small JSON file that names, sizes and hashes every other file of the folder.

Replacing ``manifest.json`` is the commit point of every change. All named files are immutable, so a reader that opened
a manifest keeps a consistent picture while writers go on. What ``draft.json`` names is kept for ``resume``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Metric

NAME = "manifest.json"
DRAFT = "draft.json"
VERSION = 2
MARK, DRAFT_MARK = "sentemb-index", "sentemb-index-draft"

Count = Annotated[int, Field(ge=0)]
FileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]  # never a path out of the folder
_STRICT = ConfigDict(strict=True, extra="forbid")


@checked(frozen=True, kw_only=True, config=_STRICT)
class StoredFile:
    """An immutable file of the index."""

    name: FileName
    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@checked(frozen=True, kw_only=True, config=_STRICT)
class SegmentEntry:
    """Rows that were written together: their vectors, documents and which of them were deleted since."""

    rows: Annotated[int, Field(ge=1)]
    is_tail: bool  # exact vectors, not yet of the index's kind: a small addition, or encoded documents of a build
    index: StoredFile
    documents: StoredFile
    half: StoredFile | None = None  # (rows, dimension) float16, for exact re-scoring
    deleted: StoredFile | None = None  # one bit a row, little-endian bit order
    deleted_rows: Count = 0
    cut: Count = 0  # documents longer than the model reads, whose end no search sees

    def __post_init__(self) -> None:
        if self.deleted_rows > self.rows or (self.deleted is None) != (self.deleted_rows == 0):
            raise ValueError("deleted rows do not add up")

    @property
    def files(self) -> list[StoredFile]:
        """The segment's files."""
        return [file for file in (self.index, self.documents, self.half, self.deleted) if file is not None]


@checked(frozen=True, kw_only=True, config=_STRICT)
class Model:
    """The encoder that filled the index."""

    source: str
    digest: str
    width: Annotated[int, Field(ge=1)]  # of its vectors, before truncation
    query_prompt: str = ""
    document_prompt: str = ""
    precision: str = "auto"  # number format of encoding
    fields: dict[str, float] = Field(default_factory=dict)  # whose weighted mean a vector is; none: the text's vector


@checked(frozen=True, kw_only=True, config=_STRICT)
class Tuned:
    """Search effort that reached a recall on a sample of queries."""

    effort: Annotated[int, Field(ge=1)] | None  # nprobe or efSearch; None where the kind has no such knob
    oversample: Annotated[int, Field(ge=1)]  # candidates per asked neighbour that are re-scored
    target_recall: Annotated[float, Field(gt=0, le=1)]
    recall: Annotated[float, Field(ge=0, le=1)]  # recall@10 against exact search
    queries: Count
    reached: bool
    measured_on: Literal["documents", "queries"] = "documents"  # real queries find less than documents do


@checked(frozen=True, kw_only=True, config=_STRICT)
class Passages:
    """How documents are cut into rows."""

    tokens: Annotated[int, Field(ge=1)]  # of a passage at most, without special tokens and prompt
    overlap: Count = 0  # that two neighbours share at most

    def __post_init__(self) -> None:
        if self.overlap > self.tokens // 2:
            raise ValueError(f"overlap = {self.overlap}; at most half of the passage's {self.tokens} tokens")


@checked(frozen=True, kw_only=True, config=_STRICT)
class Manifest:
    """One generation of an index."""

    generation: Annotated[int, Field(ge=1)]
    dimension: Annotated[int, Field(ge=1)]
    metric: Metric
    kind: dict[str, str | int | float | bool]  # the table of the kind: {"use": "hnsw", "m": 16}
    description: str  # of what the kind made of its settings
    reason: str  # why this kind
    seed: int
    next_id: Count  # for documents that come without an id
    has_next_id: bool = True  # next_id is above every integer id; format 1 did not look
    width: Annotated[int, Field(ge=1)] | None = None  # of given vectors, before truncation; None: format 1
    model: Model | None = None
    template: StoredFile | None = None  # trained, empty index that segments are made from
    rescored: bool = False
    tuned: Tuned | None = None
    indexed_fields: tuple[str, ...] = ()  # metadata fields with a database index
    words: str = "none"  # how the word index of every segment splits texts, see ``words.rule_of``
    passages: Passages | None = None  # rows are passages of documents
    segments: tuple[SegmentEntry, ...] = ()

    @property
    def files(self) -> list[StoredFile]:
        """Every file that this generation consists of."""
        template = [] if self.template is None else [self.template]
        return template + [file for segment in self.segments for file in segment.files]

    @property
    def rows(self) -> int:
        """Rows in all segments, deleted ones included."""
        return sum(segment.rows for segment in self.segments)

    @property
    def live(self) -> int:
        """Documents that a search can find."""
        return self.rows - sum(segment.deleted_rows for segment in self.segments)


@checked(frozen=True, kw_only=True, config=_STRICT)
class Draft:
    """A build from texts that is not an index yet."""

    begun_with: dict[str, str | int | None]  # the data, the model and what else decides the vectors
    staged: Manifest  # the encoded documents in their order, as an index of exact segments
    made: Manifest | None = None  # the index as far as it is made of them

    @property
    def files(self) -> list[StoredFile]:
        """Every file that the draft keeps."""
        return self.staged.files + ([] if self.made is None else self.made.files)


_Record = TypeVar("_Record", Manifest, Draft)


def damaged(path: Path, what: str) -> SearchError:
    """The error for a file that is not as it was written."""
    return SearchError(f"{path}: {what}; restore the index from a copy")


def to_text(record: Manifest | Draft) -> str:
    """The record as JSON with its own checksum."""
    body = asdict(record) | ({"live": record.live} if isinstance(record, Manifest) else {})
    mark = MARK if isinstance(record, Manifest) else DRAFT_MARK
    envelope = {"format": mark, "version": VERSION, "checksum": checksum(body), "index": body}
    return json.dumps(envelope, indent=1, ensure_ascii=False) + "\n"


def read(folder: Path) -> Manifest:
    """The manifest of an index folder, verified.

    Raises:
        SearchError: there is none, it is damaged, or a newer sentemb wrote it.
    """
    path = folder / NAME
    try:
        version, body = _envelope(path, MARK)
    except (FileNotFoundError, NotADirectoryError):
        raise SearchError(f"{folder}: {_why_absent(folder)}") from None
    if version == 1:
        body = _from_format_1(body)
    live = body.pop("live", None) if isinstance(body, dict) else None  # format 1 does not say
    manifest = _validated(Manifest, body, path)
    if live is not None and live != manifest.live:
        raise damaged(path, f"its segments hold {manifest.live} documents, not {live}")
    return manifest


def read_draft(folder: Path) -> Draft | None:
    """The unfinished build that lies in the folder; raises SearchError where it is damaged or of somebody else."""
    try:
        return _validated(Draft, _envelope(folder / DRAFT, DRAFT_MARK)[1], folder / DRAFT)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _envelope(path: Path, mark: str) -> tuple[int, Any]:
    """Version and content of a file whose checksum is right."""
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise damaged(path, "not readable as JSON, so it was altered") from None
    if not isinstance(record, dict) or record.get("format") != mark:
        raise SearchError(f"{path}: not of the format {mark}; name another folder")
    version, body = record.get("version"), record.get("index")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise SearchError(
            f"{path}: format version {version!r}; this sentemb reads up to {VERSION}; upgrade sentemb to open it"
        )
    if record.get("checksum") != checksum(body):
        raise damaged(path, "its checksum does not match its content")
    return version, body


def _from_format_1(body: Any) -> Any:
    """Format 1 named FAISS's factory string, and had no words."""
    if not isinstance(body, dict) or not isinstance(body.get("kind"), str) or "factory" not in body:
        return body
    factory = body.pop("factory")
    kind = {"use": "faiss", "factory": factory} if body["kind"] == "factory" else {"use": body["kind"]}
    return {**body, "kind": kind, "description": factory, "has_next_id": False}


def _validated(kind: type[_Record], body: Any, path: Path) -> _Record:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(body))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise damaged(path, f"{where}: {first['msg']}") from None


def checksum(body: Any) -> str:
    """Of a record's content, whatever its spacing."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _why_absent(folder: Path) -> str:
    if (folder / DRAFT).is_file():
        return "its build did not finish; continue it with the same command and --resume"
    what = "is a file; an index is a folder" if folder.is_file() else "there is no index here"
    return f"{what}; build one with: sentemb index build DATA --out FOLDER"
