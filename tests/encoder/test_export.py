"""Models as graphs: what ONNX Runtime and OpenVINO compute of them is what ``Encoder.encode`` gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from backbones import ARCHITECTURES, backbone
from decoders import save_decoder
from huggingface_hub import metadata_load
from transformers import BertTokenizerFast

from sentemb import Encoder, SearchIndex, evaluate_model, export
from sentemb.cli import main
from sentemb.data.templates import prompted_texts
from sentemb.encoder import export as export_module
from sentemb.encoder.exported import ExportedModel
from sentemb.errors import ModelError
from sentemb.evaluate import Sts

pytest.importorskip("onnxscript")
TEXTS = ["the dog runs", "a cat plays music in the city", "Two men made a river song. " * 30, "x", "the dog runs"]


def expected(source: Path | Encoder, **options: object) -> np.ndarray:
    encoder = source if isinstance(source, Encoder) else Encoder.load(source)
    return encoder.encode(TEXTS, precision="fp32", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two poolings, a head, a default prompt."""
    home = tmp_path_factory.mktemp("export")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the head; with some others' vectors two cosines tie but for rounding
        model = Encoder.load(
            tiny_bert, layers=[0], pooling="cls+mean", head={"use": "dense", "out_features": 24}, max_tokens=40,
            prompts={"query": "find: ", "words": 'the "{text}" song'}, default_prompt="query",
        )
    model.is_normalised = True
    model.save(home / "model")
    card = (home / "model" / "README.md").read_text()
    (home / "model" / "README.md").write_text(card.replace("---\n", "---\nlicense: cc-by-4.0\n", 1))
    with pytest.raises(SystemExit) as stop:
        main(["export", str(home / "model"), "-o", str(home / "graph")])
    assert not stop.value.code
    return home


def test_a_graph_gives_the_vectors_of_encode(folder: Path) -> None:
    found = ExportedModel.load(folder / "graph")
    for options in ({}, {"prompt_name": "words"}, {"prompt": ""}):
        np.testing.assert_allclose(found.encode(TEXTS, **options), expected(folder / "model", **options), atol=1e-5)
    assert found.encode("the dog").shape == (24,)
    assert found.encode([]).shape == (0, 24)
    facts = json.loads((folder / "graph" / "export.json").read_text())
    assert facts["largest_difference"] < 1e-5
    assert facts["model"] == Encoder.load(folder / "model").digest()


