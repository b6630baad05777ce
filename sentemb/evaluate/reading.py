"""Files that tasks and reports read: pairs, labelled texts, retrieval folders, TREC's files.

Tables (jsonl, csv, tsv, parquet; all but the last also .gz or .zst) are read by ``sentemb.data``. What is wrong with a
file is a DataError that names the file and, where there is one, the line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentemb.data import Record, iter_records
from sentemb.data.faults import damage_named
from sentemb.data.sources import COMPRESSIONS, open_bytes
from sentemb.errors import DataError
from sentemb.evaluate.metrics import Qrels, Run, judged_queries
from sentemb.files import atomic_file

_TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_ENDINGS = (*_TABLES, ".txt", ".qrels", ".trec", *COMPRESSIONS)


# ------------------------------------------------------------------------------------- rows, lines, cells
def stem_of(path: Path) -> str:
    """``pairs`` of ``pairs.jsonl.zst``; the whole name of a folder."""
    while path.suffix in _ENDINGS:
        path = path.with_suffix("")
    return path.name


def table_file(folder: Path, *stems: str) -> Path | None:
    """The first file ``folder/stem`` or ``folder/stem/stem`` with a known ending; None where there is none."""
    for path in (path for stem in stems for path in (folder / stem, folder / stem / Path(stem).name)):
        for file in sorted(path.parent.glob("*")):
            if stem_of(file) == path.name and file.is_file():
                return file
    return None


def read_rows(path: Path | str, split: str | None = None) -> Iterator[Record]:
    """Rows of a table file (a txt file has the one column ``text``), or of a folder's split."""
    return iter_records(path, split=split, advice="correct these rows")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a plain or compressed UTF-8 file with their numbers, from 1, without their ends."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with damage_named(str(path)), open_bytes(path) as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                yield number, raw.decode("utf-8-sig").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}:{number}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None


def read_columns(path: Path, form: str, separator: str | None = None) -> Iterator[Record]:
    """Lines as rows; ``form`` names their columns. Fields behind a tab are left aside, behind white space refused."""
    names = form.split()
    for number, line in read_lines(path):
        fields = line.split(separator)
        if not line.strip():
            continue
        if len(fields) < len(names) or (separator is None and len(fields) > len(names)):
            raise DataError(f"{path}:{number}: {len(fields)} fields; needed are {len(names)}: {form}")
        yield Record(where=f"{path}:{number}", fields=dict(zip(names, fields, strict=False)))


def cell_of(row: Record, *columns: str) -> Any:
    """What stands in the first of the columns that there is."""
    for column in columns:
        if column in row.fields:
            return row.fields[column]
    raise DataError(f'{row.where}: no column "{columns[0]}"; found: {", ".join(map(str, row.fields))}')


def text_of(row: Record, *columns: str) -> str:
    """The text in the first of the columns that there is."""
    value = cell_of(row, *columns)
    if not isinstance(value, str):
        raise DataError(f'{row.where}: column "{columns[0]}" holds {value!r}; text is needed')
    return value


def number_of(row: Record, column: str) -> float:
    """The finite number in the column."""
    cell = cell_of(row, column)
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f'{row.where}: column "{column}" holds {cell!r}; a finite number is needed')
    return value


# ------------------------------------------------------------------------------------------------- pairs
@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Sentence pairs with gold scores. ``subset`` names each pair's part where the set has parts."""

    sentence1: Sequence[str]
    sentence2: Sequence[str]
    score: NDArray[np.float64]  # (pairs,)
    subset: Sequence[str] | None = None
    group: Sequence[str] = ()  # of every pair, where scores by group are asked for
    source: str = ""  # file it came from

    def __len__(self) -> int:
        return len(self.score)


def read_pairs(path: Path | str, *, score: str = "score", by: str = "") -> PairSet:
    """A file with the columns ``sentence1``, ``sentence2``, ``score`` (or what ``score`` names) and, if it likes,
    ``subset``; ``by`` names the column of groups."""
    return pairs_of(read_rows(path), source=path, score=score, by=by)


