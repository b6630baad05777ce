"""A user's own defaults of the verbs' options, in one file.

    # ~/.config/sentemb/config.toml
    [serve]
    port = 9000
    api-key-file = "/home/me/key"

    ["index build"]
    model = "/models/mine"
    chunk-tokens = 200

A table is named after a verb, or a verb and its command; its keys are their options without the dashes. What stands on
the command line or in an environment variable of the option goes first.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from typer.core import TyperGroup, TyperOption

from sentemb.errors import SentembError, did_you_mean


def config_file() -> Path | None:
    """``$SENTEMB_CONFIG``, which may be empty for none, or ``config.toml`` in the user's configuration folder."""
    given = os.environ.get("SENTEMB_CONFIG")
    if given is not None:
        return Path(given) if given else None
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sentemb" / "config.toml"


def defaults_of(verb: str, command: Any, verbs: Iterable[str]) -> dict[str, Any]:
    """What the file says of a verb, for the command's ``default_map``.

    Raises: SentembError for a file that cannot be read, and for tables, options or values that do not exist.
    """
    file = config_file()
    if file is None or not file.is_file():
        if "SENTEMB_CONFIG" in os.environ and file is not None:
            raise SentembError(f"{file}: SENTEMB_CONFIG names it, but there is no such file")
        return {}
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SentembError(f"{file}: is no TOML ({error})") from None
    for name, table in tables.items():
        first = name.split(" ")[0]
        if first not in verbs or not isinstance(table, dict):
            raise SentembError(f'{file}: "{name}" is no table of a verb{did_you_mean(first, verbs)}; write [serve], '
                               '["index build"] …')
    own = _values(f"{file}: [{verb}]", tables.get(verb, {}), command)
    for name, table in tables.items():
        parent, _, child = name.partition(" ")
        if parent != verb or not child:
            continue
        commands = command.commands if isinstance(command, TyperGroup) else {}
        if child not in commands:
            raise SentembError(f'{file}: "{name}" is no command{did_you_mean(child, commands)}')
        own[child] = _values(f'{file}: ["{name}"]', table, commands[child])
    return own


def _values(where: str, table: Mapping[str, Any], command: Any) -> dict[str, Any]:
    options = {
        spelling.lstrip("-"): option for option in command.params if isinstance(option, TyperOption)
        for spelling in option.opts if option.name != "help"
    }
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in options:
            raise SentembError(f"{where} {key}: is no option of it{did_you_mean(key, options)}")
        option = options[key]
        entries = value if isinstance(value, list) else [value]
        if option.multiple != isinstance(value, list) and len(entries) != 1:
            raise SentembError(f"{where} {key}: give one value, not a list")
        if option.is_flag and not isinstance(value, bool):
            raise SentembError(f"{where} {key} = {value!r}: must be true or false")
        if not all(isinstance(entry, (str, int, float)) for entry in entries):
            raise SentembError(f"{where} {key}: must be text, a number, true or false")
        assert option.name is not None
        values[option.name] = entries if option.multiple else entries[0]
    return values
