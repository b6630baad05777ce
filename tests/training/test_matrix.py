"""Every part on one, two and three devices, whole and in chunks: one batch, one loss, one gradient."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from part_examples import EXAMPLES
from rank_work import cached_and_plain, gradients
from ranks import Ranks
from torch import Tensor

from sentemb.companions import PARTS as COMPANIONS
from sentemb.edits import PARTS as EDITS
from sentemb.encoder.heads import PARTS as HEADS
from sentemb.terms import PARTS as TERMS
from sentemb.views import COPIES, PARTS

ROOMS: dict[str, Mapping[str, Any]] = {
    "terms": TERMS, "edits": EDITS, "companions": COMPANIONS, "views": {**PARTS, **COPIES}, "heads": HEADS,
}
OPTIONS = [("adapters", "lora"), ("adapters", "prefix"), ("train", "nested_dims")]
NO_ENCODER = {("terms", "causal_lm")}  # takes a decoder: its own test compares it with the model's loss
CATALOGUE = OPTIONS + [
    (room, name) for room, parts in ROOMS.items() for name in parts if (room, name) not in NO_ENCODER
]
# read states of tokens: the cache refuses them by name (test_objective)
NOT_CACHED = {
    ("terms", "masked_lm"), ("views", "masked"), ("terms", "local"), ("terms", "token_contrast"),
    ("terms", "attention_agreement"),
}
TOLERANCE = {"float64": 1e-10, "float32": 2e-3}
# computed in float32 whatever the encoder's type: a last bit may tip
SINGLE = {
    ("terms", "distill"): 1e-6, ("terms", "mse"): 1e-6, ("companions", "reference"): 1e-6,
    ("companions", "per_example"): 1e-6,
}


@pytest.fixture(scope="module")
def expected(ranks: dict[int, Ranks], still_bert: Path, pairs_file: Path, tmp_path_factory: Any) -> Any:
    """What one device makes of the whole batch, computed once a part and type."""
    known: dict[tuple[str, str, str], dict[str, Tensor]] = {}

    def of(room: str, name: str, dtype: str) -> dict[str, Tensor]:
        if (room, name, dtype) not in known:
            folder = tmp_path_factory.mktemp("one")
            arguments = (room, name, str(still_bert), str(pairs_file), str(folder), dtype, {})
            known[room, name, dtype] = ranks[1].run(gradients, *arguments)[0]
        return known[room, name, dtype]

    return of


def unequal(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], tolerance: float, least: float = 1e-4
) -> list[str]:
    """What differs by more than ``tolerance`` of its norm (or, where that is rounding itself, of ``least`` times the
    largest one: a gradient that is nought but for rounding, as a bias's that is subtracted again)."""
    assert found.keys() == wanted.keys()
    scales: dict[str, float] = {}
    for key, value in wanted.items():
        kind = "gradient" if "gradient" in key else "other"
        scales[kind] = max(scales.get(kind, 0.0), float(value.norm()))
    wrong = []
    for key, value in wanted.items():
        floor = least * scales["gradient" if "gradient" in key else "other"]
        error = float((found[key] - value).norm()) / max(float(value.norm()), floor, 1e-300)
        if not error <= tolerance:
            wrong.append(f"{key}: {error:.1e}")
    return wrong


def compare(
    ranks: dict[int, Ranks], expected: Any, files: tuple[Path, Path], folder: Path, part: tuple[str, str], world: int,
    train: dict[str, Any], dtype: str = "float64",
) -> None:
    arguments = (*part, str(files[0]), str(files[1]), str(folder), dtype, train)
    wanted = expected(*part, dtype)
    assert any("gradient" in key and float(value.norm()) > 0 for key, value in wanted.items())
    for found in ranks[world].run(gradients, *arguments):
        tolerance = max(TOLERANCE[dtype], SINGLE.get(part, 0.0))
        assert not unequal(found, wanted, tolerance, 1e-3 if dtype == "float32" else 1e-4)


@pytest.mark.parametrize("part", CATALOGUE, ids="-".join)
@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_devices_share_one_batch(
    part: tuple[str, str], world: int, ranks: Any, expected: Any, still_bert: Path, pairs_file: Path, tmp_path: Path
) -> None:
    compare(ranks, expected, (still_bert, pairs_file), tmp_path, part, world, {})


@pytest.mark.parametrize("part", [part for part in CATALOGUE if part not in NOT_CACHED], ids="-".join)
@pytest.mark.parametrize("world", [1, 2])
def test_chunks_are_the_whole_batch(
    part: tuple[str, str], world: int, ranks: Any, expected: Any, still_bert: Path, pairs_file: Path, tmp_path: Path
) -> None:
    compare(ranks, expected, (still_bert, pairs_file), tmp_path, part, world, {"chunk_size": 3})


@pytest.mark.parametrize("chunks", [{}, {"chunk_size": 3}], ids=["whole", "chunks"])
@pytest.mark.parametrize(
    "part", [("edits", "queue"), ("heads", "projector"), ("terms", "replaced_token_detection"), ("terms", "info_nce")],
    ids="-".join,
)
def test_sharded_weights(
    part: tuple[str, str], chunks: dict[str, Any], ranks: Any, expected: Any, still_bert: Path, pairs_file: Path,
    tmp_path: Path,
) -> None:
    compare(ranks, expected, (still_bert, pairs_file), tmp_path, part, 2, {"shard": True, **chunks})


@pytest.mark.slow
@pytest.mark.parametrize("part", CATALOGUE, ids="-".join)
@pytest.mark.parametrize("world", [2, 3])
def test_float32(
    part: tuple[str, str], world: int, ranks: Any, expected: Any, still_bert: Path, pairs_file: Path, tmp_path: Path
) -> None:
    train = {} if part in NOT_CACHED or world == 2 else {"chunk_size": 5}
    compare(ranks, expected, (still_bert, pairs_file), tmp_path, part, world, train, "float32")


@pytest.mark.parametrize("fault", ["missing factor", "detached rows", "misaligned negatives"])
def test_planted_fault_fails_the_matrix(
    fault: str, ranks: Any, expected: Any, still_bert: Path, pairs_file: Path, tmp_path: Path
) -> None:
    arguments = ("edits", "given", str(still_bert), str(pairs_file), str(tmp_path), "float64", {})
    wanted = expected("edits", "given", "float64")
    found = ranks[2].run(gradients, *arguments, fault)[0]
    wrong = unequal(found, wanted, 1e-3)
    assert any("gradient" in key for key in wrong)


def test_every_example_is_of_a_listed_part() -> None:
    assert set(EXAMPLES) <= set(CATALOGUE)


@pytest.mark.parametrize("part", [("edits", "given"), ("edits", "queue"), ("heads", "projector")], ids="-".join)
def test_dropout_is_replayed(
    part: tuple[str, str], ranks: Any, tiny_bert: Path, pairs_file: Path, tmp_path: Path
) -> None:
    arguments = (str(tiny_bert), str(pairs_file), str(tmp_path), *part, {"chunk_size": 6})
    plain, cached = ranks[1].run(cached_and_plain, *arguments)[0]
    assert torch.equal(cached["generator"], plain["generator"])
    assert not unequal(cached, plain, 1e-10)