def pairs_of(rows: Iterable[Record], *, source: Path | str, score: str = "score", by: str = "") -> PairSet:
    table = [(text_of(row, "sentence1"), text_of(row, "sentence2"), number_of(row, score), row) for row in rows]
    if not table:
        raise DataError(f"{source}: no pairs in it; rows with the columns sentence1, sentence2 and {score} are needed")
    first, second, values, records = zip(*table, strict=True)
    subset = [str(row.fields["subset"]) for row in records if row.fields.get("subset") is not None]
    if subset and len(subset) != len(values):
        having = f'{len(subset):,} of {len(values):,} rows have a "subset"'
        raise DataError(f"{source}: {having}; give all rows one, or none")
    return PairSet(
        sentence1=first, sentence2=second, score=np.array(values), subset=subset or None, source=str(source),
        group=[str(cell_of(row, by)) for row in records] if by else (),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------- labelled texts
@dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """Texts with one label each (labels compared as strings)."""

    texts: Sequence[str]
    labels: Sequence[str]
    group: Sequence[str] = ()  # of every text, where scores by group are asked for
    source: str = ""

    def __len__(self) -> int:
        return len(self.labels)


def read_labelled(path: Path | str, split: str | None = None, *, by: str = "") -> LabelledTexts:
    """A file, or a folder's split, with the columns ``text`` (or ``sentence``), ``label`` and what ``by`` names."""
    texts, labels, groups = [], [], []
    for row in read_rows(path, split):
        texts.append(text_of(row, "text", "sentence"))
        label = row.fields.get("label", row.fields.get("labels"))
        if isinstance(label, list | dict) or label is None or str(label) == "":
            raise DataError(f'{row.where}: column "label" holds {label!r}; one label a row is needed')
        labels.append(str(label))
        groups += [str(cell_of(row, by))] if by else []
    if not labels:
        raise DataError(f"{path}: no rows in it")
    return LabelledTexts(texts=texts, labels=labels, group=groups, source=str(path))


def read_splits(path: Path, *, by: str = "") -> tuple[LabelledTexts, LabelledTexts | None]:
    """Training and test texts of a folder; of one file: all its rows, and None. ``by`` is of what is scored."""
    if path.is_dir():
        return read_labelled(path, "train"), read_labelled(path, "test", by=by)
    return read_labelled(path, by=by), None


# --------------------------------------------------------------------------------------------- retrieval
@dataclass(frozen=True, kw_only=True)
class RetrievalSet:
    """Documents, queries and which answer which."""

    documents: Mapping[str, str]  # id -> title and text
    queries: Mapping[str, str]  # id -> text; only judged ones
    qrels: Qrels


def read_retrieval(folder: Path | str, split: str = "test") -> RetrievalSet:
    """``corpus.*``, ``queries.*`` and ``qrels/<split>.*`` in a folder, in BEIR's, the hub's or TREC's form."""
    corpus, questions, judgements = retrieval_files(Path(folder), split)
    qrels, documents, queries = read_qrels(judgements), _read_texts(corpus), _read_texts(questions)
    check_ids(qrels, queries, documents, source=str(judgements))
    judged = judged_queries(qrels)
    if not judged:
        raise DataError(f"{judgements}: no query has a relevant document; nothing can be scored")
    return RetrievalSet(documents=documents, queries={query: queries[query] for query in judged}, qrels=qrels)


def retrieval_files(folder: Path, split: str) -> list[Path]:
    """The files of the corpus, the queries and the judgements."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; a folder with corpus, queries and qrels/{split} is needed")
    stems = (["corpus"], ["queries"], [f"qrels/{split}", f"qrels.{split}", f"qrels-{split}", split])
    files = [table_file(folder, *names) for names in stems]
    for (name, *_), file in zip(stems, files, strict=True):
        if file is None:
            splits = ", ".join(sorted(path.name for path in folder.glob("qrels/*"))) or "nothing"
            raise DataError(
                f"{folder}: no {name}.jsonl (or {', '.join(_TABLES[2:])}); a BEIR folder has corpus, queries and "
                f"qrels/SPLIT; found under qrels/: {splits}"
            )
    return [file for file in files if file is not None]


def check_ids(qrels: Qrels, queries: Iterable[str], documents: Iterable[str], *, source: str) -> None:
    """Every judged query and every relevant document must be known; says how many are not, and the first."""
    known_queries, known_documents, faults = set(queries), set(documents), []
    unknown = [query for query in qrels if query not in known_queries]
    if unknown:
        count = f"{len(unknown):,} of {len(qrels):,}"
        faults.append(f'{count} judged queries are not among the queries (first: "{unknown[0]}")')
    lost = sorted({d for judged in qrels.values() for d, r in judged.items() if r > 0 and d not in known_documents})
    if lost:
        faults.append(f'{len(lost):,} relevant documents are not in the corpus (first: "{lost[0]}")')
    if faults:
        raise DataError(f"{source}: {'; '.join(faults)}; the judgements belong to another corpus, or rows are missing")


def _read_texts(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for row in read_rows(path):
        name, text, title = str(cell_of(row, "_id", "id")), text_of(row, "text"), row.fields.get("title")
        if name in texts:
            raise DataError(f'{row.where}: the id "{name}" occurs twice')
        texts[name] = f"{title or ''} {text}".strip()  # as BEIR and MTEB join them
    if not texts:
        raise DataError(f"{path}: no rows in it")
    return texts


def read_candidates(path: Path, data: RetrievalSet) -> dict[str, list[str]]:
    """The documents that a first stage gave each query: rows ``query-id`` and ``corpus-ids``, or a TREC run, best
    first or not. Every query must have some."""
    is_run = path.suffix in (".trec", ".run", ".txt")
    candidates = {query: list(hits) for query, hits in read_run(path).items()} if is_run else {}
    for row in () if is_run else read_rows(path):
        documents = cell_of(row, "corpus-ids")
        if not isinstance(documents, list):
            raise DataError(f'{row.where}: "corpus-ids" must be a list')
        candidates[str(cell_of(row, "query-id"))] = [str(document) for document in documents]
    for query in data.queries:
        unknown = [document for document in candidates.get(query, ()) if document not in data.documents]
        if unknown:
            raise DataError(f'{path}: query "{query}" names {len(unknown)} unknown documents, e.g. "{unknown[0]}"')
        if not candidates.get(query):
            raise DataError(f'{path}: no candidates for query "{query}"')
    return {query: candidates[query] for query in data.queries}


# ------------------------------------------------------------------------------------------- TREC's files
def write_run(path: Path, run: Run) -> None:
    """Write a run (``query Q0 document rank score tag``), best first, atomically."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, hits in run.items():
            ranked = sorted(hits.items(), key=lambda hit: (hit[1], hit[0]), reverse=True)
            for rank, (document, score) in enumerate(ranked, start=1):
                if len(query.split()) != 1 or len(document.split()) != 1:
                    ids = f"the id {query!r} or {document!r}"
                    raise DataError(f"{path}: {ids} holds white space, which TREC's format has none of")
                file.write(f"{query} Q0 {document} {rank} {score!r} sentemb\n")


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """A run file."""
    run: dict[str, dict[str, float]] = {}
    for row in read_columns(path, "query Q0 document rank score tag"):
        run.setdefault(row.fields["query"], {})[row.fields["document"]] = number_of(row, "score")
    if not run:
        raise DataError(f"{path}: empty; lines as `query Q0 document rank score tag` are needed")
    return run


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements: TREC's four columns, BEIR's tsv with a header, or jsonl/parquet with ``query-id``, ``corpus-id``,
    ``score``."""
    plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    has_names = plain.suffix in (".jsonl", ".parquet", ".csv")
    if plain.suffix == ".tsv":
        has_names = any("query-id" in line for _, line in islice(read_lines(path), 1))
    qrels: dict[str, dict[str, int]] = {}
    for row in read_rows(path) if has_names else read_columns(path, "query-id 0 corpus-id score"):
        relevance = number_of(row, "score")
        if not relevance.is_integer():
            raise DataError(f"{row.where}: the relevance {row.fields['score']!r} is no whole number")
        query, document = (str(cell_of(row, column)) for column in ("query-id", "corpus-id"))
        qrels.setdefault(query, {})[document] = int(relevance)
    if not qrels:
        raise DataError(f"{path}: no judgements in it")
    return qrels
