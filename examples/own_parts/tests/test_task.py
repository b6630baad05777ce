from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from own_parts.task import Triplets

from sentemb.evaluate import evaluate_model
from sentemb.parts import room


class Lengths:
    """Texts are as alike as they are long."""

    def encode(self, texts: Sequence[str], /) -> np.ndarray:
        return np.array([[len(text), 10.0] for text in texts], dtype=np.float32)


def test_it_counts_the_right_triplets(tmp_path: Path) -> None:
    triplets = [("aa", "bbb", "cccccc"), ("aa", "bbbbbb", "ccc"), ("aa", "bb", "cccc"), ("a", "bb", "cc")]
    file = tmp_path / "triplets.jsonl"
    names = ("anchor", "positive", "negative")
    file.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in triplets))
    task = room("tasks").make({"use": "triplets", "path": str(file)})
    assert task == Triplets(path=str(file))
    (result,) = evaluate_model(Lengths(), [task]).tasks
    assert (result.task, result.metric, result.main, result.count) == ("triplets", "accuracy", 50.0, 4)
    assert result.interval is not None
    assert result.interval.low < 50 < result.interval.high


def test_a_file_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("anchor,positive\na,b\n")
    results = evaluate_model(Lengths(), [Triplets(path=str(tmp_path / "pairs.csv"))])
    (failure,) = results.failures
    assert "negative_1" in str(failure)
    assert "pairs.csv" in str(failure)
