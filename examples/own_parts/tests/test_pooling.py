from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from own_parts.pooling import Attention

from sentemb import Encoder
from sentemb.encoder.poolings import Mean

TEXTS = ["the dog runs", "a cat plays music", "the red house"]


def test_it_begins_as_the_mean_and_pools_what_the_mask_shows() -> None:
    hidden, mask = torch.randn(2, 4, 8), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    pooling = Attention(width=3)
    assert pooling.bind(8, 2) == 8
    torch.testing.assert_close(pooling(hidden, mask), Mean()(hidden, mask))
    torch.nn.init.normal_(pooling.outer.weight)
    scores = [pooling.outer.weight @ torch.tanh(pooling.inner.weight @ hidden[1, t]) for t in range(2)]
    weights = torch.cat(scores).softmax(0)
    torch.testing.assert_close(pooling(hidden, mask)[1], weights[0] * hidden[1, 0] + weights[1] * hidden[1, 1])


def test_it_is_saved_and_loaded_with_its_weights(backbone: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(backbone, pooling={"use": "attention", "width": 5}, precision="fp32")
    torch.nn.init.normal_(encoder.module.pooling.outer.weight)
    vectors = encoder.encode(TEXTS)
    again = Encoder.load(encoder.save(tmp_path / "model"), precision="fp32")
    assert again.module.pooling == Attention(width=5)
    np.testing.assert_allclose(again.encode(TEXTS), vectors, atol=1e-6)
    assert np.abs(vectors - Encoder.load(backbone, pooling="mean", precision="fp32").encode(TEXTS)).max() > 0.01
