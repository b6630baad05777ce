"""Does pseudo-relevance feedback help short queries? NFCorpus, without training.

    SENTEMB_DATA=… python eval/bench/run.py expansion [--documents 10] [--terms 10] [--weight 0.5] [--max-tokens 256]

nDCG@10 of the test queries of at most three words and of the longer ones, plain and expanded: by words, by vectors, by
both fused. Differences from the plain search of the same kind, with paired permutation tests over queries.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from bench_index_quality import MODEL, load
from harness import data, machine, markdown_table, write_report

from sentemb import SearchIndex
from sentemb.encoder import Encoder
from sentemb.evaluate.metrics import ranking_scores
from sentemb.evaluate.significance import paired_permutation
from sentemb.search import Hit
from sentemb.search.query.expansion import Feedback

SHORT = 3  # words


def main(arguments: Sequence[str]) -> None:
    """Index, search six times, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default=MODEL)
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--terms", type=int, default=10)
    parser.add_argument("--weight", type=float, default=0.5)
    parser.add_argument("--max-tokens", type=int, default=256)
    options = parser.parse_args(arguments)
    facts = machine()
    documents, queries, judged = load(data() / "hub" / "mteb" / "nfcorpus")
    queries = [query for query in queries if any(grade > 0 for grade in judged[query["_id"]].values())]
    texts = [query["text"] for query in queries]
    feedback = Feedback(documents=options.documents, terms=options.terms, weight=options.weight)
    with tempfile.TemporaryDirectory() as folder:
        encoder = Encoder.load(options.backbone, max_tokens=options.max_tokens)
        index = SearchIndex.build(folder, documents, encoder=encoder, kind="flat")
        searches: dict[str, Callable[[Feedback | None], list[list[Hit]]]] = {
            "words (BM25)": lambda expand: index.by_words(texts, 10, expand=expand),
            "vectors": lambda expand: index.search(texts, 10, expand=expand),
            "both, fused": lambda expand: index.hybrid(texts, 10, expand=expand),
        }
        scores = {(name, bool(expand)): values(search(expand), queries, judged)
                  for name, search in searches.items() for expand in (None, feedback)}
    short = np.array([len(text.split()) <= SHORT for text in texts])
    groups = {f"at most {SHORT} words": short, "longer": ~short, "all": np.ones(len(texts), dtype=bool)}
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    for name in searches:
        for group, chosen in groups.items():
            plain, wide = (scores[name, expanded][chosen] for expanded in (False, True))
            test = paired_permutation(plain, wide, seed=0)
            rows.append([name, f"{group} ({chosen.sum()})", f"{100 * plain.mean():.2f}", f"{100 * wide.mean():.2f}",
                         f"{100 * test.difference:+.2f}", f"{test.p:.4f}"])
            figures[f"{name}, {group}"] = {"plain": float(plain.mean()), "expanded": float(wide.mean()), "p": test.p}
    text = (f"{options.backbone}, {options.max_tokens} tokens; {options.documents} documents of feedback, "
            f"{options.terms} words, weight {options.weight}. "
            "p: paired permutation test over queries, not corrected.\n\n")
    text += markdown_table(["search", "queries", "plain", "expanded", "difference", "p"], rows)
    facts.update(arguments=vars(options), figures=figures)
    write_report("expansion", "Pseudo-relevance feedback on NFCorpus, nDCG@10", text, facts, {})


def values(answers: list[list[Hit]], queries: list[dict[str, Any]], judged: dict[str, dict[str, int]]) -> Any:
    """nDCG@10 of every query."""
    run = {query["_id"]: {str(hit.id): hit.score for hit in hits} for query, hits in zip(queries, answers, strict=True)}
    qrels = {query["_id"]: judged[query["_id"]] for query in queries}
    return ranking_scores(qrels, run, [10])["ndcg@10"]
