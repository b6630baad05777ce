"""Reading every format, and the message for every kind of malformed row."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentemb.data.data_source import TableData
from sentemb.data.table import Table
from sentemb.errors import DataError, PartError

ROWS = [("Ein Satz, quoted \"here\"", "a sentence", 0.5), ("zwei\u2028Sätze", "two", 1.0), ("drei", "three", 2.5)]


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.compress(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read_table(path: str | Path, **options: object) -> Table:
    return TableData(path=str(path), **options).load()


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def fault(path: Path, **options: object) -> str:
    with pytest.raises((DataError, PartError)) as caught:
        read_table(path, **options)
    return str(caught.value).replace(str(path), path.name)


# ----------------------------------------------------------------------------------------------- formats
def contents(kind: str) -> str:
    if kind == "jsonl":
        return jsonl(*({"anchor": a, "positive": b, "score": s} for a, b, s in ROWS))
    if kind == "csv":
        quoted = ['"{}","{}",{}'.format(a.replace('"', '""'), b, s) for a, b, s in ROWS]
        return "\r\n".join(["anchor,positive,score", *quoted]) + "\r\n"
    return "\n".join(["anchor\tpositive\tscore", *(f"{a}\t{b}\t{s}" for a, b, s in ROWS)])


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_text_formats_give_the_same_table(tmp_path, kind, packing):
    table = read_table(write(tmp_path / f"data.{kind}{packing}", contents(kind)))
    assert list(table.columns) == ["anchor", "positive"]
    assert list(zip(table.columns["anchor"], table.columns["positive"], strict=True)) == [(a, b) for a, b, _ in ROWS]
    assert table.score is not None
    assert table.score.tolist() == [0.5, 1.0, 2.5]
    assert table.label is None


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_txt_is_one_sentence_a_line(tmp_path, packing):
    path = write(tmp_path / f"lines.txt{packing}", "\ufeff  one \r\ntwo \"quoted, really\nthree\n\n \n")
    assert read_table(path).columns == {"anchor": ["one", 'two "quoted, really', "three"]}


def test_parquet_and_arrow_folder(tmp_path):
    import datasets

    anchors, positives, scores = map(list, zip(*ROWS, strict=True))
    frame = pa.table({"anchor": anchors, "positive": positives, "score": scores})
    pq.write_table(frame, tmp_path / "data.parquet", row_group_size=2)
    saved = datasets.DatasetDict({
        "train": datasets.Dataset(frame), "test": datasets.Dataset(frame.slice(0, 1)),
    })  # fmt: skip
    saved.save_to_disk(tmp_path / "saved", num_shards={"train": 2, "test": 1})
    for path in (tmp_path / "data.parquet", tmp_path / "saved", tmp_path / "saved" / "train"):
        table = read_table(path)
        assert table.columns == {"anchor": anchors, "positive": positives}
        assert table.score is not None
        assert table.score.tolist() == scores
    assert len(read_table(tmp_path / "saved", split="test")) == 1


def test_more_rows_than_a_block(tmp_path):
    path = write(tmp_path / "many.txt", "\n".join(f"line {i}" for i in range(20_000)))
    assert read_table(path).columns["anchor"] == [f"line {i}" for i in range(20_000)]
    assert read_table(path, max_rows=9_000).columns["anchor"] == [f"line {i}" for i in range(9_000)]


def test_labels_of_a_datasets_folder(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    data.save_to_disk(tmp_path / "saved")
    data.to_parquet(tmp_path / "data.parquet")
    for path in (tmp_path / "saved", tmp_path / "data.parquet"):
        table = read_table(path)
        assert table.label.tolist() == [1, 0]


def test_zstandard_frames_one_behind_the_other(tmp_path):
    path = tmp_path / "two.txt.zst"
    path.write_bytes(zstandard.compress(b"one\ntw") + zstandard.compress(b"o\nthree\n"))
    assert read_table(path).columns["anchor"] == ["one", "two", "three"]


def test_a_csv_field_may_hold_lines_and_be_long(tmp_path):
    long = "word " * 60_000 + "end"
    path = write(tmp_path / "data.csv", f'anchor,positive\n"first\nsecond",x\n\n"{long}",y\n,z\n')
    assert 'data.csv:6: column "anchor" is empty' in fault(path)
    table = read_table(path, skip_faulty=True)
    assert table.columns["anchor"] == ["first\nsecond", long]
    assert table.skipped == 1


def test_tsv_takes_quotes_as_they_are(tmp_path):
    path = write(tmp_path / "data.tsv", 'anchor\tpositive\n"a ""b"""\tc\n"open\td\n')
    assert read_table(path).columns["anchor"] == ['"a ""b"""', '"open']


