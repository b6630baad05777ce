"""A user's file of defaults: it is read by every verb, gives way to the command line, and its faults are named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from sentemb.cli import VERBS, serve
from sentemb.cli.defaults import config_file, defaults_of
from sentemb.cli.index import app as index_app
from sentemb.errors import SentembError


@pytest.fixture
def written(tmp_path, monkeypatch):
    def write(text: str) -> Path:
        file = tmp_path / "config.toml"
        file.write_text(text)
        monkeypatch.setenv("SENTEMB_CONFIG", str(file))
        return file

    return write


def of_serve():
    return defaults_of("serve", typer.main.get_command(serve.app), VERBS)


def test_options_are_named_as_on_the_command_line(written):
    written('[serve]\nport = 9000\napi-key-file = "/k"\nmodel = "a"\n[search]\nk = 3\n')
    assert of_serve() == {"port": 9000, "api_key_file": "/k", "models": ["a"]}


def test_commands_of_a_verb_have_tables_of_their_own(written):
    written('["index build"]\nchunk-tokens = 200\n["index sync"]\nfiles = true\n')
    found = defaults_of("index", typer.main.get_command(index_app), VERBS)
    assert found == {"build": {"chunk_tokens": 200}, "sync": {"files": True}}


@pytest.mark.parametrize(("text", "fault"), [
    ("[serve]\nprt = 1\n", r"\[serve\] prt: is no option of it.*did you mean port"),
    ("[serv]\nport = 1\n", '"serv" is no table of a verb.*did you mean serve'),
    ("port = 1\n", '"port" is no table of a verb'),
    ('["serve now"]\nport = 1\n', '"serve now" is no command'),
    ("[serve]\nport = [1, 2]\n", "port: give one value, not a list"),
    ("[serve]\nport = {a = 1}\n", "port: must be text, a number, true or false"),
    ("[serve\n", "is no TOML"),
])  # fmt: skip
def test_faults_name_the_file(written, text, fault):
    file = written(text)
    with pytest.raises(SentembError, match=f"{re.escape(str(file))}: .*{fault}"):
        of_serve()


def test_a_switch_is_true_or_false(written):
    written('["index build"]\nfiles = 1\n')
    with pytest.raises(SentembError, match="must be true or false"):
        defaults_of("index", typer.main.get_command(index_app), VERBS)


def test_a_file_that_is_named_must_be_there_the_usual_one_need_not(monkeypatch, tmp_path):
    monkeypatch.setenv("SENTEMB_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(SentembError, match="no such file"):
        of_serve()
    monkeypatch.delenv("SENTEMB_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_file() == tmp_path / "sentemb" / "config.toml"
    assert of_serve() == {}


def test_the_command_line_goes_first_and_a_wrong_value_names_the_file(written):
    file = written('[list]\njson = true\n')
    run = lambda *words: subprocess.run(  # noqa: E731
        [sys.executable, "-m", "sentemb", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert run("list", "terms").stdout.startswith("{")
    file.write_text('[serve]\nport = "x"\n')
    answer = run("serve")
    assert answer.returncode == 2
    assert f"options that are not given come from {file}" in answer.stderr
    assert "port" not in run("serve", "--port", "9000").stderr
