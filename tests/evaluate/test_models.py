"""Everything that can be opened for evaluation, and what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentemb.errors import DataError, EvaluationError, ModelError, NumericError, PartError
from sentemb.evaluate.model import EvalModel, ModelIdentity
from sentemb.evaluate.opening import ModelOptions, open_model

TEXTS = ["a cat", "a dog", "a river and a song"]


def lengths(texts):
    return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


class Namespace:
    encode = staticmethod(lengths)


def test_function_object_and_class(monkeypatch, tmp_path):
    (tmp_path / "somewhere.py").write_text(
        "import numpy as np\ndef encode(texts):\n    return np.ones((len(texts), 3))\n"
        "class Model:\n    encode = staticmethod(encode)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for source in ("somewhere:encode", "somewhere:Model", lengths, Namespace(), Namespace.encode):
        vectors = open_model(source).encode(TEXTS)
        assert vectors.dtype == np.float32
        assert vectors.shape[0] == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_module:encode", "module:function"),
        ("json:dumpz", 'has no "dumpz"; .*did you mean dumps|has no "dumpz"'),
        ("/nowhere/at/all", "/nowhere/at/all"),
        (3, "neither callable"),
    ],
)
def test_what_cannot_be_opened(source, message):
    with pytest.raises(ModelError, match=message):
        open_model(source)


def test_wrong_options():
    with pytest.raises(PartError, match='max_tokens = "many": must be'):
        ModelOptions(max_tokens="many")


def test_a_sentence_transformer_is_recognised(tiny_bert, tmp_path):
    from sentence_transformers import SentenceTransformer

    from sentemb.encoder import Encoder

    folder = Encoder.load(tiny_bert).save(tmp_path / "saved")
    ours = open_model(str(folder), ModelOptions(precision="fp32"))
    theirs = open_model(SentenceTransformer(str(folder), device="cpu"))
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(ours.encode(TEXTS, prompt="two "), theirs.encode(TEXTS, prompt="two "), atol=1e-5)
    assert ours.identity.max_tokens == theirs.identity.max_tokens


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_the_precision_of_a_report_is_what_was_computed(tiny_bert, precision):
    from sentemb.encoder import Encoder

    name = {"float32": "fp32", "bfloat16": "bf16"}
    encoder = Encoder.load(tiny_bert, precision="fp32")
    for source, options in ((str(tiny_bert), ModelOptions(precision=precision)), (encoder, ModelOptions())):
        model = open_model(source, options)
        expected = encoder.encode(TEXTS, precision=name[model.identity.precision])
        np.testing.assert_array_equal(model.encode(TEXTS), expected)
    assert model.identity.precision == "float32"  # an encoder keeps its own


# --------------------------------------------------------------------------------------- vectors on disk
def test_vectors_by_text(tmp_path):
    pq.write_table(pa.table({"text": TEXTS, "embedding": lengths(TEXTS).tolist()}), tmp_path / "v.parquet")
    model = open_model(tmp_path / "v.parquet")
    np.testing.assert_array_equal(model.encode(TEXTS[::-1]), lengths(TEXTS[::-1]))
    assert model.identity.digest
    with pytest.raises(EvaluationError, match=r"1 of 1 texts have no vector, the first is 'unknown'"):
        model.encode(["unknown"])


def test_vectors_as_the_encode_verb_writes_them(tmp_path, tiny_bert):
    from typer.testing import CliRunner

    from sentemb.cli.encode import app

    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    out = CliRunner().invoke(
        app, [str(tmp_path / "t.txt"), "-o", str(tmp_path / "v.parquet"), "-m", str(tiny_bert), "--precision", "fp32"]
    )
    assert out.exit_code == 0, out.output
    expected = open_model(str(tiny_bert), ModelOptions(precision="fp32")).encode(TEXTS)
    np.testing.assert_allclose(open_model(tmp_path / "v.parquet").encode(TEXTS), expected, atol=1e-6)


def test_malformed_vector_files(tmp_path):
    with pytest.raises(ModelError, match=r"sentemb encode TEXTS -o FILE\.parquet"):
        open_model(tmp_path / "v.npy")  # it has no texts
    with pytest.raises(DataError, match="no such file"):
        open_model(tmp_path / "absent.parquet")
    (tmp_path / "v.parquet").write_text("hello")
    with pytest.raises(DataError, match="not a readable parquet file"):
        open_model(tmp_path / "v.parquet")
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "v.parquet")
    with pytest.raises(DataError, match='columns words; needed are "text"'):
        open_model(tmp_path / "v.parquet")
    pq.write_table(pa.table({"text": ["a", "b"], "embedding": [[1.0, 2.0], [1.0]]}), tmp_path / "v.parquet")
    with pytest.raises(DataError, match="of one length"):
        open_model(tmp_path / "v.parquet")


# -------------------------------------------------------------------------------------- checks and memory
def test_width_must_not_change():
    widths = iter([3, 4])
    model = open_model(lambda texts: np.ones((len(texts), next(widths))))
    model.encode(["a"])
    with pytest.raises(EvaluationError, match="width 4; its width is 3"):
        model.encode(["b"])


def test_nan_names_the_text():
    model = open_model(lambda texts: np.array([[np.nan if "dog" in text else 1.0] for text in texts]))
    with pytest.raises(NumericError, match="text 1: 'a dog'"):
        model.encode(TEXTS)


@pytest.mark.parametrize("limit", [10**9, 40, 0])
def test_memory_never_changes_a_vector(limit, monkeypatch):
    monkeypatch.setattr("sentemb.evaluate.model.MEMORY_BYTES", limit)
    calls = []

    def encode(texts):
        calls.append(list(texts))
        return lengths(texts)

    model = open_model(encode)
    generator = np.random.default_rng(0)
    words = ["x" * n for n in range(1, 12)]
    for _ in range(30):
        texts = list(generator.choice(words, 6))
        np.testing.assert_array_equal(model.encode(texts), lengths(texts))
        assert len(set(calls[-1])) == len(calls[-1])
    if limit > 10**6:
        assert sum(map(len, calls)) == len(words)


def test_a_prompt_makes_another_text():
    model = open_model(lambda texts: lengths(texts))
    assert model.encode(["cat"], prompt="a ")[0, 0] == 5
    assert model.encode(["cat"])[0, 0] == 3


def test_prompt_priority_as_mteb():
    from mteb.models.abs_encoder import get_prompt
    from mteb.types import PromptType

    class Task:
        name, type = "NFCorpus", "Retrieval"

    names = ["NFCorpus-query", "NFCorpus", "Retrieval-query", "Retrieval", "query"]
    for start in range(len(names) + 1):
        prompts = {name: f"{name}: " for name in names[start:]}
        model = EvalModel(ModelIdentity(name="m"), lambda texts, prompt: texts, prompts=prompts)
        for role in (PromptType.query, PromptType.document, None):
            ours = model.prompt(task="NFCorpus", task_type="Retrieval", role=role.value if role else None)
            assert ours == get_prompt(prompts, Task, role)
    passages = EvalModel(ModelIdentity(name="m"), lambda texts, prompt: texts, prompts={"passage": "p: "})
    assert passages.prompt(role="document") == "p: "
