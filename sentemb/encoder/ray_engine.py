"""Encoding on a Ray cluster: windows of texts become shards of vectors, whoever of the workers does them.

    texts ─► texts-N-KEY.parquet ─► Ray Data: actors, each with the model ─► vectors-N-KEY.parquet ─► in order again

KEY is a hash of the texts and of everything that decides their vectors, so a shard that is there need not be made
again, by whom ever it was made. Each window is encoded as one process would encode it: the bits are the same on
machines of the same kind. A lost worker's window is done again by another one (Ray retries it); at most two windows a
worker are under way. The folder must be visible to all machines.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import ModelError, needs_extra
from sentemb.files import atomic_file
from sentemb.progress import Progress

if TYPE_CHECKING:
    from sentemb.encoder import Encoder

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class EncodeJob:
    """What every worker must do alike: arguments of ``Encoder.load`` and ``Encoder.encode``."""

    model: str
    digest: str  # of the model as the driver loaded it
    max_tokens: int | None = None
    precision: str = "auto"
    prompt: str | None = None
    prompt_name: str | None = None
    normalise: bool | None = None
    batch_tokens: int | None = None
    dim: int | None = None

    def key(self, texts: Sequence[str]) -> str:
        """Hash of the job and of a window's texts."""
        total = hashlib.blake2b(json.dumps(asdict(self)).encode(), digest_size=12)
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            total.update(len(data).to_bytes(8, "little"))
            total.update(data)
        return total.hexdigest()


@dataclass(frozen=True)
class Cluster:
    """Where the workers are and what each of them gets.

    Attributes:
        address: ``auto`` (the cluster of this machine), ``HOST:6379``, ``ray://HOST:10001``, or ``local`` (start one).
        workers: at most so many at a time; None: as many as the cluster has room for.
        cpus: processors (and torch threads) of a worker.
        gpus: GPUs of a worker; None: one where the cluster has any.
    """

    address: str = "auto"
    workers: int | None = None
    cpus: float = 1.0
    gpus: float | None = None


class Shards:
    """A folder of shards, made by a cluster and read in order.

    Args:
        folder: where shards lie; what is there already is taken over.
        job: see there.
        cluster: see there.
    """

    def __init__(self, folder: Path, job: EncodeJob, cluster: Cluster) -> None:
        self.folder, self.job, self.cluster = folder.resolve(), job, cluster
        self.names: list[str] = []

    def encode(self, windows: Iterable[Sequence[str]]) -> None:
        """Write the windows' texts, and have the vectors made that are missing.

        Raises:
            MissingExtra: Ray is not installed.
            ModelError: there is no cluster, or a worker failed for another reason than being lost.
        """
        _ray()  # before a long reading of texts
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        self.names = []
        for number, texts in enumerate(windows):
            name = f"{number:05d}-{self.job.key(texts)}.parquet"
            if not (self.folder / f"texts-{name}").exists():
                _write_texts(self.folder / f"texts-{name}", texts)
            self.names.append(name)
        missing = [name for name in self.names if not (self.folder / f"vectors-{name}").exists()]
        if missing:
            spread(
                self.cluster, ShardEncoder, {"folder": str(self.folder), "job": self.job}, missing, title="encoding",
                unit="shards", done=len(self.names) - len(missing), kept=self.folder,
            )

    def read(self) -> Iterator[tuple[list[str], Vectors]]:
        """Texts and vectors of every window, in order."""
        import pyarrow.parquet as pq

        for name in self.names:
            texts = pq.read_table(self.folder / f"texts-{name}")["text"].to_pylist()
            column = pq.read_table(self.folder / f"vectors-{name}")["embedding"].combine_chunks()
            width = column.type.list_size
            yield texts, column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)

    def remove(self) -> None:
        """Remove the folder, after everything was read."""
        shutil.rmtree(self.folder, ignore_errors=True)


