"""Editors complete and check recipes by the JSON schema that ``sentemb show --schema`` prints."""

from __future__ import annotations

import json
import tomllib

import pytest

from sentemb import Recipe
from sentemb.cli import main
from sentemb.recipe.catalogue import recipe_schema
from sentemb.recipe.load import apply_override, shipped_recipes

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def validator():
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_fits_as_written_and_as_resolved(validator, name):
    validator.validate(tomllib.loads(shipped_recipes()[name].read_text()))
    validator.validate(Recipe.named(name).to_tree())


@pytest.mark.parametrize(
    "override",
    [
        "terms.0.use=infonce", "terms.0.temprature=0.1", "terms.0.temperature=0", "terms.0.weight=heavy", "trian.x=1",
        "train.batch_size=0", "train.learningrate=1", "encoder.heads=[{use='mpl'}]", "views.use=twise",
        "views.copies=[{use='masked', of=[]}]", "data.max_tokens=2", "similarity=cosin", "dev=[{use='stss'}]",
        "train.schedule.use=liner", "edits=[{use='queue', size=3}]", "companions=[{use='momentum', momentum='x'}]",
    ],
)
def test_wrong_recipes_do_not_fit(validator, override):
    tree = Recipe.named("simcse-unsup-minilm").to_tree()
    apply_override(tree, override)
    assert list(validator.iter_errors(tree))


def test_a_recipe_without_its_tables_does_not_fit(validator):
    tree = Recipe.named("simcse-unsup-minilm").to_tree()
    for table in ("encoder", "data", "views", "terms"):
        assert list(validator.iter_errors({key: value for key, value in tree.items() if key != table}))
    for table, key in (("encoder", "backbone"), ("data", "use"), ("views", "use")):
        partial = {**tree, table: {name: value for name, value in tree[table].items() if name != key}}
        assert list(validator.iter_errors(partial))
        validator.validate({**partial, "extends": "simcse-unsup-minilm"})  # the extended recipe has it


def test_own_parts_fit(validator):
    tree = Recipe.named("simcse-unsup-minilm").to_tree()
    validator.validate({**tree, "terms": [{"use": "my_parts:Margin", "anything": 3}]})
    for pooling in ("cls", "cls+mean", "my_parts:Attention", {"use": "mean"}):
        validator.validate({**tree, "encoder": {**tree["encoder"], "pooling": pooling}})
    assert list(validator.iter_errors({**tree, "encoder": {**tree["encoder"], "pooling": "clss"}}))


def test_the_command_prints_it(capsys):
    with pytest.raises(SystemExit):
        main(["show", "--schema"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["properties"]["terms"]["description"] == "losses; ``0.1 * term`` weighs one."
    assert "temperature" in json.dumps(printed["$defs"]["terms"])
