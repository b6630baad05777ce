"""Several devices at once: an encoder and a thread on each, blocks of texts dealt out as threads become free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import Self

import numpy as np
import torch

from sentemb.data.distinct import distinct
from sentemb.encoder.encode import Vectors, check_texts, progress_bar
from sentemb.encoder.encoder import Encoder
from sentemb.errors import ModelError
from sentemb.machine.precision import find_device
from sentemb.progress import Progress

_BLOCK = 8192  # texts dealt out at a time, at most
_BLOCKS_EACH = 4  # at least so many a device, so that none waits long for the last one


def device_names(devices: str | None) -> list[str]:
    """``cuda:0,cuda:1`` as a list; ``all``: every GPU. None or a single name gives at most one entry.

    Raises:
        ModelError: ``all`` without a GPU, or a device that is not there.
    """
    if devices == "all":
        names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if not names:
            raise ModelError('device = "all": no GPU in this machine; leave it out to use the CPU')
        return names
    names = [name.strip() for name in (devices or "").split(",") if name.strip()]
    for name in names:
        find_device(name)
    return names


class DevicePool:
    """An encoder on several devices, with the interface of one. Close it, or use it in ``with``.

    >>> with DevicePool("model", ["cuda:0", "cuda:1"]) as pool:         # doctest: +SKIP
    ...     vectors = pool.encode(texts)

    Args:
        source: as the other arguments, see ``Encoder.load``.
        devices: where texts are encoded.

    Raises:
        ModelError: no devices, an unknown one, or a model that cannot be loaded.
    """

    def __init__(
        self, source: str | Path, devices: Sequence[str], *, max_tokens: int | None = None, precision: str = "auto",
        trust_remote_code: bool = False, prompts: Mapping[str, str] | None = None, revision: str | None = None,
    ) -> None:
        if not devices:
            raise ModelError("a pool needs at least one device")
        self.encoders = [
            Encoder.load(source, device=name, max_tokens=max_tokens, precision=precision, prompts=prompts,
                         trust_remote_code=trust_remote_code, revision=revision)
            for name in devices
        ]
        first = self.encoders[0]
        self.source, self.width, self.prompts, self.max_tokens = (
            first.source, first.width, first.prompts, first.max_tokens
        )
        self._threads = ThreadPoolExecutor(len(devices), thread_name_prefix="encode")

    @property
    def cut_count(self) -> int:
        """As ``Encoder.cut_count``."""
        return sum(encoder.cut_count for encoder in self.encoders)

    def digest(self) -> str:
        """As ``Encoder.digest``."""
        return self.encoders[0].digest()

    def encode(
        self, texts: Sequence[str], *, prompt: str | None = None, prompt_name: str | None = None,
        normalise: bool | None = None, precision: str | None = None, batch_tokens: int | None = None,
        dim: int | None = None, progress: bool | Progress | None = None,
    ) -> Vectors:
        """As ``Encoder.encode``; equal texts are computed once."""
        check_texts(texts)
        unique = distinct(texts)
        # long texts first and together: little padding within a block, and short blocks at the end
        order = np.argsort([-len(text) for text in unique.values], kind="stable")
        size = max(1, min(_BLOCK, -(-len(order) // (_BLOCKS_EACH * len(self.encoders)))))
        vectors = np.empty((len(order), dim or self.width), dtype=np.float32)
        free: SimpleQueue[Encoder] = SimpleQueue()
        for encoder in self.encoders:
            free.put(encoder)

        def work(rows: np.ndarray) -> int:
            encoder = free.get()
            try:
                vectors[rows] = encoder.encode(
                    [unique.values[row] for row in rows], prompt=prompt, prompt_name=prompt_name, normalise=normalise,
                    precision=precision, batch_tokens=batch_tokens, dim=dim, progress=False,
                )
            finally:
                free.put(encoder)
            return len(rows)

        with progress_bar(progress, len(texts)) as bar:
            blocks = [self._threads.submit(work, rows) for rows in np.split(order, range(size, len(order), size))]
            try:
                for done in as_completed(blocks):
                    bar.advance(done.result())
            finally:
                for block in blocks:
                    block.cancel()
            bar.advance(len(texts) - len(order))
        return vectors if len(order) == len(texts) else vectors[unique.position]

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
