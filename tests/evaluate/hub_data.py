"""Small data sets of mteb's real tasks, laid out as their hub repositories: every kind of task and of loading."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

WORDS = (
    "river stone house garden window market bread winter summer teacher doctor music guitar football engine bridge "
    "letter forest mountain island village kitchen morning evening silver golden quiet heavy broken early modern"
).split()


def sentences(count: int, *, seed: int = 0, words: int = 6) -> list[str]:
    """Distinct sentences."""
    generator = random.Random(seed)
    return [" ".join(generator.sample(WORDS, words)) + f" {number}" for number in range(count)]


def jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def card(folder: Path, configs: Mapping[str, Mapping[str, str]]) -> None:
    """A README.md with the configurations: name → split → path."""
    lines = ["---", "configs:"]
    for name, splits in configs.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


def near(text: str) -> str:
    """A sentence that shares most words."""
    return " ".join(text.split()[1:]) + " again"


def pairs(count: int = 40, seed: int = 0) -> list[dict[str, Any]]:
    """STS rows: more shared words, higher score."""
    left = sentences(count, seed=seed)
    other = sentences(count, seed=seed + 1)
    return [
        {"sentence1": a, "sentence2": (near(a), a, other[i])[i % 3], "score": (3.5, 5.0, 0.5)[i % 3]}
        for i, a in enumerate(left)
    ]


def sts(root: Path) -> None:
    """One configuration, no card."""
    jsonl(root / "mteb/stsbenchmark-sts/test.jsonl", pairs())


def fast_multilingual_sts(root: Path) -> None:
    """mteb's fast loading: one configuration with a ``lang`` column."""
    rows = [{**row, "lang": lang} for seed, lang in enumerate(["en-en", "en-de"]) for row in pairs(seed=seed)]
    jsonl(root / "mteb/sts17-crosslingual-sts/test.jsonl", rows)


