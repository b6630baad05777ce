"""A wrong recipe is told everything that is wrong, at once, in words that help."""

from __future__ import annotations

import pytest
import torch

from sentemb import Recipe, check, train
from sentemb.errors import RecipeError
from sentemb.recipe.load import apply_override, merge, parse_value, read_tree

GOOD = "simcse-unsup-minilm"


def faults(overrides: list[str]) -> str:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(GOOD, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("terms.0.use=infonce", ["terms[0].use", "did you mean info_nce?"]),
        ("terms.0.temprature=0.1", ["terms[0].temprature", "did you mean temperature?"]),
        ("terms.0.temperature=-1", ["temperature", "greater than or equal to 0.0001"]),
        ('terms.0.temperature="hot"', ["terms[0].temperature", "number"]),
        ("terms.0.weight=heavy", ["terms[0].weight", "number"]),
        ("train.batch_size=0", ["train.batch_size", "greater than or equal to 1"]),
        ("train.learningrate=1", ["did you mean learning_rate?"]),
        ("train.patience=3", ["patience needs eval_every"]),
        ("encoder.pooling=clss", ["encoder.pooling", "did you mean cls?"]),
        ("views.use=twise", ["did you mean twice?"]),
        ("edits.1.use=propensity", ["there is no entry 1"]),
        ("similarity=cosin", ["must be 'cosine' or 'dot'"]),
        ("trian.batch_size=3", ["trian", "did you mean train?"]),
        ("train.eval_every=5", ["needs a [[dev]] task"]),
        ("terms.0.use=nowhere:Thing", ["no module nowhere", "run in the folder that has it"]),
        ("terms.0.use=json:Thing", ["json has no class Thing"]),
        ("no-equals-sign", ["key.path=value"]),
        ("terms.7.weight=1", ["there is no entry 7"]),
    ],
)
def test_each_fault_is_named_with_what_is_allowed(override, words):
    message = faults([override])
    for word in words:
        assert word in message


def test_nested_widths_behind_a_head_that_is_not_exported_are_refused():
    # the head mixes dimensions: what is trained at 64 is not the exported embeddings' first 64
    message = faults(["train.nested_dims=[64,128]"])
    assert len(message.splitlines()) == 1
    for word in ("train.nested_dims", "head mlp", "encoder.heads[0].train_only = true", "set train_only"):
        assert word in message
    assert "head dense" in faults(["train.nested_dims=[64]", 'encoder.heads=[{use="dense",out_features=96,'
                                                              'train_only=true},{use="mlp",train_only=false}]'])


@pytest.mark.parametrize(
    "heads", ["[]", '[{use="mlp",train_only=false}]', '[{use="layer_norm",train_only=true}]'],
    ids=["none", "exported", "keeps dimensions"],
)
def test_nested_widths_are_trained_where_they_are_the_exported_ones(heads):
    assert Recipe.load(GOOD, ["train.nested_dims=[64,128]", f"encoder.heads={heads}"]).train.nested_dims == (64, 128)


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is fine on this machine")
def test_half_precision_is_refused_on_a_cpu(tiny_bert, data_dir, tmp_path):
    overrides = ["train.precision=fp16", f"encoder.backbone={tiny_bert}", f"data.path={data_dir / 'lines.txt'}"]
    with pytest.raises(RecipeError, match=r'train\.precision = "fp16" needs a CUDA device') as checked:
        check(Recipe.load(GOOD, overrides))
    assert len(str(checked.value).splitlines()) == 1
    overrides[1] = "encoder.backbone=nobody/nothing"  # told before anything is loaded
    with pytest.raises(RecipeError, match="needs a CUDA device; here: fp32, bf16 or auto"):
        train(Recipe.load(GOOD, overrides), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_faults_come_at_once():
    message = faults(["terms.0.temperature=-1", "train.batch_size=0", "encoder.pooling=x", "views.use=y"])
    assert len(message.splitlines()) == 4


def test_missing_companion_and_view_are_named(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'extends = "simcse-unsup-minilm"\n[[terms]]\nuse = "replaced_token_detection"\n[[edits]]\nuse = "queue"\n'
    )
    with pytest.raises(RecipeError) as caught:
        Recipe.load(recipe)
    message = str(caught.value)
    assert 'add [[companions]] use = "detector"' in message
    assert 'add [[companions]] use = "momentum"' in message
    assert 'use = "masked", of = ["anchor"]' in message


def test_tables_of_another_shape_are_told():
    text = """
        copies = [{ use = "masked", of = ["anchor"] }]
        [encoder]
        backbone = "bert"
        [data]
        use = "lines"
        path = "a.txt"
        [views]
        use = "twice"
        [terms]
        use = "info_nce"
        [dev]
        use = "sts"
        path = "dev.tsv"
    """
    with pytest.raises(RecipeError) as caught:
        Recipe.from_toml(text)
    assert str(caught.value).splitlines() == [
        "recipe: terms must be an array of tables: [[terms]]",
        "recipe: dev must be an array of tables: [[dev]]",
        "recipe: copies belong into [views]: copies = [{ use = … }]",
    ]


def test_toml_errors_name_the_place(tmp_path):
    recipe = tmp_path / "broken.toml"
    recipe.write_text("[train\nbatch_size = 3\n")
    with pytest.raises(RecipeError, match="line 1"):
        Recipe.load(recipe)


def test_a_recipe_extends_one_that_extends(tmp_path):
    (tmp_path / "a.toml").write_text('extends = "simcse-unsup-minilm"\n[train]\nbatch_size = 8\n')
    (tmp_path / "b.toml").write_text('extends = "a"\nclear = ["terms"]\n[[terms]]\nuse = "decoupled"\n')
    recipe = Recipe.load(tmp_path / "b.toml")
    assert (recipe.train.batch_size, len(recipe.terms), recipe.terms[0].name) == (8, 1, "decoupled")


def test_recipes_that_extend_each_other_are_refused(tmp_path):
    (tmp_path / "a.toml").write_text('extends = "b"\n')
    (tmp_path / "b.toml").write_text('extends = "a"\n')
    with pytest.raises(RecipeError, match="extends b, which extends it in turn"):
        Recipe.load(tmp_path / "b.toml")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ('terms.0.without=["mixed"]', ['terms[0].without names "mixed"', "it has no edits"]),
        ('edits=[{use="attraction"}]', ["terms[0] (info_nce) cannot divide attraction", 'without = ["attraction"]']),
        ('edits=[{use="temperature", policy="spread", rho=5.0}]', ["edits[0] (temperature)", "below log(batch_size"]),
        ('edits=[{use="temperature", policy="alignment", alpha=2.0}]', ["edits[0]", "must be below 1"]),
        ('views={use="repeat", count=1}', ["views.count", "greater than or equal to 2"]),
        ('terms=[{use="multi_view", of=["anchor"]}]', ["terms[0].of", "at least 2"]),
    ],
)
def test_settings_outside_a_methods_domain_are_told_before_anything_is_loaded(override, words):
    message = faults([override])
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "edit", ['{use="moved", noise=0.1}', '{use="temperature", policy="alignment"}', '{use="mixed_partners"}']
)
def test_parts_of_the_unit_sphere_refuse_another_similarity(edit):
    message = faults(['similarity="dot"', f"edits=[{edit}]", 'terms=[{use="decoupled"}]'])
    assert 'works on the unit sphere; similarity = "dot", allowed: cosine' in message


