"""What a run tells and leaves: progress, ``metrics.jsonl``, trackers, the curve as PNG."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from sentemb.files import write_text
from sentemb.progress import Progress


class Monitor:
    """Collects losses without waiting for the device and writes them every ``log_every`` steps."""

    def __init__(
        self, run_dir: Path, *, total_steps: int, first_step: int, log_every: int, accelerator: Any, is_main: bool
    ) -> None:
        self.run_dir, self.log_every, self.accelerator, self.is_main = run_dir, log_every, accelerator, is_main
        self._pending: list[tuple[int, Any]] = []  # (step, device tensors); read in bulk
        self._file: TextIO | None = None
        self._curve_is_due = False
        if is_main:
            _drop_after(run_dir / "metrics.jsonl", first_step)
            self._file = (run_dir / "metrics.jsonl").open("a", encoding="utf-8")
        enabled = None if is_main else False
        self.bar = Progress("training", total=total_steps, unit="steps", done=first_step, enabled=enabled)

    def __enter__(self) -> Monitor:
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.flush()
        self.bar.__exit__(*error)
        if self._file is not None:
            self._file.close()

    def step(self, step: int, parts: Mapping[str, Any], rate: float) -> None:
        """One optimiser step is done; ``parts`` are tensors on the device."""
        self._pending.append((step, {"parts": dict(parts), "learning_rate": rate}))
        if step % self.log_every == 0:
            self.flush()
        self.bar.advance(1)

    def flush(self) -> None:
        """Read the waiting losses from the device and write their mean."""
        if not self._pending:
            return
        last, content = self._pending[-1]
        means = {
            name: math.fsum(float(entry["parts"][name]) for _, entry in self._pending) / len(self._pending)
            for name in content["parts"]
        }
        self._pending.clear()
        losses = {f"loss/{name}": value for name, value in means.items()}
        self.write({"step": last, "learning_rate": content["learning_rate"], **losses})
        self.bar.advance(0, loss="+".join(f"{value:.4f}" for value in means.values()))

    def dev(self, step: int, score: float, *, is_best: bool) -> None:
        """A dev evaluation."""
        self.flush()
        self.write({"step": step, "dev": score, "is_best": is_best})
        self.bar.advance(0, dev=f"{score:.4f}{' (best)' if is_best else ''}")
        if not self.bar.is_drawn:
            self.bar.say(f"step {step}: dev {score:.4f}{' (best)' if is_best else ''}")

    def write(self, entry: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl, and the trackers."""
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        numbers = {key: value for key, value in entry.items() if key != "step" and isinstance(value, float)}
        if self.accelerator.trackers:
            self.accelerator.log(numbers, step=int(entry["step"]))

    def sync(self) -> None:
        """Put what was written on the disk (before a checkpoint that follows it)."""
        self.flush()
        if self._file is not None:
            os.fsync(self._file.fileno())


def _drop_after(path: Path, step: int) -> None:
    """Forget lines of steps that a resumed run will do again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):  # a half-written last line
            continue
    write_text(path, "".join(line + "\n" for line in kept))


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``."""
    path = run_dir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def draw_curve(run_dir: Path) -> Path | None:
    """``curve.png``: loss per step and dev score, from metrics.jsonl."""
    entries = read_metrics(run_dir)
    losses = sorted({key for entry in entries for key in entry if key.startswith("loss/")})
    if not losses:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.add_subplot()
    for name in losses:
        points = [(entry["step"], entry[name]) for entry in entries if name in entry]
        axis.plot(*zip(*points, strict=True), label=name.removeprefix("loss/"), linewidth=1.2)
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.set_yscale("log" if all(e[n] > 0 for e in entries for n in losses if n in e) else "linear")
    dev = [(entry["step"], entry["dev"]) for entry in entries if "dev" in entry]
    if dev:
        right = axis.twinx()
        right.plot(*zip(*dev, strict=True), color="black", marker="o", markersize=3, linewidth=1.2, label="dev")
        right.set_ylabel("dev score")
    figure.legend(loc="outside upper right", ncols=4, frameon=False)
    path = run_dir / "curve.png"
    figure.savefig(path, dpi=130)
    return path
