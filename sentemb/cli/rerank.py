"""``sentemb rerank train LISTS`` and ``sentemb rerank eval RERANKER``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentemb.cli.options import DEFAULT_MODEL, Json, Precision, Resume, Seed, key_values, part_of
from sentemb.cli.output import print_json

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Cross-encoders: train them, score them.")


@app.command()
def train(
    lists: Annotated[str, typer.Argument(
        metavar="LISTS", help="file of anchor, positive, negative_1 …, as sentemb mine writes it")],
    output: Annotated[Path, typer.Option("--output", "-o", help="run folder; the model comes to lie in its model")],
    backbone: Annotated[str, typer.Option(help="the encoder or cross-encoder to start from: a folder or hub id")]
    = DEFAULT_MODEL,
    loss: Annotated[str, typer.Option(
        help="list: positive against its list; bce: every pair for itself; margin: a teacher's gaps")] = "list",
    group: Annotated[int, typer.Option(min=2, help="candidates of a list that a step sees, positive included")] = 8,
    epochs: Annotated[int, typer.Option(min=1, help="passes over the lists")] = 1,
    max_tokens: Annotated[int | None, typer.Option(
        "--max-tokens", min=8, help="cut query and text together after this many tokens; default the model's limit")]
    = None,
    teacher: Annotated[str | None, typer.Option(
        metavar="MODEL", help="cross-encoder whose scores --loss margin follows; default the file's scores")] = None,
    seed: Seed = 42,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=(
        "another setting, e.g. batch_size=16, learning_rate=3e-5, max_steps=200, save_every=50; repeatable"))] = None,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train a cross-encoder on lists of candidates (sentemb list rerank_losses).

    Interrupting (Ctrl-C, SIGTERM) saves a checkpoint; the same command with --resume continues. One device.
    """
    from sentemb.errors import PartError
    from sentemb.rerank.train import RerankSettings, train_reranker

    try:
        settings = RerankSettings(**{
            "loss": part_of("rerank_losses", loss), "group": group, "epochs": epochs, "max_tokens": max_tokens,
            "seed": seed, **key_values(set_ or ()),
        })
    except PartError as error:
        raise PartError("sentemb rerank train", error.entries) from None
    result = train_reranker(lists, backbone=backbone, output=output, settings=settings, teacher=teacher, resume=resume)
    if json:
        fields = ("steps", "seconds", "examples_per_second")
        print_json({"model": str(result.model_dir), **{name: getattr(result, name) for name in fields},
                    "loss": result.last_losses["loss"]})
        return
    typer.echo(
        f"{result.steps} steps in {result.seconds:.0f} s ({result.examples_per_second:.1f} pairs/s)\n"
        f"model    {result.model_dir}\nmetrics  {result.run_dir / 'metrics.jsonl'}, {result.run_dir / 'loss.svg'}\n"
        f"next     sentemb rerank eval {result.model_dir} BEIR_FOLDER; sentemb search INDEX --rerank {result.model_dir}"
    )


@app.command("eval")
def eval_(
    reranker: Annotated[str, typer.Argument(metavar="RERANKER", help="the cross-encoder: a folder or hub id")],
    data: Annotated[str, typer.Argument(metavar="FOLDER", help="corpus, queries, qrels, as BEIR or the hub has them")],
    model: Annotated[str, typer.Option(
        "--model", "-m", help="encoder whose best documents are reranked: folder, hub id, package:NAME/FOLDER")]
    = DEFAULT_MODEL,
    depth: Annotated[int, typer.Option(min=1, help="documents of a query that are reranked")] = 50,
    split: Annotated[str, typer.Option(help="of the judgements")] = "test",
    metric: Annotated[str, typer.Option(help="ndcg, map, mrr, recall, precision or hit_rate, then @K")] = "ndcg@10",
    precision: Precision = "auto",
    seed: Seed = 42,
    json: Json = False,
) -> None:
    """Score a cross-encoder on retrieval: an encoder's best documents in its order, beside the encoder alone.

    The gain is query by query, with the interval of a paired bootstrap. In suites: use = "reranked".
    """
    from sentemb.errors import EvaluationError
    from sentemb.evaluate.evaluation import evaluate_model
    from sentemb.evaluate.report import report_sheet
    from sentemb.evaluate.tasks.reranked import Reranked

    task = Reranked(path=data, reranker=reranker, depth=depth, split=split, metric=metric)
    results = evaluate_model(model, task, precision=precision, seed=seed)
    if results.failures:
        raise EvaluationError(results.failures[0].error)
    if json:
        print_json(results.tasks[0])
        return
    from rich.console import Console

    Console(width=160).print(report_sheet([results]).drawn())
