"""A file that takes long to write, block by block: the next run goes on where one was stopped, however it was stopped.

    DIR/.NAME.partial/content        what is written so far
    DIR/.NAME.partial/blocks.json    its blocks that are on the disk, and what it is made by
    DIR/.NAME.partial/.lock          keeps other processes out meanwhile

A block counts once its bytes are on the disk and then the note that lists it; what stands behind it is cut off.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from sentemb.errors import DataError
from sentemb.files import fsync_path, write_json
from sentemb.stopping import stoppable

_log = logging.getLogger("sentemb")

MadeBy = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows that are on the disk."""

    rows: int
    end: int  # the byte behind them
    digest: str  # of what they were made of


@dataclass(kw_only=True)
class PartialFile:
    """What is written of ``path`` so far, open for more."""

    path: Path
    made_by: MadeBy | None  # what the content depends on beside the rows; None: nothing is kept for another run
    content: IO[bytes]
    memo: dict[str, Any] = field(default_factory=dict)  # what the first block decided for all
    blocks: list[Block] = field(default_factory=list)  # of this run, and of an earlier one as far as they were found
    earlier: list[Block] = field(default_factory=list)  # of a run that was stopped, not compared yet
    start: int = 0  # the first block's first byte
    earlier_rows: int = 0  # rows of an earlier run
    is_published: bool = False
    _has_said_so: bool = False  # that an earlier run is gone on with
    _is_listed: bool = True  # the last block, on the disk

    @property
    def content_path(self) -> Path:
        """Where ``content`` lies."""
        return _folder(self.path) / "content"

    @property
    def rows(self) -> int:
        """Rows so far."""
        return sum(block.rows for block in self.blocks)

    @property
    def end(self) -> int:
        """The byte behind the last block."""
        return self.blocks[-1].end if self.blocks else self.start

    def has(self, rows: int, digest: str) -> bool:
        """Whether the next block is there, made of the same; else what an earlier run left from here on is dropped.

        That there is a next block puts the one before it on the disk; so a file of one block never waits for that.
        """
        self.list_blocks()
        if self.earlier and self.earlier[0].digest == digest and self.earlier[0].rows == rows:
            self.blocks.append(self.earlier.pop(0))
            self.earlier_rows += rows
            return True
        self.go_on()
        return False

    def append(self, rows: int, digest: str, write: Callable[[IO[bytes]], object]) -> None:
        """Write a block behind the last one."""
        self.go_on()
        write(self.content)
        self.blocks.append(Block(rows=rows, end=self.content.tell(), digest=digest))
        self._is_listed = False

    def list_blocks(self) -> None:
        """Put the blocks on the disk, and then the note that lists them."""
        if self.made_by is not None and not self._is_listed:
            self.content.flush()
            os.fsync(self.content.fileno())
            self._write_note()

    def go_on(self) -> None:
        """End the comparison with an earlier run: what it left behind the last block is dropped."""
        if self.earlier_rows and not self._has_said_so:
            _log.info("%s: %s texts were done by an earlier run, which is gone on with", self.path,
                      f"{self.earlier_rows:,}")
            self._has_said_so = True
        if self.earlier:
            _log.info("%s: the texts behind them changed since an earlier run, and are encoded again" if self.blocks
                      else "%s: an earlier run was on other texts; begun again", self.path)
            self.earlier = []
            self._write_note()  # first: it must never list what is cut off
        if self.content.tell() != self.end:
            self.content.seek(self.end)
            self.content.truncate()

    def _write_note(self) -> None:
        facts = {} if self.made_by is None else dict(self.made_by())
        blocks = [asdict(block) for block in self.blocks]
        write_json(_note(self.path), {"made_by": facts, "memo": self.memo, "blocks": blocks})
        self._is_listed = True

    def read_note(self) -> None:
        """Take over what an earlier run left, if it was made by the same."""
        note = _note(self.path)
        if self.made_by is None or not note.is_file():
            return
        try:
            written = json.loads(note.read_text(encoding="utf-8"))
            earlier, memo = [Block(**block) for block in written["blocks"]], dict(written["memo"])
            before = dict(written["made_by"])
        except (OSError, ValueError, TypeError, KeyError):
            _log.info("%s: what an earlier run left is damaged; begun again", self.path)
            return
        now = json.loads(json.dumps(dict(self.made_by())))
        changed = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
        if changed:
            _log.info("%s: an earlier run had another %s; begun again", self.path, " and ".join(changed))
        elif earlier and os.fstat(self.content.fileno()).st_size >= earlier[-1].end:
            self.earlier, self.memo = earlier, memo

    def publish(self, finished: Path) -> None:
        """Give a finished file (the content, or one beside it) the name."""
        self.content.flush()
        fsync_path(finished)
        self.content.close()  # Windows renames no open file
        finished.replace(self.path)
        fsync_path(self.path.parent)
        self.is_published = True


def digest_of(texts: Sequence[str], others: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of a block's texts and of its rows' other columns."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)} {text}".encode("utf-8", "surrogatepass"))
    for row in others:
        digest.update(json.dumps(row, default=str).encode() if row else b"-")
    return digest.hexdigest()


@contextmanager
def partial_file(path: Path, made_by: MadeBy | None) -> Iterator[PartialFile]:
    """Open what is written of ``path``; whoever has written all calls ``publish``.

    What is on the disk stays there after a stop or an error, for the next run that is made by the same; where that is
    nothing, nothing stays.

    Raises:
        DataError: another process writes there.
        Interrupted: by Ctrl-C or SIGTERM; says what is left.
    """
    folder = _folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0), stoppable(lambda: _left(path)):
            content = folder / "content"
            content.touch()
            with content.open("r+b") as file:
                part = PartialFile(path=path, made_by=made_by, content=file)
                try:
                    part.read_note()
                    if not part.earlier:
                        _note(path).unlink(missing_ok=True)
                        file.truncate(0)
                    yield part
                except BaseException as error:
                    with suppress(OSError, ValueError):  # a full disk, a closed file: what was listed before is kept
                        part.list_blocks()
                    if isinstance(error, Exception) and _kept_rows(path):
                        _log.info("%s", _left(path))
                    raise
                finally:
                    if part.is_published or not _kept_rows(path):
                        shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        raise DataError(f"{path}: another process is writing it; wait for it, or name another file") from None


def _folder(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _note(path: Path) -> Path:
    return _folder(path) / "blocks.json"


def _kept_rows(path: Path) -> int:
    try:
        note = json.loads(_note(path).read_text(encoding="utf-8"))
        return sum(block["rows"] for block in note["blocks"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _left(path: Path) -> str:
    if rows := _kept_rows(path):
        return (f"{path} was not written, but {rows:,} texts are done, in {_folder(path)}. The same command goes on "
                "there")
    return f"{path} was not written. The same command starts again"
