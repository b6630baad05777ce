from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from part_examples import tree_of
from rank_work import open_run

from sentemb.training.inputs import prefetch


@pytest.fixture(scope="module")
def run(still_bert: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    tree = tree_of("edits", "given", str(still_bert), str(pairs_file))
    return open_run(tree, str(tmp_path_factory.mktemp("run")), dtype=torch.float32)


@pytest.mark.parametrize("size", [1, 3, 11, 33, 100])
def test_chunks_cover_all_rows_within_the_bound(run: Any, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.feed, "chunk_size", size)
    groups = run.make_input(np.arange(11), 0).groups
    rows = [row for group in groups for row in group.rows.tolist()]
    assert sorted(rows) == list(range(len(rows)))
    assert len(rows) % 11 == 0
    assert len(groups) == -(-len(rows) // size)
    assert all(0 < len(group.rows) <= size for group in groups)
    lengths = [length for group in groups for length in group.tokens.attention_mask.sum(dim=1).tolist()]
    assert lengths == sorted(lengths)


def test_devices_deal_the_same_views(run: Any) -> None:
    rows = np.arange(11)
    whole = run.make_input(rows, 3)
    parts = [run.make_input(rows, 3, rank=rank, devices=3) for rank in range(3)]
    assert [part.sizes for part in parts] == [(4, 4, 3)] * 3
    for part in parts:
        assert all(torch.equal(part.ids[name], whole.ids[name]) for name in whole.ids)
        assert part.seed == whole.seed
        assert all(torch.equal(part.text[name], whole.text[name]) for name in whole.text)

    def rows_of(batch: Any) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for group in batch.groups:
            for place, ids, mask in zip(group.rows, group.tokens.input_ids, group.tokens.attention_mask, strict=True):
                found[int(place)] = ids[mask.bool()].tolist()
        return found

    everything = rows_of(whole)
    for part in parts:
        width = part.local.stop - part.local.start
        for place, ids in rows_of(part).items():
            view, row = divmod(place, width)
            assert ids == everything[view * 11 + part.local.start + row]


def test_devices_get_as_many_groups(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for size, count in ((2, 8), (1, 12)):  # of 16 and 12 texts
        monkeypatch.setattr(run.feed, "chunk_size", size)
        parts = [run.make_input(np.arange(7), 0, rank=rank, devices=2) for rank in range(2)]
        assert [len(part.groups) for part in parts] == [count, count]
        for part, texts in zip(parts, (16, 12), strict=True):
            assert sorted(int(row) for group in part.groups for row in group.rows) == list(range(texts))


def test_seeds_differ_by_step_only(run: Any) -> None:
    assert run.make_input(np.arange(5), 1).seed == run.make_input(np.arange(5), 1).seed
    assert run.make_input(np.arange(5), 1).seed != run.make_input(np.arange(5), 2).seed


def test_prefetch_keeps_order_and_hands_on_faults() -> None:
    def numbers() -> Any:
        yield from range(5)
        raise ValueError("no more")

    stream = prefetch(numbers())
    found = [next(stream) for _ in range(5)]
    assert found == list(range(5))
    with pytest.raises(ValueError, match="no more"):
        next(stream)


def test_prefetch_ends_its_thread_when_closed() -> None:
    def forever() -> Any:
        while True:
            yield 0

    before = threading.active_count()
    stream = prefetch(forever())
    next(stream)
    stream.close()
    assert threading.active_count() == before
