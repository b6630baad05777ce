"""Contenders of bench_index.py and bench_mine.py: sentemb, bare FAISS, hnswlib, sentence-transformers."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from worker import peak_mib

Work = Callable[[], dict[str, Any]]
SEED = 42
TARGET = 0.95  # recall@10 that approximate kinds are tuned to


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
    kept = Path(base).with_name(f"{Path(base).stem}-{rows}-without-{2 * queries}.npy")
    if not kept.exists():
        part = kept.with_suffix(f".{os.getpid()}.npy")
        held = part.with_suffix(".held.npy")
        np.save(held, real[: -2 * queries])
        np.save(part, _vectors(str(held), rows))
        held.unlink()
        part.replace(kept)
    return kept


def _data(base: str, rows: int, queries: int) -> tuple[Any, Any]:
    """Vectors to index, and queries: the last real embeddings, which are not indexed."""
    asked = np.ascontiguousarray(np.load(base, mmap_mode="r")[-queries:])
    return np.load(_file(base, rows, queries), mmap_mode="r"), asked


def _factory(kind: str, rows: int, dimension: int) -> str:
    from sentemb.search.vectors.choice import kind_of

    return kind_of(kind).factory(dimension, rows)  # type: ignore[attr-defined]  # kinds of FAISS have one


def build_ours(base: str, rows: int, kind: str, queries: int, with_documents: bool) -> Work:
    """Vectors to a finished, durable, verified-at-open index folder (tuning left out: bare FAISS has none)."""
    from sentemb.search import SearchIndex
    from sentemb.search.store import build as building

    vectors = np.load(_file(base, rows, queries))  # in memory: a mapped file's pages would count as the build's
    building.make_index.__globals__["_tuned"] = lambda *_: None
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
        factory = _factory(kind, rows, vectors.shape[1])
        is_binary = factory.startswith("B")
        if is_binary:
            index = faiss.index_binary_factory(vectors.shape[1], factory)
        else:
            index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            ours = kind_of(kind)
            ours.create(dimension=vectors.shape[1], metric="cosine", rows=rows)
            count = ours.training_rows(rows)
            chosen = np.sort(np.random.default_rng(SEED).choice(rows, size=count, replace=False))
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
    from sentemb.search import SearchIndex

    vectors, asked = _data(base, rows, queries)
    folder = Path(base).with_name(f"index-{rows}-without-{2 * queries}-{kind}")
    if not (folder / "manifest.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        records = ({"id": i, "text": f"document number {i}", "part": i % 10} for i in range(rows))
        with SearchIndex.build(folder, records, vectors=vectors, kind=kind, rescore=False, seed=SEED) as index:
            if index.manifest.tuned is not None and index.manifest.tuned.effort is not None:
                index.tune(_tuning(base, queries), target_recall=TARGET)
    return SearchIndex.open(folder, verify=False), asked


def _truth(base: str, rows: int, queries: int, parts: int = 10) -> Any:
    """The exact top 10 among the rows whose ``part`` is below ``parts`` (10: all of them)."""
    from sentemb.maths.neighbours import top

    vectors, asked = _data(base, rows, queries)
    kept = Path(base).with_name(f"truth-{rows}-without-{2 * queries}-{parts}.npy")
    if not kept.exists():
        allowed = np.flatnonzero(np.arange(rows) % 10 < parts)
        np.save(kept, allowed[top(asked, np.asarray(vectors[allowed]), 10, metric="cosine").ids])
    return np.load(kept)


def _recall(found: Any, truth: Any) -> float:
    return float((truth[:, :, None] == found[:, None, :]).any(axis=2).mean())


def search_ours(base: str, rows: int, kind: str, queries: int, single: bool, parts: int = 10) -> Work:
    """All queries as one batch, or one after the other, each to finished results (documents left to ``hits``)."""
    index, asked = _opened(base, rows, kind, queries)
    truth = _truth(base, rows, queries, parts)
    where = None if parts == 10 else f"part < {parts}"

    def work() -> dict[str, Any]:
        if single:
            each = [index.search_positions(asked[i : i + 1], 10, where=where).ids for i in range(len(asked))]
            found = np.concatenate(each)
        else:
            found = index.search_positions(asked, 10, where=where).ids
        return {"recall": _recall(found, truth)}

    return work


def search_faiss(base: str, rows: int, kind: str, queries: int, single: bool) -> Work:
    """The same file and effort in FAISS alone."""
    import faiss

    index, asked = _opened(base, rows, kind, queries)
    path = str(index.folder / index.manifest.segments[0].index.name)
    is_binary = index.manifest.factory.startswith("B")
    raw = faiss.read_index_binary(path) if is_binary else faiss.read_index(path)
    effort = index.effort().effort
    parameters = None
    if "IVF" in index.manifest.factory:
        parameters = faiss.SearchParametersIVF(nprobe=effort)
    elif "HNSW" in index.manifest.factory:
        parameters = faiss.SearchParametersHNSW(efSearch=max(effort, 10))
    index.close()
    truth = _truth(base, rows, queries)

    def work() -> dict[str, Any]:
        # packing is part of a query's work
        coded = _signs if is_binary else np.asarray
        if single:
            each = [raw.search(coded(asked[i : i + 1]), 10, params=parameters)[1] for i in range(len(asked))]
            found = np.concatenate(each)
        else:
            found = raw.search(coded(asked), 10, params=parameters)[1]
        return {"recall": _recall(found, truth)}

    return work


def search_hnswlib(base: str, rows: int, queries: int, single: bool) -> Work:
    """hnswlib with the same M; its ef is tuned on the same other queries to the same recall."""
    import hnswlib

    from sentemb.maths.neighbours import top

    vectors, asked = _data(base, rows, queries)
    truth = _truth(base, rows, queries)
    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    start = time.perf_counter()
    index.init_index(max_elements=rows, M=32, ef_construction=40, random_seed=SEED)
    for first in range(0, rows, 8192):
        index.add_items(np.ascontiguousarray(vectors[first : first + 8192]), np.arange(first, min(first + 8192, rows)))
    built = time.perf_counter() - start
    tuning = _tuning(base, queries)
    wanted = top(tuning, np.asarray(vectors), 10, metric="cosine").ids

    def reached(ef: int) -> float:
        index.set_ef(ef)
        return _recall(index.knn_query(tuning, k=10)[0].astype(np.int64), wanted)

    low, ef = 9, 16
    while reached(ef) < TARGET and ef < 4096:
        low, ef = ef, 2 * ef
    while ef - low > max(1, ef // 16):
        middle = (low + ef) // 2
        low, ef = (low, middle) if reached(middle) >= TARGET else (middle, ef)
    index.set_ef(ef)

    def work() -> dict[str, Any]:
        if single:
            found = np.concatenate([index.knn_query(asked[i : i + 1], k=10)[0] for i in range(len(asked))])
        else:
            found = index.knn_query(asked, k=10)[0]
        return {"recall": _recall(found.astype(np.int64), truth), "ef": ef, "build_s": built}

    return work


def _texts(rows: int) -> tuple[list[str], list[str]]:
    return [f"anchor {i}" for i in range(rows)], [f"passage {i}" for i in range(rows)]


class _Given:
    """An encoder that gives vectors made before, so that only mining is timed."""

    def __init__(self, table: dict[str, int], vectors: Any) -> None:
        self._table, self._vectors = table, vectors
        import torch

        self.device = torch.device("cpu")
        self.similarity_fn_name = "cosine"

    def encode(self, texts: Any, **_: Any) -> Any:
        return self._vectors[[self._table[text] for text in texts]]

    encode_query = encode_document = encode

    def get_embedding_dimension(self) -> int:
        return int(self._vectors.shape[1])

    get_sentence_embedding_dimension = get_embedding_dimension

    def similarity(self, first: Any, second: Any) -> Any:
        import torch

        return torch.as_tensor(first) @ torch.as_tensor(second).T

    def similarity_pairwise(self, first: Any, second: Any) -> Any:
        import torch

        return (torch.as_tensor(first) * torch.as_tensor(second)).sum(dim=1)


def _mining(base: str, rows: int) -> tuple[list[str], list[str], Any]:
    vectors, _ = _data(base, 2 * rows, 100)
    generator = np.random.default_rng(SEED)
    anchors = np.array(vectors[:rows])
    near = anchors + 0.8 * generator.normal(size=anchors.shape).astype(np.float32) / np.sqrt(anchors.shape[1])
    both = np.concatenate([anchors, near / np.linalg.norm(near, axis=1, keepdims=True)]).astype(np.float32)
    first, second = _texts(rows)
    return first, second, both


def mine_ours(base: str, rows: int, negatives: int, margin: float, range_max: int) -> Work:
    """Our miner over given vectors, to arrays of negatives for every anchor and the texts of the triplets."""
    from sentemb.mining.miner import Miner, MiningOptions
    from sentemb.mining.rules import AbsoluteMargin
    from sentemb.mining.sources import Passages
    from sentemb.mining.texts import read_texts

    anchors, positives, both = _mining(base, rows)

    def work() -> dict[str, Any]:
        texts = read_texts({"anchor": a, "positive": p} for a, p in zip(anchors, positives, strict=True))
        options = MiningOptions(negatives=negatives, rules=[AbsoluteMargin(margin=margin)], candidates=range_max)
        miner = Miner(Passages(vectors=both[:rows]), Passages(vectors=both[rows:]), options, positives=texts.positives,
                      excluded=texts.excluded)
        table = {}
        for block in miner.mine():
            for anchor, row in zip(block.anchors.tolist(), block.negatives.tolist(), strict=True):
                table[anchor] = [texts.corpus[number] for number in row]
        return {"triplets": sum(map(len, table.values())), "array": _sorted(table, rows, negatives)}

    return work


def mine_theirs(base: str, rows: int, negatives: int, margin: float, range_max: int, use_faiss: bool) -> Work:
    """sentence_transformers.util.mine_hard_negatives over the same vectors and rules."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    anchors, positives, both = _mining(base, rows)
    model: Any = _Given({text: i for i, text in enumerate([*anchors, *positives])}, both)
    data = Dataset.from_dict({"anchor": anchors, "positive": positives})

    def work() -> dict[str, Any]:
        mined = mine_hard_negatives(
            data, model, num_negatives=negatives, absolute_margin=margin, range_max=range_max, output_format="n-tuple",
            use_faiss=use_faiss, verbose=False,
        )
        columns = [mined[f"negative_{i}"] for i in range(1, negatives + 1)]
        table = {name: list(row) for name, *row in zip(mined["anchor"], *columns, strict=True)}
        order = {text: i for i, text in enumerate(anchors)}
        numbered = {order[name]: row for name, row in table.items()}
        return {"triplets": len(table) * negatives, "array": _sorted(numbered, rows, negatives)}

    return work


def _sorted(table: dict[int, list[str]], rows: int, negatives: int) -> Any:
    """Each anchor's negatives by number, ascending (equal scores may come in another order); -1 where it has none."""
    found = np.full((rows, negatives), -1)
    for anchor, texts in table.items():
        found[anchor] = sorted(int(text.split()[-1]) for text in texts)
    return found
