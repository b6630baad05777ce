"""Files of the repository in the site: which are pages, and where a link between two of them leads."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PROJECT = {name: f"project/{name.lower()}" for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")}
_OTHERS = {
    "README.md": "index.md",
    "examples/own_parts": "guide/own-parts-package.md",
    "eval/results": "results/README.md",
    "eval/results/sts_table": "results/sts_table/table.md",
}
_FENCED = re.compile(r"(^ *```.*?^ *```)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?P<picture>!?)\[(?P<label>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")


@functools.cache
def included() -> Mapping[str, str]:
    """Path in the repository -> address in the site, of files that are pages or pictures as they are."""
    files = sorted((ROOT / "eval" / "results").rglob("*"))
    paths = [path.relative_to(ROOT).as_posix() for path in files if path.suffix in (".md", ".json", ".svg", ".png")]
    return {
        **_PROJECT,
        **{path: path.removeprefix("eval/") for path in paths if "/scratch/" not in path},
        "examples/own_parts/README.md": "guide/own-parts-package.md",
    }


@functools.cache
def examples() -> frozenset[str]:
    """The Python files of the package that shows own parts."""
    files = (ROOT / "examples" / "own_parts" / "own_parts").glob("*.py")
    return frozenset(path.relative_to(ROOT).as_posix() for path in files)


def code_pages(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """A page with line numbers for each of these Python files."""
    for path in sorted(paths):
        code = (ROOT / path).read_text(encoding="utf-8")
        head = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n"
        yield code_uri(path), f'{head}```{{.python linenums="1"}}\n{code.rstrip()}\n```\n'


def code_uri(path: str) -> str:
    """The address of a Python file's page."""
    return f"code/{path.removesuffix('.py')}.md"


def rewritten(markdown: str, *, path: str, uri: str) -> tuple[str, list[str]]:
    """Markdown of the file ``path``, shown at the address ``uri``, with its links led to pages; and its dead links."""
    faults: list[str] = []

    def replace(match: re.Match[str]) -> str:
        target = match["target"]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        file, hash_, anchor = target.partition("#")
        aim = posixpath.normpath(posixpath.join(posixpath.dirname(path), file))
        page = _page_of(aim)
        if page is None and (ROOT / aim).exists():
            return match["label"]  # a file that the site does not show
        if page is None:
            faults.append(f"a link leads to {target}, which is not there")
            return match[0]
        page, has_anchor, own_anchor = page.partition("#")
        address = posixpath.relpath(page, posixpath.dirname(uri) or ".") + (has_anchor + own_anchor or hash_ + anchor)
        return f"{match['picture']}[{match['label']}]({address})"

    pieces = _FENCED.split(markdown)
    pieces[::2] = [_LINK.sub(replace, piece) for piece in pieces[::2]]
    return "".join(pieces), faults


def _page_of(path: str) -> str | None:
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("recipes/") and path.endswith(".toml"):
        return f"reference/recipes.md#{Path(path).stem}"
    if path in examples():
        return code_uri(path)
    return _OTHERS.get(path) or included().get(path)
