"""The companion layers against transformers' own hidden states."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tiny_module import VOCABULARY

from sentemb import Encoder, Recipe, TrainSettings
from sentemb.companions import Layers
from sentemb.errors import CheckpointError, RecipeError
from sentemb.types import Build, Tokens

IDS = torch.tensor([[2, 10, 11, 12, 3], [2, 13, 3, 0, 0]])
TOKENS = {"anchor": Tokens(input_ids=IDS, attention_mask=(IDS > 0).long())}


def layers_of(folder: Path, **settings):
    companion = Layers(**settings)
    seen: list[str] = []

    def load(source):
        seen.append(source)
        return Encoder.load(source).module

    encoder = Encoder.load(folder).module
    companion.bind(Build(
        backbone=str(folder), width=32, vocabulary=VOCABULARY, encoder=encoder, load_encoder=load,
    ))
    assert seen == [settings.get("model", str(folder))]
    return companion


@pytest.mark.parametrize("first", [0, 1, 2])
def test_equals_the_loop(tiny_bert: Path, first):
    companion = layers_of(tiny_bert, first=first)
    found = companion.observe(TOKENS, {})["anchor"]
    assert found.shape == (2, 3 - first, 32)
    backbone = Encoder.load(tiny_bert).module.backbone
    for row, length in enumerate((5, 3)):  # each text alone, without padding
        states = backbone(input_ids=IDS[row : row + 1, :length], output_hidden_states=True).hidden_states
        for place, layer in enumerate(states[first:]):
            expected = sum(layer[0, t] for t in range(length)) / length
            torch.testing.assert_close(found[row, place], expected, rtol=1e-4, atol=1e-5)


def test_it_never_learns_and_has_no_dropout(tiny_bert: Path):
    companion = layers_of(tiny_bert).train()
    first, second = (companion.observe(TOKENS, {})["anchor"] for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not any(weight.requires_grad for weight in companion.parameters())


def test_a_checkpoint_says_which_model_it_is(tiny_bert: Path, tmp_path: Path):
    companion = layers_of(tiny_bert)
    state = copy.deepcopy(companion.checkpoint_state())
    layers_of(tiny_bert).load_checkpoint_state(state)
    with torch.no_grad():
        next(iter(companion.encoder.parameters())).add_(1.0)
    other = {"fingerprint": torch.zeros_like(state["fingerprint"])}
    with pytest.raises(CheckpointError, match="companion layers"):
        companion.load_checkpoint_state(other)


def test_refuses_layers_that_are_not_there(tiny_bert: Path):
    with pytest.raises(RecipeError, match="first = 3, but the layers are 0 to 2"):
        layers_of(tiny_bert, first=3).observe(TOKENS, {})
    with pytest.raises(ValueError, match="first"):
        Layers(first=-1)
    with pytest.raises(ValueError, match=r"leave out train\.shard = true"):
        Recipe.named("simcse-unsup-minilm").replace(companions=[Layers()], train=TrainSettings(shard=True))
