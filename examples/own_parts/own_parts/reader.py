"""Training pairs out of a mailbox: a message's subject and its text."""

from __future__ import annotations

import mailbox
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from email import policy
from email.parser import BytesParser
from pathlib import Path

from sentemb import DataSource
from sentemb.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Mailbox(DataSource):
    """The messages of an mbox file that have a subject and a plain text: ``anchor`` is the one, ``positive`` the other.

        [data]
        use = "mailbox"
        path = "archive.mbox"

    Replies are left out: their subject is the one of what they answer.

    Args:
        path: an mbox file; it is only read.
        columns, max_rows, max_tokens, prefixes, skip_faulty: see ``DataSource``.
    """

    path: str

    def rows(self) -> Iterator[Mapping[str, object]]:
        """Every message that is no reply: subject and text.

        Raises:
            DataError: no such file, or one without messages.
        """
        if not Path(self.path).is_file():
            raise DataError(f"{self.path}: no such file")
        # the parser of today gives unfolded, decoded headers and the best of several bodies
        parser = BytesParser(policy=policy.default)
        with closing(mailbox.mbox(self.path, factory=parser.parse, create=False)) as messages:
            if not len(messages):
                raise DataError(f"{self.path}: no messages; an mbox file has a line \"From …\" before each")
            for message in messages:
                body = message.get_body(("plain",))
                if message["subject"] and body is not None and not message["in-reply-to"]:
                    yield {"anchor": message["subject"], "positive": body.get_content().strip()}
