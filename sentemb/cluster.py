"""A Ray cluster as an encoder, and as a place where tasks run.

    with Cluster("auto") as cluster:
        encoder = cluster.encoder(Encoder.load("model"))            # its encode runs on all workers
        SearchIndex.build("docs.index", "docs.jsonl", encoder=encoder, segment_rows=1_000_000, spread=cluster.spread)

Reading, numbering, commits and resuming stay with the process that calls, as without a cluster: encoding a text costs
a thousand times what reading it does. Every worker (one GPU, or one processor where there is none) loads the model
once. Ray starts a lost worker again and repeats what it was doing. Files lie on a disk that all machines share.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
        self.workers, self._gpus = 0, 0.0

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            MissingExtra: Ray is not installed.
            ModelError: there is no cluster.
        """
        needs_extra("ray", "ray")
        import ray

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
        self._gpus = 1.0 if resources.get("GPU", 0) >= 1 else 0.0
        self.workers = max(1, int(resources["GPU"] if self._gpus else resources.get("CPU", 1)))
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()

    def encoder(self, encoder: Encoder) -> ClusterEncoder:
        """The encoder's model, loaded by every worker from where this process loaded it."""
        import ray

        worker = ray.remote(num_cpus=1, num_gpus=self._gpus, max_restarts=RETRIES, max_task_retries=RETRIES)(Worker)
        settings = (encoder.source, encoder.digest(), encoder.max_tokens, encoder.precision)
        return ClusterEncoder(encoder, [worker.remote(*settings) for _ in range(self.workers)])

    def spread(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """``map`` on the workers, results in order; the function and what it holds are sent to them.

        Raises:
            SentembError: what the function raised.
            ModelError: a task failed for another reason, or was lost too often.
        """
        import ray

        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)
        running = [task.remote(function, item) for item in items]
        for reference in running:
            with _errors_of_workers():
                result: Result = ray.get(reference)
            yield result


class ClusterEncoder:
    """Encodes on the workers of a cluster; made by ``Cluster.encoder``. To an index it is the encoder's own model."""

    def __init__(self, encoder: Encoder, workers: Sequence[Any]) -> None:
        from ray.util import ActorPool

        self.source, self.prompts, self.width, self.cut_count = encoder.source, encoder.prompts, encoder.width, 0
        self._digest, self._count, self._pool = encoder.digest(), len(workers), ActorPool(workers)

    def digest(self) -> str:
        """The model's."""
        return self._digest

    def encode(
        self, texts: Sequence[str], *, prompt: str | None = None, prompt_name: str | None = None,
        normalise: bool | None = None, batch_tokens: int | None = None, dim: int | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """See ``Encoder.encode``.

        Raises:
            ModelError: a worker has another model, or was lost too often.
        """
        options = {"prompt": prompt, "prompt_name": prompt_name, "normalise": normalise,
                   "batch_tokens": batch_tokens, "dim": dim}
        size = max(LEAST_TEXTS, -(-len(texts) // (CHUNKS * self._count)))
        chunks = [list(texts[start : start + size]) for start in range(0, len(texts), size)]
        vectors = np.empty((len(texts), dim or self.width), dtype=np.float32)
        with _errors_of_workers():
            results = self._pool.map(lambda worker, chunk: worker.encode.remote(chunk, options), chunks)
            for number, (part, cut) in enumerate(results):
                vectors[number * size : number * size + len(part)] = part
                self.cut_count += cut
                if progress is not None:
                    progress.advance(len(part))
        return vectors


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


class Worker:
    """An actor that holds the model."""

    def __init__(self, source: str, digest: str, max_tokens: int, precision: str) -> None:
        self._settings = source, digest, max_tokens, precision
        self._encoder: Encoder | None = None

    def encode(self, texts: list[str], options: dict[str, Any]) -> tuple[NDArray[np.float32], int]:
        """Vectors of the texts, and how many of these were cut."""
        if self._encoder is None:  # not in the constructor, whose errors Ray takes for a lost worker
            from sentemb.encoder import Encoder

            source, digest, max_tokens, precision = self._settings
            encoder = Encoder.load(source, max_tokens=max_tokens, precision=precision)
            if encoder.digest() != digest:
                raise ModelError(f"{source} is another model on a worker than here; give all machines the same one")
            self._encoder = encoder
        before = self._encoder.cut_count
        vectors = self._encoder.encode(texts, progress=False, **options)
        return vectors, self._encoder.cut_count - before


@contextmanager
def _errors_of_workers() -> Iterator[None]:
    """Ray's errors as ours: what a worker raised, else the first line of what Ray says."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, SentembError):
            raise cause from None
        raise ModelError(f"a worker of the cluster failed: {first_line(cause)}") from error
