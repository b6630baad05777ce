"""Batches of groups inside a run, and the joint loss that they are made for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from part_examples import tree_of
from rank_work import dealt_rows, open_run

from sentemb.errors import RecipeError

BY_CLUSTER = {"use": "grouped", "by": "prototypes", "groups": 2}
CLUSTERS = [{"use": "prototypes", "count": 4, "update": "average"}]


@pytest.fixture
def tree(still_bert: Path, pairs_file: Path) -> Any:
    def of(**train: Any) -> dict[str, Any]:
        settings = {"batch_size": 8, "epochs": 2, "batches": BY_CLUSTER, **train}
        return {**tree_of("views", "columns", str(still_bert), str(pairs_file), **settings), "companions": CLUSTERS}

    return of


def test_batches_have_rows_of_as_many_clusters(tree: Any, tmp_path: Path) -> None:
    run = open_run(tree(), str(tmp_path), dtype=torch.float32)
    groups = run.plan.objective.companions["prototypes"].groups()
    dealt = dealt_rows(tree(), str(tmp_path))
    assert len(dealt) == run.total_steps == 2 * run.feed.steps_per_epoch
    for rows in dealt:
        names, counts = np.unique(groups[rows], return_counts=True)
        assert len(names) == 2
        assert max(counts) <= 4
    first = dealt[: len(dealt) // 2]
    assert sum(map(len, first)) == len({row for rows in first for row in rows})
    assert first != dealt[len(dealt) // 2 :]


def test_batches_are_equal_on_every_device_and_after_resuming(tree: Any, ranks: Any, tmp_path: Path) -> None:
    one = ranks[1].run(dealt_rows, tree(), str(tmp_path))[0]
    assert ranks[2].run(dealt_rows, tree(), str(tmp_path)) == [one, one]
    assert ranks[1].run(dealt_rows, tree(), str(tmp_path), 3)[0] == one[3:]


def test_too_few_rows_of_a_cluster_for_the_devices_are_told(tree: Any, tmp_path: Path) -> None:
    few = tree(gradient_accumulation=40)
    with pytest.raises(RecipeError, match="36 examples make no batch of 8 × gradient_accumulation 40"):
        open_run(few, str(tmp_path))


# ------------------------------------------------------------------------- supervised and unsupervised contrast
def joint(still_bert: Path, pairs_file: Path, folder: Path, weight: float) -> tuple[Any, Any]:
    terms = [
        {"use": "supervised_contrast", "weight": 1 - weight},
        {"use": "info_nce", "weight": weight, "without": ["same_label"]},
    ]
    plain = tree_of("edits", "same_label", str(still_bert), str(pairs_file))
    run = open_run({**plain, "terms": terms}, str(folder))
    inputs = run.make_input(np.arange(7), 0)
    return run, run.plan.objective(inputs)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_class_collapse_loss_is_the_mix_of_its_terms(
    weight: float, still_bert: Path, pairs_file: Path, tmp_path: Path
) -> None:
    run, losses = joint(still_bert, pairs_file, tmp_path, weight)
    expected = (1 - weight) * losses.parts["supervised_contrast"] + weight * losses.parts["info_nce"]
    torch.testing.assert_close(losses.total.detach(), expected)
    objective, inputs = run.plan.objective, run.make_input(np.arange(7), 0)
    plain, batch = objective.in_batch(objective.encode(inputs), inputs)
    without = objective.edited(plain, batch, inputs.seed, frozenset({"same_label"}))
    assert (without.positive.sum(dim=1) == 1).all()
    assert (objective.edited(plain, batch, inputs.seed).positive.sum(dim=1) > 1).any()
    torch.testing.assert_close(objective.terms[1](without, batch).detach(), losses.parts["info_nce"])
