"""``sentemb eval MODEL…`` and ``sentemb eval compare A B``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from sentemb.cli.eval_output import Output, console, print_json, report_all, write_all

if TYPE_CHECKING:
    from sentemb.evaluate.results import Results
    from sentemb.evaluate.suites import Job


class _ModelByDefault(TyperGroup):
    """``sentemb eval MODEL`` is ``sentemb eval run MODEL``: what is no command is a model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return ("" if name == "run" else name), command, rest


app = typer.Typer(add_completion=False, cls=_ModelByDefault)


@app.command()
def run(
    model: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="folder, hub id, package:NAME/FOLDER, module:function, vectors.parquet or "
            ".npy; several are taken for seeds of one recipe (mean ± sd)",
        ),
    ],
    suite: Annotated[
        Optional[list[str]], typer.Option("--suite", "-s", help="name (--list shows them) or .toml file; repeatable")  # noqa: UP045
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", help="a task of mteb, run by mteb; repeatable")
    ] = None,
    subset: Annotated[
        list[str] | None, typer.Option(help="with --task: only this subset (language); repeatable")
    ] = None,
    sts: Annotated[
        Optional[list[Path]], typer.Option(help="a file of pairs (sentence1, sentence2, score); repeatable")  # noqa: UP045
    ] = None,
    retrieval: Annotated[
        Optional[list[Path]], typer.Option(help="a folder with corpus, queries and qrels/test (BEIR); repeatable")  # noqa: UP045
    ] = None,
    transfer: Annotated[
        list[Path] | None,
        typer.Option(help="a file with text and label, or a folder with train and test; repeatable"),
    ] = None,
    method: Annotated[str, typer.Option(help="with --transfer: logistic, fewshot, knn, clustering")] = "logistic",
    geometry: Annotated[
        Optional[list[Path]], typer.Option(help="texts or pairs whose embedding space is described; repeatable")  # noqa: UP045
    ] = None,
    aggregation: Annotated[str, typer.Option(help="of STS subsets with --sts: all, mean, wmean")] = "all",
    data_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--data-dir",
            "-d",
            help="folder with the data, laid out as the hub; default SENTEMB_MTEB_DATA, "
            "SENTEMB_DATA; without one mteb asks the hub",
        ),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="folder for results JSON, mteb's tree (resumed), TREC runs, pictures"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print the results as JSON instead of a table")] = False,
    markdown: Annotated[Optional[Path], typer.Option(help="also write the table as Markdown")] = None,  # noqa: UP045
    latex: Annotated[Optional[Path], typer.Option(help="also write the table as LaTeX (booktabs)")] = None,  # noqa: UP045
    published: Annotated[
        Optional[str], typer.Option(help="name of the model whose published scores stand beside ours; default MODEL's")  # noqa: UP045
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16, int8")] = "auto",
    device: Annotated[Optional[str], typer.Option(help="cpu, cuda, …; default the GPU if any")] = None,  # noqa: UP045
    backend: Annotated[str, typer.Option(help="auto, sentemb, sentence-transformers")] = "auto",
    revision: Annotated[Optional[str], typer.Option(help="of a hub id")] = None,  # noqa: UP045
    max_tokens: Annotated[Optional[int], typer.Option(help="overrides the model's limit")] = None,  # noqa: UP045
    prompt: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=TEXT, NAME a task, a task type, query or document; repeatable"),
    ] = None,
    texts: Annotated[Optional[Path], typer.Option(help="for .npy vectors: their texts, one row each")] = None,  # noqa: UP045
    index: Annotated[
        Optional[str], typer.Option(help="search mteb's retrieval through a FAISS index of this kind; default exact")  # noqa: UP045
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="BM25 and RRF rows of retrieval")
    ] = True,
    overwrite: Annotated[
        str, typer.Option(help="mteb's results in --output: only-missing, always, never, only-cache")
    ] = "only-missing",
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="run what there is data for")] = False,
    resamples: Annotated[int, typer.Option(min=1, help="of the bootstrap intervals")] = 1000,
    seed: Annotated[int, typer.Option(help="of draws, folds and resamples")] = 42,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="run code that a model brings")
    ] = False,
    list_suites: Annotated[
        bool, typer.Option("--list", is_eager=True, callback=lambda value: _list(value), help="show the suites and end")
    ] = False,
) -> None:
    """Score a model: STS, MTEB, retrieval, transfer, geometry. `sentemb eval compare A B` tests two results.

    Exit code 0: all tasks have a score; 1: some failed (the report says why); 2: nothing was run.
    """
    from sentemb.errors import EvaluationError
    from sentemb.evaluate.model import ModelOptions, open_model
    from sentemb.evaluate.plan import plan_suite
    from sentemb.evaluate.run import refuse_missing, run_plan
    from sentemb.evaluate.suites import Job, Suite, load_suite, suite_names
    from sentemb.evaluate.work import Settings

    options = ModelOptions(
        backend=backend,
        precision=precision,
        device=device,
        revision=revision,
        max_tokens=max_tokens,
        prompts=_prompts(prompt or []),
        texts=texts,
        trust_remote_code=trust_remote_code,
    )
    suites = [load_suite(name) for name in suite or []]
    jobs = _file_jobs(sts or [], retrieval or [], transfer or [], geometry or [], method, aggregation)
    if task:
        jobs.append(Job("mteb", {"tasks": list(task), "subsets": list(subset or ())}))
    if jobs:
        suites.append(Suite("tasks", "chosen tasks", jobs))
    if not suites:
        raise EvaluationError(
            f"nothing to evaluate: give --suite (known: {', '.join(suite_names())}), --task, --sts, --retrieval, "
            "--transfer or --geometry"
        )
    settings = Settings(data_dir, output, resamples, seed, overwrite, baselines, index, skip_missing)
    plans = [plan_suite(one, settings) for one in suites]
    refuse_missing(plans, settings)
    by_suite: list[list[Results]] = [[] for _ in suites]
    for source in model:
        opened = open_model(source, options)
        for held, one, plan in zip(by_suite, suites, plans, strict=True):
            held.append(run_plan(opened, one, plan, settings))
    write_all(by_suite, output)
    report_all(suites, by_suite, Output(json, markdown, latex, published))
    if any(results.failures for held in by_suite for results in held):
        raise typer.Exit(1)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="results JSON, or a folder of them (seeds of one recipe)")],
    b: Annotated[Path, typer.Argument(metavar="B", help="the same, of the other model")],
    json: Annotated[bool, typer.Option("--json", help="print as JSON")] = False,
    markdown: Annotated[Optional[Path], typer.Option(help="also write the table as Markdown")] = None,  # noqa: UP045
    resamples: Annotated[int, typer.Option(min=100, help="of the tests")] = 10_000,
    seed: Annotated[int, typer.Option(help="of the resamples")] = 0,
) -> None:
    """Whether B differs from A: paired permutation or bootstrap test per task (Welch over seeds), Holm-corrected."""
    from sentemb.evaluate.compare import HEADERS, comparison_cells, load_side
    from sentemb.evaluate.compare import compare as compare_sides

    rows = compare_sides(load_side(a), load_side(b), resamples=resamples, seed=seed)
    cells = comparison_cells(rows)
    if markdown is not None:
        from sentemb.evaluate.report import markdown_table
        from sentemb.files import write_text

        write_text(markdown, markdown_table(HEADERS, cells, left=2))
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
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="run files: query Q0 document rank score tag")],
    qrels: Annotated[Path, typer.Option("--qrels", "-q", help="judgements: TREC's four columns, BEIR's tsv, or jsonl")],
    metric: Annotated[str, typer.Option(help="of the interval: ndcg@10, map@100, mrr@10, recall@100, …")] = "ndcg@10",
    output: Annotated[Optional[Path], typer.Option("--output", "-o", help="folder for results JSON")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="print the results as JSON instead of a table")] = False,
    resamples: Annotated[int, typer.Option(min=1, help="of the bootstrap intervals")] = 1000,
    seed: Annotated[int, typer.Option(help="of the resamples")] = 42,
) -> None:
    """Score runs that any system wrote, against judgements; the results can be compared like a model's."""
    from sentemb.evaluate.suites import Suite
    from sentemb.evaluate.trec_score import score_trec

    held = [[score_trec(path, qrels, metric=metric, resamples=resamples, seed=seed)] for path in runs]
    write_all(held, output)
    suites = [Suite(qrels.name, f"{path.name} against {qrels.name}", []) for path in runs]
    report_all(suites, held, Output(json))


