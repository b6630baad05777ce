"""centre: the mean unit embedding of the start."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_module import TinyModule, batch_of, build_of, column_of, examples_of, services_of, tokens_of

from sentemb import Recipe
from sentemb.companions import centre
from sentemb.companions.centre import Centre
from sentemb.errors import RecipeError

ROWS = [[5, 6], [7], [8, 9, 10], [11, 5]]


def prepared(module):
    companion = Centre()
    companion.bind(build_of(module))
    companion.prepare(examples_of(anchor=column_of(ROWS)), services_of([]))
    return companion


def mean_of(module, rows):
    module.eval()
    with torch.no_grad():
        return F.normalize(module.project(module(tokens_of(rows)).pooled), dim=1).mean(dim=0)


def test_is_the_mean_of_unit_embeddings():
    module = TinyModule()
    torch.testing.assert_close(prepared(module).vector, mean_of(module, ROWS))


def test_stays_while_the_encoder_moves_and_is_in_its_state():
    module = TinyModule()
    companion = prepared(module)
    before = companion.vector.clone()
    with torch.no_grad():
        module.tokens.weight.add_(1.0)
    companion.after_step(batch_of([[5]], [0]), module, services_of([]))
    assert torch.equal(companion.vector, before)
    other = Centre()
    other.bind(build_of(module))
    other.load_checkpoint_state(companion.checkpoint_state())
    assert torch.equal(other.vector, before)
    assert not list(companion.parameters())


def test_averages_evenly_spaced_rows_of_large_data(monkeypatch):
    monkeypatch.setattr(centre, "ROWS", 2)
    module = TinyModule()
    torch.testing.assert_close(prepared(module).vector, mean_of(module, [ROWS[0], ROWS[3]]))


def test_a_head_that_is_not_exported_is_refused():
    recipe = ["companions=[{use='centre'}]", "edits=[{use='moved', centre=true}]"]
    with pytest.raises(RecipeError, match=r"companions\[0\] \(centre\).*train_only"):
        Recipe.load("simcse-unsup-minilm", recipe)
    assert Recipe.load("simcse-unsup-minilm", [*recipe, "encoder.heads=[]"]).companions == (Centre(),)
