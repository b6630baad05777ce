"""What ``sentemb eval`` shows and writes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from sentemb.evaluate.results import Results
    from sentemb.evaluate.suites import Published, Suite


@dataclass(frozen=True)
class Output:
    """How results are shown: a table or JSON on standard output, and files beside it."""

    json: bool = False
    markdown: Path | None = None
    latex: Path | None = None
    published: str | None = None  # model whose published scores stand beside ours; None: the same model's


def report_all(suites: list[Suite], by_suite: list[list[Results]], output: Output) -> None:
    """Tables (or JSON) of all suites."""
    from sentemb.evaluate import report
    from sentemb.files import write_text

    pages: list[tuple[str, list[report.Row], list[Results]]] = []
    for suite, held in zip(suites, by_suite, strict=True):
        pages.append((suite.title, report.report_rows(held, _published(output.published, held)), held))
    if output.markdown is not None:
        text = "\n".join(f"### {title}\n\n{report.markdown(rows)}" for title, rows, _ in pages)
        write_text(output.markdown, text)
    if output.latex is not None:
        write_text(output.latex, "\n".join(report.latex(rows, title) for title, rows, _ in pages))
    if output.json:
        found = [dataclasses.asdict(results) for held in by_suite for results in held]
        print_json(found[0] if len(found) == 1 else found)
        return
    screen = console()
    for title, rows, held in pages:
        if rows:
            screen.print(report.table(rows, title))
        for line in report.summary(held):
            screen.print(line, highlight=False, markup=False, soft_wrap=True)


def print_json(value: Any, *, indent: int | None = None) -> None:
    """JSON on standard output; NaN becomes null."""
    from sentemb.evaluate.results import without_nan

    typer.echo(json.dumps(without_nan(value), ensure_ascii=False, indent=indent))


def _published(name: str | None, held: list[Results]) -> list[Published]:
    from sentemb.errors import EvaluationError, did_you_mean
    from sentemb.evaluate.suites import published_models, published_scores

    if name is None:
        return published_scores(str(held[0].model["name"]))
    found = published_scores(name)
    if not found:
        raise EvaluationError(f'--published "{name}": no published scores{did_you_mean(name, published_models())}')
    return found


def write_all(by_suite: list[list[Results]], output: Path | None) -> None:
    """One results file a suite and model; nothing without a folder."""
    from sentemb.evaluate.results import results_name, write_results

    if output is None:
        return
    taken: set[str] = set()
    for held in by_suite:
        for results in held:
            path = output / results_name(results, taken)
            taken.add(path.name)
            write_results(path, results)
            typer.echo(f"wrote {path}", err=True)


def console() -> Any:
    """Rich's console for standard output."""
    import shutil
    import sys

    from rich.console import Console

    # piped output is read by programs and people later: never cut it to 80 columns
    width = None if sys.stdout.isatty() else max(200, shutil.get_terminal_size().columns)
    return Console(width=width, soft_wrap=False)
