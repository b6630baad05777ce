"""The container's files: what they copy exists, and what they run is a command line of today. No container is built."""

from __future__ import annotations

import json
import re
from pathlib import Path

import typer.main
import yaml

from sentemb.cli import serve

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "serve"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()


def parsed(words: list[str]) -> dict[str, object]:
    return typer.main.get_command(serve.app).make_context("serve", words).params


def test_what_is_copied_exists_and_is_not_ignored():
    allowed = [line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"]
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / name).exists() for name in copied)


def test_the_command_is_one_of_today():
    entry = json.loads(re.search(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)[1])
    service = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["sentemb"]
    assert entry[:2] == ["sentemb", "serve"]
    found = parsed([*entry[2:], *service["command"]])
    assert found["host"] == "0.0.0.0"
    assert found["indexes"] == ["docs=/indexes/docs"]
    assert str(found["api_key_file"]) == "/run/secrets/key"
    assert service["ports"] == [f"127.0.0.1:{found['port']}:{found['port']}"]
