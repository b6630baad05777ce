"""``sentemb eval MODEL…``, ``sentemb eval compare A B`` and ``sentemb eval submit RESULTS``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sentemb.cli.options import Json, Precision, Seed, key_values, part_of
from sentemb.cli.output import print_json

if TYPE_CHECKING:
    from sentemb.evaluate.opening import ModelOptions
    from sentemb.evaluate.report import Sheet
    from sentemb.evaluate.suites import Suite
    from sentemb.evaluate.task import Task


class _ModelByDefault(TyperGroup):
    """``sentemb eval MODEL`` is ``sentemb eval run MODEL``: what is no command is a model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, remaining = super().resolve_command(ctx, args)
        return ("" if name == "run" else name), command, remaining


app = typer.Typer(add_completion=False, cls=_ModelByDefault)


@app.command()
def run(
    model: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL…",
            help="folder, hub id, package:NAME/FOLDER, module:function, or vectors (.parquet); several are taken "
            "for seeds of one recipe and reported as mean ± sd",
        ),
    ],
    suite: Annotated[
        list[str] | None, typer.Option("--suite", "-s", help="suite of tasks: a name of --list, or a .toml file")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="mteb's task (SciFact), or NAME:KEY=VALUE,… (sentemb list tasks)"),
    ] = None,
    sts: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="sentence pairs: sentence1, sentence2, score")
    ] = None,
    retrieval: Annotated[
        list[str] | None, typer.Option(metavar="FOLDER", help="BEIR's layout: corpus, queries, qrels/test")
    ] = None,
    classification: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="file of text and label, or folder of train and test")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="also scores by group, of STS and classification: overlap (words that "
                     "pairs share), or a column of the files"),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", "-d", help="folder of data, laid out as the hub; default SENTEMB_DATA"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="folder for results (merged with earlier ones) and runs"),
    ] = None,
    json: Json = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="also write the table as Markdown")] = None,
    precision: Precision = "auto",
    open_with: Annotated[
        list[str] | None,
        typer.Option(
            "--model-set",
            metavar="KEY=VALUE",
            help="how MODEL is opened: device, revision, max_tokens, trust_remote_code, prompts.NAME",
        ),
    ] = None,
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="run the tasks that there is data for")] = False,
    resamples: Annotated[int, typer.Option(min=0, help="resamples of the bootstrap intervals; 0: none")] = 1000,
    seed: Seed = 42,
    list_suites: Annotated[
        bool, typer.Option("--list", is_eager=True, callback=lambda value: _list(value), help="show the suites and end")
    ] = False,
) -> None:
    """Score a model on STS, retrieval, classification, mteb, your own files. `sentemb eval compare A B` tests two
    results files.

    Options that name data may be given several times. Exit code 0: every task has a score; 1: some failed, the report
    says why; 2: nothing was run.
    """
    from sentemb.errors import EvaluationError
    from sentemb.evaluate import report as reports
    from sentemb.evaluate.data_folder import DataFolder
    from sentemb.evaluate.evaluation import plans_of, run_plan
    from sentemb.evaluate.opening import open_model
    from sentemb.evaluate.results import save_results
    from sentemb.evaluate.suites import Suite, load_suite, suite_names
    from sentemb.evaluate.task import EvalSetup
    from sentemb.files import write_text

    options = _model_options(precision, open_with or [])
    suites = [load_suite(name) for name in suite or []]
    of_files = {"sts": sts, "retrieval": retrieval, "classification": classification}
    files = [(use, path) for use, paths in of_files.items() for path in paths or []]
    if task or files:
        suites.append(Suite(name="tasks", title="chosen tasks", tasks=_tasks(task or [], files)))
    if not suites:
        raise EvaluationError(
            f"nothing to evaluate: give --suite (known: {', '.join(suite_names())}), --task, --sts, --retrieval or "
            "--classification"
        )
    suites = _by_group(suites, by) if by else suites
    setup = EvalSetup(data=DataFolder.find(data_dir), output=output, resamples=resamples, seed=seed)
    plans = plans_of(suites, setup, skip_missing=skip_missing)
    models = (open_model(source, options) for source in model)
    by_model = [[run_plan(opened, plan, setup) for plan in plans] for opened in models]
    everything = [results for of_model in by_model for results in of_model]
    if output is not None:
        for results in everything:
            typer.echo(f"wrote {save_results(output, results)}", err=True)
    by_suite = list(zip(*by_model, strict=True))
    sheets = [reports.report_sheet(of, reports.published_scores(of[0].model.name)) for of in by_suite]
    if report is not None:
        parts = (f"### {one.title}\n\n{sheet.markdown()}" for one, sheet in zip(suites, sheets, strict=True))
        write_text(report, "\n".join(parts))
    if json:
        print_json(everything[0] if len(everything) == 1 else everything)
    for one, sheet, of in zip(suites, sheets, by_suite, strict=True) if not json else ():
        _show(sheet, one.title, reports.summary(of))
    if any(results.failures for results in everything):
        raise typer.Exit(1)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="results file, or a folder of them (seeds of one recipe)")],
    b: Annotated[Path, typer.Argument(metavar="B", help="results file or folder of the other model")],
    json: Json = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="also write the table as Markdown")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="of the permutation and bootstrap tests")] = 10_000,
    seed: Seed = 0,
) -> None:
    """Whether B differs from A: paired permutation or bootstrap test per task (Welch over seeds), Holm-corrected."""
    from sentemb.evaluate import report as reports
    from sentemb.files import write_text

    sides = reports.load_side(a), reports.load_side(b)
    rows = reports.compare(*sides, resamples=resamples, seed=seed)
    sheet = reports.compare_sheet(rows)
    if report is not None:
        write_text(report, sheet.markdown())
    if json:
        print_json(rows)
    else:
        _show(sheet)


