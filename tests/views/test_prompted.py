"""prompted: which template each view has, what is subtracted in a step, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder, Recipe
from sentemb.data import Table
from sentemb.data.templates import Template, empty_rows
from sentemb.data.tokens import pad
from sentemb.errors import DataError, RecipeError
from sentemb.views import Prompted

TEXTS = ["the dog runs", "a cat plays music in the city", "x", "two men", "the red house"]
TEMPLATES = ['the song : "{text}" means {mask} .', "{text} , by name {mask} ."]
TREE = {
    "encoder": {"backbone": "B", "pooling": "mask", "prompts": {"song": TEMPLATES[0]}, "default_prompt": "song"},
    "data": {"use": "lines", "path": "texts.txt", "max_tokens": 16},
    "views": {"use": "prompted", "templates": TEMPLATES},
    "terms": [{"use": "info_nce"}],
}


def rows_of(column):
    return [column.flat[a:b].tolist() for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]


@pytest.fixture
def tokeniser(tiny_bert: Path):
    return Encoder.load(tiny_bert).tokeniser


def test_every_view_has_its_template(tokeniser, context_of):
    maker = Prompted(templates=[*TEMPLATES, TEMPLATES[0]])
    examples = maker.read(Table(columns={"anchor": TEXTS}, label=np.arange(5)), tokeniser)
    views = maker(examples, context_of(examples))
    assert list(views) == ["anchor", "positive", "positive_2"] == list(maker.makes(()))
    for view, template in zip(views.values(), [*TEMPLATES, TEMPLATES[0]], strict=True):
        assert rows_of(view.column) == rows_of(tokeniser(TEXTS, Template.read(template)))
        assert view.ids is examples.ids
        assert view.minus is None
        assert view.column.text.tolist() == examples.columns["anchor"].text.tolist()  # the sentence's own hash
    assert views["positive_2"].column.flat.tolist() == views["anchor"].column.flat.tolist()
    assert examples.label.tolist() == [0, 1, 2, 3, 4]


def test_drawn_templates_depend_on_the_generator_alone(tokeniser, context_of):
    maker = Prompted(templates=[*TEMPLATES, "{mask} : {text}"], draw=True)
    examples = maker.read(Table(columns={"anchor": TEXTS * 8}), tokeniser)
    first, again, other = (maker(examples, context_of(examples, seed=seed)) for seed in (1, 1, 2))
    assert list(first) == ["anchor", "positive"]
    known = [rows_of(examples.columns[name]) for name in ("anchor", "anchor/2", "anchor/3")]
    seen = set()
    for i, row in enumerate(rows_of(first["anchor"].column)):
        seen.add([rows[i] for rows in known].index(row))
    assert seen == {0, 1, 2}
    assert first["anchor"].column.flat.tolist() == again["anchor"].column.flat.tolist()
    assert first["anchor"].column.flat.tolist() != first["positive"].column.flat.tolist()
    assert first["anchor"].column.flat.tolist() != other["anchor"].column.flat.tolist()


SOLVED = {"templates": ["{text} , {mask} .", "{mask} : {text}"], "demonstrations": 2}


def test_demonstrations_are_other_rows_with_their_word_in_the_views_template(tokeniser, context_of):
    maker = Prompted(**SOLVED)
    names = ("music", "red_house")
    table = Table(columns={"anchor": TEXTS}, label=np.array([0, 1, 0, 1, 1]), label_names=names)
    examples = maker.read(table, tokeniser)
    views = maker(examples, context_of(examples))
    for view, (before, after) in zip(views.values(), [("", " , {} ."), ("{} : ", "")], strict=True):
        asked = [before.format("[MASK]") + text + after.format("[MASK]") for text in TEXTS]
        solved = [before.format(word) + text + after.format(word)
                  for text, word in zip(TEXTS, ["music", "red house", "music", "red house", "red house"], strict=True)]
        asked, solved = rows_of(tokeniser(asked)), [row[1:] for row in rows_of(tokeniser(solved))]
        for i, row in enumerate(rows_of(view.column)):
            assert row in [asked[i] + solved[j] + solved[k] for j in range(5) for k in range(5) if i not in (j, k)]
            assert row.count(4) == 1
    again = maker(examples, context_of(examples))
    assert again["anchor"].column.flat.tolist() == views["anchor"].column.flat.tolist()
    other = maker(examples, context_of(examples, seed=1))
    assert views["anchor"].column.flat.tolist() != other["anchor"].column.flat.tolist()


def test_demonstrations_are_cut_and_their_texts_hold_no_mask(tokeniser, context_of):
    maker = Prompted(**SOLVED, words=["a", "b"], draw=True)
    table = Table(columns={"anchor": ["the [MASK] dog", "two men", "x"]}, label=np.array([0, 1, 1]))
    whole, short = (maker.fresh() for _ in range(2))
    full = whole.read(table, tokeniser)
    cut = short.read(table, tokeniser.cut_to(16))
    pairs = zip(rows_of(short(cut, context_of(cut))["anchor"].column),
                rows_of(whole(full, context_of(full))["anchor"].column), strict=True)
    for row, longer in pairs:
        assert row == longer[:16]
        assert longer.count(4) == 1


@pytest.mark.parametrize(("table", "words"), [
    (Table(columns={"anchor": TEXTS}, label=np.arange(5)), "the labels are numbers; give words"),
    (Table(columns={"anchor": TEXTS}, label=np.array([0, 1, -1, 0, 1])), "the class of every row"),
    (Table(columns={"anchor": ["x"]}, label=np.array([0])), "need two rows"),
])
def test_demonstrations_need_classes_and_words(table, words, tokeniser):
    with pytest.raises(DataError, match=words):
        Prompted(**SOLVED).read(table, tokeniser)


def run_of(tmp_path: Path, tiny_bert: Path, **views):
    from sentemb.recipe.train import build
    from sentemb.training.run import Run

    (tmp_path / "texts.txt").write_text("\n".join(TEXTS * 3) + "\n")
    tree = {**TREE, "views": {**TREE["views"], **views}}
    tree["encoder"] = {**TREE["encoder"], "backbone": str(tiny_bert)}
    tree["data"] = {**TREE["data"], "path": str(tmp_path / "texts.txt")}
    tree["train"] = {"batch_size": 5, "batches": "shuffled", "precision": "fp32"}
    return Run(build(Recipe.from_tree(tree, "test"), tmp_path / "run"), resume=False)


def test_a_step_subtracts_what_encoding_subtracts(tmp_path, tiny_bert):
    """Pooled rows of a step against Encoder.encode with subtract_empty; without dropout both are one function."""
    run = run_of(tmp_path, tiny_bert, subtract=True)
    objective = run.plan.objective.eval()
    inputs = run.make_input(np.arange(5), 0)
    assert sum(len(group.rows) for group in inputs.groups) < 2 * 5 + 2 * 5  # equal lengths share their template
    with torch.no_grad():
        pooled = objective.encode(inputs).pooled
    encoder = Encoder.load(tiny_bert, pooling="mask", subtract_empty=1.0, precision="fp32", max_tokens=16)
    for view, template in enumerate(TEMPLATES):
        np.testing.assert_allclose(pooled[:, view].numpy(), encoder.encode(TEXTS, prompt=template), atol=1e-5)


def test_gradients_pass_through_the_text_and_the_empty_template(tmp_path, tiny_bert):
    run = run_of(tmp_path, tiny_bert, subtract=True, templates=[TEMPLATES[0]] * 2)
    objective = run.plan.objective.eval()
    module, encoder = objective.encoder, run.plan.encoder
    weight = module.backbone.get_parameter("encoder.layer.0.attention.self.value.weight")
    pooled = objective.encode(run.make_input(np.arange(5), 0)).pooled
    torch.testing.assert_close(pooled[:, 0], pooled[:, 1])  # one template twice, no dropout: one view
    direction = torch.randn(5, pooled.shape[2], generator=torch.Generator().manual_seed(0))
    (found,) = torch.autograd.grad((pooled[:, 0] * direction).sum(), weight)
    template = Template.read(TEMPLATES[0])
    frame, expected = encoder.tokeniser.frame(template), torch.zeros_like(weight)
    for text, toward in zip(TEXTS, direction, strict=True):
        column = encoder.tokeniser.cut_to(16)([text], template)
        empty = empty_rows([frame], frame.room_in(column), encoder.vocabulary)
        row = module.plain(module.backbone, pad(column, 0))[1] - module.plain(module.backbone, empty)[1]
        expected += torch.autograd.grad((row[0] * toward).sum(), weight)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("changes", "words"), [
    ({"views": {"use": "prompted", "templates": ["{text} {mask}"]}}, "at least 2"),
    ({"views": {"use": "prompted", "templates": ["{text} {mask}", "{mask}"]}}, "must have one {text}"),
    ({"views": {"use": "prompted", "templates": ["query: ", "{text} {mask}"]}}, "must have one {text}"),
    ({"views": {"use": "prompted", "templates": ["{text} {mask}", "{text}"]}}, "views.templates[1] must be a template"),
    ({"views": {"use": "prompted", "templates": TEMPLATES, "subtract": True, "draw": True}}, "set draw = false"),
    ({"views": {"use": "prompted", "templates": TEMPLATES, "subtract": True, "demonstrations": 1}}, "leave one of"),
    ({"views": {"use": "prompted", "templates": TEMPLATES, "words": ["a"]}}, "set demonstrations"),
    ({"data": {"use": "lines", "path": "x", "prefixes": {"anchor": "a {text} {mask}"}}}, "leave out data.prefixes"),
    ({"encoder": {"backbone": "B", "pooling": "mask"}}, "encoder.default_prompt must be a template with one {mask}"),
    ({"encoder": {"backbone": "B", "prompts": {"p": "{mask}"}}}, "prompts.p: the template '{mask}' must have one"),
    ({"views": {"use": "twice"}}, "data.prefixes.anchor must be a template with one {mask}"),
    ({"views": {"use": "prompted", "templates": TEMPLATES, "subtract": True},
      "terms": [{"use": "info_nce"}, {"use": "local"}]}, "the term local reads states"),
])
def test_refuses(changes, words):
    with pytest.raises(RecipeError) as refused:
        Recipe.from_tree({**TREE, **changes}, "test")
    assert words in str(refused.value)
