"""reconstruction against the decoder run word by word, what it reads, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from token_batches import IDS, MASK, token_batch

from sentemb.errors import ModelError
from sentemb.terms import Reconstruction
from sentemb.types import Build


@pytest.fixture
def term(build: Build) -> Reconstruction:
    made = Reconstruction()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made.bind(build)
    return made.double().eval()


def sentences(rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def share_of(term, table_of, sentence, ids=IDS, mask=MASK, start=0):
    batch = token_batch(torch.zeros(len(ids), ids.shape[1], 32), sentence, ids=ids, mask=mask, start=start)
    return term(table_of(torch.eye(len(sentence))), batch)


def test_equals_the_decoder_word_by_word(term, table_of):
    total, count, sentence = 0.0, 0, sentences()
    for ids, mask, u in zip(IDS, MASK, sentence, strict=True):
        text = ids[: int(mask.sum())]
        for place in range(1, len(text)):
            with torch.no_grad():
                logits = term.decoder(input_ids=text[None, :place], encoder_hidden_states=u[None, None]).logits[0, -1]
            total -= float(logits.log_softmax(dim=0)[text[place]])
            count += 1
    share = share_of(term, table_of, sentence)
    assert share.count.item() == count == 6
    assert share.total.item() == pytest.approx(total, rel=1e-9)


def test_gradcheck_and_what_learns(term, table_of):
    assert torch.autograd.gradcheck(
        lambda u: share_of(term, table_of, u).total, sentences().requires_grad_(), atol=1e-6
    )
    share_of(term, table_of, sentences()).total.backward()
    assert all(parameter.grad is not None for name, parameter in term.named_parameters() if "crossattention" in name)


def test_every_embedding_writes_its_own_text(term, table_of):
    sentence = sentences(3)
    own = share_of(term, table_of, sentence, start=1).total.item()
    assert own == share_of(term, table_of, sentence[[2, 1, 2]], start=1).total.item()
    assert own != share_of(term, table_of, sentence[[0, 2, 1]], start=1).total.item()


def test_order_of_examples_does_not_matter_and_one_token_counts_nothing(term, table_of):
    sentence = sentences()
    before = share_of(term, table_of, sentence).total.item()
    turned = share_of(term, table_of, sentence.flip(0), ids=IDS.flip(0), mask=MASK.flip(0)).total.item()
    assert turned == pytest.approx(before, rel=1e-12)
    alone = share_of(term, table_of, sentence, mask=torch.tensor([[1, 0, 0, 0, 0]] * 2))
    assert (alone.total.item(), alone.count.item()) == (0.0, 0.0)


def test_other_widths_and_checkpoints_without_a_decoder_are_refused(build, tmp_path):
    from dataclasses import replace

    with pytest.raises(ModelError, match="the embeddings are 16 wide and the decoder's states 32"):
        Reconstruction().bind(replace(build, width=16))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "distilbert"}))
    with pytest.raises(ModelError):
        Reconstruction().bind(replace(build, backbone=str(tmp_path)))
