"""``sentemb eval MODEL…``, ``sentemb eval compare A B`` and ``sentemb eval trec RUN``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sentemb.cli.eval_output import console, print_json, report_all, write_all
from sentemb.cli.options import Json, Precision, Seed

if TYPE_CHECKING:
    from sentemb.evaluate.opening import ModelOptions
    from sentemb.evaluate.reports.results import Results
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
    results files, `sentemb eval trec RUN` scores a run of any system.

    Options that name data may be given several times. Exit code 0: every task has a score; 1: some failed, the report
    says why; 2: nothing was run.
    """
    from sentemb.errors import EvaluationError
    from sentemb.evaluate.data_folder import DataFolder
    from sentemb.evaluate.evaluation import EvalPlan, refuse_missing, run_plan
    from sentemb.evaluate.opening import open_model
    from sentemb.evaluate.suites import Suite, load_suite, suite_names
    from sentemb.evaluate.task import EvalSetup

    options = _model_options(precision, open_with or [])
    suites = [load_suite(name) for name in suite or []]
    of_files = {"sts": sts, "retrieval": retrieval, "classification": classification}
    tables = {f"--task {text}": task_table(text) for text in task or []}
    tables |= {f"--{use} {path}": {"use": use, "path": path} for use, paths in of_files.items() for path in paths or []}
    tasks = _tasks(tables)
    if tasks:
        suites.append(Suite(name="tasks", title="chosen tasks", tasks=tasks))
    if not suites:
        raise EvaluationError(
            f"nothing to evaluate: give --suite (known: {', '.join(suite_names())}), --task, --sts, --retrieval or "
            "--classification"
        )
    setup = EvalSetup(data=DataFolder.find(data_dir), output=output, resamples=resamples, seed=seed)
    plans = [EvalPlan.of(one, setup) for one in suites]
    refuse_missing(plans, skip_missing=skip_missing)
    by_suite: list[list[Results]] = [[] for _ in suites]
    for source in model:
        opened = open_model(source, options)
        for results, plan in zip(by_suite, plans, strict=True):
            results.append(run_plan(opened, plan, setup))
    write_all(by_suite, output)
    titles = [one.title for one in suites]
    report_all(titles, by_suite, as_json=json, file=report)
    if any(results.failures for of_suite in by_suite for results in of_suite):
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
    from sentemb.evaluate.reports.compare import HEADERS, load_side
    from sentemb.evaluate.reports.compare import compare as compare_sides

    rows = compare_sides(load_side(a), load_side(b), resamples=resamples, seed=seed)
    cells = [row.cells for row in rows]
    if report is not None:
        from sentemb.evaluate.reports.report import markdown_table
        from sentemb.files import write_text

        write_text(report, markdown_table(HEADERS, cells, left=2))
    if json:
        print_json([dataclasses.asdict(row) for row in rows], indent=2)
        return
    from rich.table import Table

    table = Table(title=f"A {a}, B {b}; * p (Holm) < 0.05", title_justify="left")
    for number, header in enumerate(HEADERS):
        table.add_column(header, justify="left" if number < 2 else "right")
    for row in cells:
        table.add_row(*row)
    console().print(table)


@app.command()
def trec(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="run files: query Q0 document rank score tag")],
    qrels: Annotated[Path, typer.Option("--qrels", "-q", help="judgements: TREC's four columns, BEIR's tsv, or jsonl")],
    metric: Annotated[str, typer.Option(help="main score: ndcg@10, map@100, mrr@10, recall@100, …")] = "ndcg@10",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="folder for results files")] = None,
    json: Json = False,
    resamples: Annotated[int, typer.Option(min=0, help="resamples of the bootstrap intervals; 0: none")] = 1000,
    seed: Seed = 42,
) -> None:
    """Score runs that any system wrote, against judgements; the results can be compared like a model's."""
    from sentemb.evaluate.reports.trec import score_trec

    results = [[score_trec(path, qrels, metric=metric, resamples=resamples, seed=seed)] for path in runs]
    write_all(results, output)
    report_all([f"{path.name} against {qrels.name}" for path in runs], results, as_json=json)


def _list(value: bool) -> None:
    if not value:
        return
    from sentemb.evaluate.suites import suite_titles

    for name, title in suite_titles().items():
        typer.echo(f"{name:<18} {title}")
    raise typer.Exit(0)


def task_table(text: str) -> dict[str, Any]:
    """``retrieval:path=beir,metric=mrr@10`` or ``SciFact`` (a task of mteb's) as the table that a suite has for it."""
    import re

    from sentemb.evaluate.tasks import PARTS

    # NAME, or package.module:Class, then the settings
    match = re.fullmatch(r"([\w-]+(?:[.\w]*:\w+)?)(?::(.*))?", text, re.DOTALL)
    name, settings = match.groups() if match else (text, None)
    if settings is None and name not in PARTS and ":" not in name:
        return {"use": "mteb", "tasks": [text]}
    # a comma separates settings where a KEY= follows it
    pairs = (setting.partition("=") for setting in re.split(r",(?=\s*\w+\s*=)", settings or ""))
    return {"use": name, **{key.strip(): _value(value) for key, sign, value in pairs if sign}}


def _value(text: str) -> Any:
    """A value as TOML reads it, else the text itself."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _tasks(tables: dict[str, dict[str, Any]]) -> tuple[Task, ...]:
    """The tasks of the command line's options; all faults at once."""
    from typing import cast

    from sentemb.errors import EvaluationError, PartError
    from sentemb.parts import room

    tasks, faults = [], []
    for option, table in tables.items():
        try:
            tasks.append(cast("Task", room("tasks").make(table)))
        except PartError as error:
            faults += error.located(f"{option}: ")
    if faults:
        raise EvaluationError("\n".join(faults))
    return tuple(tasks)


def _model_options(precision: str, settings: list[str]) -> ModelOptions:
    from sentemb.errors import EvaluationError, PartError
    from sentemb.evaluate.opening import ModelOptions

    table: dict[str, Any] = {"precision": precision}
    prompts: dict[str, str] = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign:
            raise EvaluationError(f'--model-set "{setting}": KEY=VALUE is needed, e.g. max_tokens=128')
        if key.startswith("prompts."):
            prompts[key.removeprefix("prompts.")] = value
        else:
            table[key] = _value(value) if key in ("max_tokens", "trust_remote_code") else value
    try:
        return ModelOptions(**table, prompts=prompts)
    except PartError as error:
        raise EvaluationError("\n".join(error.located("--model-set "))) from None