class ShardEncoder:
    """A worker: loads the model once, then makes shards. A shard is whole or absent."""

    def __init__(self, folder: str, job: EncodeJob) -> None:
        self.folder, self.job = Path(folder), job
        self._encoder: Encoder | None = None

    def _loaded(self) -> Encoder:
        # not in the constructor: Ray takes a failure there for a lost worker and starts another one, for ever
        if self._encoder is None:
            from sentemb.encoder import Encoder

            job = self.job
            encoder = Encoder.load(job.model, max_tokens=job.max_tokens, precision=job.precision)
            if encoder.digest() != job.digest:
                raise ModelError(f"{job.model} is another model on this worker than on the driver; give all one model")
            self._encoder = encoder
        return self._encoder

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Make the shards named in ``batch["item"]``."""
        import pyarrow.parquet as pq

        for name in batch["item"]:
            texts = pq.read_table(self.folder / f"texts-{name}")["text"].to_pylist()
            job = self.job
            vectors = self._loaded().encode(
                texts, prompt=job.prompt, prompt_name=job.prompt_name, normalise=job.normalise,
                batch_tokens=job.batch_tokens, dim=job.dim, progress=False,
            )
            _write_vectors(self.folder / f"vectors-{name}", vectors)
        return batch


def spread(
    cluster: Cluster, worker: type, arguments: Mapping[str, Any], items: Sequence[str], *, title: str, unit: str,
    done: int, kept: Path,
) -> None:
    """Have actors do all items, each item once; an actor that is lost is replaced and its item done again.

    Args:
        cluster: where.
        worker: class of the actors; called with ``{"item": names}``, it does them and gives the same back.
        arguments: of its constructor. It should do little: Ray takes a failure there for a lost actor, for ever.
        items: what is left to do.
        title: of the work, for the progress bar and messages.
        unit: what an item is, for the progress bar.
        done: items that were done before.
        kept: where finished items lie.

    Raises:
        MissingExtra: Ray is not installed.
        ModelError: there is no cluster, or an actor failed for another reason than being lost.
    """
    ray = _ray()
    try:
        _knock(cluster.address)
        address = None if cluster.address == "local" else cluster.address
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"--address {cluster.address}: no Ray cluster there ({str(error).splitlines()[0]}); start one "
            "with `ray start --head` (and `ray start --address=HOST:6379` on further machines), or use --address "
            "local"
        ) from error
    try:
        rows = _pipeline(ray, cluster, worker, arguments, items)
        with Progress(title, total=done + len(items), unit=unit, done=done) as bar:
            for _ in rows.iter_rows():
                bar.advance(1)
    except ray.exceptions.RayError as error:
        raise ModelError(
            f"{title} on the cluster failed: {_reason(str(error))}. Finished {unit} stay in {kept}; the same command "
            "continues"
        ) from error
    finally:
        ray.shutdown()


def _pipeline(ray: Any, cluster: Cluster, worker: type, arguments: Mapping[str, Any], items: Sequence[str]) -> Any:
    ray.data.DataContext.get_current().enable_progress_bars = False
    resources = ray.cluster_resources()
    gpus = cluster.gpus
    if gpus is None:
        gpus = 1.0 if resources.get("GPU", 0) else 0.0
    room = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1) / cluster.cpus
    workers = max(1, min(cluster.workers or int(room), len(items)))
    named = ray.data.from_items([{"item": name} for name in items], override_num_blocks=len(items))
    return named.map_batches(
        worker,
        fn_constructor_kwargs=dict(arguments),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cluster.cpus,
        num_gpus=gpus,
    )


def _reason(said: str) -> str:
    """The worker's own error out of Ray's long report."""
    errors: list[str] = re.findall(r"^\s*(?:[\w.]+\.)?(\w*(?:Error|Exception|Extra)\b.*: .*)$", said, re.MULTILINE)
    ours: list[str] = re.findall(r"sentemb\.errors\.(\w+: .*)", said)
    return (ours or errors or said.strip().splitlines())[-1].strip().rstrip(".")


def _knock(address: str) -> None:
    """Raise ``OSError`` at once where nobody listens at HOST:PORT; Ray itself tries for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _write_texts(path: Path, texts: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_file(path) as temporary:
        pq.write_table(pa.table({"text": pa.array(list(texts), pa.string())}), temporary, compression="zstd")


def _write_vectors(path: Path, vectors: Vectors) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).reshape(-1)), vectors.shape[1])
    with atomic_file(path) as temporary:
        pq.write_table(pa.table({"embedding": column}), temporary, compression="none", use_dictionary=False)


def _ray() -> Any:
    needs_extra("ray", "ray")
    import ray
    import ray.data

    return ray
