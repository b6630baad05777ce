"""causal_lm: transformers' own loss on tiny decoders."""

from __future__ import annotations

import pytest
import torch
from token_batches import IDS, MASK
from transformers import AutoModelForCausalLM, BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel, Qwen3Config
from transformers import Qwen3ForCausalLM as Qwen3

from sentemb.errors import ModelError
from sentemb.terms import CausalLM
from sentemb.types import Encoded, Tokens


@pytest.fixture(params=["gpt2", "qwen3"])
def decoder(request, tmp_path):
    torch.manual_seed(0)
    if request.param == "gpt2":
        shape = {"n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=20, bos_token_id=2, eos_token_id=3, **shape))
    else:
        shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
        model = Qwen3(Qwen3Config(
            vocab_size=20, hidden_size=16, intermediate_size=32, max_position_embeddings=16, tie_word_embeddings=False,
            **shape,
        ))
    model.save_pretrained(tmp_path)
    return tmp_path


def test_equals_the_models_own_loss(decoder, build_for, table_of, batch_of):
    term = CausalLM()
    term.bind(build_for(str(decoder)))
    model = AutoModelForCausalLM.from_pretrained(decoder).eval()
    labels = IDS.masked_fill(MASK == 0, -100)
    with torch.no_grad():
        own = model(input_ids=IDS, attention_mask=MASK, labels=labels)
        hidden = model.base_model(input_ids=IDS, attention_mask=MASK).last_hidden_state
    tokens = Tokens(input_ids=IDS, attention_mask=MASK)
    batch = batch_of(2, tokens={"anchor": tokens}, encoded={"anchor": Encoded(pooled=hidden[:, 0], hidden=hidden)})
    share = term(table_of(torch.eye(2)), batch)
    assert share.count.item() == 6  # 4 + 2 next tokens; none of padding
    assert (share.total / share.count).item() == pytest.approx(own.loss.item(), rel=1e-5)


def test_an_encoder_is_refused(tmp_path, build_for):
    layers = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertLMHeadModel(BertConfig(vocab_size=20, is_decoder=False, **layers)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no causal language model"):
        CausalLM().bind(build_for(str(tmp_path)))
