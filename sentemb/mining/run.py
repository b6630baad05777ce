"""From a file of pairs (or texts) to a file with negatives, resumable block by block."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from sentemb.errors import SearchError
from sentemb.files import atomic_file, write_json
from sentemb.maths.neighbours import Vectors
from sentemb.mining.miner import MinedBlock, Miner, MiningOptions
from sentemb.mining.rules import MiningRule
from sentemb.mining.sources import MiningSource, Nearest, Passages
from sentemb.mining.texts import MiningColumns, MiningTexts, read_texts
from sentemb.progress import Progress
from sentemb.search.store.embedding import VectorRule, encode, load_encoder, prompts_of
from sentemb.types import Embedder, IdentifiedEmbedder

ENCODED = 65_536  # texts encoded at a time
NEAR = 0.025  # cosine below the positive's within which a negative may well be a positive


@dataclass(frozen=True, kw_only=True)
class MiningReport:
    """Figures of mined negatives. Similarities are cosines to the anchor.

    Attributes:
        anchors: anchors that were looked at.
        mined: anchors that have enough negatives.
        negatives: of each of those.
        positive_similarity: mean over anchors, of the least similar positive.
        negative_similarity: mean over negatives.
        hardest_similarity: mean over anchors, of the most similar negative.
        false_negatives: share of negatives within 0.025 of the positive's similarity or above it; an estimate of how
            many are positives that nobody marked.
        refused: share of the candidates that rules refused.
    """

    anchors: int
    mined: int
    negatives: int
    positive_similarity: float
    negative_similarity: float
    hardest_similarity: float
    false_negatives: float
    refused: float


@dataclass(frozen=True, kw_only=True)
class MiningResult:
    """What ``mine`` gives: figures, and the rows where no file was asked for."""

    report: MiningReport
    output: Path | None
    rows: Sequence[Mapping[str, Any]] = ()


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
) -> MiningResult:
    """Find hard negatives: anchor, positive, negative_1…n and their similarities, a row for every pair.

    A pair whose anchor has fewer negatives is left out. The output file appears when all is done; until then finished
    blocks lie in ``OUTPUT.parts`` and ``resume`` goes on from them. Same input, same output.

    Args:
        data: a file, folder or hub id of pairs, an iterable of mappings or (anchor, positive) tuples, or what
            ``read_texts`` gave.
        encoder: finds candidates and measures similarity: anything with ``encode``, or a model's path or id.
        output: a .jsonl file; None: the rows are in the result.
        corpus: further texts that may become negatives, beside the positives of other anchors.
        columns: names of the columns of ``data`` and ``corpus``.
        split: split to read of a data set's folder or hub id.
        negatives, sources, rules, sampling, candidates, seed: see ``MiningOptions``.
        resume: continue an interrupted run of the same data, models and options.

    Raises:
        SearchError: unfinished parts lie there and resume was not asked for, they are of other data or options, or no
            anchor has enough negatives (nothing is written then).
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
    with TemporaryDirectory(prefix="sentemb-mine-") as temporary:
        folder = Path(temporary) if target is None else target.with_name(target.name + ".parts")
        return _Run(texts, load_encoder(encoder), options, folder).mine(target, resume=resume)


