"""From a file of pairs (or texts) to a file with negatives, resumable block by block."""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from sentemb.encoder.crossencoder import CrossEncoderScores
from sentemb.errors import DataError, SearchError
from sentemb.files import atomic_file, write_json
from sentemb.maths.neighbours import compared, ordered
from sentemb.mining.mine import Mined, Miner, Neighbours, Pairs, PairScorer, pairs_of
from sentemb.mining.report import MiningReport, ReportBuilder
from sentemb.mining.rules import MiningRules, Rows, Scores
from sentemb.progress import Progress
from sentemb.search.store.embedding import Identified, VectorRule, encode
from sentemb.search.store.manifest import NAME as MANIFEST
from sentemb.search.store.options import BuildOptions
from sentemb.types import Embedder

Vectors = NDArray[np.float32]
ENCODED = 65_536  # texts encoded at a time


def read_pairs(
    records: Iterable[Mapping[str, Any]], corpus: Iterable[Mapping[str, Any]] = (), *, anchor: str,
    positive: str | None, corpus_text: str = "text", anchor_id: str | None = None, positive_id: str | None = None,
    corpus_id: str | None = None,
) -> Pairs:
    """Pairs from records; ``positive = None`` takes the anchors as unlabelled texts.

    Raises:
        DataError: a record lacks a column or holds no text there.
    """
    anchors, positives = [], []
    ids: dict[str, list[Any]] = {"anchor": [], "positive": [], "corpus": []}
    if corpus_id is not None and not corpus:
        raise DataError(f'corpus_id = "{corpus_id}", but there is no corpus; give further texts, or leave it out')
    for number, record in enumerate(records, start=1):
        anchors.append(_text(record, anchor, number))
        if positive is not None:
            positives.append(_text(record, positive, number))
        for name, column in (("anchor", anchor_id), ("positive", positive_id)):
            if column is not None:
                ids[name].append(_value(record, column, number))
    texts = []
    for number, record in enumerate(corpus, start=1):
        texts.append(_text(record, corpus_text, number))
        if corpus_id is not None:
            ids["corpus"].append(_value(record, corpus_id, number))
    return pairs_of(
        anchors, positives if positive is not None else None, texts, anchor_ids=ids["anchor"] or None,
        positive_ids=ids["positive"] or None, corpus_ids=ids["corpus"] or None,
    )


def mine_file(
    pairs: Pairs, output: Path, encoder: Embedder, rules: MiningRules, *, resume: bool = False,
    neighbours: Neighbours | None = None, filter_model: PairScorer | None = None, reference: Embedder | None = None,
    corpus_vectors: Vectors | None = None, query_prompt: str = "", document_prompt: str = "", kind: str = "flat",
) -> MiningReport:
    """Mine and write ``output`` (.jsonl or .parquet): anchor, positive, negative_1…n, and their scores.

    Every pair of the input whose anchor has enough negatives becomes a row. The file appears when all is done; until
    then finished blocks lie in ``OUTPUT.parts`` and ``resume`` goes on from them. Same input, same output.

    Args:
        kind: of the search for dense candidates: flat is exact, any other kind of index approximate.

    Raises:
        SearchError: unfinished parts lie there and resume was not asked for, they are of other data or rules, or no
            anchor has enough negatives (nothing is written then).
    """
    rules.check()
    BuildOptions(kind=kind).check()
    if output.suffix not in (".jsonl", ".parquet"):
        raise SearchError(f"{output}: write to a file that ends in .jsonl or .parquet")
    parts = output.with_name(output.name + ".parts")
    _open_parts(parts, _facts(pairs, encoder, rules, reference, filter_model, kind), resume)
    rule = VectorRule(metric="cosine")
    anchor_vectors = _vectors(parts / "anchors.npy", encoder, pairs.anchors, rule, query_prompt)
    if corpus_vectors is None:
        corpus_vectors = _vectors(parts / "corpus.npy", encoder, pairs.corpus, rule, document_prompt)
    if kind != "flat" and neighbours is None:
        neighbours = _indexed(parts / "index", corpus_vectors, kind, rules.seed)
    other = None
    if reference is not None:
        other = (_vectors(parts / "reference-anchors.npy", reference, pairs.anchors, rule, ""),
                 _vectors(parts / "reference-corpus.npy", reference, pairs.corpus, rule, ""))
    miner = Miner(pairs, anchor_vectors, corpus_vectors, rules, neighbours=neighbours, filter_model=filter_model,
                  reference=other)
    with Progress("mining", total=len(pairs.anchors), unit="anchors") as bar:
        for number in range(miner.blocks):
            file = parts / f"block-{number:05d}.npz"
            considered = 0
            if not file.exists():
                mined = next(miner.mine(number))
                _write_block(file, mined)
                considered = mined.considered
            bar.advance(considered)
    report = _report(parts, miner.blocks)
    if report.kept == 0:
        shutil.rmtree(parts)
        raise SearchError(
            f"{output}: not written, because none of {report.anchors:,} anchors has {rules.negatives} negatives; the "
            f"rules refused {report.refused:.1%} of the candidates: ask for fewer, loosen them, or give a corpus"
        )
    rows = _rows(pairs, parts, miner.blocks)
    (_write_jsonl if output.suffix == ".jsonl" else _write_parquet)(output, rows, rules.negatives)
    write_json(output.with_name(output.name + ".report.json"), {"report": asdict(report), "rules": asdict(rules)})
    shutil.rmtree(parts)
    return report


