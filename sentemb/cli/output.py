"""How verbs print a result as JSON, and when they write over what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer


def print_json(value: Any, indent: int | None = None) -> None:
    """JSON on standard output; numbers that are not finite become null."""
    from pydantic_core import to_json

    typer.echo(to_json(value, inf_nan_mode="null", indent=indent).decode())


def refuse_replacing(output: Path, overwrite: bool, replaceable: str, is_replaceable: Callable[[], bool]) -> None:
    """Raise ``ModelError`` where something lies at ``output`` that ``--overwrite`` was not given for, or is not for."""
    from sentemb.errors import ModelError

    if output.exists() and not overwrite:
        raise ModelError(f"{output}: is there already; name another folder, or give --overwrite")
    if output.exists() and not is_replaceable():
        raise ModelError(f"{output}: --overwrite replaces only {replaceable}")
