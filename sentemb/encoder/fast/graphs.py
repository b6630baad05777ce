"""CUDA graphs for small batches: one launch repeats all kernels of a lean forward pass.

A batch of few tokens, such as one query, keeps a GPU busy for less time than its kernels take to launch. A graph is
recorded for a shape; batches are filled up to the next recorded shape with rows that nobody reads.

Not run on the machine it was written on: no GPU was there. That filled rows change nothing is tested on the CPU; the
comparison with the plain path guards the rest, and a graph that cannot be recorded is done without.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sentemb.encoder.fast.packed import Packed, fill_up

if TYPE_CHECKING:
    from sentemb.encoder.fast import FastEncoder

MAX_TOKENS = 4096  # more keep a GPU busy for longer than launching takes
_KEPT = 32  # recorded shapes; the one unused for longest goes first
_WARM_UPS = 2  # kernels choose their algorithms on their first runs, which must not be recorded


@dataclass(frozen=True)
class Shape:
    """What a graph is recorded for."""

    tokens: int
    rows: int
    longest: int


@dataclass
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: Packed
    states: list[Tensor]


def shape_for(packed: Packed) -> Shape:
    """The least shape of powers of two that ``packed`` fills up to."""
    tokens = _power_of_two(packed.tokens, least=64)
    rows = packed.rows - (packed.tokens - tokens) // packed.longest  # rounded up: what is left over needs a row too
    return Shape(tokens, _power_of_two(rows, least=8), _power_of_two(packed.longest, least=16))


class GraphedEncoder:
    """A lean form whose small batches are repeated graphs; larger ones, and all layers, run as they are."""

    def __init__(self, fast: FastEncoder, device: torch.device) -> None:
        self.fast, self.device = fast, device
        self.is_shape_only = fast.is_shape_only
        self.home = torch.device("cpu")  # rows are filled up before they are copied
        self._recorded: OrderedDict[Shape, _Recorded] = OrderedDict()
        self._pool: Any = None  # memory that all graphs share: they never run at the same time
        self._is_off = False

    def __call__(self, packed: Packed, *, all_layers: bool = False) -> list[Tensor]:
        """Hidden states, on the GPU. Those of a graph are overwritten by its next run, on this stream."""
        if all_layers or self._is_off or packed.tokens > MAX_TOKENS:
            return self.fast(packed.to(self.device), all_layers=all_layers)
        shape = shape_for(packed)
        filled = fill_up(packed, shape.tokens, shape.rows)
        found = self._recorded.get(shape)
        if found is None:
            try:
                found = self._record(filled, shape)
            except RuntimeError as error:
                warnings.warn(f"small batches run without CUDA graphs: {str(error).splitlines()[0]}", stacklevel=2)
                self._is_off = True
                return self.fast(packed.to(self.device))
        self._recorded.move_to_end(shape)
        for name in ("ids", "positions", "row_starts"):
            getattr(found.inputs, name).copy_(getattr(filled, name).pin_memory(), non_blocking=True)
        found.graph.replay()
        return [state[: packed.tokens] for state in found.states]

    def _record(self, filled: Packed, shape: Shape) -> _Recorded:
        moved = filled.to(self.device)
        # kernels are told the shape's longest row, which holds for every batch that fills up to it
        inputs = Packed(moved.ids, moved.positions, moved.runs, moved.row_starts, shape.longest)
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self.fast(inputs)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            states = self.fast(inputs)
        self._pool = graph.pool()
        found = self._recorded[shape] = _Recorded(graph, inputs, states)
        if len(self._recorded) > _KEPT:
            self._recorded.popitem(last=False)
        return found


def _power_of_two(number: int, *, least: int) -> int:
    return max(least, 1 << (number - 1).bit_length())
