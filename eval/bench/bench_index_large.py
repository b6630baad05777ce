"""An index larger than memory: built under a limit, and searched where it lies.

    SENTEMB_DATA=… python eval/bench/run.py index_large [--rows 100000 1000000 10000000] [--limit-gib 6]
        [--base-texts 100000] [--cache FOLDER]

Vectors are real embeddings (all-MiniLM-L6-v2 of Wikipedia sentences) and neighbours of them: a real one, moved by a
third of the difference of two others, so that they spread as real ones do. They lie in a file in half precision.
Queries are real embeddings that are not indexed; search effort is tuned on 256 others to recall@10 of 0.95. Build and
search are a process each, inside a control group whose memory (own and pages of files) is limited, where the system
lets one be made. FAISS alone searches the same file of codes, mapped, with the same effort and without re-scoring.
What is in the cache is not made again, so the benchmark may be stopped and started.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bench_index import SEED, TARGET, base_vectors, recall_of
from bench_large import Meter
from harness import machine, markdown_table, write_report

QUERIES, TUNED_ON = 1000, 256
BLOCK = 65_536
CONTROL_GROUPS = Path("/sys/fs/cgroup/memory")
GIB = 2**30


def neighbours(real: Any, rows: int) -> Iterator[Any]:
    """Blocks of unit vectors, in half precision: the real ones, then neighbours of them."""
    generator = np.random.default_rng(SEED)
    for start in range(0, rows, len(real)):
        count = min(len(real), rows - start)
        vectors = np.array(real[:count], dtype=np.float32)
        if start:
            one, other = generator.permutation(len(real))[:count], generator.permutation(len(real))[:count]
            vectors += (real[one] - real[other]) / 3
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield vectors.astype(np.float16)


def write_vectors(file: Path, real: Any, rows: int) -> None:
    """The vectors to index, in a .npy file."""
    part = file.with_suffix(".part")
    array = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=(rows, real.shape[1]))
    start = 0
    for block in neighbours(real, rows):
        array[start : start + len(block)] = block
        start += len(block)
    array.flush()
    del array
    with part.open("rb") as written:  # its pages must not lie in memory that the limit does not count
        os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    part.replace(file)


def real_and_queries(base: str) -> tuple[Any, Any, Any]:
    """Real vectors to index, queries to measure, queries to tune on: the last ones are not indexed."""
    every = np.load(base)
    first = len(every) - QUERIES - TUNED_ON
    return every[:first], every[first : first + QUERIES], every[first + QUERIES :]


def build(base: str, file: str, rows: int, folder: str) -> dict[str, Any]:
    """A durable index of codes, half-precision vectors and documents; its effort is tuned on its documents."""
    from sentemb import SearchIndex

    vectors = np.load(file, mmap_mode="r")[:rows]
    records = ({"id": i, "text": f"document number {i}"} for i in range(rows))
    meter = Meter()
    index = SearchIndex.build(folder, records, vectors=vectors, kind="ivf-pq", seed=SEED, words="none")
    meter.done("build")
    index.close()
    return {"stages": meter.stages, "description": index.manifest.description}


def tune(base: str, file: str, rows: int, folder: str) -> dict[str, Any]:
    """The search effort, on real queries."""
    from sentemb import SearchIndex

    _, _, tuned_on = real_and_queries(base)
    meter = Meter()
    with SearchIndex.open(folder, mapped=True, verify=False) as index:
        tuned = index.tune(tuned_on, target_recall=TARGET)
    meter.done("tune")
    return {"stages": meter.stages, "effort": tuned.effort, "oversample": tuned.oversample}


def search(base: str, file: str, rows: int, folder: str) -> dict[str, Any]:
    """Queries one by one, then as a batch, of an index that stays on the disk; and FAISS alone on the same codes."""
    import faiss

    from sentemb import SearchIndex
    from sentemb.maths.neighbours import top_of_blocks

    vectors, (_, queries, _) = np.load(file, mmap_mode="r")[:rows], real_and_queries(base)
    exact = Path(folder).with_suffix(".truth.npy")
    if not exact.exists():
        blocks = (np.asarray(vectors[start : start + BLOCK], dtype=np.float32) for start in range(0, rows, BLOCK))
        np.save(exact, top_of_blocks(queries, blocks, 10, metric="dot", device="cpu").ids)
    truth, meter = np.load(exact), Meter()
    index = SearchIndex.open(folder, mapped=True)
    meter.done("open and verify")
    index.search_positions(queries[:20], 10)
    single, neighbour_ids = [], []
    for number in range(len(queries)):
        start = time.perf_counter()
        neighbour_ids.append(index.search_positions(queries[number : number + 1], 10).ids)
        single.append(1000 * (time.perf_counter() - start))
    meter.done("one by one")
    index.search_positions(queries, 10)
    meter.done("batch")
    path, effort = index.folder / index.manifest.segments[0].index.name, index.manifest.tuned.effort
    raw, parameters = faiss.read_index(str(path), faiss.IO_FLAG_MMAP), faiss.SearchParametersIVF(nprobe=effort)
    raw.search(queries[:20], 10, params=parameters)
    meter.done("FAISS opens")
    coarse = [raw.search(queries[number : number + 1], 10, params=parameters)[1] for number in range(len(queries))]
    meter.done("FAISS one by one")
    raw.search(queries, 10, params=parameters)
    meter.done("FAISS batch")
    sizes = {file.name.partition(".")[2] or file.name: file.stat().st_size for file in index.folder.rglob("*")}
    return {
        "stages": meter.stages, "single_ms": single, "sizes": sizes,
        "recall": recall_of(np.concatenate(neighbour_ids), truth),
        "recall of FAISS": recall_of(np.concatenate(coarse), truth),
    }


@contextmanager
def limited(gib: float) -> Iterator[Path | None]:
    """A control group with so much memory (the file that takes a process into it), where one can be made."""
    group = CONTROL_GROUPS / f"sentemb-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(int(gib * GIB)))
    except OSError:
        yield None
        return
    yield group / "cgroup.procs"
    group.rmdir()


def measured(function: str, limit_gib: float, **arguments: Any) -> dict[str, Any]:
    """What a function gives in a process of its own, under the limit."""
    code = f"import bench_index_large, json; print(json.dumps(bench_index_large.{function}(**{arguments!r})))"
    with limited(limit_gib) as group:
        enter = None if group is None else lambda: group.write_text(str(os.getpid()))
        answer = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, stdout=subprocess.PIPE,
            preexec_fn=enter,
        )
    return {**json.loads(answer.stdout.splitlines()[-1]), "is_limited": group is not None}


def built_and_searched(base: str, file: Path, rows: int, limit_gib: float) -> dict[str, Any]:
    """Everything for one number of rows; what was measured is kept beside the index."""
    folder, measurements = file.with_name(f"index-{rows}"), {}
    for work in ("build", "tune", "search"):
        facts = folder.with_suffix(f".{work}.json")
        if not facts.exists():
            if work == "build":
                shutil.rmtree(folder, ignore_errors=True)
            arguments = {"base": base, "file": str(file), "rows": rows, "folder": str(folder)}
            facts.write_text(json.dumps(measured(work, limit_gib, **arguments)))
        measurements[work] = json.loads(facts.read_text())
    return measurements


def lines(rows: int, measurements: dict[str, Any]) -> tuple[list[object], list[object]]:
    """A row of the builds' table, and one of the searches'."""
    built, tuned, searched = (measurements[work] for work in ("build", "tune", "search"))
    stage, stages = built["stages"]["build"], searched["stages"]
    sizes = searched["sizes"]
    single = np.percentile(searched["single_ms"], [50, 99])
    return [
        f"{rows:,}", built["description"], f"{stage['seconds']:.0f}", f"{stage['cpu_s']:.0f}",
        f"{stage['cpu_s'] / rows * 1e6:.0f}", f"{tuned['stages']['tune']['seconds']:.0f}", f"{stage['own_mib']:,.0f}",
        f"{sum(sizes.values()) / GIB:.2f}", f"{sum(sizes.values()) / rows:.0f}",
    ], [
        f"{rows:,}", f"{tuned['effort']}, {tuned['oversample']}", f"{searched['recall']:.3f}",
        f"{single[0]:.1f}", f"{single[1]:.1f}", f"{QUERIES / stages['batch']['seconds']:,.0f}",
        f"{searched['recall of FAISS']:.3f}", f"{1000 * stages['FAISS one by one']['seconds'] / QUERIES:.1f}",
        f"{QUERIES / stages['FAISS batch']['seconds']:,.0f}", f"{stages['open and verify']['seconds']:.1f}",
        f"{max(stages[name]['own_mib'] for name in ('open and verify', 'one by one', 'batch')):,.0f}",
    ]


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="run.py index_large", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--limit-gib", type=float, default=6.0)
    parser.add_argument("--base-texts", type=int, default=100_000)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sentemb-bench-index-large")
    options, facts = parser.parse_args(arguments), machine()
    base = base_vectors(options.base_texts, options.cache)
    real, *_ = real_and_queries(base)
    file = options.cache / f"neighbours-{max(options.rows)}.npy"
    if not file.exists():
        write_vectors(file, real, max(options.rows))
    results = {rows: built_and_searched(base, file, rows, options.limit_gib) for rows in options.rows}
    facts["results"] = {str(rows): measurements for rows, measurements in results.items()}
    tables = [lines(rows, measurements) for rows, measurements in results.items()]
    is_limited = all(part["is_limited"] for measurements in results.values() for part in measurements.values())
    text = (
        f"{real.shape[1]} dimensions; {len(real):,} real embeddings and neighbours of them, {QUERIES:,} real queries. "
        + (f"Every process ran in a control group of {options.limit_gib:g} GiB, pages of files included." if is_limited
           else "No control group could be made: memory was not limited.")
        + "\n\nBuild, from half-precision vectors in a file to a flushed index with documents, half-precision vectors "
        "to re-score with, and its effort tuned on its own documents; then tuned on real queries.\n\n"
        + markdown_table(["vectors", "kind", "seconds", "CPU seconds", "CPU µs a vector", "tuning on queries, s",
                          "own memory, MiB", "on the disk, GiB", "bytes a vector"], [one for one, _ in tables])
        + "\nSearch, top 10, the index mapped; a query alone and all of them as a batch.\n\n"
        + markdown_table(["vectors", "nprobe, oversample", "recall@10", "median ms", "p99 ms", "batch q/s",
                          "FAISS's codes alone: recall@10", "ms", "batch q/s", "open and verify, s", "own memory, MiB"],
                         [other for _, other in tables])
    )
    write_report("index_large", "Indexes larger than memory", text, facts, {})
