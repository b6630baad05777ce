"""Python source as text: its public objects, their names in words, the first lines of their docstrings."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_ROLE = re.compile(r":[a-z:]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`")  # reST :class:`~package.Name`
_FEWEST_WORDS, _MOST_CHARACTERS = 4, 300


def parsed(path: Path) -> ast.Module | None:
    """The syntax tree of a source file; None where Python cannot parse it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def objects_of(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Public functions, classes and methods with their qualified names (PEP 3155)."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from objects_of(node, f"{prefix}{node.name}.")


def summary_of(docstring: str | None) -> str:
    """The first line without markup; empty where it is no sentence that describes something."""
    lines = (docstring or "").strip().splitlines()
    line = _ROLE.sub(r"\1", lines[0]).replace("`", "").strip() if lines else ""
    words = re.findall(r"[A-Za-z]{2,}", line)
    if len(words) < _FEWEST_WORDS or len(line) > _MOST_CHARACTERS or line.startswith((">>>", ":", "@", ".. ")):
        return ""
    return line if line.isprintable() else ""


def in_words(name: str) -> str:
    """``LinearSVC.fit_more`` → ``linear svc fit more``; a word repeated at once counts once."""
    return " ".join(word for word, _ in groupby(word.lower() for word in _WORDS.findall(name)))
