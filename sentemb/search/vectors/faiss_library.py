"""FAISS, or the command that installs it."""

from typing import Any

from sentemb.errors import needs_extra

needs_extra("faiss", "search")
import faiss as _faiss  # noqa: E402

faiss: Any = _faiss  # its own type stubs know half of its classes