def _list(value: bool) -> None:
    if not value:
        return
    from sentemb.evaluate.suites import load_suite, suite_names

    for name in suite_names():
        typer.echo(f"{name:<18} {load_suite(name).title}")
    raise typer.Exit(0)


def _file_jobs(
    sts: list[Path], retrieval: list[Path], transfer: list[Path], geometry: list[Path], method: str, aggregation: str
) -> list[Job]:
    from sentemb.errors import EvaluationError, did_you_mean
    from sentemb.evaluate.sts import AGGREGATIONS
    from sentemb.evaluate.suites import Job
    from sentemb.evaluate.transfer import METHODS

    if method not in METHODS:
        raise EvaluationError(f'--method "{method}"{did_you_mean(method, METHODS)}')
    if aggregation not in AGGREGATIONS:
        raise EvaluationError(f'--aggregation "{aggregation}"{did_you_mean(aggregation, AGGREGATIONS)}')
    jobs = [Job("pairs", {"path": str(path), "aggregation": aggregation}) for path in sts]
    jobs += [Job("retrieval", {"path": str(path)}) for path in retrieval]
    jobs += [Job("transfer", {"path": str(path), "method": method}) for path in transfer]
    return jobs + [Job("geometry", {"path": str(path)}) for path in geometry]


def _prompts(given: list[str]) -> dict[str, str]:
    from sentemb.errors import EvaluationError

    prompts = {}
    for entry in given:
        name, sign, text = entry.partition("=")
        if not sign or not name:
            raise EvaluationError(f'--prompt "{entry}": NAME=TEXT is needed, e.g. --prompt "query=query: "')
        prompts[name] = text
    return prompts