def test_check_reads_data_and_checkpoint_without_loading(data_dir, tiny_bert, tmp_path):
    common = [f"encoder.backbone={tiny_bert}"]
    with pytest.raises(RecipeError, match="no such file"):
        check(Recipe.load(GOOD, [*common, "data.path=nowhere.txt"]))
    with pytest.raises(RecipeError, match="negative_1"):
        check(Recipe.load("simcse-sup-minilm", [*common, f"data.path={data_dir / 'lines.txt'}"]))
    empty = tmp_path / "model"
    empty.mkdir()
    with pytest.raises(RecipeError) as caught:
        check(Recipe.load(GOOD, [f"encoder.backbone={empty}", "data.path=nowhere.txt"]))
    assert "config.json" in str(caught.value)
    assert "no such file" in str(caught.value)
    report = check(Recipe.load(GOOD, [*common, f"data.path={data_dir / 'lines.txt'}", "train.batch_size=8"]))
    assert not report.unverified
    assert "hub" in check(Recipe.load(GOOD, [f"data.path={data_dir / 'lines.txt'}"])).unverified[0]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ('{use="group_whitening", groups=4}', "heads[0] reads a batch of at least 9 examples; train.batch_size = 8"),
        ('{use="group_whitening", groups=5}', "groups = 5, which must divide the width 32"),
    ],
)
def test_check_says_where_heads_do_not_fit_width_or_batch(head, words, tiny_bert, data_dir):
    common = [f"encoder.backbone={tiny_bert}", f"data.path={data_dir / 'lines.txt'}", "train.batch_size=8"]
    with pytest.raises(RecipeError) as caught:
        check(Recipe.load(GOOD, [*common, f"encoder.heads=[{head}]"]))
    assert words in str(caught.value)


def test_merge_replaces_a_part_with_another_use_and_appends_tables():
    base = {"views": {"use": "twice", "x": 1}, "terms": [{"use": "a"}], "train": {"seed": 1, "epochs": 2}}
    over = {"views": {"use": "columns"}, "terms": [{"use": "b"}], "train": {"seed": 3}}
    assert merge(base, over) == {
        "views": {"use": "columns"}, "terms": [{"use": "a"}, {"use": "b"}], "train": {"seed": 3, "epochs": 2},
    }
    assert base["train"]["seed"] == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("1e-5", 1e-5), ("true", True), ("wiki.txt", "wiki.txt"), ('"3"', "3"), ("[1, 2]", [1, 2]), ("", "")],
)
def test_override_values_are_toml_or_words(text, value):
    assert parse_value(text) == value


def test_override_reaches_into_arrays_and_makes_tables():
    tree = {"terms": [{"use": "a"}]}
    apply_override(tree, "terms.0.weight=2")
    apply_override(tree, "dev.path=x.tsv")
    assert tree == {"terms": [{"use": "a", "weight": 2}], "dev": {"path": "x.tsv"}}


def test_a_run_folder_is_not_overwritten(data_dir, on_tiny_model, tmp_path):
    tree, _ = read_tree(GOOD)
    overrides = on_tiny_model(tree)
    train(Recipe.load(GOOD, overrides), output=tmp_path / "run")
    with pytest.raises(RecipeError, match="--resume"):
        train(Recipe.load(GOOD, overrides), output=tmp_path / "run")


def test_runs_of_one_process_may_differ_in_precision(data_dir, on_tiny_model, tmp_path):
    tree, _ = read_tree(GOOD)
    for precision in ("bf16", "fp32", "bf16"):
        overrides = [*on_tiny_model(tree), f"train.precision={precision}", "train.max_steps=1"]
        result = train(Recipe.load(GOOD, overrides), output=tmp_path / f"run-{precision}", resume=True)
        assert result.steps == 1
