"""``sentemb data fetch``, ``verify``, ``grade`` and ``make``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentemb.cli.options import Json, Seed, key_values
from sentemb.cli.output import print_json

if TYPE_CHECKING:
    from sentemb.evaluate.suites import Suite

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Evaluation data and training data.")

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


@app.command()
def grade(
    pairs: Annotated[str, typer.Argument(metavar="PAIRS", help="file of anchor, positive and score, 0 to 1")],
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write: .jsonl")],
    seed: Seed = 42,
) -> None:
    """Make pairs that a language model scored fit for training (recipes claif-bert-base and claif-minilm).

    Leaves out pairs of equal texts, pairs with a mask left over, repeated pairs, and an anchor's pairs beyond two of
    one score. Scores y become 0.8 y + 0.1, and every anchor gets two random partners of score 0.
    """
    from json import dumps

    from sentemb.data.graded_pairs import grade_pairs, read_scored_pairs
    from sentemb.files import write_text

    graded = grade_pairs(read_scored_pairs(pairs), seed=seed)
    rows = ({"anchor": anchor, "positive": positive, "score": round(score, 6)}
            for anchor, positive, score in graded.pairs)
    write_text(output, "".join(dumps(row, ensure_ascii=False) + "\n" for row in rows))
    typer.echo(
        f"{output}: {len(graded.pairs):,} pairs; left out: {graded.identical:,} of equal texts, {graded.masked:,} with "
        f"a mask, {graded.repeated:,} repeated, {graded.crowded:,} of an anchor's many of one score"
    )


@app.command()
def make(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="what is made: sentemb list makers names the kinds")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="file or folder that the rows are made of")],
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write: .jsonl")],
    settings: Annotated[list[str] | None, typer.Option(
        "--set", metavar="KEY=VALUE", help="a setting of KIND, e.g. sampling=unique; repeatable")] = None,
    seed: Seed = 42,
    json: Json = False,
) -> None:
    """Make training data out of what you have: labelled texts, documents, a dictionary, source code, sentences.

    sentemb list makers names the kinds, sentemb show NAME explains one with its settings, which --set KEY=VALUE gives.
    The rows are JSON lines that [data] of a recipe reads.
    """
    from dataclasses import asdict

    from sentemb.data.makers import make_data
    from sentemb.errors import PartError
    from sentemb.parts import room

    # names of parts have underscores, words on a command line have hyphens
    table = {"use": kind if ":" in kind else kind.replace("-", "_"), "path": path, **key_values(settings or ())}
    try:
        maker: Any = room("makers").make(table)
    except PartError as error:
        raise PartError("", [("", line) for line in error.located(f"sentemb data make {kind}: ")]) from None
    made = make_data(maker, output, seed=seed)
    if json:
        print_json({**asdict(made), "output": str(output)})
        return
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in made.left_out.items())
    typer.echo(f"{output}: {made.rows:,} rows" + (f"; left out: {reasons}" if reasons else ""))


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
