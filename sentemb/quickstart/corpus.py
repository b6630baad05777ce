"""Pairs of a Python object's name in words and its docstring's first line, from source files that are never imported.

    networkx.classes.graph.Graph.remove_node   its qualified name in words      →  "graph remove node"
                                               its docstring's first line       →  "Remove node n."
"""

from __future__ import annotations

import ast
import os
import signal
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

from sentemb.data.docstrings import in_words, objects_of, parsed, summary_of
from sentemb.errors import DataError
from sentemb.machine.resources import cpu_count

# copies of other packages, and code that documents nothing for its users
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "testing", "_vendor", "vendor", "_vendored", "third_party", "__pycache__", "site-packages",
     "dist-packages", "idlelib", "sentemb"}
)  # fmt: skip
_LARGEST_FILE = 400_000  # bytes; longer ones are generated tables
_BYTES_A_PAIR = 5_500  # of source code; 4,200 were measured over 8,000 files, the rest is margin
_FILES_AT_ONCE = 50  # that a process parses


@dataclass(frozen=True, order=True)
class Docstring:
    """An object and what its author says it is."""

    name: str  # "networkx.classes.graph.Graph.remove_node"
    module: str  # "networkx.classes.graph"
    query: str  # "graph remove node": the qualified name (PEP 3155) in words
    text: str


def read_docstrings(wanted: int, roots: Sequence[Path] | None = None, *, workers: int | None = None) -> list[Docstring]:
    """About ``wanted`` docstrings or more (all, where there are fewer), the same for the same installed packages.

    Modules are taken in the order of their names' hashes until they hold enough source code, so that a sample covers
    all packages. Neither a query nor a text recurs. Ordered by the hash of the module, then by name.

    Args:
        roots: folders of source code; the default is this interpreter's site-packages and standard library.
        workers: processes that parse; by default one a core.

    Raises: DataError where there are no docstrings at all.
    """
    roots = default_roots() if roots is None else roots
    sample: list[tuple[str, Path]] = []
    budget = wanted * _BYTES_A_PAIR
    for module, path, size in sorted(_modules(roots), key=lambda entry: (module_hash(entry[0]), entry)):
        sample.append((module, path))
        budget -= size
        if budget <= 0:
            break
    docstrings = _in_processes(sample, workers or cpu_count())
    distinct = _distinct(sorted(docstrings, key=lambda doc: (module_hash(doc.module), doc)))
    if not distinct:
        raise DataError(f"no docstrings in {', '.join(map(str, roots))}")
    return distinct


def default_roots() -> list[Path]:
    """Site-packages and the standard library of this interpreter."""
    paths = sysconfig.get_paths()
    return [Path(path) for path in dict.fromkeys(paths[key] for key in ("purelib", "platlib", "stdlib"))]


def module_hash(module: str) -> int:
    """A number that the module's name alone decides."""
    return int.from_bytes(blake2b(module.encode(), digest_size=8).digest())


def _modules(roots: Iterable[Path]) -> Iterator[tuple[str, Path, int]]:
    """Name, file and size of every public source module."""
    seen: set[str] = set()
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS and name.isidentifier()]
            parts = Path(folder).relative_to(root).parts
            for file in files:
                stem = file.removesuffix(".py")
                if stem == file or not stem.isidentifier() or stem.startswith("test_") or stem == "conftest":
                    continue
                module = ".".join((*parts, stem)).removesuffix(".__init__")
                path = Path(folder, file)
                size = path.stat().st_size if path.is_file() else 0
                if module not in seen and 0 < size <= _LARGEST_FILE:
                    seen.add(module)
                    yield module, path, size


def _in_processes(modules: list[tuple[str, Path]], workers: int) -> list[Docstring]:
    """Parse in fresh interpreters: parsing holds the interpreter lock, and a fork would copy torch's threads."""
    workers = min(workers, len(modules) // _FILES_AT_ONCE)
    if workers <= 1:
        return [doc for module, path in modules for doc in docstrings_of(module, path)]
    deaf_to_ctrl_c = signal.signal, (signal.SIGINT, signal.SIG_IGN)  # it is the parent's to handle
    with ProcessPoolExecutor(workers, get_context("spawn"), *deaf_to_ctrl_c) as children:
        docstrings = children.map(docstrings_of, *zip(*modules, strict=True), chunksize=_FILES_AT_ONCE)
        return list(chain.from_iterable(docstrings))


def docstrings_of(module: str, path: Path) -> list[Docstring]:
    """Public functions, classes and methods of a source file; none where Python cannot parse it."""
    tree = parsed(path)
    if tree is None:
        return []
    return [
        Docstring(f"{module}.{name}", module, query, text)
        for name, node in objects_of(tree)
        if (text := summary_of(ast.get_docstring(node))) and (query := in_words(name))
    ]


def _distinct(docs: list[Docstring]) -> list[Docstring]:
    """The first of every text and of every query, whatever their case."""
    by_text: dict[str, Docstring] = {}
    for doc in docs:
        by_text.setdefault(" ".join(doc.text.lower().split()).rstrip("."), doc)
    by_query: dict[str, Docstring] = {}
    for doc in by_text.values():
        by_query.setdefault(doc.query, doc)
    return list(by_query.values())
