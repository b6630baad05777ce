"""``sentemb encode INPUT``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentemb.cli.options import DEFAULT_MODEL, Data, Json, MaxTokens, Model, Precision, Ray, Split, TextColumn
from sentemb.cli.output import print_json

app = typer.Typer(add_completion=False)


@app.command()
def encode(
    context: typer.Context,
    inputs: Data,
    output: Annotated[Path, typer.Option(
        "--output", "-o", help="vectors.npy, or vectors.parquet (text, embedding and the input's other columns)")],
    model: Model = DEFAULT_MODEL,
    text_column: TextColumn = None,
    split: Split = None,
    prompt: Annotated[str | None, typer.Option(
        help='put in front of every text, or a template: "… {text} … {mask} …"')] = None,
    prompt_name: Annotated[str | None, typer.Option(help="one of the model's named prompts, e.g. query")] = None,
    precision: Precision = "auto",
    normalise: Annotated[bool | None, typer.Option(
        "--normalise/--no-normalise", help="vectors of unit length; default as the model was saved")] = None,
    dtype: Annotated[str, typer.Option(
        help="of the numbers in OUTPUT: float32, float16, int8 (a byte each) or ubinary (a bit each)")] = "float32",
    keep_columns: Annotated[bool, typer.Option(
        "--keep-columns/--no-keep-columns", help="the input's other columns in a parquet file")] = True,
    dim: Annotated[int | None, typer.Option(help="leading dimensions to keep")] = None,
    max_tokens: MaxTokens = None,
    batch_tokens: Annotated[int | None, typer.Option(
        help="padded tokens a batch; default 4,096 on a CPU, 65,536 on a GPU")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; default the GPU if any")] = None,
    ray: Ray = None,
    window: Annotated[int, typer.Option(min=1, help="texts held in memory (and written) at once")] = 65_536,
    skip_faulty: Annotated[bool, typer.Option("--skip-faulty", help="leave out rows without a text")] = False,
    json: Json = False,
) -> None:
    """Turn texts into vectors, in input order; memory stays bounded however long the input.

    OUTPUT appears when all is done. After a stop, even kill -9, the same command goes on behind the last whole window.
    Wherever sentemb takes a file of vectors, int8 and ubinary are read too.
    """
    from itertools import chain, islice
    from time import perf_counter

    from sentemb import __version__
    from sentemb.cluster import Cluster
    from sentemb.data.faults import Faults
    from sentemb.data.sources import iter_texts_with_columns
    from sentemb.data.vector_writer import vector_writer
    from sentemb.encoder import Encoder
    from sentemb.progress import Progress

    writer = vector_writer(output, dtype)
    loaded = Encoder.load(model, max_tokens=max_tokens, device=device, precision=precision)
    encoder = context.with_resource(Cluster(ray)).encoder(loaded) if ray else loaded
    skipped = Faults()
    rows = chain.from_iterable(
        iter_texts_with_columns(path, text_column, split=split, skipped=skipped if skip_faulty else None)
        for path in inputs
    )

    def made_by() -> dict[str, object]:  # batch_tokens is not among it: after running out of memory, less is given
        return {"model": encoder.digest(), "precision": loaded.format, "device": loaded.device.type, "prompt": prompt,
                "prompt name": prompt_name, "normalise": normalise, "version": __version__}

    width, start = dim or encoder.width, perf_counter()
    with Progress("encoding", total=None, unit="texts") as bar, writer(width, made_by) as write:
        while block := list(islice(rows, window)):
            texts, columns = [text for text, _ in block], [others if keep_columns else {} for _, others in block]
            if not write.has(texts, columns):
                vectors = encoder.encode(
                    texts, prompt=prompt, prompt_name=prompt_name, normalise=normalise, batch_tokens=batch_tokens,
                    dim=dim, progress=bar,
                )
                write(texts, vectors, columns)
        encoded = bar.done
    seconds, count = perf_counter() - start, write.rows
    rate = encoded / max(seconds, 1e-9)
    if json:
        print_json({
            "output": str(output), "texts": count, "width": width, "dtype": dtype, "seconds": round(seconds, 3),
            "texts_per_s": round(rate, 1), "model": encoder.digest(), "skipped": skipped.count,
            "cut": encoder.cut_count, "resumed_at": write.earlier_rows,
        })
        return
    typer.echo(f"{output}: {count:,} × {width} in {seconds:.1f} s ({rate:,.0f} texts/s)")
    if skipped.count:
        typer.echo(f"{skipped.count:,} faulty rows were skipped")
    if encoder.cut_count:
        typer.echo(f"{encoder.cut_count:,} texts were longer than {loaded.max_tokens} tokens and were cut there")
