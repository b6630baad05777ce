"""``sentemb encode`` that was killed goes on where it stopped, with the bits of a run that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from encode_work import command
from ranks import context

WORDS = "the a man woman dog cat runs plays music guitar red blue river house song city team".split()


def encode(said: Path, *arguments: object) -> int:
    process = context().Process(target=command, args=([*map(str, arguments)], str(said)))
    process.start()
    process.join()
    return int(process.exitcode or 0)


@pytest.mark.parametrize(("name", "dtype"), [("v.npy", "int8"), ("v.parquet", "float32")])
def test_after_kill_9_the_same_command_goes_on(name: str, dtype: str, tiny_bert: Path, tmp_path: Path) -> None:
    draw = random.Random(3)
    rows = [{"text": " ".join(draw.choices(WORDS, k=draw.randint(2, 9))), "row": row} for row in range(4000)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, whole, said = tmp_path / name, tmp_path / "whole" / name, tmp_path / "said.txt"
    options = [tmp_path / "rows.jsonl", "-m", tiny_bert, "--precision", "fp32", "--dtype", dtype, "--window", 100, "-o"]
    assert encode(said, *options, whole) == 0

    process = context().Process(target=command, args=([*map(str, options), str(out)], str(said)))
    process.start()
    note = tmp_path / f".{name}.partial" / "blocks.json"
    end = time.monotonic() + 60
    while not (note.exists() and len(json.loads(note.read_text())["blocks"]) >= 3) and time.monotonic() < end:
        time.sleep(0.001)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    done = 100 * len(json.loads(note.read_text())["blocks"])
    assert 300 <= done < 4000

    assert encode(said, *options, out) == 0
    assert f"{done:,} texts were done by an earlier run" in said.read_text()
    assert sorted(path.name for path in whole.parent.iterdir()) == sorted(
        path.name for path in tmp_path.iterdir() if path.name.startswith(("v.", ".v."))
    )
    for path in whole.parent.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_wrong_row_keeps_what_is_done(tiny_bert: Path, tmp_path: Path) -> None:
    lines = [f"dog {row}" for row in range(50)]
    path, said = tmp_path / "rows.csv", tmp_path / "said.txt"
    options = [path, "-m", tiny_bert, "--window", 10, "-o", tmp_path / "v.npy", "--precision", "fp32"]
    path.write_text("\n".join(["text,n", *(f"{line},1" for line in lines[:45]), ",1"]) + "\n")
    assert encode(said, *options) == 2
    assert "40 texts are done" in said.read_text()
    path.write_text("\n".join(["text,n", *(f"{line},1" for line in lines)]) + "\n")
    assert encode(said, *options) == 0
    assert "40 texts were done by an earlier run" in said.read_text()
    assert [entry.name for entry in tmp_path.glob("*v.npy*")] == ["v.npy"]
