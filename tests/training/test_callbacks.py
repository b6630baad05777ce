from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from part_examples import tree_of
from rank_work import open_run

from sentemb.training.callbacks import (
    Callback,
    CheckpointEvent,
    EarlyStopping,
    EndEvent,
    EvaluationEvent,
    StepEvent,
)
from sentemb.training.run_pages import read_metrics
from sentemb.types import DevScores


class Notes(Callback):
    """Writes down what it hears, and stops at a step.

    Args:
        stop: the step.
    """

    def __init__(self, *, stop: int = 0) -> None:
        self.stop = stop
        self.heard: list[tuple[str, int]] = []

    def on_step(self, event: StepEvent) -> str | None:
        """Note it."""
        self.heard.append(("step", event.step))
        assert set(event.losses) == {"info_nce"}
        return "enough" if event.step == self.stop else None

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Note it."""
        self.heard.append(("evaluation", event.step))

    def on_checkpoint(self, event: CheckpointEvent) -> None:
        """Note it."""
        assert event.folder.is_dir()
        self.heard.append(("checkpoint", event.step))

    def on_end(self, event: EndEvent) -> None:
        """Note it."""
        assert (event.model_dir / "model.safetensors").is_file()
        self.heard.append(("end", event.step))


@pytest.fixture
def make(still_bert: Path, pairs_file: Path, tmp_path: Path) -> Any:
    def run(scores: list[float], *callbacks: Callback, resume: bool = False, **train: Any) -> Any:
        tree = tree_of("heads", "mlp", str(still_bert), str(pairs_file), epochs=20, log_every=1, **train)
        if scores:
            tree["dev"] = [{"use": "sts", "path": str(write_dev(tmp_path))}]
        left = iter(scores)

        def dev(encoder: Any) -> DevScores:
            value = next(left)
            return DevScores(value=value, scores={"one": value - 1, "two": value + 1})

        return open_run(tree, str(tmp_path), resume=resume, dev=dev if scores else None, callbacks=callbacks)

    return run


def write_dev(folder: Path) -> Path:
    path = folder / "dev.tsv"
    path.write_text("sentence1\tsentence2\tscore\na dog\ta cat\t1\na man\ta man\t5\n")
    return path


def test_callbacks_hear_everything_in_order(make: Any) -> None:
    notes = Notes()
    make([1.0, 2.0], notes, max_steps=4, eval_every=2).train()
    assert notes.heard == [
        ("step", 1), ("step", 2), ("evaluation", 2), ("checkpoint", 2), ("step", 3), ("step", 4), ("evaluation", 4),
        ("checkpoint", 4), ("end", 4),
    ]


def test_a_callback_stops_the_run_which_is_then_finished(make: Any, tmp_path: Path, capsys: Any) -> None:
    result = make([], Notes(stop=3), max_steps=9).train()
    assert result.steps == 3
    file = tmp_path / "result.json"
    before = file.read_bytes()
    assert json.loads(before)["stopped"] == "enough"
    again = make([], Notes(), resume=True, max_steps=9).train()
    assert again == result
    assert file.read_bytes() == before


def test_a_stopped_run_whose_end_was_cut_off_trains_no_further_step(make: Any, tmp_path: Path) -> None:
    make([], Notes(stop=3), max_steps=9).train()
    (tmp_path / "result.json").unlink()
    notes = Notes()
    assert make([], notes, resume=True, max_steps=9).train().steps == 3
    assert ("step", 4) not in notes.heard


def test_patience_stops_and_the_best_model_stays(make: Any, tmp_path: Path) -> None:
    result = make([5.0, 7.0, 6.0, 7.0, 9.0], max_steps=9, eval_every=1, patience=2).train()
    assert (result.steps, result.best_step, result.best_score) == (4, 2, 7.0)
    dev = [entry for entry in read_metrics(tmp_path) if "dev" in entry]
    assert [(entry["dev"], entry["dev/one"], entry["is_best"]) for entry in dev] == [
        (5.0, 4.0, True), (7.0, 6.0, True), (6.0, 5.0, False), (7.0, 6.0, False),
    ]


def test_early_stopping_counts() -> None:
    def event(count: int) -> EvaluationEvent:
        return EvaluationEvent(step=1, score=0.0, scores={}, is_best=not count, evaluations_since_best=count)

    assert [EarlyStopping(patience=2).on_evaluation(event(count)) is None for count in (0, 1, 2)] == [True, True, False]


def test_a_recipe_names_callbacks(make: Any) -> None:
    run = make([2.0, 1.0, 3.0], max_steps=5, eval_every=1, callbacks=[{"use": "early_stopping", "patience": 1}])
    assert run.train().steps == 2
    assert "early stop" in run.state.stopped
