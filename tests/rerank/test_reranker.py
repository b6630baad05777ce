"""Cross-encoders from lists to scores: reading, training, resuming, and what other tools make of them."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch

from sentemb.encoder.cross_encoder import CrossEncoder
from sentemb.encoder.pretrained import load_cross_encoder
from sentemb.errors import CheckpointError, DataError, Interrupted, ModelError, PartError, RecipeError
from sentemb.rerank import train as training
from sentemb.rerank.lists import chosen_candidates, hash_of_lists, read_lists, scored_by
from sentemb.rerank.train import RerankSettings, train_reranker

LISTS = [
    {"anchor": "the red cat", "positive": "a red cat eats", "negative_1": "a blue dog", "negative_2": "music"},
    {"anchor": "green river", "positive": "the river is green", "negative_1": "a red cat eats", "negative_2": None},
    {"anchor": "new song", "positive": "a song made in a new year", "negative_1": "the river is green"},
]
PAIRS = [("the red cat", "a red cat eats"), ("green river", "music and a book of the city"), ("song", "a"), ("", "b")]


@pytest.fixture(scope="module")
def trained(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reranker") / "run"
    train_reranker(LISTS, backbone=tiny_bert, output=folder, settings=RerankSettings(epochs=2, batch_size=2))
    return folder


# ------------------------------------------------------------------------------------------------- the model
def test_scores_are_transformers_own(trained):
    model = CrossEncoder.load(trained / "model")
    lean, head = model._lean
    assert lean is not None
    assert head is not None
    scores = model.score(PAIRS)
    for pair, score in zip(PAIRS, scores, strict=True):
        tokens = model.tokenizer(*pair, return_tensors="pt")
        assert tokens["token_type_ids"].max() == 1
        with torch.no_grad():
            assert float(model.model(**tokens).logits) == pytest.approx(float(score), abs=1e-5)


def test_the_second_text_has_a_type_of_its_own_with_a_gradient(trained):
    model = CrossEncoder.load(trained / "model")
    tokens = model.tokenise(PAIRS)
    types = model.model.bert.embeddings.token_type_embeddings.weight
    gradients = []
    for lean in (model._lean, (None, None)):
        model._lean = lean
        model.model.zero_grad()
        model.logits(tokens).sum().backward()
        gradients.append(types.grad.clone())
    assert float(gradients[0][1].abs().max()) > 0
    assert torch.allclose(*gradients, atol=1e-6)


@pytest.mark.parametrize(("kind", "is_lean"), [("electra", True), ("roberta", True), ("distilbert", False)])
def test_other_architectures_score_as_transformers_does(kind, is_lean, tiny_bert):
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    if kind != "electra":  # their own tokenizers give no types either
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    sizes = {"hidden_size": 32, "embedding_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 64}
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(kind, vocab_size=len(tokenizer), num_labels=1, max_position_embeddings=128,
                             pad_token_id=tokenizer.pad_token_id, **sizes)).eval()
    ours = CrossEncoder(model, tokenizer, source=kind, max_tokens=64)
    lean, head = ours._lean
    assert (lean is not None and head is not None) == is_lean
    for pair, score in zip(PAIRS, ours.score(PAIRS), strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(*pair, return_tensors="pt")).logits
        assert float(expected) == pytest.approx(float(score), abs=1e-5)


def test_sentence_transformers_opens_it_and_gives_the_same_scores(trained):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    theirs = sentence_transformers.CrossEncoder(str(trained / "model"), device="cpu")
    ours = CrossEncoder.load(trained / "model").score(PAIRS)
    assert np.allclose(theirs.predict(PAIRS, show_progress_bar=False), ours, atol=1e-5)


def test_their_cross_encoders_score_here_as_there(tiny_bert, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    torch.manual_seed(0)
    theirs = sentence_transformers.CrossEncoder(str(tiny_bert), num_labels=1, device="cpu")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    expected = theirs.predict(PAIRS, show_progress_bar=False)
    assert min(expected) > 0  # sigmoids, as they are by default
    assert max(expected) < 1
    assert np.allclose(load_cross_encoder(tmp_path / "theirs")(PAIRS), expected, atol=1e-5)


def test_long_pairs_are_cut_and_an_empty_call_is_empty(trained):
    model = CrossEncoder.load(trained / "model", max_tokens=16)
    assert model.tokenise([("the " * 50, "cat " * 50)]).lengths.tolist() == [16]
    assert model.score([]).shape == (0,)


def test_what_is_no_cross_encoder_is_refused(tiny_bert, tmp_path):
    with pytest.raises(ModelError, match="no cross-encoder, but a BertForMaskedLM; sentemb rerank train makes one"):
        CrossEncoder.load(tiny_bert)
    model = CrossEncoder.untrained(tiny_bert, seed=0)
    model.model.config.num_labels = 3
    model.save(tmp_path / "three")
    with pytest.raises(ModelError, match="a classifier of 3 outputs"):
        load_cross_encoder(tmp_path / "three")
    with pytest.raises(ModelError, match="no such folder"):
        CrossEncoder.load(tmp_path / "absent" / "too")


def test_a_new_output_is_the_seeds(tiny_bert):
    first, again, other = (CrossEncoder.untrained(tiny_bert, seed=seed).score(PAIRS) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


# ------------------------------------------------------------------------------------------------- the lists
def test_lists_of_several_lengths(tmp_path):
    lists = read_lists(LISTS)
    assert [len(one.candidates) for one in lists] == [3, 2, 2]
    assert lists[0].pairs[0] == ("the red cat", "a red cat eats")
    file = tmp_path / "lists.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in LISTS))
    assert read_lists(file) == lists
    scored = read_lists([{**LISTS[0], "positive_score": 2, "negative_scores": [1, 0.5]}], with_scores=True)
    assert scored[0].scores == (2.0, 1.0, 0.5)


@pytest.mark.parametrize(("row", "message"), [
    ({"anchor": "a", "positive": "b"}, "list 2: no negative"),
    ({"anchor": "a", "negative_1": "b"}, 'list 2: column "positive" holds no text'),
    ({"anchor": " ", "positive": "b", "negative_1": "c"}, 'column "anchor" holds no text'),
    ({"anchor": "a", "positive": "b", "negative_1": 3}, 'column "negative_1" holds 3'),
    ("a", "list 2: a str"),
])
def test_rows_that_are_no_lists(row, message):
    with pytest.raises(DataError, match=message):
        read_lists([LISTS[0], row])


def test_a_teachers_scores_are_needed_for_margins(tiny_bert, tmp_path):
    with pytest.raises(DataError, match=r"list 1: the margin loss needs a teacher's scores.*--teacher"):
        train_reranker(LISTS, backbone=tiny_bert, output=tmp_path / "x", settings=RerankSettings(loss="margin"))
    assert not (tmp_path / "x").exists()
    with pytest.raises(DataError, match="no rows"):
        read_lists([])


def test_a_teacher_scores_every_pair():
    lists = scored_by(lambda pairs: np.arange(len(pairs), dtype=np.float32), read_lists(LISTS))
    assert [one.scores for one in lists] == [(0, 1, 2), (3, 4), (5, 6)]
    assert hash_of_lists(lists) != hash_of_lists(read_lists(LISTS))


def test_candidates_of_a_pass():
    sizes = np.array([5, 2, 3])
    for seed in range(20):
        chosen = chosen_candidates(sizes, 3, np.random.default_rng(seed))
        assert chosen.shape == (3, 3)
        assert (chosen[:, 0] == 0).all()
        for row, size in zip(chosen.tolist(), sizes.tolist(), strict=True):
            there = [number for number in row if number >= 0]
            assert len(there) == len(set(there)) == min(size, 3)
            assert max(there) < size
    drawn = {tuple(chosen_candidates(sizes, 3, np.random.default_rng(seed))[0]) for seed in range(50)}
    assert len(drawn) == 12  # ordered pairs of four negatives
    assert chosen_candidates(np.array([2, 2]), 8, np.random.default_rng(0)).tolist() == [[0, 1], [0, 1]]


# ---------------------------------------------------------------------------------------------- the training
@pytest.mark.parametrize("use", ["bce", "list", "margin"])
def test_it_learns(use, tiny_bert, tmp_path, trained):
    settings = RerankSettings(loss=use, epochs=40, learning_rate=5e-3, batch_size=3, log_every=1)
    result = train_reranker(LISTS, backbone=tiny_bert, output=tmp_path, settings=settings, teacher=trained / "model")
    losses = [json.loads(line)["loss/loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == result.steps == 40
    assert losses[-1] < 0.92 * losses[0]
    assert (tmp_path / "loss.svg").is_file()
    if use == "list":
        model = CrossEncoder.load(tmp_path / "model")
        for one in read_lists(LISTS):
            assert model.score(one.pairs).argmax() == 0


def test_the_batch_loss_is_that_of_its_lists_one_by_one(tiny_bert):
    model, lists = CrossEncoder.untrained(tiny_bert, seed=0), read_lists(LISTS)
    run = training._Training.__new__(training._Training)
    run.model, run.tokens = model, model.tokenise([pair for one in lists for pair in one.pairs])
    is_there = np.array([[True, True, True], [True, True, False], [True, True, False]])
    spread = training._spread(model.logits(run.tokens), is_there)
    assert (spread[~torch.from_numpy(is_there)] == 0).all()
    for row, one in zip(spread, lists, strict=True):
        assert row[: len(one.candidates)].tolist() == pytest.approx(model.score(one.pairs).tolist(), abs=1e-5)


def test_resumed_is_uninterrupted(tiny_bert, tmp_path, monkeypatch):
    settings = RerankSettings(epochs=4, batch_size=2, save_every=3, group=2)
    whole = train_reranker(LISTS, backbone=tiny_bert, output=tmp_path / "whole", settings=settings)
    step = training._Training._step

    def interrupting(self, *given):
        if self.state.step == 4:
            signal.raise_signal(signal.SIGINT)
        return step(self, *given)

    monkeypatch.setattr(training._Training, "_step", interrupting)
    with pytest.raises(Interrupted, match=r"step 5 of 8; saved .*step-00000005"):
        train_reranker(LISTS, backbone=tiny_bert, output=tmp_path / "cut", settings=settings)
    monkeypatch.undo()
    assert not (tmp_path / "cut" / "model").exists()
    with pytest.raises(RecipeError, match="already holds a run"):
        train_reranker(LISTS, backbone=tiny_bert, output=tmp_path / "cut", settings=settings)
    with pytest.raises(CheckpointError, match="other data"):
        train_reranker(LISTS[:2], backbone=tiny_bert, output=tmp_path / "cut", settings=settings, resume=True)
    with pytest.raises(CheckpointError, match="another recipe"):
        train_reranker(LISTS, backbone=tiny_bert, output=tmp_path / "cut", settings=RerankSettings(), resume=True)
    resumed = train_reranker(LISTS, backbone=tiny_bert, output=tmp_path / "cut", settings=settings, resume=True)
    assert resumed.steps == whole.steps == 8
    assert resumed.last_losses == whole.last_losses
    files = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    again = train_reranker(LISTS, backbone=tiny_bert, output=tmp_path / "cut", settings=settings, resume=True)
    assert again.last_losses == resumed.last_losses  # finished: nothing is done again


def test_bad_settings():
    for bad, message in ({"group": 1}, "group = 1: must be greater"), ({"loss": "hinge"}, "bce, list, margin"):
        with pytest.raises(PartError, match=message):
            RerankSettings(**bad)


# --------------------------------------------------------------------------------------------- the command line
def test_from_lists_to_a_reranked_score(trained, tiny_bert, tmp_path, capsys):
    from sentemb.cli import main

    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    texts = sorted({row[name] for row in LISTS for name in row if name != "anchor" and row[name]})
    corpus = [{"_id": f"d{number}", "text": text} for number, text in enumerate(texts)]
    names = {row["text"]: row["_id"] for row in corpus}
    for file, rows in (
        ("corpus", corpus),
        ("queries", [{"_id": f"q{number}", "text": row["anchor"]} for number, row in enumerate(LISTS)]),
        ("qrels/test", [{"query-id": f"q{number}", "corpus-id": names[row["positive"]], "score": 1}
                        for number, row in enumerate(LISTS)]),
    ):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reranker = str(trained / "model")
    with pytest.raises(SystemExit) as ended:
        main(["rerank", "eval", reranker, str(folder), "--model", str(tiny_bert), "--depth", "3", "--json"])
    assert ended.value.code == 0
    result = json.loads(capsys.readouterr().out)
    name = tiny_bert.name
    assert result["protocol"] == "beir, 3 reranked"
    assert set(result["baselines"]) == {f"{name} alone", "gain"}
    assert result["main"] - result["baselines"][f"{name} alone"] == pytest.approx(result["baselines"]["gain"])
    assert set(result["baseline_intervals"]) == {f"{name} alone", "gain"}
    with pytest.raises(SystemExit) as ended:
        main(["rerank", "eval", reranker, str(folder), "--model", str(tiny_bert)])
    assert ended.value.code == 0
    assert "gain" in capsys.readouterr().out
    for arguments, message in (
        (["eval", str(tiny_bert), str(folder)], "no cross-encoder"),
        (["train", "absent.jsonl", "-o", str(tmp_path / "x")], "no such file"),
        (["train", "absent.jsonl", "-o", str(tmp_path / "x"), "--set", "rate=1"], "rate is not a known key"),
        (["train", "absent.jsonl", "-o", str(tmp_path / "x"), "--loss", "hinge"], "known: bce, list, margin"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["rerank", *arguments])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_training_verb(tiny_bert, tmp_path, capsys):
    from sentemb.cli import main

    file = tmp_path / "lists.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in LISTS))
    options = ["--backbone", str(tiny_bert), "-o", str(tmp_path / "run"), "--set", "max_steps=2", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["rerank", "train", str(file), *options])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["model"] == str(tmp_path / "run" / "model")
    assert said["steps"] == 1  # an epoch of three lists


def test_searching_and_mining_use_it(trained, tiny_bert, tmp_path, capsys):
    from sentemb.cli import main
    from sentemb.mining.rules import CrossEncoderRule
    from sentemb.mining.run import mine
    from sentemb.search import SearchIndex

    texts = [row["positive"] for row in LISTS] + ["a blue dog", "music"]
    SearchIndex.build(tmp_path / "index", texts, encoder=tiny_bert).close()
    model, reranker = CrossEncoder.load(trained / "model"), str(trained / "model")
    with pytest.raises(SystemExit) as ended:
        main(["search", str(tmp_path / "index"), "the red cat", "-k", "3", "--rerank", reranker, "--json"])
    assert ended.value.code == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    scores = model.score([("the red cat", text) for text in texts])
    assert [hit["score"] for hit in hits] == pytest.approx(sorted(scores.tolist(), reverse=True)[:3], abs=1e-5)
    pairs = [{"anchor": row["anchor"], "positive": row["positive"]} for row in LISTS]
    rows = mine(pairs, corpus=[{"text": text} for text in texts], encoder=tiny_bert, negatives=1,
                rules=[CrossEncoderRule(model=reranker)]).rows
    assert rows
    for row in rows:
        positive, negative = model.score([(row["anchor"], row["positive"]), (row["anchor"], row["negative_1"])])
        assert negative <= positive + 1e-5
