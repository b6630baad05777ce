"""`sentemb eval`, `eval compare` and `data` from the command line, on small real files; suites, reports, results."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from functools import partial
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import hub_data
import numpy as np
import pytest

from sentemb.cli import main
from sentemb.errors import DataError, EvaluationError
from sentemb.evaluate.evaluation import averages
from sentemb.evaluate.model import ModelIdentity
from sentemb.evaluate.report import compare, load_side, published_scores, report_sheet
from sentemb.evaluate.results import (
    Items,
    Results,
    TaskFailure,
    TaskResult,
    read_results,
    save_results,
    write_results,
)
from sentemb.evaluate.significance import Interval
from sentemb.evaluate.suites import Average, Suite, load_suite, suite_names

CODE = """
import numpy as np

def encode(texts, width=128, noise=0.0):
    out = np.zeros((len(texts), width), dtype=np.float32)
    for row, text in enumerate(texts):
        for a, b in zip(text, text[1:]):
            out[row, (ord(a) * 31 + ord(b)) % width] += 1
        out[row, 0] += 0.01
    return out

def coarse(texts):
    return encode(texts, width=5)

def broken(texts):
    return encode(texts) * (np.nan if any("sort" in t for t in texts) else 1.0)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with data of three kinds and a module of embedders."""
    (tmp_path / "embed.py").write_text(CODE)
    for make in (hub_data.sts, hub_data.retrieval, hub_data.classification):
        make(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "embed", raising=False)
    monkeypatch.delenv("SENTEMB_DATA", raising=False)
    monkeypatch.setenv("SENTEMB_QUIET", "1")
    (tmp_path / "suite.toml").write_text(
        'title = "Three kinds"\n'
        '[[tasks]]\nuse = "sts"\nprotocol = "mteb"\nsets = ["STSBenchmark"]\n'
        '[[tasks]]\nuse = "retrieval"\nname = "NFCorpus"\npath = "mteb/nfcorpus"\n'
        '[[tasks]]\nuse = "classification"\npath = "mteb/banking77"\nmethod = "knn"\n'
        '[[averages]]\nname = "mean"\n'
    )
    return tmp_path


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return end.value.code or 0, said.out, said.err


def test_a_suite_end_to_end(place, capsys):
    code, out, err = call(
        capsys,
        "eval",
        "embed:encode",
        "--suite",
        "suite.toml",
        "-d",
        "data",
        "-o",
        "out",
        "--report",
        "t.md",
    )
    assert code == 0, err
    for word in ("STSBenchmark", "NFCorpus", "banking77", "BM25", "RRF(embed:encode, BM25)", "mean", "texts encoded"):
        assert word in out
    results = read_results(place / "out/suite--embed_encode.json")
    assert [task.task for task in results.tasks] == ["STSBenchmark", "NFCorpus", "banking77"]
    assert results.averages["mean"] == pytest.approx(np.mean([task.main for task in results.tasks]))
    for task in results.tasks:
        assert task.interval.low <= task.main <= task.interval.high
        assert task.seconds > 0
    mean, widths = results.average_intervals["mean"], [task.interval.high - task.interval.low for task in results.tasks]
    assert mean.high - mean.low == pytest.approx(np.linalg.norm(widths) / 3)
    retrieval = results.tasks[1]
    assert set(retrieval.baseline_intervals) == {"BM25", "RRF(embed:encode, BM25)"}
    for system, interval in retrieval.baseline_intervals.items():
        assert interval.low <= retrieval.baselines[system] <= interval.high
    assert "¹ interval over the items of these tasks, from the tasks' own intervals: mean" in out
    assert results.provenance.versions["mteb"]
    assert results.texts_per_s > 0
    assert (place / "out/runs/NFCorpus.test.trec").read_text().startswith("q0 Q0 d")
    assert "| STSBenchmark | mteb |" in (place / "t.md").read_text()


def test_json_is_pure_and_complete(place, capsys):
    code, out, _ = call(capsys, "eval", "embed:encode", "--sts", "data/mteb/stsbenchmark-sts/test.jsonl", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["model"]["name"] == "embed:encode"
    assert found["tasks"][0]["metrics"].keys() >= {"manhattan_pearson", "dot_spearman"}


def test_own_and_mteb_agree(place, capsys):
    call(
        capsys,
        "eval",
        "embed:encode",
        "--suite",
        "suite.toml",
        "--task",
        "STSBenchmark",
        "--task",
        "NFCorpus",
        "-d",
        "data",
        "-o",
        "out",
    )
    own = {task.task: task.main for task in read_results(place / "out/suite--embed_encode.json").tasks}
    theirs = {task.task: task.main for task in read_results(place / "out/tasks--embed_encode.json").tasks}
    for name in ("STSBenchmark", "NFCorpus"):
        assert own[name] == pytest.approx(theirs[name], abs=2e-3)


def test_missing_data_is_listed_and_nothing_runs(place, capsys):
    (place / "more.toml").write_text(
        '[[tasks]]\nuse = "sts"\nprotocol = "mteb"\n[[tasks]]\nuse = "retrieval"\npath = "mteb/scifact"\n'
        '[[tasks]]\nuse = "mteb"\ntasks = ["STSBenchmark", "STS13"]\n'
    )
    code, out, err = call(capsys, "eval", "embed:encode", "--suite", "more.toml", "-d", "data", "-o", "out")
    assert code == 2
    assert not out
    for word in ("nothing was run", "mteb/sickr-sts/test", "mteb/scifact", "STS13: mteb/sts13-sts", "--skip-missing"):
        assert word in err
    assert not (place / "out").exists()
    code, out, err = call(capsys, "eval", "embed:encode", "--suite", "more.toml", "-d", "data", "--skip-missing")
    assert code == 1
    assert "STSBenchmark" in out
    assert out.count("FAILED") == 8  # six STS sets, SciFact, STS13


def test_one_failing_task_does_not_lose_the_others(place, capsys):
    rows = [{"sentence1": "sort this", "sentence2": "sort that", "score": i} for i in range(3)]
    hub_data.jsonl(place / "bad.jsonl", rows)
    code, out, _ = call(
        capsys, "eval", "embed:broken", "--sts", "bad.jsonl", "--sts", "data/mteb/stsbenchmark-sts/test.jsonl"
    )
    assert code == 1
    assert "FAILED bad: embed:broken returned NaN or infinite values" in out
    assert "test " in out


def test_a_function_that_raises_is_named(place, capsys):
    (place / "embed.py").write_text(CODE + "\n\ndef crashing(texts):\n    raise KeyError('oops')\n")
    code, out, _ = call(capsys, "eval", "embed:crashing", "--sts", "data/mteb/stsbenchmark-sts/test.jsonl")
    assert code == 1
    assert "FAILED test: embed:crashing failed on" in out
    assert "texts: KeyError: 'oops'" in out
    assert "0 texts encoded" not in out


def test_constant_scores_are_said(place, capsys):
    hub_data.jsonl(place / "flat.jsonl", [{"sentence1": str(i), "sentence2": "x", "score": 2} for i in range(5)])
    code, out, _ = call(capsys, "eval", "embed:encode", "--sts", "flat.jsonl")
    assert code == 1
    assert "Spearman does not exist" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed:encode"], "nothing to evaluate: give --suite (known: "),
        (["embed:encode", "--suite", "stss"], 'no suite "stss"'),
        (["embed:nothing", "--sts", "data/mteb/stsbenchmark-sts/test.jsonl"], 'has no "nothing"'),
        (["embed:encode", "--sts", "absent.csv"], "absent.csv"),
        (["embed:encode", "--suite", "sts"], "--data-dir"),
        (["embed:encode", "--task", "STS99"], "'STS99' not found"),
        (["embed:encode", "--task", "classification:path=data/mteb/banking77,method=svm"], 'method = "svm": must be'),
        (["embed:encode", "--sts", "data/mteb/stsbenchmark-sts/test.jsonl", "--model-set", "query"], "KEY=VALUE"),
        (["embed:encode", "--task", "STS12", "-d", "absent"], "no such data folder"),
        (["embed:encode", "--task", "mteb:tasks=['STS12'],overwrite=often", "-d", "data"], 'overwrite = "often"'),
        (["package:scikit-learn/model", "--sts", "data/mteb/stsbenchmark-sts/test.jsonl"], "holds no Python package"),
        (["package:mteb-nothing/model", "--sts", "data/mteb/stsbenchmark-sts/test.jsonl"], "is not installed"),
        (["compare", "absent.json", "absent.json"], "no such results file"),
    ],
)
def test_mistakes_are_one_message(place, capsys, arguments, message):
    code, _, err = call(capsys, "eval", *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_help_and_list(capsys):
    assert "compare" in call(capsys, "eval", "--help")[1]
    assert "Welch" in call(capsys, "eval", "compare", "--help")[1]
    listed = call(capsys, "eval", "--list")[1]
    assert all(name in listed for name in suite_names())


# ------------------------------------------------------------------------------------------------ compare
def test_compare_two_runs(place, capsys):
    for name in ("encode", "coarse"):
        call(capsys, "eval", f"embed:{name}", "--suite", "suite.toml", "-d", "data", "-o", "out")
    files = ["out/suite--embed_coarse.json", "out/suite--embed_encode.json"]
    code, out, _ = call(capsys, "eval", "compare", *files, "--report", "c.md")
    assert code == 0
    assert "paired permutation" in out
    assert "paired bootstrap" in out
    assert "B − A" in (place / "c.md").read_text()
    rows = json.loads(call(capsys, "eval", "compare", *files, "--json")[1])
    by_task = {row["task"]: row for row in rows}
    assert by_task["banking77"]["b"] - by_task["banking77"]["a"] == pytest.approx(
        by_task["banking77"]["result"]["difference"]
    )
    assert all(row["result"]["p"] <= row["result"]["p_holm"] for row in rows)


def made(score, *, seed=0, task="T", items=None, name="m"):
    return Results(
        model=ModelIdentity(name=name, digest=str(seed)),
        suite="suite",
        tasks=[TaskResult(task=task, kind="STS", protocol="mteb", metric="x", main=score, items=items)],
        averages={"avg": score},
    )


def column(sheet, name):
    return [row[sheet.headers.index(name)] for row in sheet.rows]


def row(task, main, *, kind="STS", protocol="mteb", metric="x", **fields):
    return TaskResult(task=task, kind=kind, protocol=protocol, metric=metric, main=main, **fields)


def test_seeds_are_mean_and_sd(tmp_path):
    for side, scores in (("a", [70.0, 71.0, 72.0]), ("b", [75.0, 76.5, 76.0])):
        for seed, score in enumerate(scores):
            write_results(tmp_path / side / f"{seed}.json", made(score, seed=seed))
    (row,) = compare(load_side(tmp_path / "a"), load_side(tmp_path / "b"))
    assert (row.a, row.scores_a) == (pytest.approx(71.0), [70.0, 71.0, 72.0])
    assert row.result.test == "Welch over seeds"
    assert row.result.p < 0.05
    assert column(report_sheet(load_side(tmp_path / "a")), "score") == ["71.00 ± 1.00", "71.00 ± 1.00"]


def test_an_average_without_every_interval_has_none():
    known = row("A", 50.0, interval=Interval(low=48.0, high=52.0))
    means = {"both": ("A", "B"), "first": ("A",), "gone": ("A", "C")}
    entries = [Average(name=name, tasks=tasks) for name, tasks in means.items()]
    found, intervals = averages(Suite(name="s", title="", tasks=(), averages=entries), [known, row("B", 60.0)])
    assert (found["both"], found["first"]) == (55.0, 50.0)
    assert intervals == {"first": Interval(low=48.0, high=52.0)}
    assert np.isnan(found["gone"])


def test_what_cannot_be_tested_is_said(tmp_path):
    one, two = Items(fingerprint="aa", values=[1.0, 0.0]), Items(fingerprint="bb", values=[1.0, 1.0])
    assert "different data" in compare([made(1, items=one)], [made(2, items=two)])[0].note
    assert "no values per item" in compare([made(1)], [made(2)])[0].note
    assert "run more seeds" in compare([made(1), made(2)], [made(3)])[0].note
    with pytest.raises(EvaluationError, match="no task in common"):
        compare([made(1, task="T")], [made(1, task="U")])


def test_results_files(tmp_path):
    items = Items(fingerprint="f", values=[], predicted=[0.1, 0.2], gold=[1.0, 2.0], strata=[1, 1])
    intervals = {"avg": Interval(low=1.0, high=2.0)}
    results = replace(made(float("nan"), items=items), average_intervals=intervals)
    write_results(tmp_path / "r.json", results)
    assert np.isnan(read_results(tmp_path / "r.json").tasks[0].main)
    assert read_results(tmp_path / "r.json").tasks[0].items == items
    assert read_results(tmp_path / "r.json").average_intervals == intervals
    for content, message in (
        ("{", "not a readable"),
        ("[]", "not a results file"),
        ('{"format": 9, "tasks": [], "model": {}}', "format"),
        ('{"format": 3, "tasks": [{}], "model": {}}', "damaged"),
    ):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(DataError, match=message):
            read_results(tmp_path / "bad.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no results file"):
        load_side(tmp_path / "empty")


def test_later_results_are_merged_with_earlier_ones(tmp_path):
    """`eval -o` again with other tasks must not lose the first ones' scores."""
    first = replace(made(50.0, task="A"), failures=[TaskFailure(task="B", error="no data")])
    path = save_results(tmp_path, first)
    assert path.name == "suite--m.json"
    assert save_results(tmp_path, made(60.0, task="B")) == path
    merged = read_results(path)
    assert [(task.task, task.main) for task in merged.tasks] == [("A", 50.0), ("B", 60.0)]
    assert merged.failures == []
    save_results(tmp_path, made(70.0, task="A"))
    assert {task.task: task.main for task in read_results(path).tasks} == {"A": 70.0, "B": 60.0}

    other = replace(made(1.0), model=ModelIdentity(name="m", digest="other weights"))
    assert save_results(tmp_path, other).name == "suite--m-2.json"
    assert {task.task for task in read_results(path).tasks} == {"A", "B"}


