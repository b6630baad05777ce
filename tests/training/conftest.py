"""Data, an encoder without dropout, and processes that train together."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ranks import Ranks

WORDS = (
    "the a an of and to in is was for on with as by at from man woman dog cat child runs eats plays music guitar red "
    "blue green big small river house song film book year world team game school people found made called"
).split()


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Anchor, positive, two hard negatives, classes and numbers; some texts recur. Beside it a vector for most rows."""
    draw = random.Random(5)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(2, 11)))

    rows = []
    for row in range(36):
        anchor = text()
        rows.append({
            "anchor": anchor, "positive": text() if row % 5 else anchor, "negative_1": text(),
            "negative_2": rows[-1]["anchor"] if row % 4 == 3 else text(), "label": row % 4,
            "score": draw.randint(0, 10) / 10, "margin": row % 3 / 20, "together": row % 2, "weight": row % 5 / 2,
            "label_2": row % 2, "score_1": row % 7 / 7, "score_2": -row % 3, "grade_0": 1 + row % 3,
            "grade_1": row % 2, "grade_2": 0.5,
        })
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    vectors = np.random.default_rng(6).normal(size=(len(rows), 6)).astype(np.float32)
    vectors[::3] = np.nan
    np.save(path.with_suffix(".npy"), vectors)
    return path


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Ranks]]:
    """One, two and three processes."""
    pools = {world: Ranks(world, tmp_path_factory.mktemp(f"ranks-{world}")) for world in (1, 2, 3)}
    yield pools
    for pool in pools.values():
        pool.close()
