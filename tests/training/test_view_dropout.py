"""Views with dropout rates of their own: who stands with whom, what varies, and that chunks change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import part_examples
import pytest
import torch
from part_examples import INFO_NCE, tree_of
from rank_work import cached_and_plain, open_run
from torch import nn

from sentemb.encoder.backbone import dropout_at

RATES = [0.0, 0.1, 0.5, 0.0]
VIEWS = {"use": "repeat", "count": 4, "dropouts": RATES}


def run_of(backbone: Path, data: Path, folder: Path, **changes: Any) -> Any:
    tree = {**tree_of("terms", "info_nce", str(backbone), str(data)), "views": VIEWS, **changes}
    return open_run(tree, str(folder), dtype=torch.float32)


@pytest.fixture(scope="module")
def run(tiny_bert: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_of(tiny_bert, pairs_file, tmp_path_factory.mktemp("run"), terms=[INFO_NCE], edits=[])


@pytest.mark.parametrize("size", [None, 3])
def test_views_of_a_rate_stand_together_and_all_rows_are_there(
    run: Any, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.feed, "chunk_size", size)
    parts = [run.make_input(np.arange(11), 0, rank=rank, devices=2) for rank in range(2)]
    for part, width in zip(parts, (6, 5), strict=True):
        assert sorted(int(row) for group in part.groups for row in group.rows) == list(range(4 * width))
        for group in part.groups:
            assert {RATES[int(row) // width] for row in group.rows} == {group.dropout}
    assert [group.dropout for group in parts[0].groups] == [group.dropout for group in parts[1].groups]


def test_rows_belong_to_their_view_and_a_rate_of_zero_varies_nothing(run: Any) -> None:
    objective, inputs = run.plan.objective.train(), run.make_input(np.arange(9), 0)
    one, two = (objective.encode(inputs).pooled.detach() for _ in range(2))  # (rows, views, width)
    for view, rate in enumerate(RATES):
        assert torch.equal(one[:, view], two[:, view]) == (rate == 0)
    assert torch.allclose(one[:, 0], one[:, 3], atol=1e-6)
    spread = [(one[:, view] - one[:, 0]).norm() for view in (1, 2)]
    assert 0 < spread[0] < spread[1]
    with torch.no_grad():
        still = objective.eval().encode(inputs).pooled
    assert torch.allclose(still[:, 1], one[:, 0], atol=1e-5)
    assert {part.p for part in objective.encoder.backbone.modules() if isinstance(part, nn.Dropout)} == {0.1}


def test_views_whose_hidden_states_are_read_have_their_rates(
    tiny_bert: Path, pairs_file: Path, tmp_path: Path
) -> None:
    run = run_of(tiny_bert, pairs_file, tmp_path, terms=[INFO_NCE, {"use": "local"}], edits=[])
    objective, inputs = run.plan.objective.train(), run.make_input(np.arange(9), 0)
    assert inputs.use.separate
    first, second = (objective.encode(inputs) for _ in range(2))
    for name in inputs.use.separate:
        is_equal = torch.equal(first.separate[name].hidden, second.separate[name].hidden)
        assert is_equal == (inputs.dropout[name] == 0.0)


@pytest.mark.parametrize("size", [3, 8])
def test_chunks_draw_the_same_dropout(
    size: int, tiny_bert: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = {"views": VIEWS, "terms": [{"use": "all_views_contrast"}]}
    monkeypatch.setitem(part_examples.EXAMPLES, ("views", "repeat"), example)
    plain, cached = cached_and_plain(
        str(tiny_bert), str(pairs_file), str(tmp_path), "views", "repeat", {"chunk_size": size}
    )
    assert plain.keys() == cached.keys()
    for key, value in plain.items():
        assert torch.allclose(cached[key], value, rtol=1e-7, atol=1e-10), key


def test_rates_are_restored_also_after_an_error() -> None:
    module = nn.Sequential(nn.Dropout(0.3), nn.Sequential(nn.Dropout(0)))
    module[1].attention_dropout = 0.2

    def rates() -> list[float]:
        return [module[0].p, module[1][0].p, module[1].attention_dropout]

    with dropout_at(module, None):
        assert rates() == [0.3, 0, 0.2]
    seen: list[float] = []

    def fail() -> None:
        with dropout_at(module, 0.7):
            seen.extend(rates())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen == [0.7, 0.7, 0.7]
    assert rates() == [0.3, 0, 0.2]
