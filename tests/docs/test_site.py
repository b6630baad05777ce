"""The site: the generated pages name everything there is, and the built pages ask nothing of another server."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import command_pages
import part_pages
import pytest
import recipe_pages
import repository
from pages import ROOT

import sentemb
from sentemb.cli import VERBS
from sentemb.parts import ROOMS, describe, settings_of
from sentemb.recipe.load import shipped_recipes

REFERENCE = sorted((ROOT / "docs" / "reference" / "python").glob("*.md"))
PYTHON = "".join(path.read_text(encoding="utf-8") for path in REFERENCE)


@pytest.fixture(scope="module")
def part_texts() -> dict[str, str]:
    return dict(part_pages.pages())


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_kinds_page_explains_every_part(room: str, part_texts: dict[str, str]) -> None:
    page = part_texts[part_pages.uri_of(room)]
    parts = part_pages.parts_of(ROOMS[room])
    assert parts
    for name, cls in parts.items():
        section = page.partition(f"## `{name}` {{ #{name} }}")[2].partition("\n## ")[0]
        facts = describe(cls)
        assert facts.summary in section
        assert all(line.strip() in section for line in facts.formula.splitlines())
        assert all(f"| `{setting}` |" in section for setting in settings_of(cls))
        assert facts.source in section
        assert facts.deviations in section
        assert part_pages.file_of(cls) in section


def test_the_overview_and_the_menu_name_every_kind(part_texts: dict[str, str]) -> None:
    overview = part_texts["reference/parts/index.md"]
    menu = str(part_pages.navigation())
    assert all(f"({room}.md)" in overview and part_pages.uri_of(room) in menu for room in ROOMS)


def test_the_page_of_recipes_has_every_recipe_once() -> None:
    page = recipe_pages.page()
    for name, path in shipped_recipes().items():
        assert page.count(f"### {name} {{ #{name} }}\n") == 1
        recipe = recipe_pages.recipes()[name]
        assert recipe.source in page
        assert recipe.note.strip() in page
        assert path.read_text().splitlines()[0].removeprefix("# ") in page
    assert "(parts/terms.md#info_nce)" in page


def test_families_go_by_the_data() -> None:
    families = {name: recipe_pages.family_of(recipe) for name, recipe in recipe_pages.recipes().items()}
    expected = {
        "simcse-unsup-minilm": "sentences", "simcse-sup-minilm": "pairs", "cosent-minilm": "scores",
        "supcon-minilm": "labels", "distill-minilm": "teachers", "codiemb-minilm": "mixtures",
        "simcse-sup-roberta-large": "published",
    }  # fmt: skip
    assert {name: families[name] for name in expected} == expected


def test_the_page_of_commands_has_every_option() -> None:
    page = command_pages.page()
    assert all(f"## sentemb {verb} {{ #{verb} }}" in page for verb in VERBS)

    def options(command: object) -> set[str]:
        inner = [option for one in getattr(command, "commands", {}).values() for option in options(one)]
        return {*inner, *(option for one in command.params for option in one.opts if option.startswith("--"))}

    for verb, command in command_pages.commands().items():
        assert all(option in page for option in options(command) - {"--help"}), verb


def test_the_python_reference_has_every_public_name() -> None:
    for name in set(sentemb.__all__) - {"__version__"}:
        assert re.search(rf"^::: sentemb\.[\w.]*\b{name}$", PYTHON, re.MULTILINE), name
    for path in re.findall(r"^::: (\S+)$", PYTHON, re.MULTILINE):
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path


@pytest.mark.parametrize("room", ["data", "evaluate", "search", "serve", "classify"])
def test_the_python_reference_has_a_rooms_public_functions(room: str) -> None:
    module = importlib.import_module(f"sentemb.{room}")
    functions = [name for name in module.__all__ if inspect.isfunction(getattr(module, name))]
    missing = [name for name in functions if not re.search(rf"\.{name}$", PYTHON, re.MULTILINE)]
    assert not missing


def test_links_between_files_become_links_between_pages() -> None:
    def lead(text: str) -> str:
        rewritten, faults = repository.rewritten(text, path="docs/guide/x.md", uri="guide/x.md")
        return rewritten if not faults else "; ".join(faults)

    assert lead("[a](../../recipes/simcse-unsup-minilm.toml)") == "[a](../reference/recipes.md#simcse-unsup-minilm)"
    assert lead("![a](../../eval/results/gallery/gallery.svg)") == "![a](../results/gallery/gallery.svg)"
    assert lead("[`a`](../../ARCHITECTURE.md#flows)") == "[`a`](../project/architecture.md#flows)"
    assert lead("[a](../data.md#files)") == "[a](../data.md#files)"
    assert lead("[b](https://a.org/b.md) [c](#here)") == "[b](https://a.org/b.md) [c](#here)"
    assert lead("[constraints](../../constraints.txt)") == "constraints"  # a file that the site does not show
    assert lead("```\n[a](../../gone.md)\n```") == "```\n[a](../../gone.md)\n```"
    assert "gone.md, which is not there" in lead("[a](../../gone.md)")


class Assets(HTMLParser):
    """What a page loads by itself, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.add(values.get("id", ""))
        if tag == "a":
            self.links.append(values.get("href", ""))
        elif tag == "link" and values.get("rel") in ("canonical", "next", "prev"):
            pass
        else:
            self.loads += [values[name] for name in ("src", "href", "srcset", "data", "poster") if name in values]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module, reason="pip install sentemb[docs]")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {path: Assets() for path in site.rglob("*.html")}
    assert len(pages) > 200
    for path, found in pages.items():
        text = path.read_text(encoding="utf-8")
        found.feed(text)
        outside = [address for address in found.loads if re.match(r"(https?:)?//", address)]
        assert not outside, f"{path.relative_to(site)}: {outside}"
        assert "mermaid" not in text
        assert not re.search(r"@import|url\(['\"]?https?:", text)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet
    for path, found in pages.items():  # links to lines of code, which mkdocs cannot check
        for link in (link for link in found.links if "#__codelineno" in link and not link.startswith("#")):
            target, _, anchor = link.partition("#")
            assert anchor in pages[(path.parent / target).resolve()].ids, f"{path}: {link}"


@pytest.mark.slow
def test_the_gallery_has_its_picture(site: Path) -> None:
    text = (site / "results" / "gallery" / "index.html").read_text(encoding="utf-8")
    assert "gallery.svg" in text
    assert (site / "results" / "gallery" / "gallery.svg").stat().st_size > 1000
    assert "../../reference/recipes.html#catlip-minilm" in text
