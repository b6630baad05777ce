"""What ``sentemb eval`` shows and writes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from sentemb.evaluate.reports.results import Results


def report_all(
    titles: Sequence[str], by_suite: Sequence[list[Results]], *, as_json: bool, file: Path | None = None
) -> None:
    """Tables (or JSON) of all suites on standard output; tables in Markdown in a file."""
    from sentemb.evaluate.reports import report
    from sentemb.files import write_text

    pages = [
        (title, report.report_rows(results, report.published_scores(results[0].model.name)), results)
        for title, results in zip(titles, by_suite, strict=True)
    ]
    if file is not None:
        write_text(file, "\n".join(f"### {title}\n\n{report.markdown(rows)}" for title, rows, _ in pages))
    if as_json:
        everything = [dataclasses.asdict(results) for of_suite in by_suite for results in of_suite]
        print_json(everything[0] if len(everything) == 1 else everything)
        return
    screen = console()
    for title, rows, results in pages:
        if rows:
            screen.print(report.table(rows, title))
        for line in report.summary(results):
            screen.print(line, highlight=False, markup=False, soft_wrap=True)


def print_json(value: Any, *, indent: int | None = None) -> None:
    """JSON on standard output; NaN becomes null."""
    from sentemb.evaluate.reports.results import without_nan

    typer.echo(json.dumps(without_nan(value), ensure_ascii=False, indent=indent))


def write_all(by_suite: Sequence[list[Results]], output: Path | None) -> None:
    """One results file a suite and model, merged with what it holds of other tasks; nothing without a folder."""
    from sentemb.evaluate.reports.results import save_results

    if output is None:
        return
    for results in (results for of_suite in by_suite for results in of_suite):
        typer.echo(f"wrote {save_results(output, results)}", err=True)


def console() -> Any:
    """Rich's console for standard output."""
    import shutil
    import sys

    from rich.console import Console

    # piped output is read by programs and people later: never cut it to 80 columns
    width = None if sys.stdout.isatty() else max(200, shutil.get_terminal_size().columns)
    return Console(width=width, soft_wrap=False)
