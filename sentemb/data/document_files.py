"""Files that are one document each: text, Markdown, HTML, PDF, docx."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from sentemb.data.faults import Faults
from sentemb.data.sources import Record
from sentemb.errors import DataError, MissingExtra, first_line, needs_extra

_HEADING = re.compile(r"^#\s+(.+?)\s*#*$", re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n\s*\n+")


def iter_files(path: str | Path, *, skipped: Faults | None = None) -> Iterator[Record]:
    """Every document below a folder (or the one file), in order of their names; hidden ones are left out.

    The fields are id (the path inside the folder), text, heading (the title, where there is one) and kind (the suffix).

    Args:
        skipped: leave out files that cannot be read or hold no text, and collect them here.

    Raises: DataError: nothing there, or such a file.
    """
    source = Path(path).expanduser()
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    root = source if source.is_dir() else source.parent
    files = [file for file in ([source] if source.is_file() else sorted(source.rglob("*"))) if _is_document(file, root)]
    if not files:
        raise DataError(f"{source}: no document ({', '.join(sorted(READERS))})")
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            title, text = READERS[file.suffix.lower()](file)
            if not text.strip():
                raise DataError("no text in it")
        except MissingExtra:
            raise
        except Exception as error:  # the libraries raise whatever a broken file makes them raise
            if skipped is None:
                raise DataError(f"{file}: {first_line(error)}; correct it, or leave out faulty ones") from None
            skipped.add(str(file), 1, first_line(error))
            continue
        fields = {"id": name, "text": text, "kind": file.suffix.lower()[1:]}
        yield Record(where=str(file), fields=fields | ({"heading": title} if title else {}))


def _is_document(file: Path, root: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return file.is_file() and file.suffix.lower() in READERS and not is_hidden


def _text(file: Path) -> tuple[str, str]:
    return "", file.read_text(encoding="utf-8")


def _markdown(file: Path) -> tuple[str, str]:
    text = file.read_text(encoding="utf-8")
    heading = _HEADING.search(text)
    return heading[1] if heading else "", text


def _html(file: Path) -> tuple[str, str]:
    """Text as a reader sees it; headings become Markdown's, so that passages begin there."""
    needs_extra("bs4", "documents")
    from bs4 import BeautifulSoup

    page = BeautifulSoup(file.read_bytes(), "html.parser")
    title = page.title.get_text(" ", strip=True) if page.title else ""
    for part in page(["script", "style", "template", "noscript", "head"]):
        part.decompose()
    for level in range(1, 7):
        for heading in page(f"h{level}"):
            heading.string = f"\n\n{'#' * level} {heading.get_text(' ', strip=True)}\n\n"
    for part in page(["p", "div", "li", "tr", "br", "section", "article", "pre", "table"]):
        part.insert_after("\n\n" if part.name in ("p", "div", "section", "article") else "\n")
    return title, _EMPTY_LINES.sub("\n\n", page.get_text()).strip()


def _pdf(file: Path) -> tuple[str, str]:
    needs_extra("pypdf", "documents")
    from pypdf import PdfReader

    reader = PdfReader(file)
    title = (reader.metadata.title if reader.metadata else None) or ""
    return str(title), "\n\n".join(page.extract_text() for page in reader.pages)


def _docx(file: Path) -> tuple[str, str]:
    needs_extra("docx", "documents")
    from docx import Document

    document = Document(str(file))
    lines = [
        f"{'#' * int(level[1])} {paragraph.text}"
        if (level := re.fullmatch(r"Heading (\d)", paragraph.style.name if paragraph.style else "")) else paragraph.text
        for paragraph in document.paragraphs
    ]
    return document.core_properties.title or "", "\n\n".join(line for line in lines if line.strip())


READERS: dict[str, Callable[[Path], tuple[str, str]]] = {
    ".txt": _text, ".text": _text, ".md": _markdown, ".markdown": _markdown, ".html": _html, ".htm": _html,
    ".pdf": _pdf, ".docx": _docx,
}  # fmt: skip
