"""Sources: where candidates for negatives come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Vectors, best_device, compared, ordered
from sentemb.parts import NonNegative, Part
from sentemb.types import Hits


@dataclass(frozen=True, kw_only=True)
class Passages:
    """Texts and their unit vectors, row by row; no texts where only vectors are mined."""

    vectors: Vectors
    texts: Sequence[str] = ()


# (a block of anchors, k, generator) to k candidates each: corpus rows, best first, and their cosines
Finder = Callable[[Passages, int, "np.random.Generator"], Hits]


@dataclass(frozen=True, kw_only=True)
class MiningSource(Part, room="mining_sources"):
    """Base of sources.

    Args:
        share: how many of the negatives come from here, in proportion to the other sources' shares.
    """

    share: NonNegative = 1.0

    def open(self, corpus: Passages, folder: Path | None, seed: int) -> Finder:
        """Make the corpus ready to be searched; ``folder`` is where files may be left for a resumed run."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Nearest(MiningSource):
    """The corpus texts most similar to the anchor.

        candidates of a:  the k rows c with the largest cos(a, c)

    Args:
        kind: ``flat`` searches exactly; another kind of ``sentemb index`` (hnsw, ivf-pq, …) approximately, and faster.

    Source: Xiong et al. 2021, ICLR, "Approximate nearest neighbor negative contrastive learning" (ANCE), section 3.
    Deviations: the encoder is fixed while mining; candidates of an index are ordered by their exact cosines.
    """

    kind: str = "flat"

    def __post_init__(self) -> None:
        if self.kind != "flat":
            from sentemb.search import BuildOptions

            BuildOptions(kind=self.kind).check()

    def open(self, corpus: Passages, folder: Path | None, seed: int) -> Finder:
        if self.kind == "flat":
            from sentemb.maths.inner_products import ExactSearch

            search = ExactSearch.of(corpus.vectors, best_device())

            def find_exactly(anchors: Passages, k: int, _: np.random.Generator) -> Hits:
                similarity, ids = search.top(anchors.vectors, k)
                return Hits(ids=ids, scores=similarity)

            return find_exactly
        from sentemb.search.index import SearchIndex
        from sentemb.search.store.manifest import NAME

        if folder is None:
            raise SearchError(f"nearest: an index of kind {self.kind} needs a folder; kind flat needs none")
        home = folder / f"index-{self.kind.replace('/', '-')}"
        if not (home / NAME).exists():
            SearchIndex.build(home, None, vectors=corpus.vectors, kind=self.kind, seed=seed, overwrite=True).close()
        index = SearchIndex.open(home)

        def find(anchors: Passages, k: int, _: np.random.Generator) -> Hits:
            ids = index.search_positions(anchors.vectors, k).ids
            return ordered(ids, compared(anchors.vectors, ids, corpus.vectors.__getitem__), k, "dot")

        return find


@dataclass(frozen=True, kw_only=True)
class SharedWords(MiningSource):
    """The corpus texts that share words with the anchor, best first by BM25.

        candidates of a:  the k rows c with the largest BM25(a, c) > 0

    Args:
        language: ``english`` leaves out its commonest words; another language has no such list.
        stem: cut words to their stems first ("running" is "run").

    Source: Karpukhin et al. 2020, EMNLP, "Dense passage retrieval", section 3.2.
    Deviations: none.
    """

    language: str = "english"
    stem: bool = False

    def open(self, corpus: Passages, folder: Path | None, seed: int) -> Finder:
        from sentemb.search.query.words import Bm25
        from sentemb.search.store.words import WordRule, words_of_texts

        if len(corpus.texts) == 0:
            raise SearchError("shared_words: needs texts; here only vectors are mined")
        bm25 = Bm25([words_of_texts(corpus.texts, WordRule(language=self.language, stem=self.stem))])

        def find(anchors: Passages, k: int, _: np.random.Generator) -> Hits:
            ids = bm25.top(anchors.texts, k).ids
            return Hits(ids=ids, scores=compared(anchors.vectors, ids, corpus.vectors.__getitem__))

        return find


@dataclass(frozen=True, kw_only=True)
class Random(MiningSource):
    """Corpus texts drawn at random, every one with the same chance."""

    def open(self, corpus: Passages, folder: Path | None, seed: int) -> Finder:
        def find(anchors: Passages, k: int, generator: np.random.Generator) -> Hits:
            ids = np.sort(generator.integers(len(corpus.vectors), size=(len(anchors.vectors), k)), axis=1)
            ids[:, 1:][ids[:, 1:] == ids[:, :-1]] = -1  # drawn twice
            ids = generator.permuted(ids, axis=1)
            return Hits(ids=ids, scores=compared(anchors.vectors, ids, corpus.vectors.__getitem__))

        return find


PARTS: dict[str, type[MiningSource]] = {"nearest": Nearest, "random": Random, "shared_words": SharedWords}
