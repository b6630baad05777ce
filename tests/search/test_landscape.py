"""The map of an index: its drawing in a notebook."""

from __future__ import annotations

import numpy as np
import pytest

from sentemb import SearchIndex
from sentemb.errors import SearchError


def test_a_map_is_coloured_by_the_commonest_values(tmp_path):
    rows = [{"id": i, "text": f"<b>{i}", "topic": f"t{min(i, 7)}"} for i in range(20)]
    vectors = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    with SearchIndex.build(tmp_path / "i", rows, vectors=vectors, kind="flat") as index:
        drawn, plain = index.plot(colour="topic").svg(), index.plot().svg()
        with pytest.raises(SearchError, match="did you mean topic"):
            index.plot(colour="topik")
    assert drawn.count('class="mark') == 20 + 6  # a legend of five values and the others
    assert plain.count('class="mark') == 20
    assert "others" in drawn
    assert "<b>" not in drawn


@pytest.mark.parametrize("count", [1, 2])
def test_few_documents(tmp_path, count):
    vectors = np.eye(count, 3, dtype=np.float32)
    with SearchIndex.build(tmp_path / "i", ["a", "b"][:count], vectors=vectors, kind="flat") as index:
        assert index.plot().svg().count('class="mark') == count
