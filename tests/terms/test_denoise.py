"""denoise: its decoder against plain arithmetic, what learns from it and what does not, and its limits."""

from __future__ import annotations

import math

import pytest
import torch
from token_batches import IDS, MASK, token_batch
from torch.nn.functional import layer_norm

from sentemb import Recipe
from sentemb.errors import ModelError, RecipeError
from sentemb.terms import Denoise
from sentemb.types import Build, Tokens

VALUES = {"layers": 2, "heads": 2, "dropout": 0.5}


@pytest.fixture
def bound(build: Build):
    def make(dtype: torch.dtype = torch.float64, **settings: object) -> Denoise:
        term = Denoise(**{**VALUES, **settings})
        with torch.random.fork_rng():
            torch.manual_seed(1)
            term.bind(build)
        build.encoder.to(dtype).eval()
        return term.to(dtype).eval()

    return make


def sentences(dtype: torch.dtype = torch.float64, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 32, generator=torch.Generator().manual_seed(3), dtype=dtype)


def batch_with(sentence: torch.Tensor, ids: torch.Tensor = IDS, mask: torch.Tensor = MASK):
    return token_batch(torch.zeros(len(ids), ids.shape[1], 32), sentence, ids=ids, mask=mask)


def loss_of(term: Denoise, sentence: torch.Tensor, table_of, **tokens: torch.Tensor) -> torch.Tensor:
    share = term(table_of(torch.eye(len(sentence))), batch_with(sentence, **tokens))
    return share.total / share.count


def attended(attention, x, y):
    """Multi-head attention of the rows of x to those of y, head by head."""
    width, heads = x.shape[1], attention.num_heads
    weights, biases = attention.in_proj_weight.split(width), attention.in_proj_bias.split(width)
    query, key, value = (z @ w.T + b for z, w, b in zip((x, y, y), weights, biases, strict=True))
    out, size = [], width // heads
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / math.sqrt(size)
        out.append(torch.stack([torch.tensor([math.exp(s - max(row)) for s in row], dtype=x.dtype)
                                for row in scores.tolist()]))
        out[-1] = out[-1] / out[-1].sum(1, keepdim=True) @ value[:, part]
    return torch.cat(out, dim=1) @ attention.out_proj.weight.T + attention.out_proj.bias


def test_equals_the_loop(bound, build, table_of):
    term, sentence = bound(), sentences()
    total = 0.0
    for ids, mask, u in zip(IDS, MASK, sentence, strict=True):
        ids = ids[: int(mask.sum())]
        x = build.encoder.backbone.embeddings(input_ids=ids[None])[0].detach()
        for layer in term.decoder.layers:
            x = layer_norm(x + attended(layer.self_attn, x, x), (32,), layer.norm1.weight, layer.norm1.bias)
            x = layer_norm(x + attended(layer.multihead_attn, x, u[None]), (32,), layer.norm2.weight, layer.norm2.bias)
            inner = (x @ layer.linear1.weight.T + layer.linear1.bias).clamp(min=0)
            x = layer_norm(x + inner @ layer.linear2.weight.T + layer.linear2.bias, (32,), layer.norm3.weight,
                           layer.norm3.bias)
        for token, logits in zip(ids.tolist(), term.head(x).tolist(), strict=True):
            total -= logits[token] - math.log(sum(map(math.exp, logits)))
    share = term(table_of(torch.eye(2)), batch_with(sentence))
    assert share.count.item() == 8  # all tokens but padding
    assert share.total.item() == pytest.approx(total, rel=1e-9)


def test_gradient_of_the_sentence_embedding(bound, table_of):
    term = bound(layers=1)
    assert torch.autograd.gradcheck(lambda u: loss_of(term, u, table_of), sentences().requires_grad_(), atol=1e-6)


def test_words_are_constants_and_everything_else_learns(bound, build, table_of):
    term, sentence = bound().train(), sentences().requires_grad_()
    build.encoder.zero_grad(set_to_none=True)
    loss_of(term, sentence, table_of).backward()
    assert all(weight.grad is None for weight in build.encoder.parameters())
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in term.head.parameters())
    assert sentence.grad.abs().max() > 0


def test_the_sentence_enters_by_cross_attention_alone(bound, table_of):
    term, sentence = bound(), sentences()
    assert loss_of(term, sentence, table_of).item() != pytest.approx(loss_of(term, 0 * sentence, table_of).item())
    with torch.no_grad():
        for layer in term.decoder.layers:
            layer.multihead_attn.out_proj.weight.zero_()
    assert loss_of(term, sentence, table_of).item() == loss_of(term, 0 * sentence, table_of).item()


