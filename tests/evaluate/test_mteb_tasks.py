"""Every kind of mteb task from local folders, through our encoder and search, against mteb's own plain wrapper."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import hub_data
import numpy as np
import pytest

from sentemb.errors import EvaluationError
from sentemb.evaluate.data_folder import DataFolder
from sentemb.evaluate.evaluation import evaluate_model
from sentemb.evaluate.mteb.data import (
    local_data,
    missing_data,
    quiet_libraries,
    repositories,
    resolve_tasks,
)
from sentemb.evaluate.mteb.encoder import MtebEncoder
from sentemb.evaluate.mteb.run import evidence_of, run_task
from sentemb.evaluate.opening import ModelOptions, open_model
from sentemb.evaluate.significance import score_of_items
from sentemb.evaluate.task import EvalSetup
from sentemb.evaluate.tasks.mteb import Mteb


def letters(texts):
    """Letter pairs, hashed: a real embedder without a checkpoint."""
    out = np.zeros((len(texts), 128), dtype=np.float32)
    for row, text in enumerate(texts):
        for a, b in pairwise(text):
            out[row, (ord(a) * 31 + ord(b)) % 128] += 1
        out[row, 0] += 0.01
    return out


class Plain:
    """The shortest encoder that mteb's documentation describes; mteb searches with its own wrapper."""

    def __init__(self, prompts=None):
        from mteb.models.model_meta import ModelMeta

        self.mteb_model_meta = ModelMeta.create_empty({"name": "test/plain"})
        self.prompts = prompts or {}

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **kwargs):
        from mteb.models.abs_encoder import get_prompt

        prompt = get_prompt(self.prompts, task_metadata, prompt_type) or ""
        return letters([prompt + text for batch in inputs for text in batch["text"]])

    def similarity(self, embeddings1, embeddings2):
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1, embeddings2):
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """datasets' cache must not survive the test, nor meet the user's."""
    import datasets

    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
    patch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    yield
    patch.undo()


def setup_of(root: Path, output: Path | None = None) -> EvalSetup:
    return EvalSetup(data=DataFolder.find(root), output=output, resamples=100)


def prepared(name: str, root: Path):
    make, subsets = hub_data.TASKS[name]
    make(root)
    return resolve_tasks([name], subsets=subsets)[0]


PROMPTS = {"query": "ask: ", "Classification": "sort: ", "STS17": "two: "}
# one task of every way of loading at once, the others (k-means and ten classifiers each) among the slow tests
QUICK = ("STS17", "SprintDuplicateQuestions", "MIRACLRetrievalHardNegatives", "AskUbuntuDupQuestions")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in hub_data.TASKS]
)
def test_as_mteb(tmp_path, name):
    import mteb

    # with prompts where the task has any: without, they would not be seen to be asked for
    prompts = PROMPTS if name not in ("STSBenchmark", "NFCorpus") else {}

    task = prepared(name, tmp_path)
    assert missing_data([task], tmp_path) == []
    ours = run_task(task, MtebEncoder(open_model(letters, ModelOptions(prompts=prompts))), setup=setup_of(tmp_path))

    again = resolve_tasks([name], subsets=hub_data.TASKS[name][1])[0]
    with quiet_libraries():
        with local_data(tmp_path, again.metadata.dataset["path"]):
            again.load_data()
        found = mteb.evaluate(Plain(prompts), again, cache=None, show_progress_bar=False, co2_tracker=False)
    theirs = found.task_results[0]
    assert ours.main == pytest.approx(100 * theirs.get_score(), abs=1e-3)
    for split, rows in theirs.scores.items():
        for row in rows:
            where = (f"{split}/" if len(theirs.scores) > 1 else "") + (f"{row['hf_subset']}/" if len(rows) > 1 else "")
            for metric, value in row.items():
                if metric == "main_score":
                    continue
                # nAUC sorts by confidence, where float rounding of tied scores decides; everything else must agree
                if isinstance(value, float) and not metric.startswith("nauc"):
                    assert ours.metrics[where + metric] == pytest.approx(value, abs=1e-4, nan_ok=True), metric


def test_prompts_reach_the_texts(tmp_path):
    asked = []

    def remembering(texts):
        asked.extend(texts)
        return letters(texts)

    task = prepared("NFCorpus", tmp_path)
    options = ModelOptions(prompts={"query": "Q: ", "passage": "P: "})
    run_task(task, MtebEncoder(open_model(remembering, options)), setup=setup_of(tmp_path))
    queries = [text for text in asked if text.startswith("Q: ")]
    assert len(queries) == 12
    assert len(asked) == 62
    assert all(text.startswith("P: ") for text in asked if text not in queries)


