"""The recipes of published models keep the settings that their authors published: a slip of a digit is told here."""

from __future__ import annotations

import pytest

from sentemb import Recipe

SIMCSE = [  # batch size, learning rate, epochs: Gao, Yao & Chen 2021, appendix A and released scripts
    ("simcse-unsup-bert-base", 64, 3e-5, 1), ("simcse-unsup-bert-large", 64, 1e-5, 1),
    ("simcse-unsup-roberta-base", 512, 1e-5, 1), ("simcse-unsup-roberta-large", 512, 3e-5, 1),
    ("simcse-sup-bert-base", 512, 5e-5, 3), ("simcse-sup-bert-large", 512, 1e-5, 3),
    ("simcse-sup-roberta-base", 512, 5e-5, 3), ("simcse-sup-roberta-large", 512, 1e-5, 3),
]
DIFFCSE = [  # learning rate, mask rate, weight: Chuang et al. 2022, appendix and released script
    ("diffcse-bert-base-sts", 7e-6, 0.30, 0.005), ("diffcse-roberta-base-sts", 1e-5, 0.20, 0.005),
    ("diffcse-bert-base-transfer", 2e-6, 0.15, 0.05), ("diffcse-roberta-base-transfer", 3e-6, 0.15, 0.05),
]
AVERAGE = {  # of seven STS sets, as published
    "simcse-unsup-bert-base": 76.25, "simcse-unsup-roberta-base": 76.57, "simcse-sup-bert-base": 81.57,
    "simcse-sup-roberta-large": 83.76, "diffcse-bert-base-sts": 78.49, "diffcse-roberta-base-sts": 78.21,
}


@pytest.mark.parametrize(("name", "batch_size", "learning_rate", "epochs"), SIMCSE)
def test_simcse(name, batch_size, learning_rate, epochs):
    recipe = Recipe.named(name)
    train, (term,), (head,) = recipe.train, recipe.terms, recipe.encoder.heads
    assert (train.batch_size, train.learning_rate, train.epochs) == (batch_size, learning_rate, epochs)
    assert (train.warmup_fraction, train.weight_decay, train.seed, train.eval_every) == (0.0, 0.0, 42, 125)
    assert (recipe.data.settings["max_tokens"], term.temperature, train.max_grad_norm) == (32, 0.05, 1.0)
    # without labels the head is left behind, with them it stays
    assert head.train_only is ("unsup" in name)
    assert [edit.name for edit in recipe.edits] == ([] if "unsup" in name else ["given"])


@pytest.mark.parametrize(("name", "learning_rate", "masked", "weight"), DIFFCSE)
def test_diffcse(name, learning_rate, masked, weight):
    recipe = Recipe.named(name)
    contrast, detection = recipe.terms
    (copy,), (head,) = recipe.copies, recipe.encoder.heads
    assert (recipe.train.batch_size, recipe.train.learning_rate, recipe.train.epochs) == (64, learning_rate, 2)
    assert (copy.settings["probability"], tuple(copy.settings["of"])) == (masked, ("anchor", "positive"))
    assert (contrast.temperature, contrast.weight, detection.weight) == (0.05, 1.0, weight)
    assert (head.settings, type(head).__name__) == ({"train_only": True}, "Projector")
    generator = "distilroberta-base" if "roberta" in name else "distilbert-base-uncased"
    assert recipe.companions[0].generator_source == generator


def test_published_averages_stand_where_they_are_verified_and_debcse_claims_none():
    assert {name: Recipe.named(name).expected.get("average") for name in AVERAGE} == AVERAGE
    assert not Recipe.named("debcse-bert-base").expected