def _facts(
    pairs: Pairs, encoder: Embedder, rules: MiningRules, reference: Embedder | None,
    filter_model: PairScorer | None, kind: str,
) -> dict[str, Any]:
    content = hashlib.sha256()
    for text in (*pairs.anchors, "\x00", *pairs.corpus):
        content.update(text.encode("utf-8", "surrogatepass") + b"\x00")
    for rows in (pairs.positive_offsets, pairs.positive_rows, pairs.excluded_offsets, pairs.excluded_rows):
        content.update(rows.tobytes())
    names = [model.digest() if isinstance(model, Identified) else None for model in (encoder, reference)]
    filter_ = filter_model.source if isinstance(filter_model, CrossEncoderScores) else filter_model is not None
    return {"data": content.hexdigest(), "models": names, "filter": filter_, "kind": kind, "rules": asdict(rules)}


def _open_parts(parts: Path, facts: dict[str, Any], resume: bool) -> None:
    note = parts / "mine.json"
    if note.exists():
        if not resume:
            raise SearchError(f"{parts}: an unfinished mining lies here; continue it with resume, or remove the folder")
        try:
            kept = json.loads(note.read_bytes())
        except ValueError:
            raise SearchError(f"{note}: damaged; remove the folder {parts}") from None
        if kept != facts:
            raise SearchError(f"{parts}: the unfinished mining had other data, models or rules; remove the folder")
        return
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    write_json(note, facts)


def _vectors(file: Path, encoder: Embedder, texts: list[str], rule: VectorRule, prompt: str) -> Vectors:
    """Unit vectors of the texts, encoded once and mapped from a file."""
    if not file.exists():
        with atomic_file(file) as temporary, Progress("encoding", total=len(texts), unit="texts") as bar:
            out: Any = None
            for start in range(0, len(texts), ENCODED):
                block = rule.apply(encode(encoder, texts[start : start + ENCODED], prompt, bar), "encoded texts")
                if out is None:
                    shape = (len(texts), block.shape[1])
                    out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
                out[start : start + len(block)] = block
            out.flush()
    # copy on write: torch takes only arrays that could be written
    return np.load(file, mmap_mode="c", allow_pickle=False)  # type: ignore[no-any-return]


def _indexed(folder: Path, corpus_vectors: Vectors, kind: str, seed: int) -> Neighbours:
    """Candidates from an index of the corpus, kept beside the other parts; scores are exact, whatever it keeps."""
    from sentemb.search.index import SearchIndex

    if not (folder / MANIFEST).exists():
        SearchIndex.build(folder, None, vectors=corpus_vectors, kind=kind, seed=seed, overwrite=True).close()
    index = SearchIndex.open(folder)

    def search(vectors: Vectors, k: int) -> tuple[Scores, Rows]:
        rows = index.search_positions(vectors, k).ids
        hits = ordered(rows, compared(vectors, rows, corpus_vectors.__getitem__), k, "dot")
        return hits.scores, hits.ids

    return search


@contextmanager
def _block(file: Path) -> Iterator[Any]:
    try:
        with np.load(file, allow_pickle=False) as block:
            yield block
    except (ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        raise SearchError(f"{file}: damaged; remove the folder {file.parent}") from None


def _write_block(file: Path, mined: Mined) -> None:
    with atomic_file(file) as temporary, temporary.open("wb") as handle:
        np.savez(handle, anchors=mined.anchors, negatives=mined.negatives, scores=mined.scores,
                 positive=mined.positive_scores, counts=[mined.considered, mined.refused, mined.looked_at])


def _report(parts: Path, blocks: int) -> MiningReport:
    builder = ReportBuilder()
    for number in range(blocks):
        with _block(parts / f"block-{number:05d}.npz") as block:
            considered, refused, looked_at = block["counts"].tolist()
            builder.add(block["positive"], block["scores"], considered=considered, refused=refused, looked_at=looked_at)
    return builder.report()


def _rows(pairs: Pairs, parts: Path, blocks: int) -> Iterator[dict[str, Any]]:
    for number in range(blocks):
        with _block(parts / f"block-{number:05d}.npz") as block:
            columns = [block[name].tolist() for name in ("anchors", "negatives", "scores", "positive")]
        for anchor, negatives, scores, positive in zip(*columns, strict=True):
            for text in pairs.positives_of(anchor):
                row: dict[str, Any] = {"anchor": pairs.anchors[anchor], "positive": text}
                row.update({f"negative_{i}": pairs.corpus[found] for i, found in enumerate(negatives, start=1)})
                row["positive_score"] = positive
                row["negative_scores"] = scores
                yield row


def _write_jsonl(output: Path, rows: Iterator[dict[str, Any]], _: int) -> None:
    with atomic_file(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(output: Path, rows: Iterator[dict[str, Any]], negatives: int) -> None:
    from itertools import islice

    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ["anchor", "positive", *(f"negative_{i}" for i in range(1, negatives + 1))]
    schema = pa.schema([(name, pa.string()) for name in texts]
                       + [("positive_score", pa.float32()), ("negative_scores", pa.list_(pa.float32()))])
    with atomic_file(output) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        while some := list(islice(rows, 10_000)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


def _value(record: Mapping[str, Any], column: str, number: int) -> Any:
    if column not in record:
        raise DataError(f'record {number}: no column "{column}"; it has {", ".join(map(str, record))}')
    return record[column]


def _text(record: Mapping[str, Any], column: str, number: int) -> str:
    found = _value(record, column, number)
    if not isinstance(found, str) or not found.strip():
        raise DataError(f'record {number}: column "{column}" holds no text')
    return found.strip()
