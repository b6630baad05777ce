"""Building an index on a Ray cluster: it encodes the same windows and fills the same segments, so the same index.

The documents are read twice: first to see which texts will be encoded together, then, with their vectors made, for
the build itself, which leaves the segments to the cluster again (``ray_build``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sentemb.encoder import Encoder
from sentemb.encoder.ray_engine import Cluster, EncodeJob, Shards
from sentemb.errors import SearchError
from sentemb.search.store.build import build
from sentemb.search.store.disk import Disk
from sentemb.search.store.embedding import VectorRule, prompts_of
from sentemb.search.store.encoding import EncodedStream
from sentemb.search.store.manifest import NAME, parts_of
from sentemb.search.store.options import BuildOptions
from sentemb.search.store.ray_build import ClusterSegments

if TYPE_CHECKING:
    from sentemb.search import SearchIndex

Vectors = NDArray[np.float32]


class ClusterEncoder:
    """Stands for a model during one build: hands out, in order, the vectors that the cluster made.

    Args:
        encoder: the model that the workers load.
        shards: where they put the vectors.
    """

    def __init__(self, encoder: Encoder, shards: Shards) -> None:
        self.source, self.prompts = encoder.source, encoder.prompts
        self._encoder, self._windows = encoder, shards.read()

    def digest(self) -> str:
        """The model's."""
        return self._encoder.digest()

    def encode(self, texts: Sequence[str], *, prompt: str | None = None) -> Vectors:
        """The next window's vectors.

        Raises:
            SearchError: these are other texts, so the documents changed between the two readings.
        """
        found, vectors = next(self._windows, ([], np.empty((0, 0), dtype=np.float32)))
        if found != list(texts):
            raise SearchError("the documents changed while they were encoded")
        return vectors


def build_on_cluster(
    out: Path, records: Callable[[], Iterable[Any]], encoder: Encoder, options: BuildOptions, *, precision: str,
    cluster: Cluster, overwrite: bool, name: str,
) -> SearchIndex:
    """Have the cluster encode the documents and make the index's segments.

    Finished vectors and segments lie beside ``out`` until the index is whole, so an interrupted call continues there;
    what it left in ``out`` itself is made anew.

    Args:
        out: folder of the index.
        records: gives the documents, anew on every call.
        encoder: the model, as the workers can load it from ``encoder.source``.
        options: of the index.
        precision: of encoding.
        cluster: whose workers do it.
        overwrite: replace an index that lies there.
        name: of the documents, for messages.
    """
    from sentemb.search import SearchIndex

    has_index, out = (out / NAME).exists(), out.resolve()
    if has_index and not overwrite:
        raise SearchError(f"{out}: holds an index already; add to it, or build over it with overwrite")
    prompt = prompts_of(encoder, options.query_prompt, options.document_prompt)[1]
    job = EncodeJob(encoder.source, encoder.digest(), precision=precision, prompt=prompt or None)
    shards = Shards(parts_of(out), job, cluster)
    shards.encode(encoded_windows(records(), options))
    build(
        out, records(), options, encoder=ClusterEncoder(encoder, shards), vectors=None, source_name=name, resume=False,
        overwrite=True, disk=Disk(), segments=ClusterSegments(shards.folder / "segments", cluster),
        parts=shards.folder,
    )
    shards.remove()
    return SearchIndex.open(out, encoder=encoder, verify=False)


def encoded_windows(records: Iterable[Any], options: BuildOptions) -> Iterator[list[str]]:
    """The lists of texts that a build encodes, one call each: texts that occurred before are left out."""
    recorder, counter = _Recorder(), _Counter()
    stream = EncodedStream(recorder, VectorRule(options.metric, None), "", counter)  # type: ignore[arg-type]
    for documents, _ in stream.blocks(iter(records)):
        counter.rows += len(documents)
        yield from recorder.taken()


class _Recorder:
    """Notes what it is asked to encode."""

    def __init__(self) -> None:
        self._asked: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        self._asked.append(list(texts))
        return np.ones((len(texts), 1), dtype=np.float32)

    def taken(self) -> list[list[str]]:
        asked, self._asked = self._asked, []
        return asked


class _Counter:
    """As much of a spool as the stream asks for."""

    rows = 0
    dimension = 1

    def read_rows(self, rows: NDArray[np.int64]) -> Vectors:
        return np.ones((len(rows), 1), dtype=np.float32)
