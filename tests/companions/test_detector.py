"""The detector against a position-by-position reference, what learns and what does not, and wrong checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertModel, RobertaConfig, RobertaForMaskedLM

from sentemb.companions.detector import Detector, concatenate_tokens
from sentemb.errors import CheckpointError, ModelError
from sentemb.types import Build, Tokens, Vocabulary

PAD, CLS, SEP, MASK = 0, 2, 3, 4


def make_build(folder: Path, width: int = 32, seed: int = 42) -> Build:
    size = len(AutoTokenizer.from_pretrained(folder))
    return Build(
        backbone=str(folder),
        width=width,
        vocabulary=Vocabulary(size=size, pad=PAD, mask=MASK, special=frozenset({PAD, CLS, SEP})),
        encoder=torch.nn.Identity(),
        load_encoder=lambda _: torch.nn.Identity(),
        seed=seed,
    )


@pytest.fixture(scope="module")
def detector(tiny_bert):
    part = Detector(generator=str(tiny_bert))
    part.bind(make_build(tiny_bert))
    return part.eval()


@pytest.fixture
def masked():
    """Two sentences [CLS] 10 11 12 [SEP] and [CLS] 20 [SEP], with 11 and 20 masked."""
    return Tokens(
        input_ids=torch.tensor([[CLS, 10, MASK, 12, SEP], [CLS, MASK, SEP, PAD, PAD]]),
        attention_mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        targets=torch.tensor([[-100, -100, 11, -100, -100], [-100, 20, -100, -100, -100]]),
    )


@pytest.fixture
def sentence():
    return torch.randn(2, 32, generator=torch.Generator().manual_seed(1))


def test_edits_and_labels_position_by_position(detector, masked, sentence, tiny_bert):
    detection = detector.detect([masked], [sentence])
    generator = AutoModelForMaskedLM.from_pretrained(tiny_bert).eval()
    with torch.no_grad():
        logits = generator(input_ids=masked.input_ids, attention_mask=masked.attention_mask).logits
    originals = [[CLS, 10, 11, 12, SEP], [CLS, 20, SEP]]
    for row, original in enumerate(originals):
        for place, token in enumerate(original):
            ordinary = token not in (CLS, SEP)
            assert bool(detection.counted[row, place]) is ordinary
            if ordinary:
                best = max(range(logits.shape[2]), key=lambda v: float(logits[row, place, v]))
                assert bool(detection.replaced[row, place]) is (best != token)
            else:
                assert not detection.replaced[row, place]
    assert not detection.counted[1, 3:].any()
    assert detection.logits.shape == (2, 5, 2)


def test_a_generator_that_restores_the_sentence_replaces_nothing(detector, masked, sentence, monkeypatch):
    originals = torch.tensor([[CLS, 10, 11, 12, SEP], [CLS, 20, SEP, 7, 7]])
    monkeypatch.setattr(detector, "generate", lambda tokens: originals)
    assert not detector.detect([masked], [sentence]).replaced.any()
    wrong = originals.clone()
    wrong[0, 2], wrong[0, 0], wrong[1, 2], wrong[1, 4] = 30, 30, 30, 30  # only the first is an ordinary token
    monkeypatch.setattr(detector, "generate", lambda tokens: wrong)
    assert detector.detect([masked], [sentence]).replaced.nonzero().tolist() == [[0, 2]]


@pytest.fixture(params=["lean", "plain"])
def either(request, detector, monkeypatch):
    """The detector by the lean training forward, which BERT has on a CPU, and by transformers' own."""
    if request.param == "plain":
        monkeypatch.setattr(detector, "_lean", None)
    return detector


