"""Records as documents: what metadata keeps of csv's texts, dates and numpy's numbers; where a fault lies."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import ToyEncoder, vectors

from sentemb import Encoder
from sentemb.data import iter_records
from sentemb.errors import DataError, ModelError
from sentemb.search import Document, SearchIndex
from sentemb.search.store.records import as_document


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_numbers_of_csv_can_be_compared(suffix: str, tmp_path: Path) -> None:
    rows = ["id,text,year,zip,ratio,huge", "7,a cat,2019,01067,-1.5e3,1e999"]
    rows += ["8,a dog,2021,10115,x,99999999999999999999", f"9,a cow,2022,{'1' * 5000},0.{'3' * 200},0"]
    path = tmp_path / f"d.{suffix}"
    path.write_text("\n".join(rows).replace(",", "," if suffix == "csv" else "\t"))
    index = SearchIndex.build(tmp_path / "ix", str(path), encoder=ToyEncoder())
    assert [hit.id for hit in index.search("cat", where="year >= 2020 and year < 2022")] == ["8"]
    assert [hit.id for hit in index.search("cat", where='zip = "01067" and ratio < 0')] == ["7"]
    assert index.get(["7"])["7"].metadata == {"year": 2019, "zip": "01067", "ratio": -1500.0, "huge": "1e999"}
    assert index.get(["8"])["8"].metadata["huge"] == "99999999999999999999"
    assert index.get(["9"])["9"].metadata == {"year": 2022, "zip": "1" * 5000, "ratio": f"0.{'3' * 200}", "huge": 0}


def test_texts_of_jsonl_stay_texts(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps({"text": "a", "year": "2019"}))
    (record,) = iter_records(tmp_path / "d.jsonl")
    assert as_document(record).metadata == {"year": "2019"}


def test_dates_and_numbers_of_other_libraries_are_kept(tmp_path: Path) -> None:
    metadata = {
        "when": datetime(2020, 1, 5, 12), "day": date(2020, 1, 5), "n": np.int64(3), "x": np.float32(0.5),
        "price": Decimal("1.5"), "list": np.arange(2),
    }
    index = SearchIndex.build(tmp_path, [Document("a", "x", metadata)], vectors=vectors(1))
    kept = index.get(["a"])["a"].metadata
    assert kept == {"when": "2020-01-05T12:00:00", "day": "2020-01-05", "n": 3, "x": 0.5, "price": 1.5, "list": [0, 1]}
    assert len(index.search(vectors(1), where='when >= "2020-01-05" and n = 3')[0]) == 1
    with pytest.raises(DataError, match="object is no text, number"):
        index.add([Document("b", "x", {"odd": object()})], vectors=vectors(1))


@pytest.mark.parametrize(
    ("row", "choices", "message"),
    [
        ({"body": "x"}, {}, "no text field"), ({"text": 3}, {}, "holds int, not text"),
        ({"id": 1.5, "text": "x"}, {}, "document id 1.5"), ({"text": "x"}, {"id_field": "key"}, "no id field key"),
    ],
)
def test_faults_say_where(row: dict[str, Any], choices: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"text": "x", "key": 1, "body": "x"}) + "\n" + json.dumps(row))
    first, second = iter_records(path)
    as_document(first, **choices)
    with pytest.raises(DataError, match=rf"d\.jsonl:2: .*{message}"):
        as_document(second, **choices)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "datasets"])
def test_data_frames_fill_an_index(library: str, tmp_path: Path, tiny_bert: Path) -> None:
    columns = {"id": ["a", "b"], "text": ["the dog runs", "a cat plays"], "year": [2019, 2021]}
    module = pytest.importorskip(library)
    frame = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "table", "datasets": "Dataset"}[library]
    make = getattr(module, frame)
    data = make.from_dict(columns) if library == "datasets" else make(columns)
    encoder = Encoder.load(tiny_bert)
    index = SearchIndex.build(tmp_path / "index", data, encoder=encoder)
    (hit,) = index.search(["the dog runs"], k=5, where="year > 2020")[0]
    assert (hit.id, hit.text) == ("b", "a cat plays")
    if library in ("pandas", "polars"):
        assert encoder.encode(data["text"]).shape == (2, encoder.width)
        with pytest.raises(ModelError, match=r'columns id, text, year; give the one with the texts: encode\(frame\["'):
            encoder.encode(data)
