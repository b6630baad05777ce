"""A submission to MTEB's leaderboard: what is laid out, and everything that is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import hub_data
import pytest

pytest.importorskip("mteb", reason='pip install "sentemb[eval]"')

from sentemb import Encoder
from sentemb.cli import main
from sentemb.errors import EvaluationError
from sentemb.evaluate.evaluation import evaluate_model
from sentemb.evaluate.mteb.submission import submission
from sentemb.evaluate.results import save_results
from sentemb.evaluate.tasks.mteb import Mteb
from sentemb.evaluate.tasks.sts import Sts

COMMIT = "a1" * 20


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory, tiny_bert):
    """A hub that holds one model, and datasets' cache for these tests alone."""
    import datasets

    patch = pytest.MonkeyPatch()
    hub = tmp_path_factory.mktemp("hub")
    Encoder.load(tiny_bert).save(hub / "models--me--tiny" / "snapshots" / COMMIT)
    (hub / "models--me--tiny" / "refs").mkdir()
    (hub / "models--me--tiny" / "refs" / "main").write_text(COMMIT)
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
    patch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    yield
    patch.undo()


def scored(model, folder: Path, precision: str = "fp32", *more) -> Path:
    make, subsets = hub_data.TASKS["STSBenchmark"]
    make(folder / "data")
    tasks = [Mteb(tasks=("STSBenchmark",), subsets=tuple(subsets)), *more]
    results = evaluate_model(model, tasks, data_dir=folder / "data", output=folder / "out", precision=precision)
    assert not results.failures, results.failures
    return save_results(folder / "out", results)


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny_bert) -> Path:
    """Scores of the local folder that was pushed to the hub."""
    folder = tmp_path_factory.mktemp("scored")
    return scored(str(Encoder.load(tiny_bert).save(folder / "model")), folder)


def test_what_mteb_reads(results, tmp_path, capsys) -> None:
    import mteb

    with pytest.raises(SystemExit) as end:
        main(["eval", "submit", str(results), "--model", "me/tiny", "-o", str(tmp_path / "out")])
    assert end.value.code in (0, None)
    said = capsys.readouterr().out
    assert "model_meta.py" in said
    cache = mteb.ResultCache(cache_path=tmp_path / "out")
    stored = cache.load_task_result("STSBenchmark", "me/tiny", COMMIT)
    assert stored is not None
    assert 100 * stored.get_score() == pytest.approx(json.loads(results.read_text())["tasks"][0]["main"])
    meta = json.loads((tmp_path / "out/results/me__tiny" / COMMIT / "model_meta.json").read_text())
    assert (meta["name"], meta["revision"], meta["embed_dim"]) == ("me/tiny", COMMIT, 32)


def test_the_description_is_python_that_mteb_takes(results, tmp_path) -> None:
    text = submission(results, tmp_path / "out", model="me/tiny", revision=COMMIT).read_text()
    names: dict = {}
    exec(text, names)
    assert names["tiny"].name == "me/tiny"
    assert names["tiny"].n_parameters > 0
    assert names["tiny"].loader.__name__ == "sentence_transformers_loader"
    assert "license" in text.splitlines()[1]


def test_another_precision_and_another_protocol_are_refused_at_once(tiny_bert, tmp_path) -> None:
    (tmp_path / "pairs.tsv").write_text("sentence1\tsentence2\tscore\n" + "a cat\ta dog\t1\na man\tblue\t2\n" * 3)
    file = scored(str(tiny_bert), tmp_path, "bf16", Sts(path=str(tmp_path / "pairs.tsv")))
    with pytest.raises(EvaluationError) as refused:
        submission(file, tmp_path / "sent", model="me/tiny")
    assert "scored in bfloat16; MTEB takes fp32" in str(refused.value)
    assert "not by mteb's protocol" in str(refused.value)
    assert not (tmp_path / "sent").exists()


def test_another_model_than_the_hubs_is_refused(results, tmp_path) -> None:
    other = json.loads(results.read_text())
    other["model"]["digest"] = "0" * 64
    file = results.with_name("other.json")
    file.write_text(json.dumps(other))
    with pytest.raises(EvaluationError, match="is another model"):
        submission(file, tmp_path / "out", model="me/tiny")


@pytest.mark.parametrize(
    ("model", "message"), [("tiny", "is no id of the hub"), ("me/absent", "the hub gave no model")]
)
def test_models_that_cannot_be_submitted(results, tmp_path, model, message, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["eval", "submit", str(results), "--model", model, "-o", str(tmp_path / "out")])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_an_existing_folder_and_a_moved_file_are_refused(results, tmp_path) -> None:
    with pytest.raises(EvaluationError, match="exists; name a new folder"):
        submission(results, tmp_path, model="me/tiny")
    moved = Path(shutil.copy(results, tmp_path / "moved.json"))
    with pytest.raises(EvaluationError, match="missing; give the results file where"):
        submission(moved, tmp_path / "out", model="me/tiny")
