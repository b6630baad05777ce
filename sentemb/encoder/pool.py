"""Several devices at once: one process each, blocks of texts dealt out, results in the order of the texts."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sentemb.data.distinct import distinct
from sentemb.encoder.encode import Vectors, check_texts, progress_bar
from sentemb.encoder.encoder import Encoder
from sentemb.errors import ModelError
from sentemb.machine.precision import find_device
from sentemb.progress import Progress

_BLOCK = 8192  # texts sent to a process at a time, at most
_BLOCKS_EACH = 4  # at least so many a process, so that none waits long for the last one


def device_names(devices: str | None) -> list[str]:
    """``cuda:0,cuda:1`` as a list; ``all``: every GPU. None or a single name gives at most one entry.

    Raises:
        ModelError: ``all`` without a GPU, or a device that is not there.
    """
    if devices is None:
        return []
    if devices == "all":
        names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if not names:
            raise ModelError('device = "all": no GPU in this machine; leave it out to use the CPU')
        return names
    names = [name.strip() for name in devices.split(",") if name.strip()]
    for name in names:
        find_device(name)
    return names


class DevicePool:
    """An encoder on several devices; a process loads the model on each. Close it, or use it in ``with``.

    The processes start anew (spawn), so a script must make its pool under ``if __name__ == "__main__":``.

    >>> with DevicePool("model", ["cuda:0", "cuda:1"]) as pool:         # doctest: +SKIP
    ...     vectors = pool.encode(texts)

    Args:
        source: as the other arguments, see ``Encoder.load``.
        devices: where the processes compute; one may be named several times. Processes on the CPU share its cores.

    Raises:
        ModelError: no devices, an unknown one, or a model that cannot be loaded.
    """

    def __init__(
        self, source: str | Path, devices: Sequence[str], *, max_tokens: int | None = None, precision: str = "auto",
        trust_remote_code: bool = False, prompts: Mapping[str, str] | None = None, revision: str | None = None,
    ) -> None:
        if not devices:
            raise ModelError("a pool needs at least one device")
        for name in devices:
            find_device(name)
        self.devices = tuple(devices)
        self.cut_count = 0
        load = partial(
            Encoder.load, str(source), max_tokens=max_tokens, precision=precision,
            trust_remote_code=trust_remote_code, prompts=prompts, revision=revision,
        )
        self._facts = load(device="cpu")  # its faults are found here, not in the processes
        context = multiprocessing.get_context("spawn")
        free_devices = context.Queue()
        for name in devices:
            free_devices.put(name)
        on_cpu = sum(torch.device(name).type == "cpu" for name in devices)
        threads = max(1, torch.get_num_threads() // on_cpu) if on_cpu else None
        self._processes = ProcessPoolExecutor(
            len(devices), context, initializer=_start, initargs=(free_devices, load, threads)
        )

    # ------------------------------------------------------------------------- what other parts ask of an encoder
    @property
    def source(self) -> str:
        """Where the model was loaded from."""
        return self._facts.source

    @property
    def width(self) -> int:
        """Dimensions of the embeddings."""
        return self._facts.width

    @property
    def max_tokens(self) -> int:
        """Longest input, special tokens included; ``cut_count`` counts the longer texts."""
        return self._facts.max_tokens

    @property
    def prompts(self) -> Mapping[str, str]:
        """The model's named prompts."""
        return self._facts.prompts

    def digest(self) -> str:
        """As ``Encoder.digest``."""
        return self._facts.digest()

    def encode(
        self, texts: Sequence[str], *, prompt: str | None = None, prompt_name: str | None = None,
        normalise: bool | None = None, precision: str | None = None, batch_tokens: int | None = None,
        dim: int | None = None, progress: bool | Progress | None = None,
    ) -> Vectors:
        """Embeddings in the order of the texts, (texts, d) float32; equal texts are computed once.

        Args: as those of ``Encoder.encode``.

        Raises:
            ModelError: what ``Encoder.encode`` raises, or a process that ended.
        """
        work = partial(
            Encoder.encode, prompt=prompt, prompt_name=prompt_name, normalise=normalise, precision=precision,
            batch_tokens=batch_tokens, dim=dim, progress=False,
        )
        check_texts(texts)
        unique = distinct(texts)
        # long texts first and together: little padding within a block, and short blocks at the end
        order = np.argsort([-len(text) for text in unique.values], kind="stable")
        size = max(1, min(_BLOCK, -(-len(order) // (_BLOCKS_EACH * len(self.devices)))))
        vectors = np.empty((len(order), dim or self.width), dtype=np.float32)
        rows_of: dict[Future[tuple[Vectors, int]], NDArray[np.int64]] = {}
        with progress_bar(progress, len(texts)) as bar:
            try:
                for rows in np.split(order, range(size, len(order), size)):
                    block = [unique.values[row] for row in rows]
                    rows_of[self._processes.submit(_encode, work, block)] = rows
                for done in as_completed(rows_of):
                    vectors[rows_of[done]], cut = done.result()
                    self.cut_count += cut
                    bar.advance(len(rows_of[done]))
            except BrokenProcessPool:
                raise ModelError(
                    f"a process of the devices {', '.join(self.devices)} ended (out of memory?); a smaller "
                    "batch_tokens or fewer devices need less"
                ) from None
            finally:
                for waiting in rows_of:
                    waiting.cancel()
            bar.advance(len(texts) - len(order))
        return vectors if len(order) == len(texts) else vectors[unique.position]

    def close(self) -> None:
        """End the processes."""
        self._processes.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ----------------------------------------------------------------------------------------- in the processes
_here: Encoder | None = None


def _start(free_devices: Any, load: Callable[..., Encoder], threads: int | None) -> None:
    global _here
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    device = free_devices.get()
    if threads is not None and torch.device(device).type == "cpu":
        torch.set_num_threads(threads)
    _here = load(device=device)


def _encode(work: Callable[[Encoder, list[str]], Vectors], texts: list[str]) -> tuple[Vectors, int]:
    assert _here is not None
    before = _here.cut_count
    return work(_here, texts), _here.cut_count - before