def test_standard_input_is_told_by_its_first_line(monkeypatch):
    def feed(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))

    feed('{"anchor": "a", "positive": "b"}\n{"anchor": "c", "positive": "d"}\n')
    assert read_table("-").columns == {"anchor": ["a", "c"], "positive": ["b", "d"]}
    feed("{braces} are no JSON\nsecond")
    assert read_table("-").columns == {"anchor": ["{braces} are no JSON", "second"]}
    feed('{"a": 1}\n')
    assert read_table("-", format="txt").columns == {"anchor": ['{"a": 1}']}
    feed("anchor,positive\na,b\n")
    assert read_table("-", format="csv").columns == {"anchor": ["a"], "positive": ["b"]}


def test_a_folder_of_files_has_splits(tmp_path):
    write(tmp_path / "train-00001-of-00002.jsonl", jsonl({"anchor": "b"}))
    write(tmp_path / "train-00000-of-00002.jsonl", jsonl({"anchor": "a"}))
    write(tmp_path / "validation.jsonl.gz", jsonl({"anchor": "c"}))
    write(tmp_path / "nested" / "test" / "part.jsonl", jsonl({"anchor": "d"}))
    write(tmp_path / ".hidden" / "train.jsonl", jsonl({"anchor": "never"}))
    write(tmp_path / "README.md", "words")
    assert read_table(tmp_path).columns["anchor"] == ["a", "b"]
    assert read_table(tmp_path, split="validation").columns["anchor"] == ["c"]
    assert read_table(tmp_path, split="test").columns["anchor"] == ["d"]
    assert 'no split "tset"; known: test, train, validation; did you mean test?' in fault(tmp_path, split="tset")


def test_a_hub_data_set_through_the_datasets_library(monkeypatch):
    import datasets

    def load(name: str, config: str | None, *, revision: str | None) -> datasets.DatasetDict:
        assert (name, config, revision) == ("someone/pairs", "small", "main")
        rows = datasets.Dataset.from_dict({"anchor": ["a", "b"], "score": [1, 2]})
        return datasets.DatasetDict(train=rows, test=rows.select([0]))

    monkeypatch.setattr(datasets, "load_dataset", load)
    options = {"config": "small", "revision": "main"}
    assert read_table("someone/pairs", **options).columns == {"anchor": ["a", "b"]}
    assert len(read_table("someone/pairs", split="test", **options)) == 1
    with pytest.raises(DataError, match=r"someone/pairs \(train\): row 1"):
        read_table("someone/pairs", columns={"anchor": "score"}, **options)


def test_a_hub_id_that_cannot_be_reached(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="some-one/no-such-set: datasets could not load it from the hub; there is no"):
        read_table("some-one/no-such-set")


# ------------------------------------------------------------------------------------------------ columns
def test_order_decides_where_names_are_unknown(tmp_path):
    path = write(tmp_path / "data.csv", "query,doc,labels,bad,worse\na,b,3,c,d\n")
    table = read_table(path)
    assert table.columns == {"anchor": ["a"], "positive": ["b"], "negative_1": ["c"], "negative_2": ["d"]}
    assert table.label.tolist() == [3]


def test_names_decide_where_there_is_an_anchor(tmp_path):
    path = write(tmp_path / "data.csv", "id,negative_10,positive,negative_2,anchor\n7,n10,p,n2,a\n")
    assert read_table(path).columns == {
        "anchor": ["a"], "positive": ["p"], "negative_1": ["n2"], "negative_2": ["n10"],
    }  # fmt: skip
    assert list(read_table(path).columns) == ["anchor", "positive", "negative_1", "negative_2"]