def test_conditioning_replaces_the_first_position_behind_the_embedding_layer(either, masked, sentence):
    detector = either
    ids, mask = masked.input_ids, masked.attention_mask
    model = detector.discriminator
    embedded = model.embeddings(input_ids=ids)
    embedded[:, 0] = sentence
    visible = torch.zeros(2, 1, 1, 5).masked_fill(mask[:, None, None, :] == 0, torch.finfo(torch.float32).min)
    hidden = model.encoder(embedded, attention_mask=visible).last_hidden_state
    expected = hidden @ detector.head.weight.T + detector.head.bias
    logits = detector.discriminate(ids, mask, sentence)
    assert torch.allclose(logits[mask.bool()], expected[mask.bool()], atol=1e-6)


def test_the_hook_does_not_outlive_the_call(either, masked, sentence):
    detector = either
    before = detector.discriminator(input_ids=masked.input_ids, attention_mask=masked.attention_mask).last_hidden_state
    detector.detect([masked], [sentence])
    after = detector.discriminator(input_ids=masked.input_ids, attention_mask=masked.attention_mask).last_hidden_state
    assert torch.equal(before, after)


def test_gradients_reach_sentence_discriminator_and_head_but_not_the_generator(either, masked, sentence):
    detector = either
    sentence.requires_grad_()
    detector.zero_grad()
    detector.detect([masked], [sentence]).logits.square().sum().backward()
    assert sentence.grad.abs().sum() > 0
    unused = {name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None}
    assert unused == set()  # DistributedDataParallel would wait for them
    assert not any(p.requires_grad for p in detector.generator.parameters())


def test_gradients_are_those_of_the_plain_forward(detector, masked, sentence, monkeypatch):
    def gradients():
        own = sentence.clone().requires_grad_()
        detector.zero_grad()
        detection = detector.detect([masked], [own])
        (detection.logits[detection.counted] * torch.tensor([1.0, -2.0])).sum().backward()
        assert own.grad is not None
        return {"sentence": own.grad, **{name: p.grad for name, p in detector.named_parameters() if p.requires_grad}}

    lean = gradients()
    monkeypatch.setattr(detector, "_lean", None)
    plain = gradients()
    assert lean["sentence"].abs().sum() > 0
    for name in lean:
        torch.testing.assert_close(lean[name], plain[name], atol=1e-5, rtol=1e-4)


def test_two_views_are_one_pass_and_equal_two(detector, masked, sentence):
    shorter = Tokens(
        input_ids=masked.input_ids[:, :4], attention_mask=masked.attention_mask[:, :4], targets=masked.targets[:, :4]
    )
    both = detector.detect([masked, shorter], [sentence, -sentence])
    first, second = detector.detect([masked], [sentence]), detector.detect([shorter], [-sentence])
    assert torch.equal(both.replaced[:2], first.replaced)
    assert torch.equal(both.replaced[2:, :4], second.replaced)
    assert not both.counted[2:, 4].any()
    real = masked.attention_mask.bool()
    assert torch.allclose(both.logits[:2][real], first.logits[real], atol=1e-6)
    real = shorter.attention_mask.bool()
    assert torch.allclose(both.logits[2:, :4][real], second.logits[real], atol=1e-6)


def test_generating_in_pieces_changes_nothing(detector, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 40, (7, 6), generator=generator)
    tokens = Tokens(input_ids=ids, attention_mask=torch.ones_like(ids), targets=torch.full_like(ids, -100))
    whole = detector.generate(tokens)
    monkeypatch.setattr("sentemb.companions.detector.GENERATED_TOKENS", {"cpu": 13})  # two rows at a time
    assert torch.equal(detector.generate(tokens), whole)


@pytest.mark.parametrize("side", ["right", "left"])
def test_pieces_of_rows_alike_in_length_change_nothing(detector, monkeypatch, side):
    ids = torch.randint(5, 40, (7, 6), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(6) < torch.tensor([6, 2, 4, 3, 6, 2, 5])[:, None]).long()
    mask = mask if side == "right" else mask.flip(1)
    tokens = Tokens(input_ids=ids, attention_mask=mask, targets=torch.full_like(ids, -100))
    with torch.no_grad():
        best = detector.generator(input_ids=ids, attention_mask=mask).logits.argmax(dim=-1)
    monkeypatch.setattr("sentemb.companions.detector.GENERATED_TOKENS", {"cpu": 13})
    assert torch.equal(detector.generate(tokens)[mask.bool()], best[mask.bool()])


