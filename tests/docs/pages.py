"""The pages that people write, and the code in them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md")))]


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of one language, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(rf"(?ms)^( *)```{language}\n(.*?)^\1```", text)
    return [textwrap.dedent(code) for _, code in found]


def commands(page: str) -> list[str]:
    """Every line of a shell block that begins with ``sentemb``."""
    lines = [line.strip() for code in blocks(page, "bash") for line in code.splitlines()]
    return [line for line in lines if line.startswith("sentemb ")]


def mentions(page: str) -> list[str]:
    """Every command between backticks, which may leave arguments out."""
    prose = re.sub(r"(?ms)^ *```.*?^ *```", "", (ROOT / page).read_text(encoding="utf-8"))
    return [line for line in re.findall(r"`(sentemb [a-z][^`\n]*)`", prose) if "…" not in line]
