"""Encoders: a Hugging Face backbone with pooling and heads; loading, encoding, saving."""

from __future__ import annotations

from sentemb.encoder.encoder import Encoder
from sentemb.encoder.heads import Head
from sentemb.encoder.loading import make_heads
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.pipeline import EncodeOptions, embed_column
from sentemb.encoder.pool import DevicePool
from sentemb.encoder.pooling import POOLINGS
from sentemb.encoder.tokeniser import Tokeniser

__all__ = [
    "POOLINGS", "DevicePool", "EncodeOptions", "Encoder", "EncoderModule", "Head", "Tokeniser", "embed_column",
    "make_heads",
]
