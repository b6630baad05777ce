"""Vectors in fewer bytes: what is written, what is read back, and what it costs on real vectors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentemb import Encoder, SearchIndex, evaluate_model
from sentemb.cli import main
from sentemb.data.vector_codes import VECTOR_TYPES, CodedVectors, Coding, search_bits
from sentemb.data.vector_files import open_npy, read_parquet
from sentemb.data.vector_writer import vector_writer
from sentemb.errors import DataError
from sentemb.evaluate import Sts

RANDOM = np.random.default_rng(0).standard_normal((300, 20)).astype(np.float32)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["encode", *map(str, arguments)])
    return int(stop.value.code or 0)


def test_a_byte_an_entry_by_hand() -> None:
    coding = Coding.of("int8", np.array([[0.0, -1.0], [2.55, 1.0]], dtype=np.float32))
    codes = coding.encode(np.array([[0.0, 1.0], [0.014, 0.1], [9.0, -9.0]], dtype=np.float32))
    # steps of 0.01 and 2 / 255; what is outside the sample's range takes the nearest code
    assert codes.tolist() == [[-128, 127], [-127, 12], [127, -128]]
    np.testing.assert_allclose(coding.decode(codes)[1], [0.01, -1 + 140 * 2 / 255], atol=1e-6)


def test_a_byte_an_entry_as_plain_python_has_it() -> None:
    coding = Coding.of("int8", RANDOM)
    codes = coding.encode(RANDOM)
    for row in range(0, 300, 37):
        for column in range(20):
            low, high = (float(f(RANDOM[:, column])) for f in (np.min, np.max))
            place = (float(RANDOM[row, column]) - low) / (high - low) * 255
            assert abs(int(codes[row, column]) + 128 - place) <= 0.5 + 1e-3
    assert np.abs(coding.decode(codes) - RANDOM).max() <= (RANDOM.max(0) - RANDOM.min(0)).max() / 510 + 1e-5


def test_a_bit_an_entry_as_plain_python_has_it() -> None:
    codes = Coding.of("ubinary", RANDOM[:, :16]).encode(RANDOM[:, :16])
    for row in range(0, 300, 37):
        for byte in range(2):
            bits = "".join("1" if value > 0 else "0" for value in RANDOM[row, 8 * byte : 8 * byte + 8])
            assert codes[row, byte] == int(bits, 2)
    assert Coding.of("ubinary", RANDOM).columns == 3  # 20 bits
    read = Coding.of("ubinary", RANDOM).decode(Coding.of("ubinary", RANDOM).encode(RANDOM))
    np.testing.assert_array_equal(read > 0, RANDOM > 0)
    np.testing.assert_allclose(np.linalg.norm(read, axis=1), 1, atol=1e-6)


def test_a_dimension_that_never_changes() -> None:
    coding = Coding.of("int8", np.full((3, 2), 0.25, dtype=np.float32))
    np.testing.assert_array_equal(coding.decode(coding.encode(np.full((1, 2), 0.25, dtype=np.float32))), [[0.25] * 2])


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
@pytest.mark.parametrize("dtype", VECTOR_TYPES)
def test_every_type_is_read_again(dtype: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"v.{suffix}"
    with vector_writer(path, dtype)(20) as write:
        write([f"text {i}" for i in range(200)], RANDOM[:200])
        write([f"text {i}" for i in range(200, 300)], RANDOM[200:] * 1.5)
    given = np.concatenate([RANDOM[:200], RANDOM[200:] * 1.5])
    coding = Coding.of(dtype, RANDOM[:200])
    if suffix == "npy":
        found = open_npy(path)
        assert found.shape == (300, 20)
        np.testing.assert_array_equal(found[np.array([7, 3])], np.asarray(found)[[7, 3]])
        assert (tmp_path / "v.npy.json").is_file() == (dtype in ("int8", "ubinary"))
    else:
        blocks = list(read_parquet(path))
        assert blocks[0][0][:2] == ["text 0", "text 1"]
        found = np.concatenate([vectors for _, vectors in blocks])
        assert not (tmp_path / "v.parquet.json").exists()
    np.testing.assert_array_equal(np.asarray(found, dtype=np.float32), coding.decode(coding.encode(given)))


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
@pytest.mark.parametrize("dtype", VECTOR_TYPES)
def test_no_rows(dtype: str, suffix: str, tmp_path: Path) -> None:
    with vector_writer(tmp_path / f"v.{suffix}", dtype)(16):
        pass
    if suffix == "npy":
        assert len(np.load(tmp_path / "v.npy")) == 0
    else:
        assert list(read_parquet(tmp_path / "v.parquet")) == []


def test_an_older_note_beside_floats_is_taken_away(tmp_path: Path) -> None:
    for dtype in ("int8", "float32"):
        with vector_writer(tmp_path / "v.npy", dtype)(20) as write:
            write(["a"], RANDOM[:1])
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]


@pytest.mark.parametrize("note", ["{", "[]", "{}", '{"dtype": "int4", "width": 20}', '{"dtype": "int8", "width": 8}'])
def test_a_damaged_note_is_named(note: str, tmp_path: Path) -> None:
    with vector_writer(tmp_path / "v.npy", "int8")(20) as write:
        write(["a", "b"], RANDOM[:2])
    (tmp_path / "v.npy.json").write_text(note)
    with pytest.raises(DataError, match=r"v\.npy\.json.*encode the texts again"):
        open_npy(tmp_path / "v.npy")


def test_the_inputs_other_columns_are_kept(tiny_bert: Path, tmp_path: Path) -> None:
    rows = [{"text": "the dog runs", "year": 2020, "tags": ["a"], "none": None, "embedding": [1.0]},
            {"text": "a cat", "year": None, "tags": [], "none": None}]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "v.parquet"
    assert run(tmp_path / "rows.jsonl", "-o", out, "-m", tiny_bert, "--dtype", "float16", "--window", 1) == 0
    schema = pq.read_schema(out)
    assert schema.names == ["text", "embedding", "year", "tags", "none"]
    # what embedding-atlas and others look for: one text, one fixed-size list of floats, plain metadata
    assert schema.field("embedding").type == pa.list_(pa.float16(), 32)
    assert (schema.field("year").type, schema.field("none").type) == (pa.int64(), pa.string())
    table = pq.read_table(out)
    assert table["year"].to_pylist() == [2020, None]
    assert table["tags"].to_pylist() == [["a"], []]
    assert run(tmp_path / "rows.jsonl", "-o", out, "-m", tiny_bert, "--no-keep-columns") == 0
    assert pq.read_schema(out).names == ["text", "embedding"]


@pytest.mark.parametrize(("second", "options", "said"), [
    ({"year": "new"}, [], "column year holds not the int64 of the first rows"),
    ({"more": 1}, [], "a column more that the first rows lack"),
    ({}, ["--text-column", "body"], "text would be there twice"),
])
def test_columns_that_change_are_told(
    second: dict, options: list[str], said: str, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": "a", "body": "b", "year": 1}, {"text": "b", "body": "b", "year": 2, **second}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "v.parquet"
    assert run(tmp_path / "rows.jsonl", "-o", out, "-m", tiny_bert, "--window", 1, *options) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_an_unknown_type_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("in.txt", "-o", tmp_path / "v.npy", "--dtype", "int4") == 2
    assert "known: float16, float32, int8, ubinary" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", VECTOR_TYPES)
def test_indexes_and_evaluation_read_them(dtype: str, tiny_bert: Path, tmp_path: Path) -> None:
    texts = ["the dog runs", "a cat plays music", "red and green", "two men", "the river song"]
    pairs = [(texts[i], texts[i + 1], i) for i in range(4)]
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n")
    lines = "".join(f"{one}\t{two}\t{score}\n" for one, two, score in pairs)
    (tmp_path / "s.tsv").write_text(f"sentence1\tsentence2\tscore\n{lines}")
    for suffix in ("npy", "parquet"):
        assert run(tmp_path / "t.txt", "-o", tmp_path / f"v.{suffix}", "-m", tiny_bert, "--dtype", dtype) == 0
    words = tmp_path / "t.txt", "-o", tmp_path / "i", "--vectors", tmp_path / "v.npy"
    with pytest.raises(SystemExit) as stop:
        main(["index", "build", *map(str, words)])
    assert not stop.value.code
    query = np.asarray(open_npy(tmp_path / "v.npy")[np.array([3])])
    assert SearchIndex.open(tmp_path / "i").search(query, k=1)[0][0].text == texts[3]
    scored = evaluate_model(str(tmp_path / "v.parquet"), [Sts(path=str(tmp_path / "s.tsv"))])
    assert math.isfinite(scored.tasks[0].main)


def test_searching_bits_as_plain_python_does() -> None:
    bits = CodedVectors(Coding.of("ubinary", RANDOM).encode(RANDOM), Coding.of("ubinary", RANDOM))
    queries = RANDOM[:3] + 0.1
    for rescore, kept in ((None, np.asarray(bits)), (RANDOM, RANDOM)):
        ids, scores = search_bits(queries, bits, 5, rescore=rescore, multiplier=3)
        for number, query in enumerate(queries):
            differing = [sum((a > 0) != (b > 0) for a, b in zip(query, row, strict=True)) for row in RANDOM]
            near = sorted(range(300), key=lambda row: (differing[row], row))[:15]
            expected = sorted(near, key=lambda row: -float(kept[row] @ query))[:5]
            np.testing.assert_allclose(scores[number], [kept[row] @ query for row in expected], rtol=1e-5)
            assert set(ids[number]) == set(expected)
    assert search_bits(queries, bits, 999)[0].shape == (3, 300)
    with pytest.raises(DataError, match="one width"):
        search_bits(queries[:, :5], bits, 1)
    with pytest.raises(DataError, match="type ubinary"):
        search_bits(queries, CodedVectors(RANDOM, Coding.of("float32", RANDOM)), 1)


def test_what_fewer_bytes_cost_on_real_vectors(minilm: Path) -> None:
    """Names of numpy's functions against its docstrings: how many of float32's ten nearest are found."""
    found = {name: doc for name in dir(np) if (doc := (getattr(getattr(np, name), "__doc__", None) or "").strip())}
    names, docs = list(found)[:250], [" ".join(doc.split()[:40]) for doc in list(found.values())[:250]]
    encoder = Encoder.load(minilm, precision="fp32", max_tokens=48)
    queries, documents = encoder.encode([name.replace("_", " ") for name in names]), encoder.encode(docs)

    def recall(ids: np.ndarray) -> float:
        exact = np.argsort(-(queries @ documents.T), axis=1)[:, :10]
        return float(np.mean([len(set(one) & set(two)) / 10 for one, two in zip(ids, exact, strict=True)]))

    def coded(dtype: str) -> CodedVectors:
        coding = Coding.of(dtype, documents)
        return CodedVectors(coding.encode(documents), coding)

    def order(vectors: CodedVectors) -> np.ndarray:
        return np.argsort(-(queries @ np.asarray(vectors).T), axis=1)[:, :10]

    assert recall(order(coded("float16"))) > 0.995
    assert recall(order(coded("int8"))) > 0.97
    bits = coded("ubinary")
    alone, *rescored = recall(search_bits(queries, bits, 10)[0]), *(
        recall(search_bits(queries, bits, 10, rescore=coded("int8"), multiplier=many)[0]) for many in (4, 10)
    )
    # measured: 0.9996, 0.994, 0.625 by bits alone, 0.828 and 0.951 rescored
    assert 0.5 < alone < rescored[0] - 0.1
    assert 0.75 < rescored[0] < rescored[1] - 0.05
    assert rescored[1] > 0.9
