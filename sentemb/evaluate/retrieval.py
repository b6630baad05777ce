"""Retrieval on any corpus, queries and judgements, in BEIR's or the hub's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError
from sentemb.evaluate.bm25 import bm25_search
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.prompts import prompt_for
from sentemb.evaluate.ranking import CUTS, Qrels, check_ids, fuse, judged_queries, ranking_scores
from sentemb.evaluate.tables import FORMATS, read_rows, text_of
from sentemb.evaluate.trec import read_qrels
from sentemb.maths.neighbours import top
from sentemb.types import Hits

DEPTH = 1000  # hits kept a query, as trec_eval and MTEB


@dataclass(frozen=True)
class RetrievalSet:
    """Documents, queries and which answer which."""

    name: str
    documents: Mapping[str, str]  # id -> title and text
    queries: Mapping[str, str]  # id -> text; only judged ones
    qrels: Qrels
    split: str = "test"
    source: str = ""


@dataclass(frozen=True)
class RetrievalScore:
    """Means ×100 over the judged queries, and the values of every query."""

    name: str
    system: str  # the model, "BM25", or their fusion
    metrics: Mapping[str, float]
    queries: Sequence[str]
    values: Mapping[str, NDArray[np.float64]] = field(repr=False)  # metric -> (queries,)
    run: Mapping[str, Mapping[str, float]] = field(repr=False)

    @property
    def main(self) -> float:
        """nDCG@10 ×100."""
        return self.metrics["ndcg@10"]


def read_retrieval(folder: Path | str, *, split: str = "test", name: str | None = None) -> RetrievalSet:
    """``corpus.*``, ``queries.*`` and ``qrels/<split>.*`` (jsonl, tsv, csv, parquet, or TREC's columns) in a folder.

    Raises:
        DataError: A file or the split is missing, a row is malformed, or the judgements name unknown ids.
    """
    folder = Path(folder)
    find_files(folder, split)
    judgements = _qrels_file(folder, split)
    qrels = read_qrels(judgements)
    documents = _texts(_table(folder, "corpus"))
    queries = _texts(_table(folder, "queries"))
    check_ids(qrels, list(queries), list(documents), source=str(judgements))
    judged = judged_queries(qrels)
    if not judged:
        raise DataError(f"{judgements}: no query has a relevant document; nothing can be scored")
    return RetrievalSet(name or folder.name, documents, {q: queries[q] for q in judged}, qrels, split, str(folder))


def find_files(folder: Path, split: str) -> None:
    """Whether a folder has the three files, without reading them.

    Raises:
        DataError: One is missing; says which.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; a folder with corpus, queries and qrels/{split} is needed")
    _qrels_file(folder, split)
    _table(folder, "corpus")
    _table(folder, "queries")


def _table(folder: Path, stem: str) -> Path:
    for ending in FORMATS:
        for packing in ("", ".gz", ".zst"):
            for path in (folder / f"{stem}{ending}{packing}", folder / stem / f"{stem}{ending}{packing}"):
                if path.is_file():
                    return path
    raise DataError(
        f"{folder}: no {stem}.jsonl (or {', '.join(FORMATS[2:])}); a BEIR folder has corpus, queries and qrels/"
    )


def _qrels_file(folder: Path, split: str) -> Path:
    places = [folder / "qrels", folder]
    names = [split, f"qrels.{split}", f"qrels-{split}"]
    for place in places:
        for name in names:
            for ending in (".jsonl", ".tsv", ".txt", ".qrels", ".csv", ".parquet", ".trec"):
                path = place / f"{name}{ending}"
                if path.is_file():
                    return path
    splits = sorted(path.stem for path in (folder / "qrels").glob("*")) if (folder / "qrels").is_dir() else []
    raise DataError(
        f'{folder}: no judgements for split "{split}"; found under qrels/: {", ".join(splits) or "nothing"}'
    )


def _texts(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for row in read_rows(path):
        key = next((name for name in ("_id", "id") if name in row.fields), None)
        if key is None:
            raise DataError(f'{row.where}: no column "_id"; found: {", ".join(map(str, row.fields))}')
        text, title, name = text_of(row, "text"), row.fields.get("title"), str(row.fields[key])
        if name in texts:
            raise DataError(f'{row.where}: the id "{name}" occurs twice')
        # as BEIR and MTEB join them
        texts[name] = f"{title} {text}".strip() if isinstance(title, str) and title else text.strip()
    if not texts:
        raise DataError(f"{path}: no rows in it")
    return texts


def evaluate_retrieval(
    model: EvalModel,
    data: RetrievalSet,
    *,
    baselines: bool = True,
    depth: int = DEPTH,
    cuts: Sequence[int] = CUTS,
    ignore_identical_ids: bool = False,
    device: str | None = None,
) -> list[RetrievalScore]:
    """Score dense retrieval, exact; with ``baselines`` also BM25 and the fusion of the two (RRF).

    Args:
        model: What ``open_model`` gave.
        data: What ``read_retrieval`` gave.
        baselines: Add the rows ``BM25`` and ``RRF``.
        depth: Hits kept a query.
        cuts: The k of the metrics.
        ignore_identical_ids: Leave out a hit whose id is the query's (duplicate questions, ArguAna).
        device: For the search; None: a GPU where there is one.

    Raises:
        NumericError, EvaluationError: What the model returned cannot be used.
    """
    query_ids, document_ids = list(data.queries), list(data.documents)
    query_prompt = prompt_for(model.prompts, task=data.name, task_type="Retrieval", role="query")
    document_prompt = prompt_for(model.prompts, task=data.name, task_type="Retrieval", role="document")
    extra = 1 if ignore_identical_ids else 0
    hits = top(
        model.encode(list(data.queries.values()), prompt=query_prompt),
        model.encode(list(data.documents.values()), prompt=document_prompt),
        depth + extra,
        metric=model.similarity,
        device=device,
    )
    runs = {model.provenance.name: to_run(hits, query_ids, document_ids, drop_own=ignore_identical_ids, depth=depth)}
    if baselines:
        sparse = bm25_search(list(data.documents.values()), list(data.queries.values()), depth + extra)
        runs["BM25"] = to_run(sparse, query_ids, document_ids, drop_own=ignore_identical_ids, depth=depth, floor=0.0)
        runs[f"RRF({model.provenance.name}, BM25)"] = fuse([runs[model.provenance.name], runs["BM25"]], k=depth)
    return [score_run(data.name, system, run, data.qrels, cuts=cuts) for system, run in runs.items()]


def to_run(
    hits: Hits,
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    *,
    drop_own: bool = False,
    depth: int = DEPTH,
    floor: float | None = None,
) -> dict[str, dict[str, float]]:
    """Positions and scores as a run; hits with position -1 or a score not above ``floor`` are left out."""
    names = np.array(document_ids, dtype=object)
    run: dict[str, dict[str, float]] = {}
    for query, positions, scores in zip(query_ids, hits.ids, hits.scores, strict=True):
        keep = positions >= 0
        if floor is not None:
            keep &= scores > floor
        found = dict(zip(names[positions[keep]].tolist(), scores[keep].tolist(), strict=True))
        if drop_own:
            found.pop(query, None)
        while len(found) > depth:
            found.popitem()  # hits come best first
        run[query] = found
    return run


def score_run(
    name: str, system: str, run: Mapping[str, Mapping[str, float]], qrels: Qrels, *, cuts: Sequence[int] = CUTS
) -> RetrievalScore:
    """Score any run (also one read from a TREC file) against judgements."""
    values = ranking_scores(qrels, run, cuts)
    means = {metric: 100 * float(array.mean()) for metric, array in values.items()}
    return RetrievalScore(name, system, means, judged_queries(qrels), values, run)
