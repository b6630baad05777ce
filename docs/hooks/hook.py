"""mkdocs hook: adds the generated pages to the site, and rewrites links between files of the repository.

Nothing is written into ``docs/``: the pages exist while the site is built. What they say comes from the code
(docstrings, settings, ``--help``), from ``recipes/`` and from ``eval/results/``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import command_pages
import part_pages
import recipe_pages
import repository

_LOG = logging.getLogger("mkdocs.hooks.pages")


def on_config(config: Any) -> Any:
    """Add the kinds of parts to the menu, below the entry ``Parts`` of ``mkdocs.yml``."""
    for section in config.nav:
        for entries in section.values():
            for entry in entries if isinstance(entries, list) else ():
                if isinstance(entry, dict) and entry.get("Parts") == "reference/parts/index.md":
                    entry["Parts"] = ["reference/parts/index.md", *part_pages.navigation()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add what is generated."""
    from mkdocs.structure.files import File

    for uri, text in _pages():
        files.append(File.generated(config, uri, content=text))
    for path, uri in repository.included().items():
        files.append(File.generated(config, uri, abs_src_path=str(repository.ROOT / path)))
    return files


def _pages() -> Iterator[tuple[str, str]]:
    yield from part_pages.pages()
    yield "reference/recipes.md", recipe_pages.page()
    yield "reference/commands.md", command_pages.page()
    yield from repository.code_pages({*part_pages.code_files(), *repository.examples()})


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to files of the repository become links to the pages that show them."""
    uri = page.file.src_uri
    path = {uri: path for path, uri in repository.included().items()}.get(uri, f"docs/{uri}")
    text, faults = repository.rewritten(markdown, path=path, uri=uri)
    for fault in faults:
        _LOG.warning("%s: %s", path, fault)
    return text
