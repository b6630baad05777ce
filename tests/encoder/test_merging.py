"""Models that become one: formulas, refusals, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sentemb import Encoder, merge
from sentemb.cli import main
from sentemb.encoder.merging import _merged
from sentemb.errors import ModelError


@pytest.fixture(scope="module")
def models(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The base and three models that moved from it by different amounts."""
    folder = tmp_path_factory.mktemp("models")
    found = {"base": Encoder.load(tiny_bert).save(folder / "base")}
    for number, name in enumerate("abc", start=1):
        encoder = Encoder.load(tiny_bert)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for value in encoder.module.parameters():
                value += 0.01 * number * torch.randn(value.shape, generator=generator)
        found[name] = encoder.save(folder / name)
    return found


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: value.double() for name, value in Encoder.load(path).module.state_dict().items()}


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_fusion_is_the_formula_tensor_by_tensor(models, power):
    fused = merge([models["a"], models["b"], models["c"]], base=models["base"], power=power).module.state_dict()
    base, *moved = (weights(models[name]) for name in ("base", "a", "b", "c"))
    for name, start in base.items():
        sizes = [float(((one[name] - start) ** 2).sum()) ** (power / 2) for one in moved]
        expected = start + sum(
            size / sum(sizes) * (one[name] - start) for size, one in zip(sizes, moved, strict=True)
        )
        torch.testing.assert_close(fused[name].double(), expected, rtol=1e-6, atol=1e-7)


def test_without_a_base_it_is_the_mean(models):
    found = merge([models["a"], models["b"]]).module.state_dict()
    one, other = weights(models["a"]), weights(models["b"])
    for name, value in found.items():
        torch.testing.assert_close(value.double(), (one[name] + other[name]) / 2, rtol=1e-6, atol=1e-8)


def test_worked_by_hand():
    origin, first, second = torch.tensor([1.0, 1.0]), torch.tensor([4.0, 5.0]), torch.tensor([1.0, 0.0])
    # changes (3, 4) and (0, -1): norms 5 and 1, weights 5/6 and 1/6
    expected = torch.tensor([1 + 5 / 6 * 3, 1 + 5 / 6 * 4 - 1 / 6])
    torch.testing.assert_close(_merged([first, second], origin, 1.0), expected)
    torch.testing.assert_close(_merged([first, second], origin, 0.0), torch.tensor([2.5, 2.5]))


def test_equal_models_stay_what_they_are_and_order_changes_nothing(models):
    for base in (None, models["base"], models["a"]):
        assert merge([models["a"], models["a"]], base=base).digest() == Encoder.load(models["a"]).digest()
    one, other = (merge(pair, base=models["base"]).module.state_dict() for pair in (
        [models["a"], models["b"]], [models["b"], models["a"]]))
    for name in one:
        torch.testing.assert_close(one[name], other[name])


def test_the_merged_model_is_saved_and_opened(models, tmp_path):
    merged = merge([models["a"], models["b"]])
    again = Encoder.load(merged.save(tmp_path / "merged"))
    assert again.digest() == merged.digest()
    assert np.allclose(again.encode(["a dog"]), merged.encode(["a dog"]), atol=1e-6)


def test_what_cannot_be_merged_is_refused(models, tiny_bert, tmp_path):
    with pytest.raises(ModelError, match="two models or more; found 1"):
        merge([models["a"]])
    with pytest.raises(ModelError, match="power = -1: must be at least 0"):
        merge([models["a"], models["b"]], power=-1)
    other = Encoder.load(tiny_bert, pooling="cls").save(tmp_path / "cls")
    with pytest.raises(ModelError, match=r"cls: its pooling or heads differ from .*/a's; only models trained from one"):
        merge([models["a"], other])
    config = json.loads((models["a"] / "tokenizer.json").read_text())
    config["model"]["vocab"]["zebra"] = len(config["model"]["vocab"])
    Encoder.load(models["a"]).save(tmp_path / "words")
    (tmp_path / "words" / "tokenizer.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="words: its tokenizer differs from"):
        merge([models["a"], models["b"]], base=tmp_path / "words")


def test_weights_of_other_shapes_are_named(models, tiny_bert, tmp_path):
    from transformers import BertConfig, BertModel

    Encoder.load(tiny_bert).save(tmp_path / "other")
    config = BertConfig.from_pretrained(tmp_path / "other")
    config.intermediate_size += 8
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match=r"other: its weight backbone\.encoder\.layer\.0\.intermediate.* is \(.* in"):
        merge([models["a"], tmp_path / "other"])


def test_the_command(models, tmp_path, capsys):
    pairs = tmp_path / "pairs.tsv"
    lines = [f"the dog {i}\ta cat {i % 3}\t{i % 5}" for i in range(12)]
    pairs.write_text("sentence1\tsentence2\tscore\n" + "\n".join(lines) + "\n")
    command = ["merge", str(models["a"]), str(models["b"]), "--base", str(models["base"]), "-o", str(tmp_path / "new")]

    def run(*more: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main([*command, *more])
        return int(ended.value.code or 0)

    assert run("--eval", str(pairs), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["scores"]) == [str(models["a"]), str(models["b"]), str(models["base"]), str(tmp_path / "new")]
    assert all(len(by_task) == 1 for by_task in said["scores"].values())
    expected = merge([models["a"], models["b"]], base=models["base"])
    assert Encoder.load(tmp_path / "new").digest() == expected.digest()
    assert run() == 2
    assert "is there already; name another folder, or give --overwrite" in capsys.readouterr().err
    assert run("--overwrite", "--power", "0") == 0
    assert "2 models, fused by their changes" in capsys.readouterr().out
    assert run("--overwrite", "--eval", str(tmp_path / "absent.tsv")) == 2
    (tmp_path / "kept").mkdir()
    command[command.index("-o") + 1] = str(tmp_path / "kept")
    assert run("--overwrite") == 2
    assert "--overwrite replaces only a model" in capsys.readouterr().err
