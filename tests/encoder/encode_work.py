"""Encoding in processes of their own, which tests may kill."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def command(arguments: list[str], said: str) -> None:
    """``sentemb encode`` with its messages in the file ``said``."""
    os.environ["SENTEMB_CONFIG"] = ""
    from sentemb.cli import main

    with Path(said).open("w", buffering=1) as sys.stderr:
        main(["encode", *arguments])
