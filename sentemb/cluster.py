"""A Ray cluster as an encoder, and as a place where tasks run.

    with Cluster("auto") as cluster:
        encoder = cluster.encoder(Encoder.load("model"))            # its encode runs on all workers
        SearchIndex.build("docs.index", "docs.jsonl", encoder=encoder, segment_rows=1_000_000, spread=cluster.spread)

Reading, numbering, commits and resuming stay with the caller. Every worker (one GPU, or one processor where there is
none) loads the model once. Ray repeats what a lost worker was doing. Files lie on a disk that all machines share.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import ModelError, SentembError, first_line, needs_extra

if TYPE_CHECKING:
    from sentemb.encoder import Encoder
    from sentemb.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 4  # of what a lost worker was doing
CHUNKS = 4  # that a worker gets of one call: enough to keep all busy to the end
LEAST_TEXTS = 32  # of a chunk


class Cluster:
    """Workers of a Ray cluster; connected inside ``with``.

    Args:
        address: ``auto`` (the cluster of this machine), ``HOST:6379``, ``ray://HOST:10001``, or ``local`` (start one).
    """

    def __init__(self, address: str = "auto") -> None:
        self.address = address

    def __enter__(self) -> Self:
        """Raises MissingExtra where Ray is not installed, ModelError where there is no cluster."""
        needs_extra("ray", "ray")
        import ray
        from ray.util import ActorPool

        try:
            host, _, port = self.address.removeprefix("ray://").rpartition(":")
            if host and port.isdigit():  # fails at once where nobody listens; Ray would try for a minute
                socket.create_connection((host, int(port)), timeout=10).close()
            address = None if self.address == "local" else self.address
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"no Ray cluster at {self.address} ({first_line(error)}); start one with `ray start --head` (and "
                "`ray start --address=HOST:6379` on further machines), or use the address local"
            ) from error
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        self.size = gpus or max(1, int(resources.get("CPU", 1)))
        worker = ray.remote(num_cpus=1, num_gpus=min(gpus, 1), max_restarts=RETRIES, max_task_retries=RETRIES)(Worker)
        self._pool = ActorPool([worker.remote() for _ in range(self.size)])
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()

    def encoder(self, encoder: Encoder) -> ClusterEncoder:
        """The encoder's model, loaded by every worker from where this process loaded it."""
        return ClusterEncoder(encoder, self)

    def spread(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """``map`` on the workers, results in order; the function and what it holds are sent to them.

        Raises:
            SentembError: what the function raised.
            ModelError: it failed in another way, or its worker was lost too often.
        """
        from ray.exceptions import RayError, RayTaskError

        try:
            yield from self._pool.map(lambda worker, item: worker.call.remote(function, item), items)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, SentembError):
                raise cause from None
            raise ModelError(f"a worker of the cluster failed: {first_line(cause)}") from error


class ClusterEncoder:
    """Encodes on the workers of a cluster; made by ``Cluster.encoder``. To an index it is the encoder's own model."""

    def __init__(self, encoder: Encoder, cluster: Cluster) -> None:
        self.source, self.prompts, self.width, self.cut_count = encoder.source, encoder.prompts, encoder.width, 0
        self._cluster, self._digest = cluster, encoder.digest()
        self._model = (encoder.source, self._digest, encoder.max_tokens, encoder.precision)

    def digest(self) -> str:
        return self._digest

    def encode(
        self, texts: Sequence[str], *, prompt: str | None = None, prompt_name: str | None = None,
        normalise: bool | None = None, batch_tokens: int | None = None, dim: int | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """See ``Encoder.encode``; raises ModelError where a worker has another model, or was lost too often."""
        options = {"prompt": prompt, "prompt_name": prompt_name, "normalise": normalise,
                   "batch_tokens": batch_tokens, "dim": dim}
        size = max(LEAST_TEXTS, -(-len(texts) // (CHUNKS * self._cluster.size)))
        chunks = [list(texts[start : start + size]) for start in range(0, len(texts), size)]
        parts = [np.empty((0, dim or self.width), dtype=np.float32)]
        for part, cut in self._cluster.spread(partial(encode_chunk, self._model, options), chunks):
            parts.append(part)
            self.cut_count += cut
            if progress is not None:
                progress.advance(len(part))
        return np.concatenate(parts)


class Worker:
    """An actor: calls what it is sent."""

    def call(self, function: Callable[[Item], Result], item: Item) -> Result:
        return function(item)


@cache
def _loaded(source: str, digest: str, max_tokens: int, precision: str) -> Encoder:
    from sentemb.encoder import Encoder

    encoder = Encoder.load(source, max_tokens=max_tokens, precision=precision)
    if encoder.digest() != digest:
        raise ModelError(f"{source} is another model on a worker than here; give all machines the same one")
    return encoder


def encode_chunk(
    model: tuple[str, str, int, str], options: dict[str, Any], texts: list[str]
) -> tuple[NDArray[np.float32], int]:
    """On a worker: vectors of the texts, and how many of these were cut. The model is loaded once."""
    encoder = _loaded(*model)
    before = encoder.cut_count
    return encoder.encode(texts, progress=False, **options), encoder.cut_count - before