def test_without_dropout_copying_suffices(bound, table_of):
    """A trained decoder that sees no sentence embedding restores new texts, which it cannot under heavy dropout."""
    ends, nothing = {}, torch.zeros(16, 32)
    for dropout in (0.0, 0.9):
        term, draw = bound(torch.float32, layers=1, dropout=dropout).train(), torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(term.parameters(), lr=1e-2)
        losses = []
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for _ in range(50):
                ids = torch.randint(5, 60, (16, 6), generator=draw)
                loss = loss_of(term, nothing, table_of, ids=ids, mask=torch.ones_like(ids))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        ends[dropout] = sum(losses[-5:]) / 5
    assert ends[0.0] < 0.3, ends
    assert ends[0.9] > 2, ends


def test_rows_stand_by_themselves(bound, table_of):
    term, sentence, flip = bound(), sentences(), torch.tensor([1, 0])
    together = term(table_of(torch.eye(2)), batch_with(sentence))
    flipped = term(table_of(torch.eye(2)), batch_with(sentence[flip], IDS[flip], MASK[flip]))
    assert flipped.total.item() == pytest.approx(together.total.item(), rel=1e-12)
    alone = [term(table_of(torch.eye(1)), batch_with(sentence[i : i + 1], IDS[i : i + 1], MASK[i : i + 1])).total.item()
             for i in range(2)]
    assert sum(alone) == pytest.approx(together.total.item(), rel=1e-12)


def test_bfloat16_embeddings_give_a_float32_loss(bound, table_of):
    term = bound(torch.bfloat16)
    share = term(table_of(torch.eye(2)), batch_with(sentences(torch.bfloat16)))
    assert share.total.dtype == torch.float32
    assert torch.isfinite(share.total)


def test_its_footprint_is_that_of_its_weights(bound):
    term = bound(torch.float32)
    vocabulary = term.head[-1].out_features
    count = sum(weight.numel() for weight in term.parameters())
    said = term.footprint(hidden=32, vocabulary=vocabulary, texts=4, tokens=5)
    assert said.parameters == pytest.approx(count, rel=0.05)
    assert Denoise().footprint(hidden=768, vocabulary=30_522, texts=64, tokens=32).activation_bytes > 1e9


def test_weight_0_is_the_contrast_alone(tiny_bert, tmp_path):
    from sentemb.recipe.train import build as plan_of
    from sentemb.training.run import Run

    (tmp_path / "texts.txt").write_text("\n".join(f"the dog runs {i}" for i in range(8)) + "\n")
    totals = []
    for terms in ([{"use": "info_nce"}], [{"use": "info_nce"}, {"use": "denoise", "layers": 1, "weight": 0.0}]):
        tree = {
            "encoder": {"backbone": str(tiny_bert), "pooling": "cls"}, "views": {"use": "twice"}, "terms": terms,
            "data": {"use": "lines", "path": str(tmp_path / "texts.txt")},
            "train": {"batch_size": 8, "precision": "fp32"},
        }
        run = Run(plan_of(Recipe.from_tree(tree, "test"), tmp_path / str(len(terms))), resume=False)
        run.plan.objective.eval()
        totals.append(run.plan.objective(run.make_input(torch.arange(8).numpy(), 0)).total.item())
    assert totals[0] == totals[1]


@pytest.mark.parametrize(("settings", "words"), [
    ({"layers": 0}, "layers"), ({"dropout": 1.0}, "dropout"), ({"heads": 0}, "heads"),
])
def test_refuses_values_outside_its_domain(settings, words):
    with pytest.raises(ValueError, match=words):
        Denoise(**settings)


def test_refuses_what_it_cannot_read(build, bound):
    with pytest.raises(ModelError, match="32 with 5 heads"):
        Denoise(heads=5).bind(build)
    narrow = Build(backbone=build.backbone, width=12, vocabulary=build.vocabulary, encoder=build.encoder,
                   load_encoder=build.load_encoder)
    with pytest.raises(ModelError, match="embeddings are 12 wide"):
        Denoise().bind(narrow)
    with pytest.raises(RecipeError, match="needs the encoder"):
        Denoise()._noisy(Tokens(input_ids=IDS, attention_mask=MASK))
    train = Recipe.named("simcse-unsup-minilm").train
    assert "leave one of them out" in Denoise().faults({"train": type(train)(shard=True)})[0]
