"""An encoder of a few of a checkpoint's layers: what it computes, how it is saved, which layers it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backbones import ARCHITECTURES, backbone

from sentemb import Encoder, Recipe, check
from sentemb.encoder.backbone import keep_layers
from sentemb.errors import ModelError, RecipeError
from sentemb.types import Tokens

TEXTS = ["the dog runs", "a cat plays music in the city"]


def layers_of(model: Any) -> torch.nn.ModuleList:
    return next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == 3)


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind != "modernbert"])
def test_the_others_stay_as_they_are(kind: str) -> None:
    whole, cut = backbone(kind), backbone(kind)
    keep_layers(cut, [2, 0])
    chosen = [layers_of(whole)[2], layers_of(whole)[0]]
    ids = torch.tensor([[1, 5, 9, 40, 2]])
    found = cut(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
    assert cut.config.num_hidden_layers == 2
    assert len(found) == 3
    kept_layers = next(part for part in cut.modules() if isinstance(part, torch.nn.ModuleList))
    for layer, kept in zip(chosen, kept_layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), kept.parameters(), strict=True))


def test_hidden_states_are_those_of_the_first_layers() -> None:
    whole, cut = backbone("bert"), backbone("bert")
    keep_layers(cut, [0, 1])
    ids = torch.tensor([[1, 5, 9, 40, 2]])
    tokens = Tokens(input_ids=ids, attention_mask=torch.ones_like(ids))
    states = whole(input_ids=ids, attention_mask=tokens.attention_mask, output_hidden_states=True).hidden_states
    assert torch.equal(cut(input_ids=ids, attention_mask=tokens.attention_mask).last_hidden_state, states[2])


def test_it_is_saved_as_an_ordinary_model(tiny_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = Encoder.load(tiny_bert, pooling="mean", layers=[1], precision="fp32")
    vectors = encoder.encode(TEXTS)
    assert np.abs(vectors - Encoder.load(tiny_bert, pooling="mean", precision="fp32").encode(TEXTS)).max() > 1e-3
    saved = encoder.save(tmp_path / "one")
    loaded = Encoder.load(saved, precision="fp32")
    assert loaded.digest() == encoder.digest()
    np.testing.assert_allclose(loaded.encode(TEXTS), vectors, atol=1e-6)
    theirs = SentenceTransformer(str(saved), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(theirs, vectors, atol=5e-6 * max(1.0, float(np.abs(theirs).max())))


def test_eight_bits_of_all_layers_are_left_behind(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / "int8.json").write_text('{"dtype": "float32"}')  # a form that could not even be read
    assert Encoder.load(folder, layers=[0]).eight_bits is None


@pytest.mark.parametrize("layers", [[2], [-1], [], [0, 0]])
def test_layers_that_are_not_there_are_refused(tiny_bert: Path, layers: list[int]) -> None:
    with pytest.raises(ModelError, match=r"has the layers 0 to 1; name one or more"):
        Encoder.load(tiny_bert, layers=layers)


def test_layers_of_several_kinds_are_refused() -> None:
    with pytest.raises(ModelError, match="cannot be taken out one by one"):
        keep_layers(backbone("modernbert"), [0])


def test_check_knows_the_layers(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("".join(f"the dog runs {i}\n" for i in range(80)))
    changes = [f"encoder.backbone={tiny_bert}", f"data.path={tmp_path / 'lines.txt'}", "encoder.layers=[0,5]"]
    with pytest.raises(RecipeError, match=r"encoder.layers = \[0, 5\]: the backbone has the layers 0 to 1"):
        check(Recipe.load("distilled-4-layer", changes))