@app.command()
def submit(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="results file of sentemb eval -o FOLDER, in FOLDER")
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="OWNER/NAME", help="hub id of the model that was scored")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="new folder for what is to be submitted")],
    revision: Annotated[
        str | None, typer.Option(help="branch, tag or commit of the hub's model; default the newest")
    ] = None,
) -> None:
    """Prepare scores for MTEB's leaderboard: its results tree, and the description of the model as Python.

    Only scores in fp32 by mteb's protocol, of exactly the model that the hub has, are taken.
    """
    from sentemb.evaluate.mteb.submission import submission

    description = submission(results, output, model=model, revision=revision)
    typer.echo(f"{description}: fill it in, and send it to mteb's repository")
    typer.echo(f"{output / 'results'}: send with mteb.ResultCache({str(output)!r}).submit_results({model!r})")


def _show(sheet: Sheet, title: str | None = None, below: Sequence[str] = ()) -> None:
    from rich.console import Console

    # piped output is read by programs and people later: never cut it to 80 columns
    console = Console(width=None if sys.stdout.isatty() else max(200, shutil.get_terminal_size().columns))
    if sheet.rows:
        console.print(sheet.drawn(title))
    for line in below:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _list(value: bool) -> None:
    if not value:
        return
    from sentemb.evaluate.suites import load_suite, suite_names

    for name in suite_names():
        typer.echo(f"{name:<18} {load_suite(name).title}")
    raise typer.Exit(0)


def _tasks(texts: list[str], files: list[tuple[str, str]]) -> tuple[Task, ...]:
    """The tasks of the command line's options; all faults at once. ``SciFact`` alone is a task of mteb's."""
    from sentemb.errors import EvaluationError, PartError
    from sentemb.evaluate.tasks import PARTS
    from sentemb.parts import room

    def task_of(text: str) -> Any:
        is_part = ":" in text or text in PARTS
        return part_of("tasks", text) if is_part else room("tasks").make({"use": "mteb", "tasks": [text]})

    makers: dict[str, Callable[[], Any]] = {f"--task {text}": partial(task_of, text) for text in texts}
    for use, path in files:
        makers[f"--{use} {path}"] = partial(room("tasks").make, {"use": use, "path": path})
    tasks, faults = [], []
    for option, make in makers.items():
        try:
            tasks.append(make())
        except PartError as error:
            faults += error.located(f"{option}: ")
    if faults:
        raise EvaluationError("\n".join(faults))
    return tuple(tasks)


def _by_group(suites: list[Suite], by: str) -> list[Suite]:
    """The suites with ``by`` set in the tasks that have it."""
    from dataclasses import replace

    from sentemb.errors import EvaluationError
    from sentemb.evaluate.groups import OVERLAP
    from sentemb.evaluate.tasks.classification import Classification
    from sentemb.evaluate.tasks.sts import Sts

    kinds = (Sts,) if by == OVERLAP else (Sts, Classification)
    if not any(isinstance(task, kinds) for suite in suites for task in suite.tasks):
        wanted = "STS" if by == OVERLAP else "STS or classification"
        raise EvaluationError(f"--by {by}: is for {wanted}, and no such task is chosen")
    return [
        replace(suite, tasks=tuple(replace(task, by=by) if isinstance(task, kinds) else task for task in suite.tasks))
        for suite in suites
    ]


def _model_options(precision: str, settings: list[str]) -> ModelOptions:
    from sentemb.errors import EvaluationError, PartError
    from sentemb.evaluate.opening import ModelOptions

    for setting in settings:
        if "=" not in setting:
            raise EvaluationError(f'--model-set "{setting}": KEY=VALUE is needed, e.g. max_tokens=128')
    table = key_values(settings)
    prompts = {key.removeprefix("prompts."): str(table.pop(key)) for key in list(table) if key.startswith("prompts.")}
    try:
        return ModelOptions(**{"precision": precision, **table}, prompts=prompts)
    except PartError as error:
        raise EvaluationError("\n".join(error.located("--model-set "))) from None
