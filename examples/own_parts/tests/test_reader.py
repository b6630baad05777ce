from __future__ import annotations

import mailbox
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path

import pytest
from own_parts.reader import Mailbox

from sentemb.errors import DataError
from sentemb.parts import PartError, room


def message(subject: str | None, text: str, **headers: str) -> EmailMessage:
    """A message as a mail program writes it."""
    written = EmailMessage()
    if subject is not None:
        written["Subject"] = subject
    for name, value in headers.items():
        written[name.replace("_", "-")] = value
    written.set_content(text)
    return written


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with closing(mailbox.mbox(tmp_path / "archive.mbox")) as box:
        box.add(message("Crème brûlée, and how to burn it " + "slowly " * 20, "Sugar first.\n"))
        box.add(message("Re: Crème brûlée", "Thanks!", In_Reply_To="<1@example.org>"))
        box.add(message(None, "no subject"))
        box.add(message("Trains", "They leave at nine."))
    return tmp_path / "archive.mbox"


def test_it_reads_subjects_and_texts(archive: Path) -> None:
    source = room("sources").make({"use": "mailbox", "path": str(archive)})
    assert source == Mailbox(path=str(archive))
    first = ("Crème brûlée, and how to burn it " + "slowly " * 20).strip()
    assert {name: [text.strip() for text in column] for name, column in source.load().columns.items()} == {
        "anchor": [first, "Trains"], "positive": ["Sugar first.", "They leave at nine."],
    }


def test_faulty_rows_are_named_or_left_out(archive: Path) -> None:
    with closing(mailbox.mbox(archive)) as box:
        box.add(message("empty", ""))
    with pytest.raises(DataError, match=r"archive.mbox: row 3.*positive"):
        Mailbox(path=str(archive)).load()
    table = Mailbox(path=str(archive), skip_faulty=True).load()
    assert (len(table), table.skipped) == (2, 1)


def test_what_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Mailbox(path=str(tmp_path / "none.mbox")).load()
    (tmp_path / "letter.txt").write_text("Dear all,\n")
    with pytest.raises(DataError, match="no messages"):
        Mailbox(path=str(tmp_path / "letter.txt")).load()
    with pytest.raises(PartError, match="needs path"):
        Mailbox()
