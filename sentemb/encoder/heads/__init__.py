"""Heads: what lies between pooling and embedding. One head a file; some serve training only."""

from __future__ import annotations

from sentemb.encoder.heads.dense import Dense
from sentemb.encoder.heads.head import DenseLayer, Head
from sentemb.encoder.heads.layer_norm import LayerNorm
from sentemb.encoder.heads.mlp import MLP
from sentemb.encoder.heads.projector import Projector

PARTS: dict[str, type[Head]] = {
    "mlp": MLP,
    "projector": Projector,
    "dense": Dense,
    "layer_norm": LayerNorm,
}

__all__ = ["MLP", "PARTS", "Dense", "DenseLayer", "Head", "LayerNorm", "Projector"]
