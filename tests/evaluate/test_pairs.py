"""Pair files in every format, and a clear message for every malformed one."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from sentemb.errors import DataError
from sentemb.evaluate.reading import read_pairs

ROWS = [
    {"sentence1": 'a "quoted" cat', "sentence2": "a dog, barking", "score": 1.5, "subset": "x"},
    {"sentence1": "zwei Häuser", "sentence2": "two houses", "score": 5.0, "subset": "y"},
]


def write(path, kind):
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if kind == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in ROWS)
        elif kind == "csv":
            writer = csv.DictWriter(file, list(ROWS[0]))
            writer.writeheader()
            writer.writerows(ROWS)
        else:
            file.write("\t".join(ROWS[0]) + "\n")
            file.writelines("\t".join(map(str, row.values())) + "\n" for row in ROWS)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
def test_formats(tmp_path, kind):
    path = tmp_path / f"pairs.{kind}"
    write(path, kind)
    pairs = read_pairs(path)
    assert list(pairs.sentence1) == [row["sentence1"] for row in ROWS]
    assert list(pairs.sentence2) == [row["sentence2"] for row in ROWS]
    np.testing.assert_array_equal(pairs.score, [1.5, 5.0])
    assert pairs.subset == ["x", "y"]


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_compressed(tmp_path, packing):
    plain = tmp_path / "pairs.jsonl"
    write(plain, "jsonl")
    packed = tmp_path / f"pairs.jsonl.{packing}"
    pack = gzip.compress if packing == "gz" else zstandard.ZstdCompressor().compress
    packed.write_bytes(pack(plain.read_bytes()))
    assert read_pairs(packed).sentence1 == read_pairs(plain).sentence1


def test_byte_order_mark_and_blank_lines(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes("\ufeffsentence1,sentence2,score\r\na,b,1\r\n\r\nc,d,2\r\n".encode())
    assert len(read_pairs(path)) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.xlsx", "a", "unknown format"),
        ("p.txt", "a\n", r'p.txt:1: no column "sentence1"; found: text'),
        ("p.jsonl.gz", "no gzip", r"p.jsonl.gz: the file is damaged"),
        ("p.jsonl", "{oops\n" * 12, "and 2 more faulty rows\ncorrect these rows$"),
        ("p.jsonl", "", "no pairs"),
        ("p.csv", "", "no pairs in it; rows with the columns sentence1"),
        ("p.jsonl", '{"sentence1": "a", "sentence2": "b"}\n', r'jsonl:1: no column "score"; found: sentence1, '),
        ("p.jsonl", '{"sentence1": "a", "sentence2": "b", "score": 1}\n{oops\n', "p.jsonl:2: no JSON object: .* 2"),
        ("p.jsonl", "[1]\n", r"p.jsonl:1: found list; one JSON object a line"),
        (
            "p.jsonl",
            '{"sentence1": null, "sentence2": "b", "score": 1}\n',
            r'p.jsonl:1: column "sentence1" holds None',
        ),
        ("p.tsv", "sentence1\tsentence2\tscore\na\tb\tmany\n", r"p.tsv:2: column \"score\" holds 'many'"),
        ("p.tsv", "sentence1\tsentence2\tscore\na\tb\tnan\n", r"p.tsv:2: column \"score\" holds 'nan'"),
        ("p.tsv", "sentence1\tsentence2\tscore\na\tb\n", "p.tsv:2: 2 fields, but the columns are 3: sent"),
        ("p.parquet", "no parquet", r"p.parquet: the file is damaged or not of this format"),
        (
            "p.jsonl",
            '{"sentence1": "a", "sentence2": "b", "score": 1, "subset": "x"}\n'
            '{"sentence1": "a", "sentence2": "b", "score": 1}\n',
            r'1 of 2 rows have a "subset"',
        ),
    ],
)
def test_malformed(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_pairs(path)


def test_not_utf8(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(b"sentence1,sentence2,score\ncaf\xe9,b,1\n")
    with pytest.raises(DataError, match=r"p.csv:2: byte 0xe9 .* not UTF-8"):
        read_pairs(path)


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_pairs(tmp_path / "p.csv")
