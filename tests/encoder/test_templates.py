"""Templates when texts are encoded: tokens, the mask's vector, the empty template, what is saved, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModel

from sentemb import Encoder
from sentemb.data.templates import Template
from sentemb.encoder.tokeniser import Tokeniser
from sentemb.errors import ModelError
from sentemb.types import TokenColumn, Vocabulary

TEXTS = ["the dog runs", "a cat plays music in the city.", "x", "", '"two" men', "9 the big house [MASK] song"]
MEANS = 'the song : "{text}" means {mask} .'
TEMPLATES = [MEANS, "{mask} is a name for {text}", "{text}{mask}", "a {text}", "at first {text} , {mask} ?"]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokeniser:
    """RoBERTa's kind of tokenizer: spaces belong to words, marks beside one another become one token."""
    backend = ByteLevelBPETokenizer(trim_offsets=True)
    corpus = ['the dog runs." means', 'say ""two" men', "a cat plays music ." ] * 20
    backend.train_from_iterator(corpus, vocab_size=400, min_frequency=1,
                                special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    from tokenizers.processors import RobertaProcessing

    fast = backend._tokenizer
    fast.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    vocabulary = Vocabulary(size=400, pad=1, mask=4, special=frozenset(range(5)))
    return Tokeniser(fast, vocabulary, 64, lambda: None)


@pytest.fixture
def tokeniser(request: pytest.FixtureRequest, tiny_bert: Path) -> Tokeniser:
    return Encoder.load(tiny_bert).tokeniser if request.param == "word_piece" else request.getfixturevalue("byte_level")


def rows_of(column: TokenColumn) -> list[list[int]]:
    return [column.flat[a:b].tolist() for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("tokeniser", ["word_piece", "byte_level"], indirect=True)
def test_tokens_are_those_of_the_whole_text_and_cuts_spare_the_template(tokeniser: Tokeniser, template: str) -> None:
    read = Template.read(template)
    whole = rows_of(tokeniser(read.fill(TEXTS, tokeniser.mask_token)))
    assert rows_of(tokeniser(TEXTS, read)) == whole
    frame = tokeniser.frame(read)
    mask = tokeniser.vocabulary.mask
    for max_tokens in range(len(frame) + 1, 24):
        short = tokeniser.cut_to(max_tokens)
        for row, full in zip(rows_of(short(TEXTS, read)), whole, strict=True):
            behind = len(frame.end)
            assert row == (full if len(full) <= max_tokens else full[: max_tokens - behind] + full[-behind:])
            assert not read.masks or row.count(mask) == read.masks  # the mask token in a text is spelled apart
        assert short.cut_count == sum(len(full) > max_tokens for full in whole)
    with pytest.raises(ModelError, match=f"takes {len(frame)} tokens itself; allowed: at least {len(frame) + 1}"):
        tokeniser.cut_to(len(frame)).frame(read)


@pytest.mark.parametrize("tokeniser", ["word_piece", "byte_level"], indirect=True)
def test_the_frame_is_what_stands_around_a_text(tokeniser: Tokeniser) -> None:
    for template in TEMPLATES:
        frame = tokeniser.frame(Template.read(template))
        (row,) = rows_of(tokeniser(["dog"], Template.read(template)))
        assert tuple(row[: len(frame.begin)]) == frame.begin
        assert tuple(row[len(row) - len(frame.end) :]) == frame.end


def test_the_vector_is_the_hidden_state_at_the_mask(tiny_bert: Path) -> None:
    settings = {"pooling": "mask", "prompts": {"means": MEANS}, "default_prompt": "means"}
    encoder = Encoder.load(tiny_bert, **settings, precision="fp32")
    bert = AutoModel.from_pretrained(tiny_bert).eval()
    for text, vector in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        (ids,) = rows_of(encoder.tokeniser([text], Template.read(MEANS)))
        with torch.no_grad():
            hidden = bert(input_ids=torch.tensor([ids])).last_hidden_state[0]
        np.testing.assert_allclose(vector, hidden[ids.index(4)].numpy(), atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(TEXTS, prompt=MEANS), encoder.encode(TEXTS))
    other = encoder.encode(TEXTS, prompt="{mask} : {text}")
    assert np.abs(other - encoder.encode(TEXTS)).max() > 1e-2
    np.testing.assert_allclose(encoder.encode(TEXTS[1]), encoder.encode(TEXTS)[1], atol=1e-6)  # alone as in company


@pytest.mark.parametrize("pooling", ["mask", "mean"])
def test_the_empty_template_is_subtracted_at_the_texts_positions(tiny_bert: Path, pooling: str) -> None:
    """Against transformers' own forward pass with explicit position ids, as PromptBERT's release has it."""
    settings = {"pooling": pooling, "prompts": {"means": MEANS}, "default_prompt": "means", "precision": "fp32"}
    plain = Encoder.load(tiny_bert, **settings)
    less = Encoder.load(tiny_bert, **settings, subtract_empty=0.5)
    frame = plain.tokeniser.frame(Template.read(MEANS))
    bert = AutoModel.from_pretrained(tiny_bert).eval()
    ids = torch.tensor([[*frame.begin, *frame.end]])
    difference = plain.encode(TEXTS) - less.encode(TEXTS)
    for text, row in zip(TEXTS, difference, strict=True):
        room = len(plain.tokeniser([text], Template.read(MEANS)).flat) - len(frame)
        position = torch.arange(ids.shape[1])
        position[len(frame.begin) :] += room
        with torch.no_grad():
            hidden = bert(input_ids=ids, position_ids=position[None]).last_hidden_state[0]
        expected = hidden[ids[0] == 4][0] if pooling == "mask" else hidden.mean(0)
        np.testing.assert_allclose(row, 0.5 * expected.numpy(), atol=1e-5)


def test_a_saved_model_encodes_as_before(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_bert, pooling="mask", prompts={"means": MEANS, "query": "a {text} {mask}"},
                           default_prompt="means", subtract_empty=1.0, precision="fp32")
    folder = encoder.save(tmp_path / "model")
    wanted = encoder.encode(TEXTS)
    for _ in range(2):  # the second start is lean
        again = Encoder.load(folder, precision="fp32")
        assert (again.default_prompt, again.subtract_empty) == ("means", 1.0)
        np.testing.assert_allclose(again.encode(TEXTS), wanted, atol=1e-6)
        np.testing.assert_allclose(again.encode_query(TEXTS), encoder.encode(TEXTS, prompt_name="query"), atol=1e-6)
        assert again.digest() == encoder.digest()
    for change in ({"subtract_empty": 0.0}, {"default_prompt": "query"}, {"prompts": {"means": "{text} {mask}"}}):
        assert Encoder.load(folder, **change).digest() != encoder.digest()


@pytest.mark.parametrize("settings", [
    {"pooling": "mask", "prompts": {"means": MEANS}, "default_prompt": "means"},
    {"pooling": "mean", "prompts": {"means": 'the song : "{text}"'}, "default_prompt": "means"},
    {"pooling": "mean", "prompts": {"means": "query: "}, "subtract_empty": 1.0},
])
def test_sentence_transformers_does_not_open_it_as_something_else(settings, tiny_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = Encoder.load(tiny_bert, **settings).save(tmp_path / "model")
    with pytest.raises(ModelError, match="writes every text into a template"):
        SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    with pytest.raises(ValueError, match=r"sentemb.encoder.prompting.Templates"):
        SentenceTransformer(str(folder), device="cpu")


def test_prefixes_are_saved_as_before(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Encoder.load(tiny_bert, pooling="mean", prompts={"query": "q: "}).save(tmp_path / "model")
    kinds = [module["type"].rsplit(".", 1)[-1] for module in json.loads((folder / "modules.json").read_text())]
    assert kinds == ["Transformer", "Pooling"]


@pytest.mark.parametrize(("settings", "words"), [
    ({"pooling": "mask", "prompts": {"p": "{text}"}, "default_prompt": "p"}, "prompts.p: must be a template with one"),
    ({"prompts": {"p": "{mask}"}}, "prompts.p: the template '{mask}' must have one {text}"),
    ({"prompts": {"p": MEANS}, "max_tokens": 9}, "prompts.p: max_tokens = 9 leaves no room"),
    ({"default_prompt": "q", "prompts": {"p": "x"}}, 'default_prompt = "q"; known: p'),
])
def test_templates_that_cannot_be_used_are_refused_at_load(settings, words: str, tiny_bert: Path) -> None:
    with pytest.raises(ModelError) as refused:
        Encoder.load(tiny_bert, **settings)
    assert words in str(refused.value)


def test_what_encode_refuses(tiny_bert: Path) -> None:
    encoder = Encoder.load(tiny_bert, pooling="mask")
    for prompt in (None, "query: ", "{text} {mask} {mask}"):
        with pytest.raises(ModelError, match=r"prompt must be a template with one \{mask\}"):
            encoder.encode(TEXTS, prompt=prompt)
    column = encoder.tokeniser(["a", "b"], Template.read("{text} {mask}"))
    with pytest.raises(ModelError, match="text 1 has 0 mask tokens"):
        encoder.encode(replace(column, flat=np.where(np.arange(len(column.flat)) > 4, 7, column.flat)))
    with pytest.raises(ModelError, match="the tokenizer has none"):
        type(encoder.module)(encoder.module.backbone, encoder.module.pooling, mask_token=None)
    with pytest.raises(ValueError, match="joined with none"):
        Encoder.load(tiny_bert, pooling="mask+mean")
