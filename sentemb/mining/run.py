"""From a file of pairs (or texts) to a file with negatives, resumable block by block."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from sentemb.errors import SearchError
from sentemb.files import atomic_file, write_json
from sentemb.maths.neighbours import Vectors
from sentemb.mining.expansion import ExpansionReport, FoundByExpansion, chosen_pairs
from sentemb.mining.judge import Judgement
from sentemb.mining.judge import judge as judge_blocks
from sentemb.mining.miner import MinedBlock, Miner, MiningOptions
from sentemb.mining.rules import MiningRule
from sentemb.mining.sources import MiningSource, Nearest
from sentemb.mining.texts import MiningColumns, MiningTexts, read_texts
from sentemb.progress import Progress
from sentemb.search.store.embedding import VectorRule, encode, load_encoder, prompts_of
from sentemb.types import Embedder, IdentifiedEmbedder

ENCODED = 65_536  # texts encoded at a time
NEAR = 0.025  # cosine below the positive's within which a negative may well be a positive


@dataclass(frozen=True, kw_only=True)
class MiningReport:
    """Figures of mined negatives. Similarities are cosines to the anchor."""

    anchors: int  # that were looked at
    mined: int  # anchors that have enough negatives
    negatives: int  # of each of those
    positive_similarity: float  # mean over anchors, of the least similar positive
    negative_similarity: float  # mean over negatives
    hardest_similarity: float  # mean over anchors, of the most similar negative
    false_negatives: float  # share of negatives within NEAR of the positive or above: positives that nobody marked?
    refused: float  # share of the candidates that rules refused


@dataclass(frozen=True, kw_only=True)
class MiningResult:
    """What ``mine`` gives: figures, and the rows where no file was asked for."""

    report: MiningReport
    output: Path | None
    rows: Sequence[Mapping[str, Any]] = ()
    judgement: Judgement | None = None  # where it was asked for
    expansion: ExpansionReport | None = None  # where pairs were chosen by it

    def further(self) -> dict[str, Any]:
        """The figures beside the report, by name."""
        figures = {"judgement": self.judgement, "expansion": self.expansion}
        return {name: asdict(value) for name, value in figures.items() if value is not None}


def mine(
    data: str | Path | Iterable[Any] | MiningTexts,
    *,
    encoder: Embedder | str | Path,
    output: str | Path | None = None,
    corpus: str | Path | Iterable[Any] = (),
    columns: MiningColumns | None = None,
    split: str | None = None,
    negatives: int = 5,
    sources: Sequence[MiningSource] = (Nearest(),),
    rules: Sequence[MiningRule] = (),
    sampling: Literal["top", "random"] = "top",
    candidates: int | None = None,
    seed: int = 42,
    resume: bool = False,
    judge: bool = False,
    found_by_expansion: FoundByExpansion | None = None,
) -> MiningResult:
    """Find hard negatives: anchor, positive, negative_1…n and their similarities, a row for every pair.

    A pair whose anchor has fewer negatives is left out. The output file appears when all is done; until then finished
    blocks lie in ``OUTPUT.parts`` and ``resume`` goes on from them. Same input, same output.

    Args:
        data: a file, folder or hub id of pairs, an iterable of mappings or (anchor, positive) tuples, or what
            ``read_texts`` gave, which explains ``corpus``, ``columns`` and ``split``.
        encoder: finds candidates and measures similarity: anything with ``encode``, or a model's path or id.
        output: a .jsonl file; None: the rows are in the result.
        negatives, sources, rules, sampling, candidates, seed: see ``MiningOptions``.
        resume: continue an interrupted run of the same data, models and options.
        judge: also describe the negatives, see ``Judgement``.
        found_by_expansion: mine only the pairs that a search finds by expansion alone.

    Raises:
        SearchError: unfinished parts are of other data or options, or ``resume`` was not asked for; no pair is found by
            expansion alone, or no anchor has enough negatives (nothing is written then).
        DataError: the data lack a column or a text.
    """
    options = MiningOptions(
        negatives=negatives, sources=tuple(sources), rules=tuple(rules), sampling=sampling, candidates=candidates,
        seed=seed,
    )
    target = None if output is None else Path(output)
    if target is not None and target.suffix != ".jsonl":
        raise SearchError(f"{target}: write to a file that ends in .jsonl")
    texts = data if isinstance(data, MiningTexts) else read_texts(data, corpus, columns=columns, split=split)
    embedder = load_encoder(encoder)
    facts = _facts(texts, embedder, options, found_by_expansion)
    with TemporaryDirectory(prefix="sentemb-mine-") as temporary:
        folder = Path(temporary) if target is None else target.with_name(target.name + ".parts")
        _open(folder, facts, resume)
        vectors, expansion = _encoded(texts, embedder, folder), None
        if found_by_expansion is not None:
            texts, vectors, expansion = _chosen(texts, vectors, found_by_expansion, folder)
        _mine_blocks(texts, vectors, options, folder)
        report = report_of(_blocks(folder), negatives)
        if report.mined == 0:
            shutil.rmtree(folder)
            raise SearchError(
                f"none of {report.anchors:,} anchors has {negatives} negatives; the rules refused {report.refused:.1%} "
                "of the candidates: ask for fewer, loosen the rules, or give a corpus"
            )
        judgement = judge_blocks(_blocks(folder), texts, *vectors) if judge else None
        result = MiningResult(report=report, output=target, judgement=judgement, expansion=expansion)
        if target is None:
            return replace(result, rows=list(_rows(texts, folder)))
        with atomic_file(target) as file, file.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(texts, folder))
        write_json(target.with_name(target.name + ".report.json"),
                   {"report": asdict(report), "options": facts["options"], **result.further()})
        shutil.rmtree(folder)
        return result


def _facts(
    texts: MiningTexts, encoder: Embedder, options: MiningOptions, pairs: FoundByExpansion | None
) -> dict[str, Any]:
    """What a resumed run must have in common with the one that it continues."""
    content = hashlib.sha256(json.dumps([texts.anchors, texts.corpus]).encode())
    for lists in (texts.positives, texts.excluded):
        content.update(lists.offsets.tobytes() + lists.rows.tobytes())
    digest = encoder.digest() if isinstance(encoder, IdentifiedEmbedder) else None
    written = {name: str(value) for name, value in vars(options).items()}
    if pairs is not None:
        written["found_by_expansion"] = str(pairs)
    return {"data": content.hexdigest(), "model": digest, "options": written}


def _open(folder: Path, facts: dict[str, Any], resume: bool) -> None:
    note = folder / "mine.json"
    if not note.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(note, facts)
    elif not resume:
        raise SearchError(f"{folder}: an unfinished mining lies here; continue it with resume, or remove the folder")
    elif json.loads(note.read_bytes()) != facts:
        raise SearchError(f"{folder}: the unfinished mining had other data, models or options; remove the folder")


def _encoded(texts: MiningTexts, encoder: Embedder, folder: Path) -> tuple[Vectors, Vectors]:
    """The vectors of anchors and corpus."""
    query_prompt, document_prompt = prompts_of(encoder, None, None)
    anchors = _vectors(folder / "anchors.npy", encoder, texts.anchors, query_prompt)
    return anchors, _vectors(folder / "corpus.npy", encoder, texts.corpus, document_prompt)


def _chosen(
    texts: MiningTexts, vectors: tuple[Vectors, Vectors], pairs: FoundByExpansion, folder: Path
) -> tuple[MiningTexts, tuple[Vectors, Vectors], ExpansionReport]:
    """The pairs that are mined, and the vectors that belong to them."""
    anchors, corpus = vectors
    try:
        texts, anchors, report = chosen_pairs(texts, anchors, corpus, pairs, folder)
    except SearchError:
        shutil.rmtree(folder)
        raise
    return texts, (anchors, corpus), report


def _mine_blocks(texts: MiningTexts, vectors: tuple[Vectors, Vectors], options: MiningOptions, folder: Path) -> None:
    miner = Miner(texts, *vectors, options, folder)
    with Progress("mining", total=len(texts.anchors), unit="anchors") as bar:
        for number in range(miner.blocks):
            file = folder / f"block-{number:05d}.npz"
            if not file.exists():
                block = miner.block(number)
                with atomic_file(file) as temporary, temporary.open("wb") as handle:
                    np.savez(handle, **vars(block))
                bar.advance(block.considered)


def _vectors(file: Path, encoder: Embedder, texts: list[str], prompt: str) -> Vectors:
    """Unit vectors of the texts, encoded once and mapped from a file."""
    if not file.exists():
        with atomic_file(file) as temporary, Progress("encoding", total=len(texts), unit="texts") as bar:
            vectors: Any = None
            for start in range(0, len(texts), ENCODED):
                raw = encode(encoder, texts[start : start + ENCODED], prompt, bar)
                if vectors is None:
                    shape = (len(texts), raw.shape[1])
                    vectors = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
                vectors[start : start + len(raw)] = VectorRule(metric="cosine").apply(raw, "encoded texts")
            vectors.flush()
    # copy on write: torch takes only arrays that could be written
    return np.load(file, mmap_mode="c", allow_pickle=False)  # type: ignore[no-any-return]


def _blocks(folder: Path) -> Iterator[MinedBlock]:
    for file in sorted(folder.glob("block-*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            yield MinedBlock(**arrays)


def _rows(texts: MiningTexts, folder: Path) -> Iterator[dict[str, Any]]:
    for block in _blocks(folder):
        columns = (block.anchors, block.negatives, block.similarity, block.positive)
        for anchor, negatives, similarity, own in zip(*(array.tolist() for array in columns), strict=True):
            named = {f"negative_{i}": texts.corpus[row] for i, row in enumerate(negatives, start=1)}
            for positive in texts.positives_of(anchor):
                yield {"anchor": texts.anchors[anchor], "positive": positive, **named, "positive_score": own,
                       "negative_scores": similarity}


def report_of(blocks: Iterable[MinedBlock], negatives: int) -> MiningReport:
    """The figures of all blocks; means are NaN where nothing was mined."""
    sums = np.zeros(8)
    for block in blocks:
        near = block.similarity > block.positive[:, None] - NEAR
        sums += [block.considered, len(block.positive), block.positive.sum(), block.similarity.sum(),
                 block.similarity.max(axis=1).sum(), near.sum(), block.proposed, block.refused]
    anchors, mined, positive, negative, hardest, near_total, proposed, refused = sums.tolist()
    count = mined or float("nan")
    return MiningReport(
        anchors=int(anchors), mined=int(mined), negatives=negatives, positive_similarity=positive / count,
        negative_similarity=negative / (count * negatives), hardest_similarity=hardest / count,
        false_negatives=near_total / (count * negatives), refused=refused / max(proposed, 1),
    )
