"""``sentemb data fetch`` and ``sentemb data verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from sentemb.evaluate.suites import Suite

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Evaluation data for offline use.")

Suites = Annotated[Optional[list[str]], typer.Option("--suite", "-s", help="a suite's name or .toml file; repeatable")]  # noqa: UP045
Tasks = Annotated[Optional[list[str]], typer.Option("--task", "-t", help="a task of mteb; repeatable")]  # noqa: UP045
Root = Annotated[
    Path, typer.Option("--data-dir", "-d", envvar=["SENTEMB_MTEB_DATA", "SENTEMB_DATA"], help="the data folder")
]


@app.command()
def fetch(
    data_dir: Root,
    suite: Suites = None,
    task: Tasks = None,
    endpoint: Annotated[
        str | None, typer.Option(envvar="HF_ENDPOINT", help="another hub than huggingface.co")
    ] = None,
) -> None:
    """Mirror the data of suites and tasks into a folder; continues after an interruption.

    The folder is laid out as the hub (ORGANISATION/REPOSITORY/…). A gated repository needs HF_TOKEN.
    """
    from sentemb.evaluate.fetch import fetch as fetch_all
    from sentemb.evaluate.mteb_data import repositories

    root = data_dir / "hub" if (data_dir / "hub").is_dir() else data_dir
    wanted = repositories(_tasks(suite, task))
    fetched, failed = fetch_all(wanted, root, endpoint=endpoint)
    for one in fetched:
        typer.echo(
            f"{one.repository}: {one.files} files, {one.bytes / 2**20:.1f} MiB{'' if one.is_new else ' (was here)'}"
        )
    for line in failed:
        typer.echo(f"FAILED {line}", err=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def verify(data_dir: Root, suite: Suites = None, task: Tasks = None) -> None:
    """Whether everything that suites and tasks need is in a folder, unaltered; lists what is missing."""
    from sentemb.evaluate.fetch import damage
    from sentemb.evaluate.mteb_data import data_folder, repositories
    from sentemb.evaluate.plan import plan_suite
    from sentemb.evaluate.suites import Job, Suite
    from sentemb.evaluate.work import Settings

    suites = _suites(suite)
    if task:
        suites.append(Suite("tasks", "tasks", [Job("mteb", {"tasks": list(task)})]))
    _some_chosen(suites)
    plans = [plan_suite(one, Settings(data_dir=data_dir)) for one in suites]
    faults = [entry.error for plan in plans for entry in plan.missing]
    root = data_folder(data_dir)
    assert root is not None
    for repository in repositories(_mteb_tasks(suites)):
        faults += damage(root / repository.name)
    for fault in dict.fromkeys(faults):
        typer.echo(fault)
    ready = sum(len(plan.work) for plan in plans)
    typer.echo(
        f"{ready} tasks are ready, {len(dict.fromkeys(faults))} faults" if faults else f"{ready} tasks are ready"
    )
    if faults:
        raise typer.Exit(1)


def _suites(names: list[str] | None) -> list[Suite]:
    from sentemb.evaluate.suites import load_suite

    return [load_suite(name) for name in names or []]


def _some_chosen(suites: list[Suite]) -> None:
    from sentemb.errors import EvaluationError
    from sentemb.evaluate.suites import suite_names

    if not suites:
        raise EvaluationError(f"nothing chosen: give --suite (known: {', '.join(suite_names())}) or --task NAME")


def _tasks(suite: list[str] | None, task: list[str] | None) -> list[Any]:
    from sentemb.evaluate.mteb_data import resolve_tasks

    suites = _suites(suite)
    if not task:
        _some_chosen(suites)
    return _mteb_tasks(suites) + resolve_tasks(task or [])


def _mteb_tasks(suites: list[Suite]) -> list[Any]:
    """mteb's tasks whose data the suites read; those of our own kinds are found by their repository."""
    from sentemb.evaluate.mteb_data import resolve_tasks, tasks_of_repository

    found: list[Any] = []
    for suite in suites:
        for job in suite.jobs:
            options = job.options
            if job.kind == "mteb":
                found += resolve_tasks(
                    options.get("tasks", ()), benchmark=options.get("benchmark"), subsets=options.get("subsets", ())
                )
            elif job.kind == "sts" and options["protocol"] == "mteb":
                from sentemb.evaluate.sts import SEVEN

                found += resolve_tasks(options.get("sets", SEVEN))
            elif "path" in options and options["path"].count("/") == 1:
                found += tasks_of_repository(options["path"])
    return found