def test_a_mapping_decides_over_all(tmp_path):
    path = write(tmp_path / "data.csv", "anchor,premise,other,grade\nx,a,b,0.25\n")
    table = read_table(path, columns={"positive": "other", "anchor": "premise", "score": "grade"})
    assert table.columns == {"anchor": ["a"], "positive": ["b"]}
    assert table.score.tolist() == [0.25]
    told = fault(path, columns={"anchor": "premises"})
    assert 'anchor = "premises" is not in the file; known: anchor, grade, other, premise; did you mean premise?' in told
    assert '"ancor" is no column role' in fault(path, columns={"ancor": "premise"})
    assert "no anchor; name it with columns = { anchor = … }" in fault(path, columns={"positive": "other"})


def test_sts_files_bring_more_columns_that_are_no_negatives(tmp_path):
    row = {"split": "test", "genre": "news", "sentence1": "a", "sentence2": "b", "score": 2.5}
    assert read_table(write(tmp_path / "sts.jsonl", jsonl(row))).columns == {"anchor": ["a"], "positive": ["b"]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("anchor,anchor", "column names must be distinct and not empty"),
        ("anchor,", "column names must be distinct and not empty"),
        ("score,label", "no anchor; name it with columns = { anchor = … }; found: score, label"),
        ("anchor,negative", "negatives without a positive column"),
        ("anchor,positive,negative,negative_1", "both a column negative and a column negative_1"),
    ],
)
def test_headers_that_make_no_table(tmp_path, header, message):
    fields = ",".join("1" for _ in header.split(","))
    assert message in fault(write(tmp_path / "data.csv", f"{header}\n{fields}\n"))


# ------------------------------------------------------------------------------------------------- labels
def test_names_of_classes_become_numbers(tmp_path):
    table = read_table(write(tmp_path / "data.csv", "text,label\na,cat\nb,ant\nc,cat\nd,12\n"))
    assert table.label.tolist() == [2, 1, 2, 0]


def test_whole_numbers_stay_whatever_they_look_like(tmp_path):
    table = read_table(write(tmp_path / "data.csv", "text,label\na,4\nb,-1\nc,2.0\n"))
    assert table.label.tolist() == [4, -1, 2]


def test_margins_are_numbers_of_the_pair(tmp_path):
    rows = [{"anchor": "a", "positive": "b", "margin": 0.25}, {"anchor": "c", "positive": "d", "margin": -1}]
    table = read_table(write(tmp_path / "data.jsonl", jsonl(*rows)))
    assert list(table.columns) == ["anchor", "positive"]
    assert table.margin.tolist() == [0.25, -1.0]
    table = read_table(write(tmp_path / "data.csv", "query,answer,margins\na,b,0.5\n"))
    assert table.margin.tolist() == [0.5]
    rows[1]["margin"] = "wide"
    assert "column \"margin\" is 'wide'; it must be" in fault(write(tmp_path / "data.jsonl", jsonl(*rows)))


# ------------------------------------------------------------------------------------------ malformed rows
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"anchor": "a"}, 'column "positive" is missing'),
        ({"anchor": "a", "positive": " \t", "label": 1, "score": 1}, 'column "positive" is empty; every row'),
        ({"anchor": None, "positive": "b", "label": 1, "score": 1}, 'column "anchor" is empty'),
        ({"anchor": 5, "positive": "b", "label": 1, "score": 1}, 'column "anchor" is 5, no text'),
        ({"anchor": "", "positive": "b", "label": 1, "score": 1}, 'column "anchor" is empty'),
        ({"anchor": "a", "positive": "b", "label": 1, "score": "high"}, "column \"score\" is 'high'; it must be"),
        ({"anchor": "a", "positive": "b", "label": 1, "score": None}, 'column "score" is None; it must be'),
        ({"anchor": "a", "positive": "b", "label": 1, "score": True}, 'column "score" is True; it must be'),
        ({"anchor": "a", "positive": "b", "label": 1, "score": "nan"}, "it must be a finite number"),
        ({"anchor": "a", "positive": "b", "label": 1, "score": 10**400}, 'column "score" is 1000'),
        ({"anchor": "a", "positive": "b", "label": 1.5, "score": 1}, "is 1.5, neither a whole number nor a name"),
        ({"anchor": "a", "positive": "b", "label": "x", "score": 1}, "the first label is a whole number (7)"),
        ({"anchor": "a", "positive": "b", "label": "", "score": 1}, 'column "label" is empty'),
        ({"anchor": "a", "positive": "b", "label": [1], "score": 1}, "neither a whole number nor a name"),
        ({"anchor": "a", "positive": "b", "score": 1}, 'column "label" is missing'),
        ({"anchor": "a", "positive": "b", "label": 1}, 'column "score" is missing'),
    ],
)
def test_a_malformed_row_is_named_by_its_line(tmp_path, row, message):
    good = {"anchor": "a", "positive": "b", "label": 7, "score": 1}
    path = write(tmp_path / "data.jsonl", jsonl(good, row, good))
    told = fault(path)
    assert told.startswith("data.jsonl:2: ")
    assert message in told
    assert told.count("data.jsonl:") == 1
    assert told.endswith("skip_faulty = true")
    table = read_table(path, skip_faulty=True)
    assert (len(table), table.skipped, table.label.tolist()) == (2, 1, [7, 7])


