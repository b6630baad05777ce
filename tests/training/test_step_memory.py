"""Memory that does not suffice for a step: half as many texts at a time, the same numbers; then an error."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from part_examples import tree_of
from rank_work import open_run

from sentemb.errors import OutOfMemory
from sentemb.terms.term import Term
from sentemb.types import Batch, PairScores


class _Greedy(Term):
    """Another term that at some of its calls wants more memory than any machine has."""

    def __init__(self, term: Term, calls: Sequence[int]) -> None:
        super().__init__()
        self.term, self.calls, self.call = term, calls, 0

    def forward(self, table: PairScores, batch: Batch) -> torch.Tensor:
        self.call += 1
        if self.call in self.calls:
            torch.empty(1 << 62, dtype=torch.uint8)
        loss: torch.Tensor = self.term(table, batch)
        return loss


def starve(run: Any, *calls: int) -> None:
    run.plan.objective.terms[0] = _Greedy(run.plan.objective.terms[0], calls)


def state(run: Any) -> list[torch.Tensor]:
    return [value.detach().clone() for value in run.plan.objective.state_dict().values()]


def steps(run: Any, count: int = 3) -> None:
    for batches in list(run.inputs())[:count]:
        run.train_step(batches)


@pytest.fixture
def make(pairs_file: Path, tmp_path: Path) -> Any:
    def run(
        backbone: Path, *, part: tuple[str, str] = ("heads", "projector"), resume: bool = False, **train: Any
    ) -> Any:
        tree = tree_of(*part, str(backbone), str(pairs_file), **train)
        return open_run(tree, str(tmp_path), dtype=torch.float64, resume=resume)

    return run


@pytest.mark.parametrize("train", [{}, {"chunk_size": 6}, {"gradient_accumulation": 2}])
def test_the_step_is_that_of_a_run_with_enough_memory(
    train: dict[str, Any], make: Any, still_bert: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, short = make(still_bert, **train), make(still_bert, **train)
    starve(whole)
    starve(short, 2 if train.get("gradient_accumulation") else 1)
    steps(whole)
    with caplog.at_level(logging.WARNING):
        steps(short)
    # BatchNorm's statistics are among them; Adam makes 1e-11 of gradients that are 0 but for rounding
    for one, two in zip(state(whole), state(short), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-8)
    said = [record.message for record in caplog.records]
    texts = 3 if "chunk_size" in train else 14
    assert len(said) == 1
    assert f"with {6 if 'chunk_size' in train else 28} texts at a time" in said[0]
    assert f"train.chunk_size = {texts} begins so" in said[0]


def test_dropout_is_drawn_from_where_the_step_began(make: Any, tiny_bert: Path) -> None:
    short, chunked = make(tiny_bert), make(tiny_bert)
    starve(short, 1)
    starve(chunked)
    chunked.step.halve(14)
    for run in (short, chunked):
        torch.manual_seed(5)
        steps(run)
        run.drawn = torch.random.get_rng_state()
    assert all(torch.equal(one, two) for one, two in zip(state(short), state(chunked), strict=True))
    assert torch.equal(short.drawn, chunked.drawn)


def test_a_resumed_run_goes_on_with_as_few(make: Any, tiny_bert: Path) -> None:
    whole = make(tiny_bert)
    starve(whole, 1)
    steps(whole, 2)
    whole.folder.path.mkdir(parents=True, exist_ok=True)
    whole.save()
    resumed = make(tiny_bert, resume=True)
    starve(resumed)
    assert resumed.step.halved == whole.step.halved == 14
    drawn = torch.random.get_rng_state()
    steps(resumed, 1)
    torch.random.set_rng_state(drawn)
    whole.train_step(next(whole.inputs()))
    assert all(torch.equal(one, two) for one, two in zip(state(resumed), state(whole), strict=True))


def test_a_second_time_is_an_error_that_names_the_setting(make: Any, still_bert: Path) -> None:
    run = make(still_bert)
    starve(run, 2, 3)
    steps(run, 1)
    with pytest.raises(OutOfMemory, match=r"step 1: .*14 texts.*train\.chunk_size.*train\.batch_size \(now 7"):
        run.train_step(next(run.inputs()))


def test_what_cannot_be_cut_is_told(make: Any, still_bert: Path) -> None:
    run = make(still_bert, part=("terms", "masked_lm"))
    starve(run, 1)
    with pytest.raises(OutOfMemory, match=r"step 0: out of memory .*train\.gradient_checkpointing = true"):
        steps(run, 1)
    run = make(still_bert, chunk_size=1)
    starve(run, 1)
    with pytest.raises(OutOfMemory, match=r"with 1 texts at a time"):
        steps(run, 1)
