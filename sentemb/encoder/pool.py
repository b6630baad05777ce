"""Several devices at once: one process each, blocks of texts dealt out, results in the order of the texts."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sentemb.encoder.encoder import Encoder
from sentemb.encoder.pipeline import distinct_texts, progress_bar
from sentemb.errors import ModelError
from sentemb.machine.precision import find_device
from sentemb.progress import Progress

_BLOCK = 8192  # texts sent to a process at a time, at most
_BLOCKS_EACH = 4  # at least so many a process, so that none waits long for the last one


def device_names(asked: str | None) -> list[str]:
    """``cuda:0,cuda:1`` as a list; ``all``: every GPU. None or a single name gives at most one entry.

    Raises:
        ModelError: ``all`` without a GPU, or a device that is not there.
    """
    if asked is None:
        return []
    if asked == "all":
        found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if not found:
            raise ModelError('device = "all": no GPU in this machine; leave it out to use the CPU')
        return found
    names = [name.strip() for name in asked.split(",") if name.strip()]
    for name in names:
        find_device(name)
    return names


class DevicePool:
    """An encoder on several devices; a process loads the model on each. Close it, or use it in ``with``.

    The processes start anew (spawn), so a script must make its pool under ``if __name__ == "__main__":``.

    >>> with DevicePool("model", ["cuda:0", "cuda:1"]) as pool:         # doctest: +SKIP
    ...     vectors = pool.encode(texts)

    Args:
        source: as for ``Encoder.load``.
        devices: where the processes compute; one may be named several times. Processes on the CPU share its cores.
        load: further arguments of ``Encoder.load``.

    Raises:
        ModelError: no devices, an unknown one, or a model that cannot be loaded.
    """

    def __init__(self, source: str | Path, devices: Sequence[str], **load: Any) -> None:
        if not devices:
            raise ModelError("a pool needs at least one device")
        for name in devices:
            find_device(name)
        self.devices = tuple(devices)
        self._facts = Encoder.load(source, device="cpu", **load)  # its faults are found here, not in the processes
        context = multiprocessing.get_context("spawn")
        places = context.Queue()
        for name in devices:
            places.put(name)
        on_cpu = sum(torch.device(name).type == "cpu" for name in devices)
        threads = max(1, torch.get_num_threads() // on_cpu) if on_cpu else None
        self._processes = ProcessPoolExecutor(
            len(devices), context, initializer=_start, initargs=(places, str(source), load, threads)
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
    def prompts(self) -> Mapping[str, str]:
        """The model's named prompts."""
        return self._facts.prompts

    def digest(self) -> str:
        """As ``Encoder.digest``."""
        return self._facts.digest()

    def encode(
        self, texts: Sequence[str], *, progress: bool | Progress | None = None, **options: Any
    ) -> NDArray[np.float32]:
        """Embeddings in the order of the texts, (texts, d) float32.

        Args:
            texts: strings; equal ones are computed once.
            progress: as for ``Encoder.encode``.
            options: further arguments of ``Encoder.encode``.

        Raises:
            ModelError: what ``Encoder.encode`` raises, or a process that ended.
        """
        unique, first, like = distinct_texts(texts)
        out = np.empty((len(texts), options.get("dim") or self.width), dtype=np.float32)
        # long texts first and together: little padding within a block, and short blocks at the end
        order = np.argsort([-len(text) for text in unique], kind="stable")
        size = max(1, min(_BLOCK, -(-len(unique) // (_BLOCKS_EACH * len(self.devices)))))
        waiting: dict[Future[NDArray[np.float32]], NDArray[np.int64]] = {}
        with progress_bar(progress, len(texts)) as bar:
            try:
                for block in np.split(order, range(size, len(order), size)):
                    waiting[self._processes.submit(_encode, [unique[place] for place in block], options)] = block
                for done in as_completed(waiting):
                    out[first[waiting[done]]] = done.result()
                    bar.advance(len(waiting[done]))
            except BrokenProcessPool:
                raise ModelError(
                    f"a process of the devices {', '.join(self.devices)} ended (out of memory?); a smaller "
                    "batch_tokens or fewer devices need less"
                ) from None
            finally:
                for done in waiting:
                    done.cancel()
            again = np.flatnonzero(first[like] != np.arange(len(texts)))
            out[again] = out[first[like[again]]]
            bar.advance(len(again))
        return out

    def close(self) -> None:
        """End the processes."""
        self._processes.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ----------------------------------------------------------------------------------------- in the processes
_here: Encoder | None = None


def _start(places: Any, source: str, load: dict[str, Any], threads: int | None) -> None:
    global _here
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    device = places.get()
    if threads is not None and torch.device(device).type == "cpu":
        torch.set_num_threads(threads)
    _here = Encoder.load(source, device=device, **load)


def _encode(texts: list[str], options: dict[str, Any]) -> NDArray[np.float32]:
    assert _here is not None
    found: NDArray[np.float32] = _here.encode(texts, progress=False, **options)
    return found
