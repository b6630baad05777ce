"""Exact nearest neighbours in tiles: the k best documents of every query, on the CPU or a GPU, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sentemb.types import Hits, Similarity

if TYPE_CHECKING:
    import torch

_TILE_BYTES = 256 * 2**20  # of one tile of scores


def top_k(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    k: int,
    *,
    similarity: Similarity = "cosine",
    device: str | None = None,
) -> Hits:
    """The ``min(k, documents)`` best documents of every query.

    Args:
        queries: (queries, d).
        documents: (documents, d).
        k: At most this many hits a query.
        similarity: ``cosine`` or ``dot``, computed in float32.
        device: The GPU where there is one, else the CPU.

    Returns:
        Positions in ``documents`` and scores, best first.
    """
    import torch

    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    k = min(k, len(documents))
    if k <= 0 or not len(queries):
        return Hits(np.zeros((len(queries), max(k, 0)), np.int64), np.zeros((len(queries), max(k, 0)), np.float32))
    asked = _prepared(queries, similarity, place)
    # queries in blocks too, so that millions of both fit
    query_block = min(len(queries), 4096)
    document_block = max(k, _TILE_BYTES // 4 // query_block)
    ids = np.empty((len(queries), k), dtype=np.int64)
    scores = np.empty((len(queries), k), dtype=np.float32)
    for first in range(0, len(queries), query_block):
        rows = asked[first : first + query_block]
        best, position = _best_of_blocks(rows, documents, document_block, k, similarity, place)
        ids[first : first + query_block] = position.cpu().numpy()
        scores[first : first + query_block] = best.cpu().numpy()
    return Hits(ids, scores)


def _best_of_blocks(
    rows: torch.Tensor,
    documents: NDArray[np.float32],
    size: int,
    k: int,
    similarity: Similarity,
    place: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    best: torch.Tensor | None = None
    position: torch.Tensor | None = None
    for start in range(0, len(documents), size):
        block = _prepared(documents[start : start + size], similarity, place)
        values, index = torch.topk(rows @ block.T, min(k, len(block)), dim=1)
        index += start
        if best is None or position is None:
            best, position = values, index
            continue
        best, order = torch.topk(torch.cat([best, values], dim=1), min(k, best.shape[1] + values.shape[1]), dim=1)
        position = torch.cat([position, index], dim=1).gather(1, order)
    assert best is not None
    assert position is not None
    return best, position


def _prepared(vectors: NDArray[np.float32], similarity: Similarity, place: torch.device) -> torch.Tensor:
    import torch
    import torch.nn.functional as F

    tensor = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32)).to(place)
    return F.normalize(tensor, dim=1) if similarity == "cosine" else tensor
