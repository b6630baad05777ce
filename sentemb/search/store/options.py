"""What is decided about an index before it is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sentemb.errors import SearchError
from sentemb.maths.neighbours import Metric
from sentemb.search.store.documents import extract
from sentemb.search.store.manifest import Passages
from sentemb.search.store.words import rule_of
from sentemb.search.vectors.choice import kind_of
from sentemb.search.vectors.kind import VectorIndex


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What is decided about an index when it is built.

    Args:
        kind: ``auto``, a kind or its name with settings (``hnsw:m=16``), or a FAISS factory string.
        metric: cosine (vectors are normalised), dot, or l2 (squared Euclidean distance; smaller is better).
        dim: leading values of a vector to keep, for models trained with nested dimensions.
        rescore: keep half-precision vectors and compare the best candidates exactly; None: for coarse kinds only.
        memory_bytes: memory budget that ``auto`` keeps to; None: half of what is free now.
        target_recall: recall@10 against exact search that the search effort is tuned to, on 256 of the documents
            themselves. Real queries usually find less (0.86 where documents find 0.95); ``tune`` measures on them.
        seed: of the training sample, the tuning sample and k-means.
        query_prompt: put in front of queries; None: what the model itself says of queries.
        document_prompt: put in front of documents; None: what the model itself says of documents.
        segment_rows: rows after which a new segment begins, to bound the memory of building; None: one segment.
        indexed_fields: metadata fields that get a database index, for fast filters.
        fields: weights of text fields, e.g. ``{"title": 0.3, "text": 0.7}``: a document's vector is the weighted mean
            of its fields' vectors; ``text`` is its text, without the title where that has a weight, others are
            metadata. None given: the vector of title and text in one.
        words: how texts are split for search by words: ``unicode`` (any language with spaces), ``english`` (without its
            commonest words), ``stem-LANGUAGE`` (stems), ``trigram`` (languages without spaces), ``none``.
        passages: cut documents into passages of so many tokens that overlap, instead of leaving their ends out; None:
            a document is one row.
    """

    kind: str | VectorIndex = "auto"
    metric: Metric = "cosine"
    dim: int | None = None
    rescore: bool | None = None
    memory_bytes: int | None = None
    target_recall: float = 0.95
    seed: int = 42
    query_prompt: str | None = None
    document_prompt: str | None = None
    segment_rows: int | None = None
    indexed_fields: tuple[str, ...] = ()
    words: str = "english"
    fields: Mapping[str, float] = field(default_factory=dict)
    passages: Passages | None = None

    def check(self) -> None:
        """Raises SearchError for an impossible value."""
        if self.metric not in ("cosine", "dot", "l2"):
            raise SearchError(f'metric = "{self.metric}"; allowed: cosine, dot, l2')
        if not 0 < self.target_recall <= 1:
            raise SearchError(f"target_recall = {self.target_recall}; allowed: above 0, up to 1")
        for name, value, least in (
            ("dim", self.dim, 1), ("segment_rows", self.segment_rows, 1), ("seed", self.seed, 0),
            ("memory", self.memory_bytes, 1),
        ):
            if value is not None and value < least:
                raise SearchError(f"{name} = {value}; at least {least}")
        for name in self.indexed_fields:
            extract(name)
        if self.fields and self.passages is not None:
            raise SearchError("fields and passages do not go together: a passage is a part of one text")
        for name, weight in self.fields.items():
            if not 0 < weight < math.inf:
                raise SearchError(f"fields.{name} = {weight}; a weight is above 0")
        rule_of(self.words)
        # a kind that does not exist or lacks its library is refused before anything is encoded; auto takes one of FAISS
        kind_of("flat" if self.kind == "auto" else self.kind)