def labelled(count: int, classes: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts whose first word tells the label."""
    return [
        {"text": f"{WORDS[i % classes]} {text}", "label": i % classes, "label_text": WORDS[i % classes]}
        for i, text in enumerate(sentences(count, seed=seed))
    ]


def classification(root: Path) -> None:
    """Train and test."""
    jsonl(root / "mteb/banking77/train.jsonl", labelled(60, 4))
    jsonl(root / "mteb/banking77/test.jsonl", labelled(40, 4, seed=1))


def multilingual_classification(root: Path) -> None:
    """A configuration a language."""
    folder = root / "mteb/MTOPDomainClassification"
    for lang, seed in (("en", 0), ("de", 1)):
        for split in ("train", "validation", "test"):
            jsonl(folder / lang / f"{split}.jsonl", labelled(40, 3, seed=seed))
    card(folder, {lang: {s: f"{lang}/{s}.jsonl" for s in ("train", "validation", "test")} for lang in ("en", "de")})


def clustering(root: Path) -> None:
    """Sets of sentences with labels."""
    rows = labelled(80, 3)
    row = {"sentences": [r["text"] for r in rows], "labels": [r["label_text"] for r in rows]}
    jsonl(root / "mteb/twentynewsgroups-clustering/test.jsonl", [row, row])


def pair_classification(root: Path) -> None:
    """One row of three lists."""
    rows = pairs(60)
    jsonl(
        root / "mteb/sprintduplicatequestions-pairclassification/test.jsonl",
        [
            {
                "sent1": [r["sentence1"] for r in rows],
                "sent2": [r["sentence2"] for r in rows],
                "labels": [int(r["score"] > 1) for r in rows],
            }
        ],
    )


def _retrieval(
    folder: Path, *, qrels: str = "default", prefix: str = "", split: str = "test", ranked: bool = False
) -> dict[str, dict[str, str]]:
    documents = sentences(50, seed=3)
    queries = [near(text) for text in documents[:12]]
    where = f"{prefix.strip('-')}/" if prefix else ""
    jsonl(
        folder / f"{where}corpus.jsonl",
        [{"_id": f"d{i}", "title": "about" if i % 2 else "", "text": text} for i, text in enumerate(documents)],
    )
    jsonl(folder / f"{where}queries.jsonl", [{"_id": f"q{i}", "text": text} for i, text in enumerate(queries)])
    jsonl(
        folder / f"{where}qrels/{split}.jsonl",
        [{"query-id": f"q{i}", "corpus-id": f"d{j}", "score": 2 - (j > i)} for i in range(12) for j in (i, i + 20)],
    )
    configs = {
        f"{prefix}{qrels}": {split: f"{where}qrels/{split}.jsonl"},
        f"{prefix}corpus": {"corpus" if not prefix else split: f"{where}corpus.jsonl"},
        f"{prefix}queries": {"queries" if not prefix else split: f"{where}queries.jsonl"},
    }
    if ranked:
        jsonl(
            folder / f"{where}top_ranked.jsonl",
            [{"query-id": f"q{i}", "corpus-ids": [f"d{(i + j) % 50}" for j in range(0, 30, 2)]} for i in range(12)],
        )
        configs[f"{prefix}top_ranked"] = {split: f"{where}top_ranked.jsonl"}
    return configs


def retrieval(root: Path) -> None:
    """Corpus, queries, qrels as ``default``."""
    folder = root / "mteb/nfcorpus"
    card(folder, _retrieval(folder))


def multilingual_retrieval(root: Path) -> None:
    """Configurations prefixed by the language."""
    folder = root / "mteb/MIRACLRetrievalHardNegatives"
    card(
        folder,
        {
            **_retrieval(folder, prefix="en-", qrels="qrels", split="dev"),
            **_retrieval(folder, prefix="de-", qrels="qrels", split="dev"),
        },
    )


def reranking(root: Path) -> None:
    """Retrieval with given candidates."""
    folder = root / "mteb/AskUbuntuDupQuestions"
    card(folder, _retrieval(folder, ranked=True))


def summarization(root: Path) -> None:
    """Machine summaries rated against human ones."""
    rows = [
        {
            "text": text,
            "human_summaries": [near(text), text],
            "machine_summaries": [near(near(text)), other, text],
            "relevance": [3.0 + i % 3 * 0.5, 1.0 + i % 2, 5.0],
            "id": f"s{i}",
        }
        for i, (text, other) in enumerate(zip(sentences(12), sentences(12, seed=9), strict=True))
    ]
    jsonl(root / "mteb/summeval/test.jsonl", rows)


def bitext(root: Path) -> None:
    """Fast loading again."""
    rows = [
        {"sentence1": text, "sentence2": near(text), "lang": lang}
        for lang in ("deu-eng", "fra-eng")
        for text in sentences(30)
    ]
    jsonl(root / "mteb/tatoeba-bitext-mining/test.jsonl", rows)


def multilabel(root: Path) -> None:
    """Several labels a text."""
    for split, seed in (("train", 0), ("test", 1)):
        jsonl(
            root / f"mteb/KorHateSpeechMLClassification/{split}.jsonl",
            [
                {"text": row["text"], "label": [row["label"], (row["label"] + 1) % 4 if i % 3 else row["label"]]}
                for i, row in enumerate(labelled(80, 4, seed=seed))
            ],
        )


# task -> (maker, subsets to run); every type of text task that mteb has data of in one repository
TASKS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "STSBenchmark": (sts, ()),
    "STS17": (fast_multilingual_sts, ("en-en", "en-de")),
    "Banking77Classification": (classification, ()),
    "MTOPDomainClassification": (multilingual_classification, ("en", "de")),
    "TwentyNewsgroupsClustering": (clustering, ()),
    "TwentyNewsgroupsClustering.v2": (clustering, ()),
    "SprintDuplicateQuestions": (pair_classification, ()),
    "NFCorpus": (retrieval, ()),
    "MIRACLRetrievalHardNegatives": (multilingual_retrieval, ("en", "de")),
    "AskUbuntuDupQuestions": (reranking, ()),
    "SummEvalSummarization.v2": (summarization, ()),
    "Tatoeba": (bitext, ("deu-eng", "fra-eng")),
    "KorHateSpeechMLClassification": (multilabel, ()),
}
