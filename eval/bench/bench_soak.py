"""Ten minutes of mixed load on a server: no answer lost, none wrong, memory flat.

    SENTEMB_DATA=…/data python eval/bench/run.py soak [--minutes 10]

`sentemb serve` has all-MiniLM-L6-v2 and an index of 5,000 Wikipedia sentences. Eight clients embed one text or 64 at a
time, search in every way and send requests that are wrong; every 30 seconds `sentemb index sync` changes the index
outside, and what it added must be found, and what it deleted gone, without a restart. At the end the server is stopped
while requests are under way: each is answered, or its connection was never taken.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench_serve import MODEL, sentences, started_server
from harness import machine, markdown_table, write_report, write_rows

DOCUMENTS, CLIENTS, SYNC_S = 5000, 8, 30
WRONG: list[tuple[str, Any]] = [
    ("/v1/embeddings", {"input": []}), ("/v1/embeddings", {"input": [1, "a"]}), ("/v1/embeddings", {"model": "none"}),
    ("/search", {"query": ""}), ("/search", {"query": "a", "where": "year >"}), ("/search", {"query": "a", "k": 0}),
    ("/search", {"vector": [1.0]}), ("/v1/rerank", {"query": "a", "documents": ["b"]}), ("/nothing", {}),
]  # fmt: skip


class Client(threading.Thread):
    """Asks until told to stop; counts answers by kind and status, and what went without an answer."""

    def __init__(self, port: int, texts: list[str], seed: int, ending: threading.Event) -> None:
        super().__init__(daemon=True)
        self._port, self._texts, self._draw, self._ending = port, texts, random.Random(seed), ending
        self.answers: collections.Counter[tuple[str, int]] = collections.Counter()
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)
        self.lost: list[str] = []
        self.refused_connections = 0

    def run(self) -> None:
        while not self._ending.is_set():
            kind, path, body = self._request()
            start = time.perf_counter()
            try:
                status, _ = ask(self._port, path, body)
            except ConnectionRefusedError:
                self.refused_connections += 1
                time.sleep(0.05)
                continue
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(f"{kind}: {error!r}")
                continue
            self.answers[kind, status] += 1
            self.seconds[kind].append(time.perf_counter() - start)

    def _request(self) -> tuple[str, str, Any]:
        draw = self._draw
        kind = draw.choices(["one text", "64 texts", "search", "wrong"], [4, 1, 4, 1])[0]
        text = draw.choice(self._texts)
        if kind == "one text":
            return kind, "/v1/embeddings", {"input": text, "truncate": True}
        if kind == "64 texts":
            chosen = draw.sample(self._texts, 64)
            return kind, "/v1/embeddings", {"input": chosen, "truncate": True, "encoding_format": "base64"}
        if kind == "wrong":
            return kind, *draw.choice(WRONG)
        by = draw.choice(["meaning", "words", "hybrid"])
        return kind, "/search", {"query": text[:60], "k": 5, "by": by, "where": draw.choice([None, "part < 5"])}


def ask(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of one request over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
        connection.request(method, path, content, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


def sync(folder: Path, texts: list[str], generation: int) -> None:
    """Change the documents: one new, one gone, one other text."""
    rows = [{"id": str(number), "text": text, "part": number % 10} for number, text in enumerate(texts)]
    rows[generation]["text"] = f"{texts[generation]} Changed for the {generation}th time."
    del rows[-1 - generation]
    rows.append({"id": f"new-{generation}", "text": f"An unusual sentence of generation {generation}.", "part": 1})
    write_rows(folder / "docs.jsonl", rows)
    verb = "build" if generation == 0 else "sync"
    where = ["-o", str(folder / "index"), "--model", MODEL] if verb == "build" else [str(folder / "index")]
    subprocess.run(
        [sys.executable, "-m", "sentemb", "--quiet", "index", verb, str(folder / "docs.jsonl"), *where], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def taken_up(port: int, generation: int, most_s: float = 60) -> float:
    """Seconds until the server finds what a generation added and not what it replaced."""
    start = time.monotonic()
    while True:
        new, _ = ask(port, f"/documents?id=new-{generation}")
        old, _ = ask(port, f"/documents?id=new-{generation - 1}")
        if (new, old) == (200, 404):
            return time.monotonic() - start
        if time.monotonic() - start > most_s:
            raise RuntimeError(f"generation {generation} was not taken up: {new}, {old}")
        time.sleep(0.2)


def resident_mib(pid: int) -> float:
    """What a process holds in memory."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024  # type: ignore[index]


