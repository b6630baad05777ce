"""The page of all commands, from what ``--help`` prints."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

from tables import code, table

_HEAD = """# Commands

`sentemb VERB --help` prints the same. `--debug` shows the traceback of an error, `--quiet` hides progress bars; both
may stand before or behind the verb. Exit codes: 0 done, 1 partly done, 2 a user's mistake or a file that cannot be
used, 3 unexpected (the traceback is kept in a file), 130 stopped by the user."""


def commands() -> dict[str, Any]:
    """Every verb's click command."""
    import typer

    from sentemb.cli import VERBS

    apps = {verb: importlib.import_module(f"sentemb.cli.{module}").app for verb, (module, _) in VERBS.items()}
    return {verb: typer.main.get_command(app) for verb, app in apps.items()}


def page() -> str:
    """The page's text."""
    from sentemb.cli import VERBS

    pieces = [_HEAD, table(["verb", ""], ([f"[`{verb}`](#{verb})", line] for verb, (_, line) in VERBS.items()))]
    for verb, command in commands().items():
        pieces += list(_sections(command, [verb]))
    return "\n\n".join(pieces) + "\n"


def _sections(command: Any, words: list[str]) -> Iterator[str]:
    name = " ".join(words)
    context = command.context_class(command, info_name=f"sentemb {name}")
    yield f"{'#' * (len(words) + 1)} sentemb {name} {{ #{'-'.join(words)} }}"
    if command.help:
        yield inspect.cleandoc(command.help.partition("\f")[0])
    subcommands = getattr(command, "commands", {})
    if subcommands:
        for word, subcommand in subcommands.items():
            yield from _sections(subcommand, [*words, word])
        return
    yield f"```text\n{context.info_name} {' '.join(command.collect_usage_pieces(context))}\n```"
    rows = [_row(one, context) for one in command.get_params(context) if one.name != "help"]
    if rows:
        yield table(["argument or option", ""], rows)


def _row(parameter: Any, context: Any) -> tuple[str, str]:
    name, text = parameter.get_help_record(context) or (parameter.make_metavar(context), "")
    return code(name), text
