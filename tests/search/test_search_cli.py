"""The verbs index, search and mine with a real (tiny, random) encoder."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentemb.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    with pytest.raises(SystemExit) as ended:
        main(["--quiet", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_a_whole_life_on_the_command_line(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "d.jsonl"
    rows = [{"id": f"d{i}", "text": f"the dog runs {i}", "year": 2000 + i} for i in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = str(tmp_path / "ix")
    code, out, err = run(capsys, "index", str(data), "-o", folder, "-m", str(tiny_bert), "--json")
    assert code == 0, err
    assert json.loads(out)["documents"] == 30
    code, out, _ = run(capsys, "search", folder, "the dog runs 7", "-k", "3", "--json", "--where", "year <= 2010")
    hits = json.loads(out)["hits"]
    assert code == 0
    assert hits[0]["id"] == "d7"
    assert hits[0]["metadata"] == {"year": 2007}
    code, out, _ = run(capsys, "search", folder, "--more-like", "d7", "-k", "2")
    assert code == 0
    assert "d7" not in out.splitlines()[1]
    code, out, _ = run(capsys, "search", folder, "runs 7", "--words", "-k", "100000", "--precision", "fp32")
    assert (code, len(out.splitlines())) == (0, 31)
    code, out, _ = run(capsys, "search", folder, "dog", "-k", "100000000000")
    assert (code, len(out.splitlines())) == (0, 31)
    code, out, _ = run(capsys, "index", "delete", folder, "d7", "nobody")
    assert (code, out.strip()) == (0, f"{folder}: deleted 1 documents; 29 left")
    code, out, err = run(capsys, "index", "upsert", folder, str(data))
    assert code == 0, err
    assert "30 now" in out
    for verb in ("compact", "verify", "stats"):
        code, out, err = run(capsys, "index", verb, folder)
        assert code == 0, err
        assert "30 documents" in out
    code, _, err = run(capsys, "search", folder, "x", "--where", "year >")
    assert code == 2
    assert "ends where a value" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["q", "--hybrid", "--diverse", "0.5"], "--hybrid and --diverse do not go together"),
        (["q", "--diverse", "0", "--within", "0.5"], "--diverse and --within do not go together"),
        (["q", "--like", "x"], "QUERY and --like are different questions"),
        (["--more-like", "a", "--like", "x"], "--more-like and --like are different"),
        (["--unlike", "x"], "give --like as well"), (["q", "--unlike", "x"], "give --like as well"),
        (["--like", "x", "--rerank", "model"], "--rerank is for queries"),
        (["--more-like", "x", "--within", "0.5"], "--within is for queries"),
        (["q", "--hybrid", "--set", "effort=4"], "--set effort does not go with --hybrid"),
        (["q", "--set", "efort=4"], "did you mean effort"), (["q", "--set", "effort=x"], "valid integer"),
        (["q", "--where", "year = '2000'"], '"year" holds numbers, and the filter compares it with text'),
        (["q", "  "], "query 2 is empty"), (["--more-like", "²"], "no document with id"),
        (["q", "--where", "yeer > 3"], 'no document has the field "yeer"; known: id, text, year; did you mean year'),
        (["q", "--file", "absent.txt"], "no such file"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    options: list[str], message: str, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = tmp_path / "d.jsonl", str(tmp_path / "ix")
    data.write_text(json.dumps({"id": "a", "text": "the dog", "year": 2000}))
    assert run(capsys, "index", str(data), "-o", folder, "-m", str(tiny_bert))[0] == 0
    code, out, err = run(capsys, "search", folder, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert run(capsys, "search", folder, "q", "--where", "year > 3000")[:2] == (0, "q\n")


def test_mining_on_the_command_line(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out_file = tmp_path / "p.jsonl", tmp_path / "m.jsonl"
    rows = [{"anchor": f"the cat {i}", "positive": f"a cat {i}"} for i in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = run(
        capsys, "mine", str(data), "-o", str(out_file), "-m", str(tiny_bert), "-n", "2", "--source", "nearest",
        "--source", "shared_words:share=1", "--rule", "score_range:most=2.0", "--json",
    )
    assert code == 0, err
    assert json.loads(out)["mined"] == 20
    mined = [json.loads(line) for line in out_file.read_text().splitlines()]
    assert len(mined) == 20
    assert all(row["positive"] not in (row["negative_1"], row["negative_2"]) for row in mined)
    report = json.loads(Path(f"{out_file}.report.json").read_text())["report"]
    assert 0 <= report["false_negatives"] <= 1
    assert {"output": str(out_file), **report} == json.loads(out)
    code, out, err = run(capsys, "mine", str(data), "-o", str(tmp_path / "n.jsonl"), "-m", str(tiny_bert), "-n", "2")
    assert code == 0, err
    assert "so perhaps positives themselves" in out
    for wrong, message in (("relative_margn", "did you mean relative_margin"), ("rank_window:last=0", "greater than")):
        code, _, err = run(capsys, "mine", str(data), "-o", str(tmp_path / "n.jsonl"), "--rule", wrong)
        assert (code, message in err) == (2, True), err


@pytest.mark.parametrize("verb", ["index", "mine"])
def test_stopping_says_how_to_go_on(
    verb: str, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentemb.encoder import Encoder

    def stopped(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps({"text": f"the dog {i}"}) + "\n" for i in range(9)))
    line = [verb, str(data), "-o", str(tmp_path / "out.jsonl"), "-m", str(tiny_bert)]
    line += ["--unlabelled", "--column", "anchor=text", "-n", "2"] if verb == "mine" else []
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "encode", stopped)
        code, _, err = run(capsys, *line)
    told = {"index": "nothing was changed: the same command starts again",
            "mine": "the same command with --resume goes on from the last block"}
    assert (code, err) == (130, f"sentemb: stopped; {told[verb]}\n")
    code, _, err = run(capsys, *line, "--resume")
    assert code == 0, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("line", "loads"), [(["index"], 1), (["mine", "--unlabelled"], 1)]
)
def test_stopping_while_a_model_loads_has_done_nothing(
    line: list[str], loads: int, number: signal.Signals, tiny_bert: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sentemb.encoder import Encoder

    load, loaded = Encoder.load, []

    def stopped(source: str, **choices: Any) -> Encoder:
        loaded.append(source)
        if len(loaded) == loads:
            signal.raise_signal(number)
        return load(source, **choices)

    data = tmp_path / "d.txt"
    data.write_text("the dog\nthe cat\n")
    monkeypatch.setattr(Encoder, "load", stopped)
    code, out, err = run(capsys, line[0], str(data), "-o", str(tmp_path / "out.jsonl"), "-m", str(tiny_bert), *line[1:])
    told = "sentemb: stopped; nothing was done yet: the same command starts again\n"
    assert (code, out, err) == (130, "", told)
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_build_stopped_after_its_commit_is_complete(
    overwrite: bool, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sentemb.search.store import build

    commit = build.commit

    def after(*facts: Any) -> None:
        commit(*facts)
        signal.raise_signal(signal.SIGTERM)

    data, folder = tmp_path / "d.txt", str(tmp_path / "ix")
    data.write_text("the dog\nthe cat\n")
    line = ["index", str(data), "-o", folder, "-m", str(tiny_bert)]
    if overwrite:
        assert run(capsys, *line)[0] == 0
        line.append("--overwrite")
    monkeypatch.setattr(build, "commit", after)
    code, out, err = run(capsys, *line)
    told = f"sentemb: stopped; {folder} was written before that: sentemb index stats {folder} tells what it holds\n"
    assert (code, out, err) == (130, "", told)
    assert not (tmp_path / "ix" / "draft.json").exists()
    code, out, _ = run(capsys, "index", "verify", folder)
    assert (code, out.endswith("2 documents\n")) == (0, True)


@pytest.mark.parametrize("verb", ["add", "upsert", "delete", "compact", "merge"])
def test_stopping_a_change_says_what_became_of_it(
    verb: str, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentemb.search import SearchIndex
    from sentemb.search.store import changes

    commit = changes.commit

    def before(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    def after(*facts: Any) -> None:
        commit(*facts)
        signal.raise_signal(signal.SIGTERM)

    folder, other, more = (str(tmp_path / name) for name in ("ix", "other", "more.jsonl"))
    for name, out in (("a", folder), ("b", other)):
        rows = [{"id": f"{name}{i}", "text": f"the dog {i}"} for i in range(3)]
        Path(more).write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert run(capsys, "index", more, "-o", out, "-m", str(tiny_bert))[0] == 0
    assert run(capsys, "index", "delete", folder, "a1")[0] == 0
    rest = {"delete": ["a2"], "compact": [], "merge": [other]}.get(verb, [more])
    for stopped, told in (
        (before, "nothing was changed: the same command starts again"),
        (after, f"{folder} was written before that: sentemb index stats {folder} tells what it holds"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(changes, "commit", stopped)
            code, out, err = run(capsys, "index", verb, folder, *rest)
        assert (code, out, err) == (130, "", f"sentemb: stopped; {told}\n")
        assert run(capsys, "index", "verify", folder)[0] == 0
    assert len(SearchIndex.open(folder)) == {"delete": 1, "compact": 2}.get(verb, 5)


def test_given_vectors_and_faulty_documents_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rows = str(tmp_path / "ix"), np.eye(4, 8, dtype=np.float32)
    np.save(tmp_path / "v.npy", rows)
    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps({"id": i, "text": f"the dog {i}"}) + "\n" for i in range(4)))
    line = ["index", str(data), "--vectors", str(tmp_path / "v.npy"), "-o", folder, "--kind", "hnsw:m=8"]
    code, out, err = run(capsys, *line, "--set", "dim=4", "--set", "seed=3", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert (facts["documents"], facts["dimension"], facts["description"]) == (4, 4, "HNSW8")
    with data.open("a") as file:
        file.write(json.dumps({"id": [], "text": "x"}) + "\n" + json.dumps({"id": 5, "title": "x"}) + "\n")
    given = ["--vectors", str(tmp_path / "v.npy"), "--skip-faulty"]
    code, out, err = run(capsys, "index", "upsert", folder, str(data), *given)
    assert (code, out) == (0, f"{folder}: wrote 4 documents; 4 now\n"), err
    assert "left out 2 faulty documents" in err
    code, out, _ = run(capsys, "index", "delete", folder, "²", "007", "--wait", "1", "--", "--5", "3")
    assert (code, out) == (0, f"{folder}: deleted 1 documents; 3 left\n")
    code, out, _ = run(capsys, "index", "upgrade", folder, "--words", "unicode")
    assert (code, out) == (0, f"{folder}: today's format, words unicode, 3 documents\n")
    for wrong, message in (
        (["--set", "sed=3"], "did you mean seed"), (["--set", "seed=x"], "valid integer"),
        (["--vectors", str(data)], "not an array"), (["--words", "englisch"], "did you mean english"),
        (["--kind", "hnsw:m=0"], "Hnsw: m"),
    ):
        code, _, err = run(capsys, *line[:2], *line[2:4], "-o", str(tmp_path / "other"), *wrong)
        assert code == 2
        assert message in err
        assert "Traceback" not in err
    assert not (tmp_path / "other").exists()
