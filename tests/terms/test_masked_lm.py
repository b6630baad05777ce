"""masked_lm on tiny checkpoints: its head is the checkpoint's, its loss the cross-entropy of the chosen tokens."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from sentemb.encoder.pretrained import load_masked_lm_head
from sentemb.errors import ModelError
from sentemb.terms.masked_lm import MaskedLM
from sentemb.types import Encoded, Tokens

SMALL = {"vocab_size": 50, "max_position_embeddings": 40}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture
def term(tiny_bert, build_for):
    part = MaskedLM()
    part.bind(build_for(str(tiny_bert)))
    return part


@pytest.fixture
def masked():
    return Tokens(
        input_ids=torch.tensor([[2, 10, 4, 12, 3], [2, 4, 3, 0, 0]]),
        attention_mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        targets=torch.tensor([[-100, -100, 11, 12, -100], [-100, 20, -100, -100, -100]]),
    )


@pytest.fixture
def batch(batch_of):
    def make(hidden, tokens, name="anchor.masked"):
        return batch_of(2, tokens={name: tokens}, encoded={name: Encoded(pooled=hidden[:, 0], hidden=hidden)})

    return make


def hidden_states(dtype=torch.float32):
    return torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_equals_the_checkpoints_own_loss(term, tiny_bert, masked, batch, table_of):
    model = AutoModelForMaskedLM.from_pretrained(tiny_bert).eval()
    inputs = {"input_ids": masked.input_ids, "attention_mask": masked.attention_mask}
    hidden = model.bert(**inputs).last_hidden_state
    share = term(table_of(torch.eye(2)), batch(hidden, masked))
    assert share.count.item() == 3
    own = model(**inputs, labels=masked.targets).loss
    assert (share.total / share.count).item() == pytest.approx(own.item(), rel=1e-5)


def test_equals_the_loop(term, masked, batch, table_of):
    hidden = hidden_states()
    share = term(table_of(torch.eye(2)), batch(hidden, masked))
    total = 0.0
    for row, place, word in ((0, 2, 11), (0, 3, 12), (1, 1, 20)):
        logits = term.head(hidden[row, place][None])[0].tolist()
        total -= logits[word] - math.log(sum(map(math.exp, logits)))
    assert share.total.item() == pytest.approx(total, rel=1e-5)


def test_hand_worked_two_by_two(batch, table_of):
    part = MaskedLM()
    decoder = torch.nn.Linear(2, 2)
    with torch.no_grad():
        decoder.weight.copy_(torch.eye(2))
        decoder.bias.zero_()
    part.head = torch.nn.Sequential(decoder)
    hidden = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]])
    tokens = Tokens(
        input_ids=torch.tensor([[4], [4]]),
        attention_mask=torch.ones(2, 1, dtype=torch.long),
        targets=torch.tensor([[0], [0]]),
    )
    share = part(table_of(torch.eye(2)), batch(hidden, tokens))
    # -log softmax(2, 0)[0] = 0.126928 and -log softmax(0, 1)[0] = 1.313262
    assert share.total.item() == pytest.approx(0.126928 + 1.313262, abs=1e-5)


def test_order_of_rows_does_not_matter(term, masked, batch, table_of):
    hidden = hidden_states()
    before = term(table_of(torch.eye(2)), batch(hidden, masked))
    flipped = Tokens(
        input_ids=masked.input_ids.flip(0), attention_mask=masked.attention_mask.flip(0), targets=masked.targets.flip(0)
    )
    after = term(table_of(torch.eye(2)), batch(hidden.flip(0), flipped))
    assert after.total.item() == pytest.approx(before.total.item(), rel=1e-5)


def test_gradcheck(term, masked, batch, table_of):
    term.double()
    hidden = hidden_states(torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: term(table_of(torch.eye(2)), batch(h, masked)).total, (hidden,))


def test_a_batch_without_chosen_tokens_counts_nothing_but_stays_connected(term, masked, batch, table_of):
    nothing = Tokens(
        input_ids=masked.input_ids, attention_mask=masked.attention_mask, targets=torch.full_like(masked.targets, -100)
    )
    hidden = hidden_states().requires_grad_()
    share = term(table_of(torch.eye(2)), batch(hidden, nothing))
    share.total.backward()
    assert share.count.item() == share.total.item() == 0
    assert (hidden.grad == 0).all()
    assert all(parameter.grad is not None for parameter in term.parameters())


def test_bfloat16_is_scored_in_float32(term, masked, batch, table_of):
    exact = term(table_of(torch.eye(2)), batch(hidden_states(), masked))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = term(table_of(torch.eye(2).bfloat16()), batch(hidden_states().bfloat16(), masked))
    assert half.total.dtype == torch.float32
    assert half.total.item() == pytest.approx(exact.total.item(), rel=2e-2)


def test_names_what_it_needs_and_has_encoded():
    part = MaskedLM(of=["anchor", "positive"])
    assert part.encodes == {"anchor.masked", "positive.masked"}
    assert part.needs == {"hidden", "tokens", "view:anchor.masked", "view:positive.masked"}
    assert list(part.parameters()) == []  # light until it is bound


def test_views_must_differ():
    with pytest.raises(ValueError, match=r"of.*every view once"):
        MaskedLM(of=["anchor", "anchor"])


@pytest.mark.parametrize(
    ("model", "backbone"),
    [
        (RobertaForMaskedLM(RobertaConfig(**SMALL, **LAYERS, hidden_act="relu")), "roberta"),
        (
            DistilBertForMaskedLM(DistilBertConfig(**SMALL, dim=16, n_layers=1, n_heads=2, hidden_dim=32)),
            "distilbert",
        ),
    ],
)
def test_heads_of_other_architectures_are_theirs(model, backbone, tmp_path):
    for parameter in model.parameters():  # fresh biases and norms are 0 and 1: make every weight tell
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(tmp_path)
    head, trained = load_masked_lm_head(tmp_path, seed=0)
    ids = torch.tensor([[5, 6, 7, 8]])
    model.eval()
    hidden = model.get_submodule(backbone)(ids).last_hidden_state
    assert trained
    assert torch.allclose(head(hidden[0]), model(ids).logits[0], atol=1e-4)


def test_a_checkpoint_without_a_head_gets_a_fresh_one_from_the_seed(tiny_bert, tmp_path):
    BertModel(BertConfig.from_pretrained(tiny_bert)).save_pretrained(tmp_path)
    torch.manual_seed(1)
    first, trained = load_masked_lm_head(tmp_path, seed=5)
    torch.manual_seed(2)
    second, _ = load_masked_lm_head(tmp_path, seed=5)
    third, _ = load_masked_lm_head(tmp_path, seed=6)
    assert not trained
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, third[0].weight)
    words = BertModel.from_pretrained(tmp_path).embeddings.word_embeddings.weight
    assert torch.equal(first[3].weight, words)


def test_a_fresh_head_is_said(tiny_bert, tmp_path, build_for):
    BertModel(BertConfig.from_pretrained(tiny_bert)).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no masked-language-model head, so a fresh one is trained"):
        MaskedLM().bind(build_for(str(tmp_path)))


def test_a_head_of_unknown_shape_is_named(tmp_path):
    ElectraForMaskedLM(ElectraConfig(**SMALL, **LAYERS, embedding_size=16)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="head of an unknown shape"):
        load_masked_lm_head(tmp_path, seed=0)
