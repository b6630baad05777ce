"""A recipe is a value: in Python and in TOML, equal, replaced, never used up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder, EncoderSettings, Recipe, TrainSettings, train
from sentemb.companions import Reference
from sentemb.data import Lines, TextPairs
from sentemb.edits import FalseNegative, Queue
from sentemb.encoder.heads import MLP
from sentemb.encoder.poolings import PARTS as POOLINGS
from sentemb.errors import PartError, RecipeError
from sentemb.recipe.load import shipped_recipes
from sentemb.terms import Distill, InfoNCE, MaskedLM, Uniformity
from sentemb.training.callbacks import Callback
from sentemb.views import Columns, Masked, Twice


def recipe(**changes) -> Recipe:
    fields = {
        "name": "mine", "encoder": EncoderSettings(backbone="bert", pooling="cls", heads=[MLP(train_only=True)]),
        "data": Lines(path="texts.txt", max_tokens=32), "views": Twice(), "copies": [Masked(of=["anchor"])],
        "edits": [FalseNegative(by=["text"])], "terms": [InfoNCE(temperature=0.1), 0.1 * MaskedLM()],
        "train": TrainSettings(batch_size=8, nested_dims=()), "source": "here", "expected": {"STS-B": 70.5},
    }
    return Recipe(**{**fields, **changes})


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_toml_and_python_are_two_spellings_of_every_shipped_recipe(name):
    shipped = Recipe.named(name)
    assert shipped.name == name
    again = Recipe.from_toml(shipped.to_toml())
    assert again == shipped
    assert again.hash == shipped.hash
    assert again.to_toml() == shipped.to_toml()
    assert shipped.fresh() == shipped


def test_python_and_toml_make_the_same_value():
    text = """
        name = "mine"
        source = "here"
        expected = { STS-B = 70.5 }
        [encoder]
        backbone = "bert"
        pooling = "cls"
        heads = [{ use = "mlp", train_only = true }]
        [data]
        use = "lines"
        path = "texts.txt"
        max_tokens = 32
        [views]
        use = "twice"
        copies = [{ use = "masked", of = ["anchor"] }]
        [[edits]]
        use = "false_negative"
        by = ["text"]
        [[terms]]
        use = "info_nce"
        temperature = 0.1
        [[terms]]
        use = "masked_lm"
        weight = 0.1
        [train]
        batch_size = 8
    """
    assert Recipe.from_toml(text) == recipe()
    assert Recipe.from_toml(recipe().to_toml()) == recipe()
    poolings = {cls.__name__: cls for cls in POOLINGS.values() if isinstance(cls, type)}  # others are named, not loaded
    assert eval(repr(recipe()), {**globals(), **poolings}) == recipe()


def test_recipes_differ_by_value():
    assert recipe() == recipe()
    assert recipe(terms=[InfoNCE(temperature=0.1), 0.2 * MaskedLM()]) != recipe()
    assert recipe(terms=[InfoNCE(temperature=0.1), 0.1 * MaskedLM(of=["positive"])], copies=[
        Masked(of=["anchor", "positive"])]) != recipe()
    assert recipe().replace(note="x") != recipe()
    assert recipe(train=TrainSettings(batch_size=8, seed=42)) == recipe()  # 42 is the default


def test_replace_checks_and_leaves_the_first_as_it_is():
    first = recipe()
    longer = first.replace(train=TrainSettings(epochs=3), edits=[])
    assert longer.train.epochs == 3
    assert longer.edits == ()
    assert longer.terms == first.terms
    assert first == recipe()
    with pytest.raises(PartError, match=r'\(queue\) needs the companion "momentum"'):
        first.replace(edits=[Queue()])


def test_the_hash_covers_what_is_trained():
    first = recipe()
    assert first.hash == first.replace(name="other", source="me", note="hello", expected={}).hash
    for other in (
        first.replace(train=TrainSettings(batch_size=8, seed=1)),
        first.replace(data=Lines(path="other.txt", max_tokens=32)),
        first.replace(terms=[InfoNCE(temperature=0.1), 0.2 * MaskedLM()]),
        first.replace(similarity="dot", terms=[InfoNCE(temperature=0.1)]),
    ):
        assert other.hash != first.hash


def test_faults_of_a_value_come_at_once():
    with pytest.raises(PartError) as caught:
        recipe(terms=[InfoNCE(), InfoNCE()], copies=[], edits=[Queue()], train=TrainSettings(eval_every=5))
    message = str(caught.value)
    for words in ('has 2 parts named "info_nce"', '"momentum"', "needs a [[dev]] task"):
        assert words in message
    with pytest.raises(PartError, match="terms is empty"):
        recipe(terms=[])
    with pytest.raises(PartError, match=r"terms\[0\] = 3: must be a Term"):
        recipe(terms=[3])
    with pytest.raises(PartError, match="weight = -1"):
        -1 * InfoNCE()


def test_terms_of_one_kind_have_names_of_their_own():
    both = recipe(terms=[InfoNCE(), 0.5 * InfoNCE(temperature=0.5).marked(name="soft")])
    assert [term.name for term in both.terms] == ["info_nce", "soft"]
    assert [term.weight for term in both.terms] == [1.0, 0.5]
    assert Recipe.from_toml(both.to_toml()) == both


def texts(count: int) -> list[str]:
    words = "the a man woman dog cat runs eats plays music red blue green river house song film book city team".split()
    draw = np.random.default_rng(3)
    return [" ".join(draw.choice(words, size=6)) + f" {i}" for i in range(count)]


@pytest.fixture
def small(tiny_bert: Path) -> Recipe:
    return Recipe(
        name="small", encoder=EncoderSettings(backbone=str(tiny_bert)), views=Columns(),
        data=TextPairs(path="nowhere.jsonl", max_tokens=16),
        terms=[InfoNCE()],
        train=TrainSettings(batch_size=8, max_steps=2, precision="fp32", log_every=1),
    )


def pairs(count: int = 24) -> list[dict[str, str]]:
    return [{"anchor": a, "positive": b} for a, b in zip(texts(count), texts(2 * count)[count:], strict=True)]


def test_rows_in_memory_train_as_a_file_does(small, tmp_path):
    import json

    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs()))
    from_rows = train(small, data=pairs(), output=tmp_path / "rows")
    from_tuples = train(small, data=[(row["anchor"], row["positive"]) for row in pairs()], output=tmp_path / "tuples")
    from_file = train(small, data=tmp_path / "pairs.jsonl", output=tmp_path / "file")
    one, two, three = (
        Encoder.load(result.model_dir).encode(["a dog eats"]) for result in (from_rows, from_tuples, from_file)
    )
    assert np.array_equal(one, two)
    assert np.array_equal(one, three)
    written = (tmp_path / "rows" / "recipe.toml").read_text()
    assert "24 rows in memory, fingerprint" in written
    with pytest.raises(RecipeError, match="holds a run"):
        train(small, data=pairs(), output=tmp_path / "rows")


def test_a_replaced_recipe_is_what_the_run_folder_says(small, tmp_path):
    from sentemb.training.run_folder import RunFolder

    longer = small.replace(train=TrainSettings(batch_size=8, max_steps=3, precision="fp32", learning_rate=1e-4))
    result = train(longer, data=pairs(), output=tmp_path / "run")
    assert result.steps == 3
    written = Recipe.load(tmp_path / "run" / "recipe.toml")
    assert written.train == longer.train
    assert written.hash in (tmp_path / "run" / "run.json").read_text()
    assert RunFolder(tmp_path / "run").model.is_dir()


def test_other_rows_are_not_resumed(small, tmp_path):
    train(small, data=pairs(), output=tmp_path / "run")
    before = (tmp_path / "run" / "recipe.toml").read_text()
    with pytest.raises(Exception, match=r"another recipe|other data"):
        train(small, data=pairs(16), output=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "recipe.toml").read_text() == before


def test_callbacks_are_called(small, tmp_path):
    class Count(Callback):
        """Counts."""

        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_step(self, event):
            self.steps.append(event.step)

    count = Count()
    train(small, data=pairs(), output=tmp_path / "run", callbacks=[count])
    assert count.steps == [1, 2]


def test_two_references_of_different_names(small, tiny_bert, tmp_path):
    both = small.replace(
        companions=[Reference(), Reference(model=str(tiny_bert), precompute=True).marked(name="teacher")],
        terms=[InfoNCE(), 0.5 * Distill(), Distill(companion="teacher").marked(name="from_teacher")],
    )
    assert Recipe.from_toml(both.to_toml()) == both
    result = train(both, data=pairs(), output=tmp_path / "run")
    assert set(result.last_losses) == {"info_nce", "distill", "from_teacher"}


def test_training_leaves_the_recipes_parts_as_they_are(small, tmp_path):
    term = InfoNCE(temperature=0.5, learnable_temperature=True)
    learned = small.replace(terms=[term, Uniformity()])
    before = [parameter.clone() for parameter in term.parameters()]
    train(learned, data=pairs(), output=tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(before, term.parameters(), strict=True))
