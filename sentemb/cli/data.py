"""``sentemb data fetch`` and ``sentemb data verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sentemb.evaluate.suites import Suite

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Evaluation data for offline use.")

Suites = Annotated[
    list[str] | None,
    typer.Option("--suite", "-s", help="a suite's name or .toml file, whose data is meant; repeatable"),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", "-t", help="a task of mteb, whose data is meant; repeatable"),
]
Root = Annotated[Path, typer.Option("--data-dir", "-d", envvar="SENTEMB_DATA", help="the data folder")]


@app.command()
def fetch(
    data_dir: Root,
    suite: Suites = None,
    task: Tasks = None,
    endpoint: Annotated[
        str | None,
        typer.Option(envvar="HF_ENDPOINT", help="another hub than huggingface.co"),
    ] = None,
) -> None:
    """Mirror the data of suites and tasks into a folder; continues after an interruption.

    The folder is laid out as the hub (ORGANISATION/REPOSITORY/…). A gated repository needs HF_TOKEN.
    """
    from sentemb.evaluate.data_folder import DataFolder
    from sentemb.evaluate.mteb.data import fetch as fetch_all
    from sentemb.evaluate.mteb.data import repositories

    wanted = repositories(_mteb_tasks(_suites(suite, task)))
    data_dir.mkdir(parents=True, exist_ok=True)
    root = DataFolder.find(data_dir).hub
    assert root is not None
    fetched, failed = fetch_all(wanted, root, endpoint=endpoint)
    for line in fetched:
        typer.echo(line)
    for line in failed:
        typer.echo(f"FAILED {line}", err=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def verify(data_dir: Root, suite: Suites = None, task: Tasks = None) -> None:
    """Whether everything that suites and tasks need is in a folder, unaltered; lists what is missing."""
    from sentemb.evaluate.data_folder import DataFolder
    from sentemb.evaluate.evaluation import plans_of
    from sentemb.evaluate.mteb.data import damage, repositories
    from sentemb.evaluate.task import EvalSetup

    data, suites = DataFolder.find(data_dir), _suites(suite, task)
    assert data.hub is not None
    plans = plans_of(suites, EvalSetup(data=data), skip_missing=True)
    faults = [entry.error for plan in plans for entry in plan.missing]
    faults += [fault for one in repositories(_mteb_tasks(suites)) for fault in damage(data.hub / one.name)]
    faults = list(dict.fromkeys(faults))
    for fault in faults:
        typer.echo(fault)
    ready = sum(len(plan.tasks) for plan in plans)
    typer.echo(f"{ready} tasks are ready" + (f", {len(faults)} faults" if faults else ""))
    if faults:
        raise typer.Exit(1)


def _suites(names: list[str] | None, tasks: list[str] | None) -> list[Suite]:
    from sentemb.errors import EvaluationError
    from sentemb.evaluate.suites import Suite, load_suite, suite_names
    from sentemb.evaluate.tasks.mteb import Mteb

    suites = [load_suite(name) for name in names or []]
    if tasks:
        suites.append(Suite(name="tasks", title="tasks", tasks=(Mteb(tasks=tuple(tasks)),)))
    if not suites:
        raise EvaluationError(f"nothing chosen: give --suite (known: {', '.join(suite_names())}) or --task NAME")
    return suites


def _mteb_tasks(suites: list[Suite]) -> list[Any]:
    """mteb's tasks whose data the suites read; those of our own kinds are found by their repository."""
    from sentemb.evaluate.mteb.data import resolve_tasks, tasks_of_repository
    from sentemb.evaluate.tasks.mteb import Mteb
    from sentemb.evaluate.tasks.sts import SEVEN, Sts

    wanted: list[Any] = []
    for task in (task for suite in suites for task in suite.tasks):
        path = task.settings.get("path")
        if isinstance(task, Mteb):
            wanted += task.mteb_tasks()
        elif isinstance(task, Sts) and task.protocol == "mteb":
            wanted += resolve_tasks(task.sets or SEVEN)
        elif isinstance(path, str) and path.count("/") == 1:
            wanted += tasks_of_repository(path)
    return wanted
