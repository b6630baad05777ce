"""inner_layer against transformers' own hidden states, and what its columns do to a loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from edit_tables import contrast
from torch import nn

from sentemb import Encoder, Recipe
from sentemb.edits import InnerLayer
from sentemb.encoder.heads import MLP, Projector
from sentemb.encoder.module import EncoderModule
from sentemb.errors import RecipeError
from sentemb.maths.similarity import pairwise
from sentemb.maths.table import in_batch_table
from sentemb.types import Build, Tokens, Vocabulary

IDS = torch.tensor([[2, 9, 30, 3], [2, 12, 3, 0], [2, 40, 41, 3]])
TOKENS = Tokens(input_ids=IDS, attention_mask=(IDS > 0).long())


def module_of(folder: Path, pooling: str = "mean", head: nn.Module | None = None) -> EncoderModule:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Encoder.load(folder, pooling=pooling, head=head).module.eval().double()


def bound(module: EncoderModule, **settings: object) -> InnerLayer:
    edit = InnerLayer(**settings)
    vocabulary = Vocabulary(size=9, pad=0, mask=None, special=frozenset())
    build = Build(
        backbone="", width=module.width, vocabulary=vocabulary, encoder=module, load_encoder=lambda _: module
    )
    edit.bind(build)
    return edit


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_layer_is_pooled_as_the_last_one(layer: int, pooling: str, tiny_bert: Path) -> None:
    module = module_of(tiny_bert, pooling)
    before = module(TOKENS)
    bound(module, layer=layer)
    after = module(TOKENS)
    states = module.backbone(
        input_ids=IDS, attention_mask=TOKENS.attention_mask, output_hidden_states=True
    ).hidden_states[layer]
    for b in range(3):
        words = [t for t in range(4) if IDS[b, t]]
        expected = states[b, 0] if pooling == "cls" else sum(states[b, t] for t in words) / len(words)
        torch.testing.assert_close(after.inner[b], expected, rtol=1e-9, atol=1e-9)
    assert before.inner is None
    torch.testing.assert_close(after.pooled, before.pooled, rtol=1e-9, atol=1e-9)
    if layer == 2:
        torch.testing.assert_close(after.inner, after.pooled)
    assert torch.equal(module.train().together([TOKENS])[0].inner > -torch.inf, torch.ones(3, 32, dtype=torch.bool))


def test_candidates_are_the_layers_rows_through_the_heads(make_rows, make_batch, tiny_bert: Path) -> None:
    module = module_of(tiny_bert, head=MLP())
    edit = bound(module, layer=1)
    inner = torch.randn(3, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    anchor, positive = make_rows(3, 32), make_rows(3, 32, seed=1)
    batch = make_batch(views={"anchor": anchor, "positive": positive}, inner={"anchor": inner})
    edited = edit(in_batch_table(anchor, positive), batch)
    for i in range(3):
        torch.testing.assert_close(edited.candidate.embedding[i], module.heads[0](inner[i]))
    torch.testing.assert_close(edited.sim, pairwise(anchor.embedding, edited.candidate.embedding, "cosine"))
    assert edited.positive.tolist() == torch.eye(3, dtype=torch.bool).tolist()
    assert torch.equal(edited.candidate.ids, anchor.ids)


def test_gradient_reaches_both_layers(make_rows, make_batch, tiny_bert: Path) -> None:
    edit = bound(module_of(tiny_bert, head=MLP()), layer=1)
    positive = make_rows(3, 32, seed=1)

    def loss(last: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        anchor = replace(make_rows(3, 32), embedding=last)
        batch = make_batch(views={"anchor": anchor, "positive": positive}, inner={"anchor": inner})
        return contrast(edit(in_batch_table(anchor, positive), batch))

    rows = [make_rows(3, 32, seed=seed).embedding.requires_grad_() for seed in (2, 3)]
    assert torch.autograd.gradcheck(loss, rows)


def test_the_last_layer_against_itself_is_a_table_of_equals(make_rows, make_batch, tiny_bert: Path) -> None:
    edit = bound(module_of(tiny_bert), layer=2)
    anchor = make_rows(3, 32)
    batch = make_batch(views={"anchor": anchor}, inner={"anchor": anchor.embedding})
    edited = edit(in_batch_table(anchor, make_rows(3, 32, seed=1)), batch)
    torch.testing.assert_close(edited.sim, in_batch_table(anchor, anchor).sim)
    half = replace(anchor, embedding=anchor.embedding.bfloat16())
    batch = make_batch(views={"anchor": half}, inner={"anchor": half.embedding})
    assert edit(in_batch_table(half, half), batch).sim.dtype == torch.float32
    alone = make_rows(1, 32)
    batch = make_batch(views={"anchor": alone}, inner={"anchor": alone.embedding})
    assert contrast(edit(in_batch_table(alone, alone), batch)).item() == 0.0


def test_what_cannot_be_read_is_refused(tiny_bert: Path) -> None:
    module = module_of(tiny_bert)
    with pytest.raises(RecipeError, match=r"layer = 3: the backbone's layers are 0 \(its embeddings\) to 2"):
        bound(module, layer=3)
    bound(module, layer=1)
    bound(module, layer=1)
    with pytest.raises(RecipeError, match="another part reads layer 1"):
        bound(module, layer=2)
    with pytest.raises(RecipeError, match="pooling reads all layers"):
        bound(module_of(tiny_bert, "first_last_mean"), layer=1)
    with pytest.raises(RecipeError, match="heads that couple"):
        bound(module_of(tiny_bert, head=Projector()), layer=1)
    with pytest.raises(RecipeError, match=r"leave out train\.shard"):
        Recipe.load("xsimgcl-minilm", ["train.shard=true"])
    with pytest.raises(ValueError, match="layer"):
        InnerLayer(layer=-1)