def test_each_text_once(tmp_path):
    asked = []

    def remembering(texts):
        asked.extend(texts)
        return letters(texts)

    encoder = MtebEncoder(open_model(remembering))
    run_task(prepared("STSBenchmark", tmp_path), encoder, setup=setup_of(tmp_path))
    run_task(prepared("STS17", tmp_path), encoder, setup=setup_of(tmp_path))
    assert len(asked) == len(set(asked))


# ------------------------------------------------------------------------------------------ what is missing
def test_missing_repository(tmp_path):
    (tmp_path / "mteb").mkdir()
    tasks = resolve_tasks(["STS12", "NFCorpus"])
    found = missing_data(tasks, tmp_path)
    expected = ["STS12: mteb/sts12-sts", "NFCorpus: mteb/nfcorpus"]
    assert [fault.partition(": no folder")[0] for fault in found] == expected


@pytest.mark.parametrize(("name", "gone"), [("MTOPDomainClassification", "de"), ("NFCorpus", "default")])
def test_missing_configuration(tmp_path, name, gone):
    task = prepared(name, tmp_path)
    folder = tmp_path / task.metadata.dataset["path"]
    if gone == "de":
        shutil.rmtree(folder / "de")
        hub_data.card(folder, {"en": {s: f"en/{s}.jsonl" for s in ("train", "validation", "test")}})
    else:
        hub_data.card(folder, {"corpus": {"corpus": "corpus.jsonl"}, "queries": {"queries": "queries.jsonl"}})
    with pytest.raises(EvaluationError, match=rf"{name}: .*cannot be read.*{gone}|has no rows of {gone}"):
        run_task(task, MtebEncoder(open_model(letters)), setup=setup_of(tmp_path))


def test_subsets_without_rows(tmp_path):
    """Subsets that a column tells apart."""
    hub_data.fast_multilingual_sts(tmp_path)
    (task,) = resolve_tasks(["STS17"])
    with pytest.raises(EvaluationError, match=r"mteb/sts17-crosslingual-sts has no rows of .*it-en"):
        run_task(task, MtebEncoder(open_model(letters)), setup=setup_of(tmp_path))


def test_damaged_card(tmp_path):
    task = prepared("NFCorpus", tmp_path)
    (tmp_path / "mteb/nfcorpus/corpus.jsonl").unlink()
    (entry,) = missing_data([task], tmp_path)
    assert entry.startswith("NFCorpus: ")


def test_aggregates_are_their_parts():
    (task,) = resolve_tasks(["CQADupstackRetrieval"])
    names = [repository.name for repository in repositories([task])]
    assert len(names) == 12
    assert all(name.lower().startswith("mteb/cqadupstack") for name in names)


def test_unknown_names():
    with pytest.raises(EvaluationError, match="Did you mean: 'STS12'"):
        resolve_tasks(["STS-12"])
    with pytest.raises(EvaluationError, match="Did you mean"):
        resolve_tasks(benchmark="MTEB(eng,v2)")


# ------------------------------------------------------------------------------------------------- running
def test_resumes_from_the_results_tree(tmp_path, tiny_bert):
    task = prepared("STSBenchmark", tmp_path / "data")
    first = open_model(str(tiny_bert), ModelOptions(precision="fp32"))
    done = run_task(task, MtebEncoder(first), setup=setup_of(tmp_path / "data", tmp_path / "out"))
    tree = list((tmp_path / "out/results").rglob("STSBenchmark.json"))
    assert len(tree) == 1
    assert tree[0].parent.name == first.identity.digest[:40]
    shutil.rmtree(tmp_path / "data")  # not even the data is needed again
    second = open_model(str(tiny_bert), ModelOptions(precision="fp32"))
    again = run_task(task, MtebEncoder(second), setup=EvalSetup(output=tmp_path / "out"))
    assert again.notes == "from mteb's results tree"
    assert second.texts == 0
    assert again.main == pytest.approx(done.main)


def test_a_callable_is_never_resumed(tmp_path):
    task = prepared("STSBenchmark", tmp_path / "data")
    for _ in range(2):
        model = open_model(letters)
        score = run_task(task, MtebEncoder(model), setup=setup_of(tmp_path / "data", tmp_path / "out"))
        assert model.texts > 0
        assert score.notes == ""


