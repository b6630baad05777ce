"""Documents as the weighted mean of title and text against one text that begins with the title, nDCG@10.

    SENTEMB_DATA=… python eval/bench/run.py fields [--titles 0.1 0.3 0.5] [--max-tokens 256]

NFCorpus and SciFact, test queries, no training. Differences from the joined text, with paired permutation tests.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from bench_expansion import values
from bench_index_quality import MODEL, load
from harness import data, lines, machine, markdown_table, write_report

from sentemb import SearchIndex
from sentemb.encoder import Encoder
from sentemb.evaluate.significance import paired_permutation


def main(arguments: Sequence[str]) -> None:
    """Index every way, search, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default=MODEL)
    parser.add_argument("--titles", type=float, nargs="+", default=[0.1, 0.3, 0.5], help="weights of the title")
    parser.add_argument("--max-tokens", type=int, default=256)
    options = parser.parse_args(arguments)
    facts = machine()
    encoder = Encoder.load(options.backbone, max_tokens=options.max_tokens)
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    for name in ("nfcorpus", "scifact"):
        folder = data() / "hub" / "mteb" / name
        _, queries, judged = load(folder)
        queries = [query for query in queries if any(grade > 0 for grade in judged[query["_id"]].values())]
        documents = [{"id": row["_id"], "title": row.get("title") or "", "text": row["text"]}
                     for row in lines(folder / "corpus.jsonl")]
        joined = scored(documents, encoder, {}, queries, judged)
        rows.append([name, "joined", f"{100 * joined.mean():.2f}", "", ""])
        for title in options.titles:
            of_fields = scored(documents, encoder, {"title": title, "text": 1 - title}, queries, judged)
            test = paired_permutation(joined, of_fields, seed=0)
            rows.append([name, f"{title:g} title, {1 - title:g} text", f"{100 * of_fields.mean():.2f}",
                         f"{100 * test.difference:+.2f}", f"{test.p:.4f}"])
            figures[f"{name}, {title}"] = 100 * test.difference
    text = f"{options.backbone}, {options.max_tokens} tokens. "
    text += "p: paired permutation test over queries, not corrected.\n\n"
    text += markdown_table(["data", "vector", "nDCG@10", "difference", "p"], rows)
    facts.update(arguments=vars(options), figures=figures)
    write_report("fields", "Title and text as weighted fields", text, facts, {})


def scored(
    documents: list[dict[str, str]], encoder: Encoder, fields: Mapping[str, float], queries: list[dict[str, Any]],
    judged: dict[str, dict[str, int]],
) -> Any:
    """nDCG@10 of every query through an exact index."""
    with tempfile.TemporaryDirectory() as folder:
        index = SearchIndex.build(folder, documents, encoder=encoder, kind="flat", words="none", fields=fields)
        return values(index.search([query["text"] for query in queries], 10), queries, judged)
