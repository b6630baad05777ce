"""Writers that are killed by SIGKILL at arbitrary instants, and what their index holds afterwards.

Runs as a process of its own, ``python killed_writer.py FOLDER KILLS SEED KIND``, which imports everything once and
forks each writer, so that hundreds of kills take a minute rather than an hour of imports.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from toy import ToyEncoder

from sentemb.errors import SearchError
from sentemb.search import Document, SearchIndex

FIRST: dict[int, str | None] = {i: f"first {i}" for i in range(40)}
State = dict[int, str | None]


def contents(index: SearchIndex) -> dict[Any, str | None]:
    """Every live document."""
    return {
        document.id: document.text
        for segment in index.segments
        for row, document in segment.documents.fetch(range(segment.rows)).items()
        if segment.live is None or segment.live[row]
    }


def change_of(number: int, seed: int) -> tuple[str, State]:
    """One random change: its name and what it does to the documents (None: gone)."""
    draw = random.Random(f"{seed} {number}")
    ids = draw.sample(range(60), draw.randint(1, 12))
    kind = draw.choice(["upsert", "upsert", "delete", "compact"])
    if kind == "upsert":
        return kind, {name: f"text {name} of step {number}" for name in ids}
    return kind, dict.fromkeys(ids) if kind == "delete" else {}


def after(state: State, number: int, seed: int) -> State:
    """The documents after a change."""
    return {name: text for name, text in {**state, **change_of(number, seed)[1]}.items() if text is not None}


def write(folder: Path, seed: int, number: int, kind: str, acknowledge: int) -> None:
    """Build if there is nothing yet, then change after change, each acknowledged when it has returned."""
    encoder = ToyEncoder()
    if (folder / "manifest.json").exists():
        index = SearchIndex.open(folder, encoder=encoder)
    else:
        documents = [Document(i, text) for i, text in FIRST.items()]
        index = SearchIndex.build(folder, documents, encoder=encoder, kind=kind, overwrite=True)
        os.write(acknowledge, b"built\n")
    while True:
        operation, change = change_of(number, seed)
        if operation == "upsert":
            index.upsert([Document(name, text) for name, text in change.items()])
        elif operation == "delete":
            index.delete(list(change))
        else:
            index.compact()
        os.write(acknowledge, f"{number}\n".encode())
        number += 1


def killed(folder: Path, seed: int, number: int, kind: str, delay: float, *, is_patient: bool) -> list[bytes]:
    """Fork a writer, kill it ``delay`` seconds after its start (or its first word), give what it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write(folder, seed, number, kind, writing)
        finally:
            os._exit(1)  # only an error gets here: a writer goes on until it is killed
    os.close(writing)
    if is_patient:  # a loaded machine may take long to get as far as the first change
        select.select([reading], [], [], 30)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the writer failed by itself"
    assert os.WTERMSIG(status) == signal.SIGKILL
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().split()


def check(folder: Path, kills: int, seed: int, kind: str) -> dict[str, int]:
    """Kill and compare, again and again.

    Raises:
        AssertionError: something acknowledged is lost, or something else appeared.
    """
    draw = random.Random(seed)
    state: State | None = None  # no index yet
    number, builds, in_doubt = 0, 0, 0
    for _ in range(kills):
        is_patient = draw.random() < 0.7
        acknowledged = killed(folder, seed, number, kind, draw.random() * 0.15, is_patient=is_patient)
        if b"built" in acknowledged:
            state = dict(FIRST)
        for word in acknowledged:
            if word != b"built" and state is not None:
                assert int(word) == number
                state, number = after(state, number, seed), number + 1
        try:
            index = SearchIndex.open(folder, encoder=ToyEncoder())
        except SearchError:
            assert state is None, "an index that was acknowledged cannot be opened"
            continue
        found = contents(index)
        if state is None:  # the build was committed, only the word of it was lost
            state, in_doubt = dict(FIRST), in_doubt + 1
        if found != state:
            state, number, in_doubt = after(state, number, seed), number + 1, in_doubt + 1
        assert found == state, "half a change"
        index.verify()
        index.close()
        if number >= 40 and draw.random() < 0.1:  # now and then from the start, so that builds are killed as well
            for path in folder.iterdir():
                if path.is_file():
                    path.unlink()
            state, number, builds = None, 0, builds + 1
    return {"kills": kills, "changes": number, "builds": builds + 1, "committed unheard": in_doubt}


if __name__ == "__main__":
    print(check(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
