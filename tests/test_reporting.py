"""`sentemb report`: what stands in the page, for results and runs, also odd ones; what is refused."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from sentemb import report
from sentemb.cli import main
from sentemb.errors import DataError, EvaluationError
from sentemb.evaluate.model import ModelIdentity
from sentemb.evaluate.results import Items, Results, TaskFailure, TaskResult, write_results
from sentemb.evaluate.significance import Interval
from sentemb.provenance import provenance
from sentemb.training.plan import TrainResult
from sentemb.training.run_pages import RunRecord

HOSTILE = "<script>document.title='broken in'</script><img src=x onerror=alert(1)>"


def results_of(name="all-MiniLM-L6-v2", *, better=0.0, seed=42, **changes):
    """Two tasks with items, one with groups; figures of a space; a failure."""
    generator = np.random.default_rng(0)
    gold = generator.normal(size=60)
    predicted = gold + generator.normal(size=60) * (1.2 - better)
    groups = {"spearman": 70 + better, "by overlap: 1st quarter (least)": 60.0, "by overlap: 4th quarter (most)": 80.0,
              "by overlap: worst group": 60.0, "by overlap: gap between groups": 20.0}  # fmt: skip
    tasks = [
        TaskResult(task="STS12", kind="STS", protocol="simcse", metric="spearman", main=70 + better, count=60,
                   metrics=groups, interval=Interval(low=66, high=74),
                   items=Items(fingerprint="f", predicted=predicted.tolist(), gold=gold.tolist())),
        TaskResult(task="names", kind="Retrieval", protocol="file", metric="ndcg@10", main=50, count=30,
                   interval_note="no interval: asked for none", baselines={"BM25": 40.0},
                   items=Items(fingerprint="g", values=[0.5 + better / 10] * 30)),
        TaskResult(task="space", kind="Geometry", protocol="geometry", metric="uniformity", main=-3.2,
                   metrics={"alignment": 0.2, "uniformity": -3.2, "average_cosine": 0.01}),
    ]  # fmt: skip
    return Results(**{
        "model": ModelIdentity(name=name, digest=f"{better}" * 20), "suite": "mine", "tasks": tasks, "seed": seed,
        "failures": [TaskFailure(task="SciFact", error="no such folder here")], "averages": {"mean": 60 + better},
        "average_intervals": {"mean": Interval(low=58, high=62)}, "provenance": provenance(), **changes,
    })  # fmt: skip


def run_folder(path, *, is_finished=True, name="run", terms=("info_nce", "uniformity")):
    folder = path / name
    folder.mkdir(parents=True)
    entries = [{"step": step, "learning_rate": 1e-5 * step, "gradient_norm": 2.0 / step,
                **{f"loss/{term}": 3.0 / step for term in terms}} for step in range(1, 41)]  # fmt: skip
    entries += [{"step": 20, "dev": 71.0, "is_best": True}, {"step": 40, "dev": 70.5, "is_best": False}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"step": 41, "lo')
    start = {"rows": 4000, "tokens": 98765, "texts_at_limit": 12, "recipe_hash": "abc", "seed": 42,
             "versions": {"torch": "2.13.0"}, "command": ["sentemb", "train"]}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(start))
    (folder / "recipe.toml").write_text(f'# {HOSTILE}\nsource = "s"\n')
    if is_finished:
        done = {"steps": 40, "seconds": 12.5, "examples_per_second": 204.8, "best_score": 71.0, "best_step": 20,
                "last_losses": dict.fromkeys(terms, 0.1), "skipped_steps": 1, "stopped": None, "data_hash": "d1",
                "precision": "fp32", "devices": 1, "device": "cpu"}  # fmt: skip
        (folder / "result.json").write_text(json.dumps(done))
    return folder


class Tags(HTMLParser):
    """The names of all elements."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]


