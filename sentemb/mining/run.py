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
        run = _Run(texts, load_encoder(encoder), options, folder)
        return run.mine(target, resume=resume)


class _Run:
    """One mining of texts, with its finished blocks and vectors in a folder."""

    def __init__(self, texts: MiningTexts, encoder: Embedder, options: MiningOptions, folder: Path) -> None:
        self.texts, self.encoder, self.options, self.folder = texts, encoder, options, folder
        self.blocks = 0
        self._spaces: dict[str, tuple[Vectors, Vectors]] = {}

    def mine(self, output: Path | None, *, resume: bool) -> MiningResult:
        self._open(resume)
        query_prompt, document_prompt = prompts_of(self.encoder, None, None)
        texts = self.texts
        anchors = self._vectors("anchors", self.encoder, texts.anchors, query_prompt)
        corpus = self._vectors("corpus", self.encoder, texts.corpus, document_prompt)
        miner = Miner(
            Passages(vectors=anchors, texts=texts.anchors), Passages(vectors=corpus, texts=texts.corpus), self.options,
            positives=None if texts.is_unlabelled else texts.positives, excluded=texts.excluded,
            spaces=self._space, folder=self.folder,
        )
        self.blocks = miner.blocks
        with Progress("mining", total=len(texts.anchors), unit="anchors") as bar:
            for number in range(miner.blocks):
                considered = 0
                if not self._file(number).exists():
                    block = miner.block(number)
                    self._write(number, block)
                    considered = block.considered
                bar.advance(considered)
        report = report_of(map(self._read, range(self.blocks)), self.options.negatives)
        if report.mined == 0:
            shutil.rmtree(self.folder)
            raise SearchError(
                f"none of {report.anchors:,} anchors has {report.negatives} negatives; the rules refused "
                f"{report.refused:.1%} of the candidates: ask for fewer, loosen the rules, or give a corpus"
            )
        if output is None:
            return MiningResult(report=report, output=None, rows=list(self._rows()))
        with atomic_file(output) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self._rows())
        write_json(output.with_name(output.name + ".report.json"),
                   {"report": asdict(report), "options": self._facts()["options"]})
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

    def _open(self, resume: bool) -> None:
        note = self.folder / "mine.json"
        if not note.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            write_json(note, self._facts())
            return
        if not resume:
            raise SearchError(
                f"{self.folder}: an unfinished mining lies here; continue it with resume, or remove the folder"
            )
        if json.loads(note.read_bytes()) != self._facts():
            raise SearchError(
                f"{self.folder}: the unfinished mining had other data, models or options; remove the folder"
            )

    def _space(self, model: str) -> tuple[Vectors, Vectors]:
        """Vectors of anchors and corpus by another encoder."""
        if model not in self._spaces:
            encoder, name = load_encoder(model), hashlib.sha256(model.encode()).hexdigest()[:12]
            self._spaces[model] = (self._vectors(f"anchors-{name}", encoder, self.texts.anchors, ""),
                                   self._vectors(f"corpus-{name}", encoder, self.texts.corpus, ""))
        return self._spaces[model]

    def _vectors(self, name: str, encoder: Embedder, texts: list[str], prompt: str) -> Vectors:
        """Unit vectors of the texts, encoded once and mapped from a file."""
        file, rule = self.folder / f"{name}.npy", VectorRule(metric="cosine")
        if not file.exists():
            with atomic_file(file) as temporary, Progress("encoding", total=len(texts), unit="texts") as bar:
                vectors: Any = None
                for start in range(0, len(texts), ENCODED):
                    block = rule.apply(encode(encoder, texts[start : start + ENCODED], prompt, bar), "encoded texts")
                    if vectors is None:
                        shape = (len(texts), block.shape[1])
                        vectors = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
                    vectors[start : start + len(block)] = block
                vectors.flush()
        # copy on write: torch takes only arrays that could be written
        return np.load(file, mmap_mode="c", allow_pickle=False)  # type: ignore[no-any-return]

    # --------------------------------------------------------------------------------------------- blocks
    def _file(self, number: int) -> Path:
        return self.folder / f"block-{number:05d}.npz"

    def _write(self, number: int, block: MinedBlock) -> None:
        with atomic_file(self._file(number)) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **vars(block))

    def _read(self, number: int) -> MinedBlock:
        with np.load(self._file(number), allow_pickle=False) as arrays:
            fields: dict[str, Any] = {name: array if array.ndim else int(array) for name, array in arrays.items()}
        return MinedBlock(**fields)

    def _rows(self) -> Iterator[dict[str, Any]]:
        texts = self.texts
        for block in map(self._read, range(self.blocks)):
            columns = (block.anchors, block.negatives, block.similarity, block.positive)
            for anchor, negatives, similarity, own in zip(*(array.tolist() for array in columns), strict=True):
                for positive in texts.positives_of(anchor):
                    row: dict[str, Any] = {"anchor": texts.anchors[anchor], "positive": positive}
                    row.update({f"negative_{i}": texts.corpus[c] for i, c in enumerate(negatives, start=1)})
                    yield {**row, "positive_score": own, "negative_scores": similarity}


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
