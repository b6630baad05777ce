"""Pairs out of Python source files, which are parsed and never run."""

from __future__ import annotations

import ast
import symtable
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import numpy as np

from sentemb.data.docstrings import in_words, objects_of, parsed, summary_of
from sentemb.data.makers.maker import Maker, Row
from sentemb.errors import DataError

_READS_NAMES = {"locals", "vars", "eval", "exec", "dir"}  # a function that calls these may know its variables' names
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Code(Maker):
    """Public functions of Python files: how they are called, described and written.

        names:      anchor = the qualified name in words, positive = the docstring's first line
        functions:  anchor = the docstring's first line, positive = the function's source without its docstring
        rewritten:  anchor = the source without docstring, positive = the same function written in another way

    A function is rewritten by other names of its local variables, without comments and annotations, with the keyword
    arguments of calls in reverse order. ``names`` takes classes as well.

    Args:
        path: a .py file, or a folder of them.
        pairs: ``names``, ``functions`` or ``rewritten``.

    Source: Chen et al. 2022, ICSE (VarCLR), released code: names are split at case and underscores, in lower case.
    Deviations: VarCLR's pairs are renamings of variables in commits, which need a history; these need the source alone.
        Reversed keyword arguments are evaluated in another order.
    """

    pairs: Literal["names", "functions", "rewritten"] = "functions"

    def rows(self, generator: np.random.Generator, left_out: Counter[str]) -> Iterator[Row]:
        for file in self._files():
            tree = parsed(file)
            if tree is None:
                left_out["files that Python cannot parse"] += 1
                continue
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            for name, node in objects_of(tree):
                row = self._row(name, node, lines)
                if row is None:
                    left_out["functions and classes without such a pair"] += 1
                else:
                    yield row

    def _files(self) -> list[Path]:
        source = Path(self.path).expanduser()
        if not source.exists():
            raise DataError(f"{self.path}: no such file or folder; give a .py file or a folder of them")
        files = sorted(source.rglob("*.py")) if source.is_dir() else [source]
        if not files:
            raise DataError(f"{self.path}: no .py file in this folder")
        return files

    def _row(self, name: str, node: ast.AST, lines: list[str]) -> Row | None:
        assert isinstance(node, Function | ast.ClassDef)
        described = summary_of(ast.get_docstring(node))
        if self.pairs == "names":
            named = in_words(name)
            return {"anchor": named, "positive": described} if named and described else None
        source = source_without_docstring(node, lines) if isinstance(node, Function) else None
        if source is None:
            return None
        if self.pairs == "functions":
            return {"anchor": described, "positive": source} if described else None
        return {"anchor": source, "positive": rewritten(source)}


def source_without_docstring(node: Function, lines: list[str]) -> str | None:
    """A function's lines, decorators and docstring left out; None where nothing else is in it."""
    start, first = node.lineno - 1, node.body[0]
    body = lines[start : node.end_lineno]
    if ast.get_docstring(node) is not None:
        if len(node.body) == 1 or first.lineno == node.lineno or first.end_lineno == node.body[1].lineno:
            return None
        assert first.end_lineno is not None
        body = lines[start : first.lineno - 1] + lines[first.end_lineno : node.end_lineno]
    source = dedent("\n".join(body))
    try:
        ast.parse(source)
    except SyntaxError:  # a text over several lines that begins left of the function
        return None
    return source


def rewritten(source: str) -> str:
    """The function with other names of local variables, keyword arguments reversed, no comments, no annotations."""
    tree = ast.parse(source)
    (function,) = tree.body
    taken = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | _bound_as_text(tree)
    free = (name for name in (f"v{number}" for number in count(1)) if name not in taken)
    renames = dict(zip(_locals(source, function), free, strict=False))
    return ast.unparse(ast.fix_missing_locations(_Rewriting(renames).visit(tree)))


def _locals(source: str, function: ast.stmt) -> list[str]:
    """Variables of the function that nothing outside it and no scope within it knows by another meaning."""
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    if any(isinstance(called, ast.Name) and called.id in _READS_NAMES for called in calls):
        return []
    scope = next(child for child in symtable.symtable(source, "function", "exec").get_children()
                 if child.get_type() == "function")
    inner = {symbol.get_name() for table in _descendants(scope) for symbol in table.get_symbols()
             if not symbol.is_free()}
    own = [symbol.get_name() for symbol in scope.get_symbols()
           if symbol.is_local() and symbol.is_assigned()
           and not (symbol.is_parameter() or symbol.is_imported() or symbol.is_namespace())]
    fixed = inner | _bound_as_text(function)
    return sorted(name for name in own if name not in fixed)


def _descendants(scope: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in scope.get_children():
        yield child
        yield from _descendants(child)


def _bound_as_text(tree: ast.AST) -> set[str]:
    """Names in patterns, parameters and ``nonlocal``: they are no ``Name`` nodes, so they are left as they are."""
    texts: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            texts.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            texts.add(node.rest)
        elif isinstance(node, ast.arg):
            texts.add(node.arg)
        elif isinstance(node, ast.Nonlocal | ast.Global):
            texts.update(node.names)
    return texts


class _Rewriting(ast.NodeTransformer):
    def __init__(self, renames: Mapping[str, str]) -> None:
        self.renames = renames

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.renames.get(node.id, node.id)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> Any:
        node.name = self.renames.get(node.name, node.name) if node.name else None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: Function) -> Any:
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - the name is what ast calls

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if node.value is None:
            return ast.Pass()
        return self.generic_visit(ast.Assign(targets=[node.target], value=node.value))

    def visit_Call(self, node: ast.Call) -> Any:
        if all(keyword.arg for keyword in node.keywords):  # what "**" spreads may come last only
            node.keywords.reverse()
        return self.generic_visit(node)