def text_of(path):
    page = path.read_text(encoding="utf-8")
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return unescape(re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", body)))


def headings(path):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", path.read_text(encoding="utf-8"))


def test_one_model(tmp_path):
    write_results(tmp_path / "r.json", results_of())
    path = report(tmp_path / "r.json", output=tmp_path / "new" / "page.html")
    assert headings(path) == ["Scores", "Groups", "Geometry", "Without a score", "What the scores hold for"]
    shown = text_of(path)
    for part in ("70.00", "66.00 – 74.00", "BM25", "40.00", "no interval: asked for none", "no such folder here",
                 "worst group", "-3.2", "seed of draws and resamples 42"):  # fmt: skip
        assert part in shown, part


def test_published_scores_stand_beside(tmp_path):
    tasks = [TaskResult(task="SciFact", kind="Retrieval", protocol="beir", metric="ndcg@10", main=64.0)]
    one = results_of("BAAI/bge-small-en-v1.5", tasks=tasks, averages={}, failures=[])
    shown = text_of(report(one, output=tmp_path / "page.html"))
    assert "71.27" in shown
    assert "-7.27" in shown
    two = report(one, results_of(), output=tmp_path / "two.html")
    assert "71.27" in text_of(two)
    assert 'class="hollow"' in two.read_text()


def test_several_models_are_tested_against_the_first(tmp_path):
    sides = results_of(), results_of("other", better=0.9), results_of("other", better=0.0)
    path = report(*sides, output=tmp_path / "page.html", resamples=200)
    assert "Differences" in headings(path)
    shown = text_of(path)
    assert "other (1) (B) against all-MiniLM-L6-v2 (A)" in shown
    assert "other (2) (B) against all-MiniLM-L6-v2 (A)" in shown
    assert "paired bootstrap" in shown
    assert "paired permutation" in shown
    assert "70.90 (66.00 – 74.00)" in shown


def test_seeds_of_one_recipe_are_one_model(tmp_path):
    for seed, better in enumerate((0.0, 1.0)):
        write_results(tmp_path / "seeds" / f"{seed}.json", results_of(better=better, seed=seed))
    shown = text_of(report(tmp_path / "seeds", results_of("b"), output=tmp_path / "page.html", resamples=200))
    assert "70.50 ± 0.71" in shown
    assert "all-MiniLM-L6-v2 and 1 more" in shown
    assert "seed of draws and resamples 0, 1" in shown
    assert "one side has several seeds" in shown


def test_models_without_a_common_task_and_a_score_that_is_none(tmp_path):
    lonely = [TaskResult(task="x", kind="STS", protocol="p", metric="m", main=math.nan)]
    other = results_of("b", tasks=lonely, averages={"mean": math.nan}, average_intervals={}, failures=[])
    shown = text_of(report(results_of(), other, output=tmp_path / "page.html"))
    assert "no task in common" in shown
    nothing = results_of(tasks=[], averages={}, average_intervals={})
    assert headings(report(nothing, output=tmp_path / "page.html")) == ["Without a score", "What the scores hold for"]


def test_a_run(tmp_path):
    path = report(run_folder(tmp_path), output=tmp_path / "page.html")
    assert headings(path) == ["Run: run"]
    shown = text_of(path)
    for part in ("Loss by term", "Dev scores", "chosen: step 20", "Learning rate", "Norm of the gradient", "204.8",
                 "71.0000 at step 20", "4,000", "12 (cut there", "d1", "2.13.0", 'source = "s"'):  # fmt: skip
        assert part in shown, part
    assert "not finished" not in shown


def test_a_run_that_was_stopped_and_one_without_metrics(tmp_path):
    shown = text_of(report(run_folder(tmp_path, is_finished=False), output=tmp_path / "page.html"))
    assert "This run is not finished: its last entry is of step 40." in shown
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "run.json").write_text('{"rows": 3}')
    assert "rows 3" in text_of(report(tmp_path / "bare", output=tmp_path / "page.html"))


def test_nothing_that_a_user_wrote_becomes_markup(tmp_path):
    tasks = [TaskResult(task=HOSTILE, kind=HOSTILE, protocol=HOSTILE, metric=HOSTILE, main=1.0, notes=HOSTILE,
                        interval_note=HOSTILE, baselines={HOSTILE: 2.0},
                        metrics={f"by {HOSTILE}: {HOSTILE}": 3.0})]  # fmt: skip
    bad = results_of(HOSTILE, tasks=tasks, suite=HOSTILE, averages={HOSTILE: 1.0}, average_intervals={},
                     failures=[TaskFailure(task=HOSTILE, error=HOSTILE)])  # fmt: skip
    folder = run_folder(tmp_path, name="<b>", terms=(HOSTILE,))
    tags = Tags()
    tags.feed(report(bad, bad, folder, output=tmp_path / "page.html", title=HOSTILE).read_text(encoding="utf-8"))
    assert tags.seen.count("script") == 1  # the page's own
    assert not {"img", "b"} & set(tags.seen)
    tags.feed(bad._repr_html_())
    assert "img" not in tags.seen


def test_refused(tmp_path, capsys):
    with pytest.raises(EvaluationError, match="nothing to report"):
        report(output=tmp_path / "page.html")
    with pytest.raises(DataError, match="is a folder; give the name of a file"):
        report(results_of(), output=tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text("[1]")
    damaged = run_folder(tmp_path)
    for source, message in ((tmp_path / "none", "no such results file"), (tmp_path / "empty", "and no run"),
                            (tmp_path / "other.json", "not a results file")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            report(source, output=tmp_path / "page.html")
    for name, content, message in (
        ("metrics.jsonl", '{"loss/a": 1}\n', r"metrics.jsonl:1: no number \"step\""),
        ("metrics.jsonl", "{}}\n", r"metrics.jsonl:1: not JSON"), ("run.json", "[]", "needed is a JSON object"),
    ):  # fmt: skip
        before = (damaged / name).read_text()
        (damaged / name).write_text(content)
        with pytest.raises(DataError, match=message):
            report(damaged, output=tmp_path / "page.html")
        (damaged / name).write_text(before)
    assert not (tmp_path / "page.html").exists()
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path / "none"), "-o", str(tmp_path / "page.html")])
    assert ended.value.code == 2
    assert "no such results file" in capsys.readouterr().err


def test_the_verb(tmp_path, capsys):
    write_results(tmp_path / "r.json", results_of())
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path / "r.json"), str(run_folder(tmp_path)), "-o", str(tmp_path / "page.html")])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
    assert headings(tmp_path / "page.html")[-1] == "Run: run"


def test_what_notebooks_show(tmp_path):
    one = results_of()
    assert "<table>" in one._repr_html_()
    assert "FAILED SciFact" in one._repr_html_()
    assert one.plot(results_of("b"))._repr_svg_().startswith("<svg")
    result = TrainResult(model_dir=tmp_path / "run" / "model", run_dir=run_folder(tmp_path), steps=40, seconds=1.0,
                         examples_per_second=2.0, best_score=None, best_step=None, last_losses={"a": 1.0})  # fmt: skip
    assert "examples a second" in result._repr_html_()
    assert "of info_nce, uniformity" in result.plot().description
    assert "chosen: step 20" in result.plot("dev").svg()
    with pytest.raises(DataError, match="allowed: loss, dev"):
        result.plot("losses")
    (tmp_path / "none").mkdir()
    nothing = replace(result, run_dir=tmp_path / "none")
    with pytest.raises(DataError, match="no values for the curve"):
        nothing.plot()
    assert RunRecord.read(result.run_dir).chosen == 20