# ------------------------------------------------------------------------------- suites, published, tables
@pytest.mark.parametrize("name", suite_names())
def test_every_suite_loads(name):
    suite = load_suite(name)
    assert suite.title != name
    assert suite.tasks


def test_all_faults_of_a_suite_at_once(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(
        'titel = "x"\n[[tasks]]\nuse = "stss"\n[[tasks]]\nuse = "sts"\nprotocol = "simces"\nsets = "STS12"\n'
        '[[tasks]]\nuse = "retrieval"\n[[tasks]]\nuse = "mteb"\n[[averages]]\n'
    )
    with pytest.raises(EvaluationError) as error:
        load_suite(path)
    for fault in (
        "did you mean title",
        "tasks[0].use",
        "must be 'simcse' or 'mteb'",
        'tasks[1].sets = "STS12"',
        "tasks[2] needs path",
        "tasks or benchmark is needed",
        "averages[0].name",
    ):
        assert fault in str(error.value)


def test_published_beside_ours_with_the_difference():
    published = {("mteb", "sts12"): 72.37, ("simcse", "sts12"): 70.0, ("mteb", "banking77"): 80.0}
    tasks = [
        row("STS12", 72.4),
        row("STS12", 71.0, protocol="simcse"),
        row("STS12", 71.5, protocol="simcse mean"),
        row("Banking77", 80.2, kind="Classification", protocol="fewshot (8 a label, 10 draws)"),
        row("mine", 50.0, protocol="file"),
    ]
    sheet = report_sheet([Results(model=ModelIdentity(name="m"), suite="s", tasks=tasks)], published)
    assert column(sheet, "published") == ["72.37", "70.00", "", "80.00", ""]
    assert column(sheet, "difference") == ["+0.03", "+1.00", "", "+0.20", ""]
    assert sheet.markdown().count("\n") == 2 + len(sheet.rows)


def test_reports_say_what_an_interval_is_of():
    tasks = [
        row("A_1", 50, kind="Clustering", interval=Interval(low=49, high=51), interval_note="over runs"),
        row("B", 60.0, kind="PairClassification", interval_note="no interval: [why]"),
    ]
    sheet = report_sheet([Results(model=ModelIdentity(name="m"), suite="s", tasks=tasks)])
    assert column(sheet, "95 % interval") == ["49.00 – 51.00 ¹", "none"]
    assert "¹ over runs: A_1" in sheet.markdown()
    assert "no interval: [why]: B" in sheet.markdown()
    assert str(sheet.drawn("t").caption) == "¹ over runs: A_1\nno interval: \\[why]: B"


def test_repeated_draws_have_an_interval_that_says_so(place, capsys):
    task = "classification:path=data/mteb/banking77,method=fewshot"
    code, out, err = call(capsys, "eval", "embed:coarse", "--task", task)
    assert code == 0, err
    assert "¹ interval over the repetitions (8 a label, 10 draws), not over its texts: banking77" in out


def test_published_files_are_well_formed():
    known = published_scores("sentence-transformers/all-MiniLM-L6-v2")
    assert known.keys() >= {("mteb", "sts12"), ("mteb", "nfcorpus")}
    assert published_scores("all-minilm-l6-v2") == published_scores("sentence-transformers/all-MiniLM-L6-v2")
    assert published_scores("nobody/nothing") == {}


# --------------------------------------------------------------------------------------------- data verbs
class Hub(BaseHTTPRequestHandler):
    """A stand-in of the hub: the API's file list, and files with etag and commit headers."""

    commit = "0" * 39 + "1"

    def __init__(self, root, *arguments):
        self.root = root
        super().__init__(*arguments)

    def do_GET(self):
        self._answer(with_body=True)

    def do_HEAD(self):
        self._answer(with_body=False)

    def _answer(self, *, with_body):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            folder = self.root / parts[2] / parts[3]
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            names = [str(path.relative_to(folder)) for path in files]
            about = {
                "id": "/".join(parts[2:4]),
                "sha": self.commit,
                "siblings": [{"rfilename": name} for name in names],
            }
            tree = [
                {
                    "type": "file",
                    "path": name,
                    "size": path.stat().st_size,
                    "oid": sha1(path.read_bytes()).hexdigest(),
                }
                for name, path in zip(names, files, strict=True)
            ]
            body = json.dumps(tree if "tree" in parts else about).encode()
            self._send(200 if names else 404, body, with_body)
            return
        path = self.root.joinpath(*parts[1:3], *parts[5:])  # datasets/ORG/NAME/resolve/REVISION/FILE
        body = path.read_bytes() if path.is_file() else b""
        self._send(200 if path.is_file() else 404, body, with_body)

    def _send(self, status, body, with_body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The address of a hub that has the data of three tasks."""
    import huggingface_hub.constants

    for make in (hub_data.sts, hub_data.retrieval):
        make(tmp_path / "hub")
    (tmp_path / "hub/mteb/nfcorpus/evil.py").write_text("raise SystemExit")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, tmp_path / "hub"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetch_then_verify_then_evaluate(place, hub, capsys):
    tasks = ["--task", "STSBenchmark", "--task", "NFCorpus"]
    code, out, err = call(capsys, "data", "fetch", *tasks, "-d", "mirror", "--endpoint", hub)
    assert code == 0, err
    assert "mteb/stsbenchmark-sts: 1 files" in out
    assert not (place / "mirror/mteb/nfcorpus/evil.py").exists()
    assert call(capsys, "data", "verify", *tasks, "-d", "mirror")[:2] == (0, "2 tasks are ready\n")
    assert (
        "(was here)" in call(capsys, "data", "fetch", *tasks, "-d", "mirror", "--endpoint", "http://127.0.0.1:9")[1]
    )
    assert call(capsys, "eval", "embed:encode", *tasks, "-d", "mirror")[0] == 0

    path = place / "mirror/mteb/nfcorpus/corpus.jsonl"
    path.write_text(path.read_text() + "\n")
    code, out, _ = call(capsys, "data", "verify", *tasks, "-d", "mirror")
    assert code == 1
    assert "corpus.jsonl: altered since it was fetched" in out
    assert call(capsys, "data", "fetch", *tasks, "-d", "mirror", "--endpoint", hub)[0] == 0
    assert call(capsys, "data", "verify", *tasks, "-d", "mirror")[0] == 0


def test_fetch_goes_on_after_a_failure(place, hub, capsys):
    code, out, err = call(
        capsys, "data", "fetch", "--task", "STS13", "--task", "STSBenchmark", "-d", "mirror", "--endpoint", hub
    )
    assert code == 1
    assert "FAILED mteb/sts13-sts (for STS13)" in err
    assert "mteb/stsbenchmark-sts: 1 files" in out


def test_verify_lists_what_is_missing(place, capsys):
    code, out, _ = call(capsys, "data", "verify", "--suite", "suite.toml", "--task", "STS13", "-d", "data")
    assert code == 1
    assert "STS13: mteb/sts13-sts: no folder" in out
    assert "3 tasks are ready, 1 faults" in out
    assert call(capsys, "data", "verify", "-d", "data")[0] == 2