def test_needs_a_network(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (task,) = resolve_tasks(["STS12"])
    with pytest.raises(EvaluationError, match="sentemb data fetch --task STS12"):
        run_task(task, MtebEncoder(open_model(letters)), setup=EvalSetup())


def test_unknown_candidates_of_a_reranking_task(tmp_path):
    task = prepared("AskUbuntuDupQuestions", tmp_path)
    path = tmp_path / "mteb/AskUbuntuDupQuestions/top_ranked.jsonl"
    path.write_text(path.read_text().replace('"d4"', '"nowhere"'))
    with pytest.raises(EvaluationError, match="unknown documents"):
        run_task(task, MtebEncoder(open_model(letters)), setup=setup_of(tmp_path))


def test_another_mirror_is_read_anew(tmp_path):
    """datasets' cache knows a folder with a card by its name only."""
    scores = []
    for place in ("one", "two"):
        task = prepared("NFCorpus", tmp_path / place)
        if place == "two":
            path = tmp_path / "two/mteb/nfcorpus/qrels/test.jsonl"
            path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[1::2]))
        scores.append(run_task(task, MtebEncoder(open_model(letters)), setup=setup_of(tmp_path / place)).main)
    assert scores[0] > scores[1]  # the easy judgements were taken away


# --------------------------------------------------------------------------------------------- intervals
SURE = ("STSBenchmark", "STS17", "NFCorpus", "MIRACLRetrievalHardNegatives", "AskUbuntuDupQuestions", "Tatoeba",
        "SummEvalSummarization.v2", "TwentyNewsgroupsClustering")  # fmt: skip
# neither rankings nor STS, and nothing is repeated
UNSURE = ("Tatoeba", "SummEvalSummarization.v2", "SprintDuplicateQuestions")


def scored(name: str, root: Path, output: Path | None = None, model=letters):
    make, subsets = hub_data.TASKS[name]
    make(root)
    task = Mteb(tasks=(name,), subsets=tuple(subsets))
    found = evaluate_model(model, [task], data_dir=root, output=output, precision="fp32", resamples=200)
    assert not found.failures, found.failures
    return found.tasks[0]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SURE else pytest.mark.slow) for name in hub_data.TASKS],
)
def test_every_score_has_an_interval_or_says_why(tmp_path, monkeypatch, name):
    monkeypatch.setenv("SENTEMB_QUIET", "1")
    task = scored(name, tmp_path)
    if name in UNSURE:
        assert task.interval is None
        assert task.interval_note == f"no interval: its score ({task.metric}) is not resampled"
        return
    assert task.interval.low - 1e-3 <= task.main <= task.interval.high + 1e-3
    subsets = len(hub_data.TASKS[name][1] or ["one"])
    if task.items is None:
        assert "repetitions of mteb's experiment, not over its texts" in task.interval_note
        return
    assert task.interval_note == ""
    assert len(task.items.strata or ["one"]) % subsets == 0
    score = score_of_items(*task.items.columns, **task.items.score_options)
    assert 100 * score == pytest.approx(task.main, abs=1e-2)


def test_clustering_is_resampled_over_its_repetitions():
    """Two levels of three repetitions: the score is their mean, and every level keeps its share in a resample."""
    (task,) = resolve_tasks(["TwentyNewsgroupsClustering.v2"])
    levels = {"Level 0": [0.1, 0.2, 0.3], "Level 1": [0.5, 0.5, 0.5]}
    row = {"hf_subset": "default", "main_score": 0.35, "v_measures": levels}
    setup = EvalSetup(resamples=4000)
    items, interval, note = evidence_of(task, None, {"test": [row]}, setup)
    assert items is None
    assert "6 repetitions" in note
    assert (interval.low, interval.high) == pytest.approx((30, 40))

    _, interval, note = evidence_of(task, None, {"test": [{**row, "main_score": 0.9}]}, setup)
    assert interval is None
    assert note.startswith("no interval: ")
    assert evidence_of(task, None, {"test": [{**row, "main_score": 0.1, "v_measures": [0.1]}]}, setup)[1] is None


def test_a_resumed_task_keeps_its_interval(tmp_path, tiny_bert, monkeypatch):
    monkeypatch.setenv("SENTEMB_QUIET", "1")
    first = scored("STS17", tmp_path / "data", tmp_path / "out", str(tiny_bert))
    again = scored("STS17", tmp_path / "data", tmp_path / "out", str(tiny_bert))
    assert again.notes == "from mteb's results tree"
    assert (again.interval, list(again.items.predicted)) == (first.interval, list(first.items.predicted))
    shutil.rmtree(tmp_path / "out/items")
    without = scored("STS17", tmp_path / "data", tmp_path / "out", str(tiny_bert))
    assert without.interval is None
    assert "no items were kept" in without.interval_note
