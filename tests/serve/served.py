"""A server on a free port of this machine, forty documents, and a client."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette

WORDS = "cat dog river city music guitar book film".split()
DOCUMENTS = [
    {"id": f"d{i}", "text": f"the {WORDS[i % 8]} and the {WORDS[(3 * i + 1) % 8]} {i}", "kind": ["a", "b"][i % 2],
     "year": 2000 + i}
    for i in range(40)
]  # fmt: skip


@dataclass
class Client:
    """Plain HTTP against a running server."""

    port: int

    def __call__(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        sent = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = (answer.getheader("content-type") or "").startswith("application/json")
        return answer.status, json.loads(content) if is_json else content.decode()


@contextmanager
def running(application: Starlette) -> Iterator[Client]:
    """Serve in a thread until the block ends; the stop waits for what was taken on."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield Client(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def overlap(pairs: list[tuple[str, str]]) -> list[float]:
    """A re-ranker: the share of the query's words in the text."""
    return [len(set(query.split()) & set(text.split())) / max(1, len(set(query.split()))) for query, text in pairs]