def test_a_number_among_names_of_classes(tmp_path):
    path = write(tmp_path / "data.jsonl", jsonl({"text": "a", "label": "cat"}, {"text": "b", "label": 3}))
    assert "data.jsonl:2: column \"label\" is 3, but the first label is the name of a class ('cat')" in fault(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"anchor": "caf\xe9"}', "byte 0xe9 at place 16 of the line is not UTF-8"),
        (b'{"anchor": "a"', "no JSON object: Expecting ',' delimiter: line 1 column 15"),
        (b'["a"]', "found list; one JSON object a line is expected"),
        (b'"a"', "found str"),
        (b"17", "found int"),
        (b'{"anchor": "\\ud800 half"}', "surrogates not allowed"),
        (b"[" * 100_000, "recursion"),
        (b'{"anchor": ' + b"1" * 5000 + b"}", "no JSON object: Exceeds the limit"),
    ],
)
def test_lines_that_are_no_json_objects(tmp_path, line, message):
    path = write(tmp_path / "data.jsonl", b'{"anchor": "a"}\n\n' + line + b"\n" + b'{"anchor": "z \\u00e9"}\n')
    told = fault(path)
    assert told.startswith("data.jsonl:3: ")
    assert message in told
    assert read_table(path, skip_faulty=True).columns["anchor"] == ["a", "z é"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"only one", "1 fields, but the columns are 2: anchor, positive"),
        (b"one,two,three", "3 fields, but the columns are 2"),
        (b'"a"b,c', "',' expected after '\"'"),
        (b"caf\xe9,b", "byte 0xe9 at place 4 of the line is not UTF-8"),
        (b'"two\ncaf\xe9 lines",b', "byte 0xe9 at place 4 of the line is not UTF-8"),
    ],
)
def test_rows_that_are_no_csv(tmp_path, line, message):
    path = write(tmp_path / "data.csv", b"anchor,positive\na,b\n" + line + b"\ny,z\n")
    told = fault(path)
    assert told.startswith(("data.csv:3: ", "data.csv:4: "))
    assert message in told
    assert read_table(path, skip_faulty=True).columns["anchor"] == ["a", "y"]


def test_an_unclosed_quote_is_named_where_it_opens(tmp_path):
    told = fault(write(tmp_path / "data.csv", 'anchor,positive\na,b\n"open,c\nd,e\n'))
    assert told.startswith("data.csv:3: the row that starts here has an unclosed quote")


def test_empty_lines_of_a_txt_file_are_faults_but_for_the_last(tmp_path):
    told = fault(write(tmp_path / "lines.txt", "a\n\n\nb\n\n"))
    assert told.splitlines()[:2] == [
        "lines.txt:2: the line is empty; one sentence a line is expected",
        "lines.txt:3: the line is empty; one sentence a line is expected",
    ]
    assert "lines.txt:5" not in told


def test_utf_16_is_recognised(tmp_path):
    told = fault(write(tmp_path / "lines.txt", "word\n".encode("utf-16")))
    assert told.startswith("lines.txt:1: the file is UTF-16; convert it")


def test_the_first_ten_faults_and_their_number(tmp_path):
    told = fault(write(tmp_path / "data.jsonl", jsonl(*({"anchor": "a" if i % 2 else ""} for i in range(50)))))
    lines = told.splitlines()
    assert [line.split(": ")[0] for line in lines[:10]] == [f"data.jsonl:{i}" for i in range(1, 20, 2)]
    assert lines[10] == "… and 15 more faulty rows"
    assert len(lines) == 12


