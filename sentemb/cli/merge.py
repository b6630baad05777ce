"""``sentemb merge A B …``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentemb.cli.options import Json, Overwrite
from sentemb.cli.output import print_json, refuse_replacing

app = typer.Typer(add_completion=False)


@app.command()
def merge(
    models: Annotated[list[str], typer.Argument(
        metavar="MODEL…", help="models trained from one checkpoint: folders, hub ids, package:NAME/FOLDER")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of the model that is made")],
    base: Annotated[str | None, typer.Option(
        help="the checkpoint that all were trained from: a tensor then follows the models that changed it most"),
    ] = None,
    power: Annotated[float, typer.Option(
        min=0, help="with --base: how strongly a model's change weighs; 0 weighs all models alike")] = 1.0,
    evaluate: Annotated[str | None, typer.Option(
        "--eval", metavar="SUITE", help="score the models before and after: a suite (sentemb eval --list), a .toml "
        "file of one, or a file of pairs (sentence1, sentence2, score)")] = None,
    data_dir: Annotated[Path | None, typer.Option(
        "--data-dir", "-d", help="folder of the suite's data, laid out as the hub; default SENTEMB_DATA")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Make one model of several without training: the mean of their weights, or a fusion by how far each moved.

    OUTPUT opens like any model, also in sentence-transformers. Only safetensors are read and written.
    """
    from sentemb.encoder import Encoder
    from sentemb.encoder.merging import merge as merged
    from sentemb.evaluate import Sts, dev_score
    from sentemb.evaluate.suites import load_suite

    refuse_replacing(output, overwrite, "a model", lambda: (output / "modules.json").is_file())
    score = None
    if evaluate is not None:  # what is missing is told before anything is made
        is_file = Path(evaluate).suffix in (".tsv", ".csv", ".jsonl", ".parquet")
        score = dev_score([Sts(path=evaluate)] if is_file else load_suite(evaluate).tasks, data_dir=data_dir)
    result = merged(models, base=base, power=power)
    scores = {}
    if score is not None:
        for name in [*models, *([base] if base else [])]:
            scores[name] = dict(score(Encoder.load(name)).scores)
        scores[str(output)] = dict(score(result).scores)
    result.save(output)
    if json:
        print_json({"output": str(output), "models": models, "base": base, "power": power, "scores": scores})
        return
    how = f"fused by their changes from {base} (power {power:g})" if base else "averaged"
    typer.echo(f"{output}: {len(models)} models, {how}")
    for name, by_task in scores.items():
        typer.echo(f"  {name}: " + ", ".join(f"{task} {value:.2f}" for task, value in by_task.items()))
