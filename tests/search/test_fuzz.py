"""Damage of every kind to every file: a refusal or the right answer, never another one, never a crash."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import ToyEncoder

from sentemb.errors import SearchError
from sentemb.search import Document, SearchIndex
from sentemb.search.store import manifest as manifests

CASES = 1050
KINDS = ["flat", "hnsw", "IVF4,SQ8"]


def _answers(folder: Path) -> Any:
    with SearchIndex.open(folder, encoder=ToyEncoder()) as index:
        return [[(hit.id, round(hit.score, 5), hit.text) for hit in index.search(q, 5)] for q in ("red 3", "blue 7")]


def _prepare(folder: Path) -> None:
    for number, kind in enumerate(KINDS):
        documents = [Document(i, f"{'red' if i % 2 else 'blue'} {i} index {number}") for i in range(60)]
        index = SearchIndex.build(folder / str(number), documents, encoder=ToyEncoder(), kind=kind, rescore=number == 2)
        index.delete([1, 2])
        index.upsert([Document(5, f"red five of {number}")])


def _damage(draw: random.Random, folder: Path, others: list[Path]) -> str:
    path = draw.choice(sorted(p for p in folder.iterdir() if p.name != ".sentemb-lock"))
    content = bytearray(path.read_bytes())
    kind = draw.choice(["flip", "flip", "truncate", "swap", "zero", "grow", "remove", "shuffle"])
    if kind == "flip":
        for _ in range(draw.choice([1, 1, 3, 50])):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == "truncate":
        del content[draw.randrange(len(content)) :]
    elif kind == "zero":
        start = draw.randrange(len(content))
        stop = min(len(content), start + draw.choice([1, 16, 512]))
        content[start:stop] = bytes(stop - start)
    elif kind == "grow":
        content += draw.randbytes(draw.choice([1, 100]))
    elif kind == "shuffle":
        content = bytearray(draw.randbytes(len(content)))
    elif kind == "swap":
        files = sorted(p for p in draw.choice(others).iterdir() if p.name != ".sentemb-lock")
        content = bytearray(draw.choice(files).read_bytes())
    path.unlink()
    if kind != "remove":
        path.write_bytes(content)
    return f"{kind} {path.name}"


def run_cases(root: Path, seed: int, cases: int) -> dict[str, int]:
    """Damage copies of the prepared indexes; counts refusals and unharmed answers. Run in a process of its own."""
    draw = random.Random(seed)
    originals = [root / str(number) for number in range(len(KINDS))]
    expected = [_answers(folder) for folder in originals]
    counts = {"refused": 0, "unharmed": 0}
    for case in range(cases):
        number = draw.randrange(len(originals))
        copy = root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(originals[number], copy)
        what = _damage(draw, copy, originals)
        try:
            found = _answers(copy)
        except SearchError:
            counts["refused"] += 1
            continue
        # an intact manifest of another index beside these files cannot be answered from; the same bytes can
        assert found == expected[number], f"case {case} (seed {seed}): {what}: a silent wrong answer"
        counts["unharmed"] += 1
    return counts


def test_damaged_files_are_refused_or_answered_rightly(tmp_path: Path) -> None:
    _prepare(tmp_path)
    here = Path(__file__)
    call = f"test_fuzz.run_cases(pathlib.Path({str(tmp_path)!r}), 7, {CASES})"
    code = f"import json, pathlib, test_fuzz; print(json.dumps({call}))"
    # in another process, so that a crash of the parser would be seen as one
    done = subprocess.run([sys.executable, "-c", code], cwd=here.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert sum(counts.values()) == CASES
    assert counts["refused"] > 0.8 * CASES


def _signed(body: Any) -> str:
    checksum = manifests.checksum(body)
    record = {"format": "sentemb-index", "version": manifests.VERSION, "checksum": checksum, "index": body}
    return json.dumps(record)


def test_manifests_with_a_right_checksum_and_wrong_content_are_refused(tmp_path: Path) -> None:
    documents = [Document(i, f"red {i}") for i in range(50)]
    index = SearchIndex.build(tmp_path, documents, encoder=ToyEncoder(), kind="IVF4,Flat")
    index.delete([1])
    path = tmp_path / manifests.NAME
    body = json.loads(path.read_text())["index"]
    expected = _answers(tmp_path)
    draw = random.Random(1)
    values: list[Any] = [None, -1, 0, 1, 10**9, "x", "../../etc/passwd", 1.5, [], {}, True, "Flat", "l2", "0" * 64]
    refused = 0
    for _ in range(250):
        changed = json.loads(json.dumps(body))
        place: Any = changed
        while True:
            key = draw.choice(list(place) if isinstance(place, dict) else list(range(len(place))))
            if isinstance(place[key], (dict, list)) and place[key] and draw.random() < 0.8:
                place = place[key]
                continue
            place[key] = draw.choice(values)
            break
        path.write_text(_signed(changed))
        try:
            found = _answers(tmp_path)
        except SearchError:
            refused += 1
            continue
        # a right checksum means that sentemb wrote it; of what can then still differ, only these change an answer
        touched = {name for name in body if changed.get(name) != body[name]}
        assert found == expected or touched <= {"model", "metric", "tuned"}, touched
    assert refused > 100


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.update(version=3), "format version 3; this sentemb reads up to 2; upgrade"),
        (lambda r: r.update(version="1"), "format version '1'"),
        (lambda r: r.update(format="other"), "not of the format sentemb-index"),
        (lambda r: r["index"].update(dimension=17), "checksum"),
    ],
)
def test_manifest_refusals_say_why(edit: Any, message: str, tmp_path: Path) -> None:
    SearchIndex.build(tmp_path, ["a b"], encoder=ToyEncoder())
    path = tmp_path / manifests.NAME
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))
    with pytest.raises(SearchError, match=message):
        SearchIndex.open(tmp_path)


def test_swapped_vector_files_are_refused(tmp_path: Path) -> None:
    first = SearchIndex.build(tmp_path / "a", ["a b", "c"], encoder=ToyEncoder())
    second = SearchIndex.build(tmp_path / "b", ["d e", "f"], encoder=ToyEncoder())
    one, other = (i.folder / i.manifest.segments[0].index.name for i in (first, second))
    one.write_bytes(other.read_bytes())
    with pytest.raises(SearchError, match="SHA-256 is not the manifest's"):
        SearchIndex.open(tmp_path / "a")
    assert np.isfinite(second.search("d", 1)[0].score)
