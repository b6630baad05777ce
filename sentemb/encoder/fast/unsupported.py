"""What a model may have that the fast path does not."""

from __future__ import annotations


class Unsupported(Exception):  # noqa: N818 - not an error: the plain path takes over
    """The fast path does not know this model; the message says what it met."""
