"""``sentemb mcp INDEX…``."""

from __future__ import annotations

from typing import Annotated

import typer

from sentemb.cli.options import Precision, named_paths

app = typer.Typer(add_completion=False)


@app.command()
def mcp(
    indexes: Annotated[list[str], typer.Argument(
        metavar="INDEX…", help="folders of indexes, as FOLDER or NAME=FOLDER")],
    precision: Precision = "auto",
    mapped: Annotated[bool, typer.Option(
        "--mapped", help="leave vectors on disk, for indexes larger than memory")] = False,
) -> None:
    """Give an agent two tools, search and get, over the Model Context Protocol (standard input and output).

    Name this command in the configuration of the agent: {"command": "sentemb", "args": ["mcp", "docs.index"]}
    """
    import signal

    from sentemb.integrations.mcp import server
    from sentemb.search import SearchIndex
    from sentemb.serve import Service

    opened = {name: SearchIndex.open(path, precision=precision, mapped=mapped) for name, path in named_paths(indexes)}
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a thread that waits for input would keep a gentler end from ending
    server(Service(indexes=opened)).run("stdio")
