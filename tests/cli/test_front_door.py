"""The command's front door: help, exit codes, messages without tracebacks, nothing heavy imported."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import warnings

import pytest

from sentemb import cli
from sentemb.cli import VERBS, main


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sentemb", *arguments], capture_output=True, text=True, check=False)


def test_help_names_every_verb(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in VERBS)


def test_unknown_verb_and_option_say_what_is_known(capsys):
    for arguments, words in ([["trian"], "did you mean train?"], [["--verbos"], "known: check, classify"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


def commands() -> list[list[str]]:
    """Every verb and every command of a verb."""
    found = []
    for verb, (module, _) in VERBS.items():
        registered = importlib.import_module(f"sentemb.cli.{module}").app.registered_commands
        found.append([verb])
        if len(registered) > 1:
            found += [[verb, command.name or command.callback.__name__] for command in registered]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_fits_on_a_screen_and_stands_alone(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) > 5
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 40
    # an option's line is read without its neighbours
    assert not re.search(r"likewise|ditto|as above|  (?:the same|their|…)\b", text)


def test_a_mistake_is_one_message_and_debug_shows_the_traceback():
    plain = run("check", "no-such-recipe")
    assert plain.returncode == 2
    assert plain.stderr.startswith("sentemb: ")
    assert "Traceback" not in plain.stderr
    assert "RecipeError" in run("--debug", "check", "no-such-recipe").stderr


def test_an_unexpected_error_is_one_message_and_its_traceback_is_kept(monkeypatch, capsys, tmp_path):
    def fail(*_: object) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr("sentemb.recipe.catalogue.catalogue", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(["list", "terms"])
    assert ended.value.code == 3
    said = capsys.readouterr().err
    assert said.startswith("sentemb: KeyError: 'no such thing'\n")
    assert "Traceback" not in said
    (kept,) = tmp_path.iterdir()
    assert str(kept) in said
    assert "Traceback" in kept.read_text()
    with pytest.raises(KeyError):
        main(["--debug", "list", "terms"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_every_verb_is_stopped_with_one_message(number, monkeypatch, capsys):
    monkeypatch.setattr("sentemb.recipe.catalogue.catalogue", lambda _: signal.raise_signal(number))
    with pytest.raises(SystemExit) as ended:
        main(["list", "terms"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "sentemb: stopped\n"


@pytest.mark.parametrize(
    ("words", "place", "offered"),
    [("sentemb ind", "1", "index"), ("sentemb index co", "2", "compact"), ("sentemb train --re", "2", "--resume")],
)
def test_the_shell_completes(words, place, offered):
    environment = {**os.environ, "_SENTEMB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": place}
    command = [sys.executable, "-m", "sentemb"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == [offered]


def test_help_and_import_load_nothing_heavy():
    code = (
        "import sys, sentemb\n"
        "from sentemb.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'faiss', 'mteb', 'datasets', 'numpy', 'pandas', 'sklearn', 'typer'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("LOADED []")


def test_the_function_train_is_not_shadowed_by_a_room():
    code = (
        "import sentemb\nfrom sentemb import check\nimport sentemb.recipe.train\n"
        "from sentemb import train\nassert callable(train) and callable(check)\n"
        "assert all(callable(getattr(sentemb, name)) for name in sentemb.__all__ if name != '__version__')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_list_gives_json():
    assert "info_nce" in json.loads(run("list", "terms", "--json").stdout)


def test_list_says_what_can_be_listed():
    done = run("list", "term")
    assert done.returncode == 2
    assert "did you mean terms?" in done.stderr
    assert done.stdout == ""


def test_show_prints_formula_source_and_place():
    said = run("show", "diffcse-bert-base-sts").stdout
    for words in ("terms[1]", "0.005 × replaced_token_detection", "source", ".py:", "exp"):
        assert words in said


def test_show_toml_is_a_recipe(tmp_path):
    (tmp_path / "copy.toml").write_text(run("show", "simcse-sup-minilm", "--toml").stdout)
    said = run("show", str(tmp_path / "copy.toml")).stdout
    assert "given" in said
    assert "columns" in said


def test_train_says_what_is_missing(tmp_path):
    missing = f"data.path={tmp_path / 'none.txt'}"
    done = run("train", "simcse-unsup-minilm", "--set", missing, "-o", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_warnings_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # restored afterwards
    with pytest.raises(SystemExit):
        main(["list", "--help"])
    assert warnings.formatwarning("it is so", UserWarning, cli.__file__, 3) == "sentemb: warning: it is so\n"