class _Run:
    """One mining of texts, with its finished blocks and vectors in a folder."""

    def __init__(self, texts: MiningTexts, encoder: Embedder, options: MiningOptions, folder: Path) -> None:
        self.texts, self.encoder, self.options, self.folder = texts, encoder, options, folder

    def mine(self, output: Path | None, *, resume: bool) -> MiningResult:
        texts, facts = self.texts, self._facts()
        self._open(facts, resume)
        anchors, corpus = (
            Passages(vectors=self._vectors(name, part, prompt), texts=part) for name, part, prompt in
            zip(("anchors", "corpus"), (texts.anchors, texts.corpus), prompts_of(self.encoder, None, None), strict=True)
        )
        miner = Miner(
            anchors, corpus, self.options, positives=texts.positives, excluded=texts.excluded, folder=self.folder
        )
        self.files = [self.folder / f"block-{number:05d}.npz" for number in range(miner.blocks)]
        with Progress("mining", total=len(texts.anchors), unit="anchors") as bar:
            for number, file in enumerate(self.files):
                if not file.exists():
                    block = miner.block(number)
                    with atomic_file(file) as temporary, temporary.open("wb") as handle:
                        np.savez(handle, **vars(block))
                    bar.advance(block.considered)
        report = report_of(self._blocks(), self.options.negatives)
        if report.mined == 0:
            shutil.rmtree(self.folder)
            raise SearchError(
                f"none of {report.anchors:,} anchors has {report.negatives} negatives; the rules refused "
                f"{report.refused:.1%} of the candidates: ask for fewer, loosen the rules, or give a corpus"
            )
        if output is None:
            return MiningResult(report=report, output=None, rows=list(self._rows()))
        with atomic_file(output) as temporary, temporary.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self._rows())
        write_json(output.with_name(output.name + ".report.json"),
                   {"report": asdict(report), "options": facts["options"]})
        shutil.rmtree(self.folder)
        return MiningResult(report=report, output=output)

    def _facts(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that it continues."""
        texts, content = self.texts, hashlib.sha256()
        for text in (*texts.anchors, "\x00", *texts.corpus):
            content.update(text.encode("utf-8", "surrogatepass") + b"\x00")
        for lists in (texts.positives, texts.excluded):
            content.update(lists.offsets.tobytes() + lists.rows.tobytes())
        digest = self.encoder.digest() if isinstance(self.encoder, IdentifiedEmbedder) else None
        options = {name: str(value) for name, value in vars(self.options).items()}
        return {"data": content.hexdigest(), "model": digest, "options": options}

    def _open(self, facts: dict[str, Any], resume: bool) -> None:
        note = self.folder / "mine.json"
        if not note.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            write_json(note, facts)
        elif not resume:
            raise SearchError(
                f"{self.folder}: an unfinished mining lies here; continue it with resume, or remove the folder"
            )
        elif json.loads(note.read_bytes()) != facts:
            raise SearchError(
                f"{self.folder}: the unfinished mining had other data, models or options; remove the folder"
            )

    def _vectors(self, name: str, texts: list[str], prompt: str) -> Vectors:
        """Unit vectors of the texts, encoded once and mapped from a file."""
        file, rule = self.folder / f"{name}.npy", VectorRule(metric="cosine")
        if not file.exists():
            with atomic_file(file) as temporary, Progress("encoding", total=len(texts), unit="texts") as bar:
                vectors: Any = None
                for start in range(0, len(texts), ENCODED):
                    raw = encode(self.encoder, texts[start : start + ENCODED], prompt, bar)
                    if vectors is None:
                        shape = (len(texts), raw.shape[1])
                        vectors = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
                    vectors[start : start + len(raw)] = rule.apply(raw, "encoded texts")
                vectors.flush()
        # copy on write: torch takes only arrays that could be written
        return np.load(file, mmap_mode="c", allow_pickle=False)  # type: ignore[no-any-return]

    def _blocks(self) -> Iterator[MinedBlock]:
        for file in self.files:
            with np.load(file, allow_pickle=False) as arrays:
                fields: dict[str, Any] = dict(arrays)
            yield MinedBlock(**fields)

    def _rows(self) -> Iterator[dict[str, Any]]:
        texts = self.texts
        for block in self._blocks():
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
        sums += [block.considered, len(block.positive), block.positive.sum(dtype=np.float64),
                 block.similarity.sum(dtype=np.float64), block.similarity.max(axis=1).sum(dtype=np.float64),
                 near.sum(), block.proposed, block.refused]
    anchors, mined, positive, negative, hardest, near_total, proposed, refused = sums.tolist()
    count = mined or float("nan")
    return MiningReport(
        anchors=int(anchors), mined=int(mined), negatives=negatives, positive_similarity=positive / count,
        negative_similarity=negative / (count * negatives), hardest_similarity=hardest / count,
        false_negatives=near_total / (count * negatives), refused=refused / max(proposed, 1),
    )
