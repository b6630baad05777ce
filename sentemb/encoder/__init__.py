"""Encoders: a Hugging Face backbone with pooling and heads; loading, encoding, saving."""

from __future__ import annotations

from sentemb.encoder.encoder import Encoder
from sentemb.encoder.heads import Head, make_heads
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import Pooling, make_pooling
from sentemb.encoder.tokeniser import Tokeniser

__all__ = ["Encoder", "EncoderModule", "Head", "Pooling", "Tokeniser", "make_heads", "make_pooling"]