def test_the_code_on_the_card_needs_the_runtime_and_tokenizers_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (folder / "graph" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    imports = [line for line in code.splitlines() if line.startswith(("import", "from"))]
    assert imports == ["import numpy as np", "import onnxruntime", "from tokenizers import Tokenizer"]
    monkeypatch.chdir(folder / "graph")
    names: dict = {}
    exec(code, names)
    np.testing.assert_allclose(names["encode"](TEXTS), expected(folder / "model"), atol=1e-5)
    assert metadata_load(folder / "graph" / "README.md")["license"] == "cc-by-4.0"
    assert '"find: "' in card


def test_nothing_of_this_machine_is_in_the_graph(folder: Path) -> None:
    assert b"site-packages" not in (folder / "graph" / "model.onnx").read_bytes()


def test_it_is_evaluated_and_fills_an_index(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [("the cat", "the cats", 0.9), ("red", "blue", 0.4), ("a dog runs", "music", 0.1)]
    rows = "".join(f"{one}\t{two}\t{score}\n" for one, two, score in pairs)
    (tmp_path / "sts.tsv").write_text(f"sentence1\tsentence2\tscore\n{rows}")
    tasks = [Sts(path=str(tmp_path / "sts.tsv"))]
    graph, model = (evaluate_model(str(folder / name), tasks) for name in ("graph", "model"))
    assert graph.tasks[0].main == model.tasks[0].main
    assert graph.model.backend == "onnx"
    index = SearchIndex.build(tmp_path / "index", TEXTS[:3], encoder=ExportedModel.load(folder / "graph"))
    assert index.search([TEXTS[1]], k=1)[0][0].text == TEXTS[1]
    for verb in (["encode", str(tmp_path / "sts.tsv"), "-o", str(tmp_path / "v.npy"), "-m", str(folder / "graph")],
                 ["export", str(folder / "graph"), "-o", str(tmp_path / "again")]):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main(verb)
        assert stop.value.code == 2
        assert "sentemb eval scores it" in capsys.readouterr().err


def test_what_is_there_is_replaced_only_where_it_is_an_export(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    for options, said in (([], "--overwrite"), (["--overwrite"], "only what sentemb export wrote")):
        with pytest.raises(SystemExit) as stop:
            main(["export", str(folder / "model"), "-o", str(tmp_path / "model"), *options])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err


def test_a_graph_that_differs_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(encoder: Encoder, into: Path, to: str) -> None:
        import onnx

        graph = onnx.load(folder / "graph" / "model.onnx")
        weight = max(graph.graph.initializer, key=lambda one: len(one.raw_data))
        values = np.frombuffer(weight.raw_data, dtype=np.float32) * np.float32(1.01)
        weight.raw_data = values.tobytes()
        onnx.save(graph, into / "model.onnx")

    monkeypatch.setattr(export_module, "_write_graph", shifted)
    with pytest.raises(ModelError, match=r"differ from the model's by .* nothing was written"):
        export(folder / "model", tmp_path / "graph")
    assert list(tmp_path.iterdir()) == []


def test_what_a_graph_cannot_hold_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    prefixed = Encoder.load(tiny_bert)
    from sentemb.encoder.adapters import Prefix

    Prefix(length=2).add_to(prefixed.module.backbone)
    minus = Encoder.load(tiny_bert, pooling="mask", prompts={"p": "{text} is {mask}"}, default_prompt="p",
                         subtract_empty=1.0)
    unpooled = Encoder.load(tiny_bert)
    unpooled.module.pools_prompt = False
    for encoder, why in ((prefixed, "adapter prefix"), (minus, "empty template"), (unpooled, "prompt's tokens")):
        with pytest.raises(ModelError, match=why):
            export(encoder, tmp_path / "graph")
    with pytest.raises(ModelError, match="known: onnx, openvino"):
        export(tiny_bert, tmp_path / "graph", to="tflite")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("file", "content", "said"), [
    ("export.json", "{", "not JSON"), ("export.json", "{}", "not what sentemb export writes"),
    ("tokenizer.json", "{}", "tokenizer.json"), ("model.onnx", "x", "ONNX Runtime cannot open it"),
])
def test_damage_is_named(folder: Path, tmp_path: Path, file: str, content: str, said: str) -> None:
    shutil.copytree(folder / "graph", tmp_path / "graph")
    (tmp_path / "graph" / file).write_text(content)
    with pytest.raises(ModelError, match=said):
        ExportedModel.load(tmp_path / "graph")


# ------------------------------------------------------------------------------------- every family: slow
def saved(kind: str, tokenizer: Path, into: Path) -> Path:
    """A random model of a family, with a tokenizer of ``tiny_bert``'s words."""
    if kind == "qwen3":
        return save_decoder(into, tokenizer, seed=1)
    words = (tokenizer / "vocab.txt").read_text().split()
    if kind == "mpnet":  # its positions take token 1 for padding, whatever the configuration says
        words[:2] = words[1::-1]
    BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}, do_lower_case=True).save_pretrained(into)
    backbone(kind, vocab_size=len(words), pad_token_id=words.index("[PAD]")).save_pretrained(into)
    return into


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*ARCHITECTURES, "qwen3"])
def test_every_family(kind: str, tiny_bert: Path, tmp_path: Path) -> None:
    model = saved(kind, tiny_bert, tmp_path / "model")
    encoder = Encoder.load(model, max_tokens=40, pooling="last" if kind == "qwen3" else None)
    facts = export(encoder, tmp_path / "graph")
    assert facts.largest_difference < 1e-5
    np.testing.assert_allclose(ExportedModel.load(tmp_path / "graph").encode(TEXTS), expected(encoder), atol=3e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["max", "mean_sqrt_len+weighted_mean", "mean_words", "first_last_mean", "mask"])
def test_every_pooling_and_openvino(pooling: str, tiny_bert: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    prompts = {"p": "the {text} is {mask} ."} if pooling == "mask" else None
    encoder = Encoder.load(tiny_bert, pooling=pooling, prompts=prompts, default_prompt="p" if prompts else None)
    facts = export(encoder, tmp_path / "graph", to="openvino")
    assert facts.largest_difference < 1e-5
    assert not list((tmp_path / "graph").glob("*.onnx*"))
    found = ExportedModel.load(tmp_path / "graph")
    np.testing.assert_allclose(found.encode(TEXTS), expected(encoder), atol=3e-5)
    if pooling == "mask":
        with pytest.raises(ModelError, match=r"one \{mask\}"):
            found.encode(TEXTS, prompt="a: ")
        assert prompted_texts(["x"], "a {text}") == ["a x"]


@pytest.mark.slow
@pytest.mark.parametrize("drops_unknown", [True, False])
def test_static_models(drops_unknown: bool, tiny_bert: Path, tmp_path: Path) -> None:
    from sentemb import distil

    distil(Encoder.load(tiny_bert), width=8).save(tmp_path / "model")
    if not drops_unknown:
        from sentence_transformers import SentenceTransformer

        SentenceTransformer(str(tmp_path / "model")).save(str(tmp_path / "theirs"), create_model_card=False)
    model = Encoder.load(tmp_path / ("model" if drops_unknown else "theirs"))
    export(model, tmp_path / "graph")
    texts = ["the ☃ dog", "☃", "", *TEXTS]
    found = ExportedModel.load(tmp_path / "graph").encode(texts)
    np.testing.assert_allclose(found, model.encode(texts), atol=1e-6)
