"""``sentemb encode INPUT``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentemb.cli.options import DEFAULT_MODEL, Data, Json, MaxTokens, Model, Precision, Split, TextColumn

app = typer.Typer(add_completion=False)


@app.command()
def encode(
    context: typer.Context,
    inputs: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="vectors.npy, or vectors.parquet (text, embedding)")],
    model: Model = DEFAULT_MODEL,
    text_column: TextColumn = None,
    split: Split = None,
    prompt: Annotated[str | None, typer.Option(help="put in front of every text")] = None,
    prompt_name: Annotated[str | None, typer.Option(help="one of the model's named prompts, e.g. query")] = None,
    precision: Precision = "auto",
    normalise: Annotated[
        bool | None,
        typer.Option("--normalise/--no-normalise", help="vectors of unit length; default as the model was saved"),
    ] = None,
    dim: Annotated[int | None, typer.Option(help="leading dimensions to keep")] = None,
    max_tokens: MaxTokens = None,
    batch_tokens: Annotated[
        int | None, typer.Option(help="padded tokens a batch; default 4,096 on a CPU, 65,536 on a GPU")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:1; cuda:0,cuda:1 or all: a process on each GPU; default the GPU if any"),
    ] = None,
    engine: Annotated[str, typer.Option(help="local: this process; ray: the workers of a Ray cluster")] = "local",
    address: Annotated[
        str, typer.Option(help="with --engine ray: auto, HOST:6379, ray://HOST:10001, or local (start one here)"),
    ] = "auto",
    workers: Annotated[int | None, typer.Option(help="with --engine ray: at most so many workers")] = None,
    worker_cpus: Annotated[float, typer.Option(help="with --engine ray: processors of a worker")] = 1.0,
    window: Annotated[int, typer.Option(min=1, help="texts held in memory (and written) at once")] = 65_536,
    skip_faulty: Annotated[bool, typer.Option("--skip-faulty", help="leave out rows without a text")] = False,
    json: Json = False,
) -> None:
    """Turn texts into vectors, in input order; memory stays bounded however long the input.

    OUTPUT appears when all is done; an interrupted run leaves nothing behind. With --engine ray the workers' shards lie
    in OUTPUT.shards until then, and the same command continues where it stopped.
    """
    from collections.abc import Iterator
    from itertools import chain, islice
    from time import perf_counter

    from sentemb.data import iter_texts
    from sentemb.data.faults import Faults
    from sentemb.data.vector_files import vector_writer
    from sentemb.encoder import DevicePool, Encoder
    from sentemb.encoder.pool import device_names
    from sentemb.errors import RecipeError, did_you_mean
    from sentemb.progress import Progress

    if engine not in ("local", "ray"):
        raise RecipeError(f'--engine {engine}{did_you_mean(engine, ("local", "ray"))}')
    writer = vector_writer(output)
    devices = device_names(device)
    encoder: Encoder | DevicePool
    if len(devices) > 1:
        encoder = DevicePool(model, devices, max_tokens=max_tokens, precision=precision)
        context.call_on_close(encoder.close)
    else:
        encoder = Encoder.load(model, max_tokens=max_tokens, device=next(iter(devices), None), precision=precision)
    skipped = Faults()
    texts = chain.from_iterable(
        iter_texts(path, text_column, split=split, skipped=skipped if skip_faulty else None) for path in inputs
    )
    windows: Iterator[list[str]] = iter(lambda: list(islice(texts, window)), [])
    width, start = dim or encoder.width, perf_counter()
    if engine == "ray":
        from sentemb.encoder.ray_engine import Cluster, EncodeJob, Shards

        job = EncodeJob(
            model=model, digest=encoder.digest(), max_tokens=max_tokens, precision=precision, prompt=prompt,
            prompt_name=prompt_name, normalise=normalise, batch_tokens=batch_tokens, dim=dim,
        )
        shards = Shards(output.with_name(f"{output.name}.shards"), job, Cluster(address, workers, worker_cpus))
        shards.encode(windows)
        count = 0
        with writer.open(width) as write:
            for block, vectors in shards.read():
                write(block, vectors)
                count += len(block)
        shards.remove()
    else:
        with Progress("encoding", total=None, unit="texts") as bar, writer.open(width) as write:
            for block in windows:
                write(block, encoder.encode(
                    block, prompt=prompt, prompt_name=prompt_name, normalise=normalise, batch_tokens=batch_tokens,
                    dim=dim, progress=bar,
                ))
            count = bar.done
    seconds = perf_counter() - start
    rate = count / max(seconds, 1e-9)
    if json:
        from json import dumps

        typer.echo(dumps({
            "output": str(output), "texts": count, "width": width, "seconds": round(seconds, 3),
            "texts_per_s": round(rate, 1), "model": encoder.digest(), "skipped": skipped.count,
            "cut": encoder.cut_count,
        }))
        return
    typer.echo(f"{output}: {count:,} × {width} in {seconds:.1f} s ({rate:,.0f} texts/s)")
    if skipped.count:
        typer.echo(f"{skipped.count:,} faulty rows were skipped")
    if encoder.cut_count:
        typer.echo(f"{encoder.cut_count:,} texts were longer than {encoder.max_tokens} tokens and were cut there")
