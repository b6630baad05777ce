"""``check`` finds, before anything is loaded, what training would stumble over."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sentemb import Recipe, check
from sentemb.errors import RecipeError, SentembError

GOOD = "simcse-unsup-minilm"


@pytest.fixture
def faults(tiny_bert: Path, data_dir: Path):
    """What ``check`` says of a recipe with these overrides, on the tiny model and the small data."""

    def find(*overrides: str, name: str = GOOD, data: str = "lines.txt") -> str:
        common = [f"encoder.backbone={tiny_bert}", f"data.path={data_dir / data}", "train.batch_size=8"]
        with pytest.raises(SentembError) as caught:
            check(Recipe.load(name, [*common, *overrides]))
        assert isinstance(caught.value, RecipeError)
        return str(caught.value)

    return find


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.nested_dims=[32]", "each must be below the embeddings' 32 dimensions"),
        ("train.trackers=['wandb']", "wandb"),
        ("encoder.max_tokens=4096", "max_tokens = 4096; allowed: 3 to"),
        ("train.learning_rate=inf", "train.learning_rate = inf"),
        ("terms.0.weight=inf", "terms[0].weight = inf"),
        ("terms.0.weight=nan", "terms[0].weight = nan"),
        ("terms.0.weight=-1", "terms[0].weight = -1"),
        ("terms.0.temperature=inf", "terms[0].temperature = inf"),
        ("terms.0.temperature=1e-9", "terms[0].temperature = 1e-09"),
        ("train.batch_size=true", "train.batch_size = true: must be whole number at least 1"),
        ("train.optimizer={use='adamw', betas=[1.0,1.0]}", "train.optimizer.betas"),
        ("data.max_tokens=2", "data.max_tokens = 2"),
        ("companions=[{use='per_example', rho=2.0}]", "(per_example) rho = 2.0: with a batch of 8 it must be below"),
        ("edits=[{use='temperature', policy='memory'}]", 'needs the companion "per_example"'),
        ("edits=[{use='margin'}]", 'edits[0] (margin) needs the column "margin"'),
        ("terms.0.use=json:JSONDecoder", '= "json:JSONDecoder" is no Term: it must inherit'),
        ("dev=[{use='sts', path='nowhere.tsv'}]", "nowhere.tsv"),
    ],
)
def test_what_training_would_refuse_is_told(faults, override, words):
    heads = ["encoder.heads=[]"] if "nested" in override else []
    if "wandb" in override and shutil.which("wandb"):
        pytest.skip("wandb is installed")
    assert words in faults(*heads, override)


def test_checkpoints_of_companions_are_looked_for(faults, tmp_path):
    said = faults(f"companions.0.generator={tmp_path / 'nowhere'}", name="diffcse-minilm")
    assert f"companions[0] (detector) = {tmp_path / 'nowhere'}: no such folder" in said


def test_files_of_parts_are_looked_for(faults, data_dir):
    term = '{{ use = "grounded_contrast", path = "{}" }}'
    assert "terms[0] (grounded_contrast): there is no file /none.npy" in faults(f"terms=[{term.format('/none.npy')}]")
    assert "there is no file" not in faults(f"terms=[{term.format(data_dir / 'vectors.npy')}]", "data.path=/nowhere")


def test_parts_that_read_keys_ask_for_them(faults):
    momentum = "companions=[{use='momentum'}]"
    wanted = 'give the companion "momentum" keys = true'
    assert wanted in faults(momentum, "edits=[{use='queue', keys=true}]")
    assert wanted in faults(momentum, "terms=[{use='distill', companion='momentum'}]")


def test_data_without_contrast_are_told(faults, data_dir):
    (data_dir / "one.txt").write_text("a single line\n")
    (data_dir / "same.txt").write_text("the same line\n" * 20)
    assert "have one text; a contrast needs several" in faults(data="one.txt")
    assert "have one text; a contrast needs several" in faults(data="same.txt")


def test_settings_that_may_spoil_training_are_noted(tiny_bert, data_dir):
    overrides = [f"encoder.backbone={tiny_bert}", f"data.path={data_dir / 'lines.txt'}", "edits.0.temperature=0.05"]
    report = check(Recipe.load("debiased-minilm", overrides))
    assert any(line.startswith("edits[0] (hardness): class_prior = 0.1") for line in report.unverified)


def test_a_format_that_this_processor_is_slow_in_is_noted(tiny_bert, data_dir, monkeypatch):
    def noted(slowness: float, *overrides: str) -> str:
        monkeypatch.setattr("sentemb.recipe.check.bfloat16_slowness", lambda: slowness)  # of another machine
        common = [f"encoder.backbone={tiny_bert}", f"data.path={data_dir / 'lines.txt'}", "train.batch_size=8"]
        return " ".join(check(Recipe.load(GOOD, [*common, *overrides])).unverified)

    assert 'train.precision = "bf16": this processor takes 9 times as long' in noted(9.0, "train.precision=bf16")
    frozen = ["encoder.freeze=true", "encoder.weights=bf16"]
    assert 'encoder.weights = "bf16": this processor takes 9 times' in noted(9.0, *frozen)
    assert not noted(9.0)  # nobody asked for it
    assert not noted(0.4, "train.precision=bf16", *frozen)


def test_a_missing_file_is_no_hub_id(faults):
    assert "data.path = /nowhere: no such file" in faults("data.path=/nowhere")


def test_a_batch_larger_than_the_data_is_told(tiny_bert, data_dir):
    common = [f"encoder.backbone={tiny_bert}", f"data.path={data_dir / 'lines.txt'}"]
    report = check(Recipe.load(GOOD, [*common, "train.batch_size=512"]))
    assert "train.batch_size = 512, but there are 60 rows: every batch will have 60" in report.unverified


@pytest.mark.parametrize("damage", ["config", "weights", "tokenizer"])
def test_a_damaged_checkpoint_is_one_message(faults, tiny_bert, tmp_path, damage):
    folder = tmp_path / "bert"
    shutil.copytree(tiny_bert, folder)
    if damage == "config":
        (folder / "config.json").write_text("{ no json")
    elif damage == "weights":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[:50])
    else:
        for file in [*folder.glob("tokenizer*"), *folder.glob("vocab*"), *folder.glob("special*")]:
            file.unlink()
    said = faults(f"encoder.backbone={folder}")
    assert str(folder) in said
    assert len(said.splitlines()) == 1


def test_needs_of_the_data_are_told(faults):
    said = faults("edits=[{use='same_label'}, {use='given'}]", "terms.0.use=info_nce", "terms.1.use=cosent")
    assert 'edits[0] (same_label) needs the column "label"; the data have: anchor' in said
    assert 'edits[1] (given) needs the view "negative_1" or "positive_2"; there are anchor, positive' in said
    assert 'terms[1] (cosent) needs the column "score"' in said


@pytest.mark.parametrize(
    ("labels", "overrides", "words"),
    [
        ("ab", ["train.batches.groups=3"], "train.batches (grouped) groups = 3, but there are 2 classes"),
        ("a", [], "edits[0] (same_label) compares classes; there is one"),
        (["-1"], [], "edits[0] (same_label) compares classes; there are none"),
        (["0", "1", "-1"], [], "train.batches (grouped) needs the class of all rows; 20 are unknown (label -1)"),
        ("ab", ["train.batches.groups=9"], "groups = 9 is above batch_size = 8"),
        ("ab", ["edits=[]", "train.batches.by=prototypes"], 'needs the companion "prototypes"'),
        (
            "ab", ["companions=[{use='prototypes', count=61, update='average'}]"],
            "companions[0] (prototypes) count = 61, but there are 60 distinct anchors",
        ),
        (
            "ab", ["companions=[{use='prototypes', count=7}]", "train.batches.by=prototypes"],
            "companions[0] (prototypes) has no groups for train.batches",
        ),
        (
            "ab", ["companions=[{use='prototypes', count=1, update='average'}]", "train.batches.by=prototypes"],
            "count = 1 is below groups = 2",
        ),
    ],
)
def test_classes_and_groups_that_do_not_fit_are_told(faults, data_dir, labels, overrides, words):
    rows = "".join(f"a text {i},{labels[i % len(labels)]}\n" for i in range(60))
    (data_dir / "classes.csv").write_text("text,label\n" + rows)
    assert words in faults("train.batches.groups=2", *overrides, name="class-collapse-minilm", data="classes.csv")


def test_labels_that_are_not_there_are_told(faults):
    said = faults("train.batches.groups=2", name="class-collapse-minilm")
    assert 'train.batches (grouped) needs the column "label"; the data have: anchor' in said


def test_one_class_at_the_start_of_large_data_is_no_fault(tiny_bert, data_dir):
    rows = "".join(f"a text {i},{'a' if i < 1000 else 'b'}\n" for i in range(1500))
    (data_dir / "sorted.csv").write_text("text,label\n" + rows)
    overrides = [f"encoder.backbone={tiny_bert}", f"data.path={data_dir / 'sorted.csv'}", "train.batches.groups=2"]
    report = check(Recipe.load("class-collapse-minilm", overrides))
    assert "edits[0] (same_label) compares classes; there is one among the first 1000 rows" in report.unverified


def test_every_negative_column_counts_in_the_memory(tiny_bert, tmp_path):
    def table_size(negatives: int) -> float:
        rows = [
            {"anchor": f"a {i}", "positive": f"b {i}"} | {f"negative_{j + 1}": f"c {i} {j}" for j in range(negatives)}
            for i in range(40)
        ]
        file = tmp_path / f"{negatives}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        overrides = [f"encoder.backbone={tiny_bert}", f"data.path={file}", "train.batch_size=4096"]
        report = check(Recipe.load("simcse-sup-minilm", overrides))
        (line,) = [line for line in (*report.verified, *report.unverified) if line.startswith("peak memory")]
        return float(line.partition("score tables ")[2].split()[0])

    assert table_size(5) == pytest.approx(3 * table_size(1), rel=0.2)


def test_parts_of_the_current_folder_are_found_by_the_command(tiny_bert, data_dir, tmp_path):
    (tmp_path / "own_loss.py").write_text(
        "from sentemb import Term\n\n\nclass Half(Term):\n"
        '    """Half of the mean similarity."""\n\n    def forward(self, table, batch):\n'
        "        return table.sim.mean() / 2\n"
    )
    command = [
        str(Path(sys.executable).parent / "sentemb"), "check", GOOD, "--set", f"encoder.backbone={tiny_bert}",
        "--set", f"data.path={data_dir / 'lines.txt'}", "--set", "terms=[{use='own_loss:Half'}]",
    ]
    there = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert there.returncode == 0, there.stderr
    elsewhere = subprocess.run(command, capture_output=True, text=True, cwd=data_dir, check=False)
    assert elsewhere.returncode == 2
    assert "no module own_loss, neither installed nor in" in elsewhere.stderr
    assert "run in the folder that has it" in elsewhere.stderr


def test_columns_of_graded_data_are_told(faults):
    terms = "terms=[{use='margin_mse'},{use='list_net'},{use='info_nce',row_weight='weight'}]"
    assert 'terms[1] (list_net) reads the grades that the edit "given" puts into the table' in faults(terms)
    said = faults(terms, "edits=[{use='given'}]", "data.use=pairs", "views.use=columns", data="pairs.jsonl")
    assert 'terms[0] (margin_mse) needs the column "score_1"; the data have: anchor, positive' in said
    assert 'terms[1] (list_net) needs the column "grade_0"' in said
    assert 'terms[2] (info_nce) needs the column "weight"' in said
