"""Corpus, queries and judgements of retrieval in a folder, in BEIR's or the hub's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sentemb.errors import DataError
from sentemb.evaluate.reading.tables import FORMATS, read_rows, table_file, text_of
from sentemb.evaluate.reading.trec import read_qrels, read_run
from sentemb.evaluate.statistics.ranking import Qrels, check_ids, judged_queries


@dataclass(frozen=True, kw_only=True)
class RetrievalSet:
    """Documents, queries and which answer which."""

    name: str
    documents: Mapping[str, str]  # id -> title and text
    queries: Mapping[str, str]  # id -> text; only judged ones
    qrels: Qrels
    split: str = "test"
    source: str = ""


def read_retrieval(folder: Path | str, *, split: str = "test", name: str | None = None) -> RetrievalSet:
    """``corpus.*``, ``queries.*`` and ``qrels/<split>.*`` (jsonl, tsv, csv, parquet, or TREC's columns) in a folder.

    Raises: DataError: A file or the split is missing, a row is malformed, or the judgements name unknown ids.
    """
    folder = Path(folder)
    judgements, *files = _files(folder, split)
    qrels, (documents, queries) = read_qrels(judgements), map(_texts, files)
    check_ids(qrels, list(queries), list(documents), source=str(judgements))
    judged = judged_queries(qrels)
    if not judged:
        raise DataError(f"{judgements}: no query has a relevant document; nothing can be scored")
    return RetrievalSet(
        name=name or folder.name, documents=documents, queries={query: queries[query] for query in judged},
        qrels=qrels, split=split, source=str(folder),
    )  # fmt: skip


def folder_faults(folder: Path, split: str) -> list[str]:
    """Why a folder cannot be read, as a message; empty where its three files are there. Reads none of them."""
    try:
        _files(folder, split)
    except DataError as error:
        return [str(error)]
    return []


def _files(folder: Path, split: str) -> tuple[Path, Path, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; a folder with corpus, queries and qrels/{split} is needed")
    return _qrels_file(folder, split), _table(folder, "corpus"), _table(folder, "queries")


def _table(folder: Path, stem: str) -> Path:
    file = table_file(folder, stem)
    if file is None:
        endings = ", ".join(FORMATS[2:])
        raise DataError(f"{folder}: no {stem}.jsonl (or {endings}); a BEIR folder has corpus, queries and qrels/")
    return file


def _qrels_file(folder: Path, split: str) -> Path:
    names = (split, f"qrels.{split}", f"qrels-{split}")
    stems = [parent / name for parent in (folder / "qrels", folder) for name in names]
    for stem in stems:
        for ending in (".jsonl", ".tsv", ".txt", ".qrels", ".csv", ".parquet", ".trec"):
            path = stem.with_name(stem.name + ending)
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


def read_candidates(path: Path, data: RetrievalSet) -> dict[str, list[str]]:
    """The documents that a first stage gave each query: rows ``query-id`` and ``corpus-ids``, or a TREC run, best
    first or not.

    Raises: DataError: an unknown document, a malformed row, or a query without candidates; names it.
    """
    candidates: dict[str, list[str]] = {}
    if path.suffix in (".trec", ".run", ".txt"):
        candidates = {query: list(hits) for query, hits in read_run(path).items()}
    else:
        for row in read_rows(path):
            documents = row.fields.get("corpus-ids")
            if not isinstance(documents, list) or "query-id" not in row.fields:
                raise DataError(f'{row.where}: needed are "query-id" and "corpus-ids" (a list)')
            candidates[str(row.fields["query-id"])] = [str(document) for document in documents]
    for query in data.queries:
        unknown = [document for document in candidates.get(query, ()) if document not in data.documents]
        if unknown:
            raise DataError(f'{path}: query "{query}" names {len(unknown)} unknown documents, e.g. "{unknown[0]}"')
        if not candidates.get(query):
            raise DataError(f'{path}: no candidates for query "{query}"')
    return candidates