def test_loading_is_silent_and_leaves_transformers_as_it_was(tiny_bert, capfd):
    from transformers.utils import logging

    logging.enable_progress_bar()
    before = logging.get_verbosity()
    Detector(generator=str(tiny_bert)).bind(make_build(tiny_bert))
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == before


def test_training_mode_leaves_the_generator_in_evaluation(tiny_bert):
    part = Detector(generator=str(tiny_bert))
    part.bind(make_build(tiny_bert))
    part.train()
    assert part.discriminator.training
    assert not any(module.training for module in part.generator.modules())


def test_head_depends_on_the_seed_only(tiny_bert):
    heads = []
    for seed, noise in ((1, 5), (1, 6), (2, 5)):
        torch.manual_seed(noise)
        part = Detector(generator=str(tiny_bert))
        part.bind(make_build(tiny_bert, seed=seed))
        heads.append(part.head.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_checkpoint_holds_what_was_trained_and_restores_it(detector, tiny_bert):
    state = {name: tensor.clone() for name, tensor in detector.checkpoint_state().items()}
    assert not any(name.startswith("generator.") for name in state)
    assert any(name.startswith("discriminator.") for name in state)
    other = copy.deepcopy(detector)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other.load_checkpoint_state(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.checkpoint_state().items())
    with pytest.raises(CheckpointError, match="another detector"):
        other.load_checkpoint_state({"head.weight": state["head.weight"]})


def test_light_until_bound(tiny_bert):
    assert list(Detector(generator=str(tiny_bert)).parameters()) == []


def test_width_must_fit(tiny_bert):
    with pytest.raises(ModelError, match="embeddings are 48 wide, but the discriminator's input is 32 wide"):
        Detector(generator=str(tiny_bert)).bind(make_build(tiny_bert, width=48))


def test_generator_without_a_head_is_named(tiny_bert, tmp_path):
    BertModel(BertConfig.from_pretrained(tiny_bert)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no masked-language-model head"):
        Detector(generator=str(tmp_path)).bind(make_build(tiny_bert))


def test_another_vocabulary_is_named(tiny_bert, tmp_path):
    for file in tiny_bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="must share one vocabulary"):
        Detector(generator=str(tmp_path)).bind(make_build(tiny_bert))


def test_a_missing_checkpoint_is_named(tiny_bert, tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        Detector(generator=str(tmp_path / "nowhere")).bind(make_build(tiny_bert))


def test_roberta_is_conditioned_likewise(tiny_bert, tmp_path, masked, sentence):
    config = RobertaConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(tiny_bert)), hidden_size=32, num_hidden_layers=1,
        num_attention_heads=4, intermediate_size=64, max_position_embeddings=40, pad_token_id=PAD, type_vocab_size=1,
        bos_token_id=CLS, eos_token_id=SEP,
    )
    RobertaForMaskedLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    part = Detector(generator=str(tiny_bert), backbone=str(tmp_path))
    part.bind(make_build(tiny_bert))
    part.eval()
    first = part.detect([masked], [sentence]).logits
    second = part.detect([masked], [2 * sentence]).logits
    assert not torch.allclose(first[0, 1:], second[0, 1:])


def test_concatenated_tokens_are_padded_like_their_kind(masked):
    narrow = Tokens(
        input_ids=torch.tensor([[7, 8]]), attention_mask=torch.tensor([[1, 1]]), targets=torch.tensor([[-100, 5]])
    )
    joined = concatenate_tokens([masked, narrow], pad=9)
    assert joined.input_ids[2].tolist() == [7, 8, 9, 9, 9]
    assert joined.attention_mask[2].tolist() == [1, 1, 0, 0, 0]
    assert joined.targets[2].tolist() == [-100, 5, -100, -100, -100]
