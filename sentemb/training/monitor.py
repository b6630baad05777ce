"""What a run shows and leaves: the progress bar, ``metrics.jsonl``, trackers, the curves."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sentemb.files import write_text
from sentemb.progress import Progress
from sentemb.training.callbacks import Callback, CheckpointEvent, EndEvent, EvaluationEvent, StepEvent
from sentemb.training.run_pages import RunRecord, curve_chart, read_metrics


class Monitor(Callback):
    """Collects losses without waiting for the device and writes their mean every ``log_every`` steps.

    Of a mixture: every source's losses and gradient norm in the steps that were its own, and how many of its examples
    there were since the entry before.
    """

    def __init__(
        self, run_dir: Path, *, total_steps: int, first_step: int, log_every: int, accelerator: Any = None
    ) -> None:
        self.run_dir, self.log_every, self.accelerator = run_dir, log_every, accelerator
        self.trackers: Sequence[Any] = accelerator.trackers if accelerator else ()
        self._pending: list[StepEvent] = []
        done = [json.dumps(entry) + "\n" for entry in read_metrics(run_dir) if entry["step"] <= first_step]
        write_text(run_dir / "metrics.jsonl", "".join(done))  # without steps that a resumed run will do again
        self._file = (run_dir / "metrics.jsonl").open("a", encoding="utf-8")
        self.bar = Progress("training", total=total_steps, unit="steps", done=first_step)

    def __enter__(self) -> Monitor:
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.flush()
        self.bar.__exit__(*error)
        self._file.close()

    def on_step(self, event: StepEvent) -> None:
        if event.losses:
            self._pending.append(event)
        if event.step % self.log_every == 0:
            self.flush()
        self.bar.advance(1)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        self.flush()
        by_task = {f"dev/{name}": score for name, score in event.scores.items()} if len(event.scores) > 1 else {}
        self._write({"step": event.step, "dev": event.score, "is_best": event.is_best, **by_task})
        line = f"{event.score:.4f}{' (best)' if event.is_best else ''}"
        self.bar.advance(0, dev=line)
        self.bar.say(f"step {event.step}: dev {line}")

    def on_checkpoint(self, event: CheckpointEvent) -> None:
        """Put what was written on the disk."""
        self.flush()
        os.fsync(self._file.fileno())

    def on_end(self, event: EndEvent) -> None:
        self.flush()
        # accelerate's end_training would also leave the process group, which other devices still need
        for tracker in self.trackers:
            tracker.finish()
        run = RunRecord(name=self.run_dir.name, metrics=read_metrics(self.run_dir))
        for curve in ("loss", "dev"):
            if run.lines(curve):
                curve_chart(run, curve).save(self.run_dir / f"{curve}.svg")

    def flush(self) -> None:
        """Read the waiting losses from the device and write their mean."""
        if not self._pending:
            return
        last, losses, norms = self._pending[-1], Means(), Means()
        examples: Counter[str] = Counter()
        for event in self._pending:
            for name, loss in event.losses.items():
                losses.add(name, loss)
            if event.gradient_norm is not None:  # of a step whose batches are all of one source, under its name
                source = "/".join(["", *event.examples]) if len(event.examples) == 1 else ""
                norms.add(f"gradient_norm{source}", event.gradient_norm)
            examples.update(event.examples)
        self._pending.clear()
        means = losses.values()
        self._write({
            "step": last.step, "learning_rate": last.learning_rate,
            **{f"loss/{name}": value for name, value in means.items()}, **norms.values(),
            **{f"examples/{source}": count for source, count in examples.items()},
        })
        self.bar.advance(0, loss="+".join(f"{value:.4f}" for value in means.values()))

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        if self.trackers:
            numbers = {key: value for key, value in entry.items() if isinstance(value, float)}
            self.accelerator.log(numbers, step=int(entry["step"]))


class Means:
    """Means by name of numbers that lie on the device."""

    def __init__(self) -> None:
        self._numbers: dict[str, list[Tensor]] = {}

    def add(self, name: str, number: Tensor) -> None:
        self._numbers.setdefault(name, []).append(number)

    def values(self) -> dict[str, float]:
        return {name: math.fsum(map(float, numbers)) / len(numbers) for name, numbers in self._numbers.items()}