def test_faults_of_different_kinds_come_in_the_order_of_the_file(tmp_path):
    lines = [b'{"anchor": ""}' if i % 2 else b'{"anchor": "\xff"}' for i in range(3000)]
    lines = fault(write(tmp_path / "data.jsonl", b"\n".join(lines))).splitlines()
    assert [line.split(": ")[0] for line in lines[:10]] == [f"data.jsonl:{i}" for i in range(1, 11)]
    assert lines[10] == "… and 2,990 more faulty rows"


def test_faults_of_parquet_are_named_by_row(tmp_path):
    buffers = pa.array([b"good", b"\xff\xfe", None, b"  "], pa.binary()).buffers()
    texts = pa.StringArray.from_buffers(4, buffers[1], buffers[2], buffers[0])
    pq.write_table(pa.table({"anchor": texts, "positive": ["a", "b", "c", "d"]}), tmp_path / "data.parquet")
    lines = fault(tmp_path / "data.parquet").splitlines()
    assert lines[0] == "data.parquet: row 2: a text is not UTF-8"
    assert lines[1].startswith('data.parquet: row 3: column "anchor" is empty')
    assert lines[2].startswith('data.parquet: row 4: column "anchor" is empty')
    assert read_table(tmp_path / "data.parquet", skip_faulty=True).columns == {"anchor": ["good"], "positive": ["a"]}


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["txt", "csv", "tsv", "jsonl", "parquet", "txt.gz", "csv.zst"]),
    content=st.one_of(
        st.binary(max_size=200),
        st.text(alphabet='anchor,positive"\t\r\n\x00{}[]:\\ud8\u2028\ufeff1.', max_size=200).map(str.encode),
        st.text(alphabet='ab,"\r\n', max_size=60).map(lambda text: b"anchor,positive\n" + text.encode()),
    ),
)
def test_whatever_the_bytes_are_there_is_a_table_or_a_message(tmp_path, kind, content):
    path = tmp_path / f"data.{kind}"
    path.write_bytes(content)
    for skip_faulty in (False, True):
        try:
            table = read_table(path, skip_faulty=skip_faulty)
        except DataError:
            continue
        assert len(table) > 0
        assert all(len(column) == len(table) for column in table.columns.values())
        assert all(text == text.strip() != "" for column in table.columns.values() for text in column)
        assert skip_faulty or table.skipped == 0


# --------------------------------------------------------------------------------------------- whole files
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "no rows"),
        ("a.txt", b"\n\n", "no rows"),
        ("a.jsonl", b"", "no rows"),
        ("a.csv", b"", "no rows"),
        ("a.csv", b"anchor,positive\n", "no rows"),
        ("a.docx", b"x", 'unknown format ".docx"; known: .csv'),
        ("a", b"x", 'unknown format ""'),
        ("a.parquet.gz", b"x", ".parquet files are compressed inside"),
        ("a.parquet", b"PAR1 is not enough", "damaged or not of this format"),
    ],
)
def test_files_that_hold_no_table(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert message in fault(tmp_path / name)


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "none"])
def test_damaged_compressed_files(tmp_path, packing, damage):
    noise = np.random.default_rng(0).integers(97, 122, 200_000, dtype=np.uint8).tobytes()
    path = write(tmp_path / f"lines.txt{packing}", noise)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[2] ^= 0xFF
        path.write_bytes(data)
    else:
        path.write_bytes(b"plain text")
    assert "the file is damaged or not of this format" in fault(path)


def test_paths_that_lead_nowhere(tmp_path):
    write(tmp_path / "sentences.txt", "a")
    assert "sentence.txt: no such file or folder; did you mean sentences.txt?" in fault(tmp_path / "sentence.txt")
    assert fault(tmp_path / "none" / "x.jsonl").endswith("no such file or folder")
    assert "is for folders and hub ids; this is one file" in fault(tmp_path / "sentences.txt", split="train")
    (tmp_path / "empty").mkdir()
    assert "no data files" in fault(tmp_path / "empty")


def test_splits_must_be_chosen_where_none_is_train(tmp_path):
    for split in ("dev", "test"):
        write(tmp_path / f"{split}.jsonl", jsonl({"anchor": "a"}))
    assert "several splits: dev, test; choose one" in fault(tmp_path)