def main(arguments: list[str]) -> None:
    """Load, watch, stop, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args(arguments)
    facts, texts = machine(), sentences(DOCUMENTS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sync(folder, texts, 0)
        server, port = started_server(f"docs={folder / 'index'}", log=(folder / "log").open("w"))
        try:
            _soak(server, port, folder, texts, options.minutes, facts)
        finally:
            server.kill()


def _soak(
    server: subprocess.Popen[bytes], port: int, folder: Path, texts: list[str], minutes: float, facts: dict[str, Any]
) -> None:
    ending = threading.Event()
    clients = [Client(port, texts, seed, ending) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    start, memory, waits, generation = time.monotonic(), [], [], 0
    while time.monotonic() - start < 60 * minutes:
        time.sleep(SYNC_S)
        memory.append(resident_mib(server.pid))
        generation += 1
        sync(folder, texts, generation)
        waits.append(taken_up(port, generation))
    server.send_signal(signal.SIGTERM)  # while requests are under way
    code = server.wait(120)
    ending.set()
    for client in clients:
        client.join(120)
    answers: collections.Counter[tuple[str, int]] = sum((client.answers for client in clients), collections.Counter())
    lost = [fault for client in clients for fault in client.lost]
    log = (folder / "log").read_text().splitlines()
    faults = {
        "lost": lost, "exit": code, "log": [line for line in log if "Error" in line],
        "unexpected": {
            f"{kind} {status}": count for (kind, status), count in answers.items()
            if not (400 <= status < 500 if kind == "wrong" else status in (200, 429))
        },
    }  # fmt: skip
    rows = []
    for kind in ("one text", "64 texts", "search", "wrong"):
        waited = sorted(second for client in clients for second in client.seconds[kind])
        counts = [(status, count) for (name, status), count in sorted(answers.items()) if name == kind]
        quantiles = [f"{1000 * waited[int(share * (len(waited) - 1))]:.0f}" for share in (0.5, 0.99)]
        by_status = ", ".join(f"{count:,} × {status}" for status, count in counts)
        rows.append([kind, f"{len(waited):,}", by_status, *quantiles])
    settled = memory[len(memory) // 4 :]
    text = f"""{minutes:g} minutes, {CLIENTS} clients, an index of {DOCUMENTS:,} sentences, {MODEL}.

{markdown_table(["request", "answers", "by status", "p50 ms", "p99 ms"], rows)}

* Requests without an answer: {len(lost)}. Answers that should have been others: {sum(faults["unexpected"].values())}.
* `sentemb index sync` made {generation} generations of the index outside; each was taken up, the slowest
  {max(waits):.1f} s after the sync had ended.
* Memory of the server, every {SYNC_S} s: first {memory[0]:,.0f} MiB, last {memory[-1]:,.0f}; behind the first quarter
  of the time {min(settled):,.0f} to {max(settled):,.0f}.
* SIGTERM under load: exit code {code}, everything that was taken on was answered.
"""
    facts = {**facts, "memory_mib": memory, "taken_up_s": waits, **faults}
    write_report("soak", "Ten minutes of mixed load", text, facts, {})
    if lost or faults["unexpected"] or faults["log"] or code != 0:
        sys.exit(f"faults: {json.dumps(faults, indent=1)}")
