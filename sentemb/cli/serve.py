"""``sentemb serve INDEX …``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentemb.cli.options import Precision, named_paths, settings_of

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    indexes: Annotated[list[str] | None, typer.Argument(
        metavar="[INDEX]…", help="folders of indexes, as FOLDER or NAME=FOLDER")] = None,
    models: Annotated[list[str] | None, typer.Option(
        "--model", "-m", metavar="MODEL", help="model for /v1/embeddings, as MODEL or NAME=MODEL; repeatable (those of "
        "the indexes are served anyway)")] = None,
    rerankers: Annotated[list[str] | None, typer.Option(
        "--rerank", metavar="MODEL", help="cross-encoder for /v1/rerank and searches; repeatable")] = None,
    host: Annotated[str, typer.Option(help="address to listen at; 0.0.0.0: all of this machine's")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    api_key_file: Annotated[Path | None, typer.Option(
        help="file with the key that clients must send; without it the variable SENTEMB_API_KEY, or none")] = None,
    allow_origin: Annotated[list[str] | None, typer.Option(
        metavar="ORIGIN", help="web pages from there may call, e.g. https://example.org; repeatable; none by default",
    )] = None,
    precision: Precision = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=(
        "body_mib=16, body_s=30, inputs=2048, results=1000, waiting_tokens=500000, searches=256: what is taken on; "
        "refresh_s=2: how often an index is looked at; mapped=true: vectors stay on disk"))] = None,
) -> None:
    """Serve models and indexes over HTTP: OpenAI's embeddings, re-ranking, search, and a search page.

    Ctrl-C or SIGTERM finish what was taken on, and end.
    """
    import os

    from sentemb.encoder import Encoder
    from sentemb.encoder.pretrained import load_cross_encoder
    from sentemb.errors import SentembError
    from sentemb.search import SearchIndex
    from sentemb.serve import Limits, Service, serve
    from sentemb.serve import app as application

    settings = settings_of(set_ or (), {
        "body_mib": float, "body_s": float, "inputs": int, "results": int, "waiting_tokens": int, "searches": int,
        "refresh_s": float, "mapped": bool,
    })
    if not indexes and not models and not rerankers:
        raise SentembError("nothing to serve; give the folder of an index, --model or --rerank")
    refresh_s, mapped = settings.pop("refresh_s", 2.0), settings.pop("mapped", False)
    key = api_key_file.read_text(encoding="utf-8").strip() if api_key_file else os.environ.get("SENTEMB_API_KEY")
    if api_key_file and not key:
        raise SentembError(f"{api_key_file}: is empty; write the key into it")
    is_local = host in ("127.0.0.1", "localhost", "::1")
    service = Service(
        models={name: Encoder.load(path, precision=precision) for name, path in named_paths(models)},
        indexes={
            name: SearchIndex.open(path, precision=precision, mapped=mapped) for name, path in named_paths(indexes)
        },
        rerankers={name: load_cross_encoder(path) for name, path in named_paths(rerankers)}, limits=Limits(**settings),
    )
    served = application(
        service, api_key=key, origins=allow_origin or (), refresh_s=refresh_s,
        hosts=("127.0.0.1", "localhost", "[::1]") if is_local else (),
    )
    if not is_local and not key:
        typer.echo("anybody who reaches this machine can use the server; --api-key-file asks for a key", err=True)
    typer.echo(f"http://{f'[{host}]' if ':' in host else host}:{port}  (Ctrl-C ends)", err=True)
    serve(served, host=host, port=port)
    typer.echo("stopped; everything that was taken on is answered", err=True)
