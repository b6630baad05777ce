"""What an objective costs of a training step: everything right of the encoder, for every recipe of the gallery.

    SENTEMB_DATA=…/data python eval/bench/run.py objectives --backbone FOLDER [--only dcl-minilm …] [--rows 65536]

``--rows`` takes, instead, the recipe whose anchors are replaced by neighbours, and gives it so many to choose from.

For a batch of n examples: gather, heads, table, edits, terms, their backward pass and the companions' step, given the
pooled rows; in CPU time, the median of several repetitions, each beside the plain baseline's in turn. ``of a step`` is
the difference to the baseline over a whole step of the baseline, whose encoding is timed in the same process, as often.
Methods with a momentum encoder or masked words encode more texts; that is in it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gallery import with_folders
from gallery_files import files_for
from harness import machine, write_report

from sentemb import Recipe, Run, build

HERE = Path(__file__).resolve().parent
SAID = """\
CPU time of everything right of the encoder, beside plain InfoNCE's; `of a step` is the difference over a whole
step of the baseline. Not the edits and terms alone: a second encoder (momentum, teacher, frozen start), a generator, a
decoder or the prediction of masked words is in it. In brackets the gallery's protocol.
"""


class Work:
    """One batch of a recipe's run, encoded once."""

    def __init__(self, recipe: str, overrides: list[str], folder: Path, n: int) -> None:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        self.run = Run(build(Recipe.load(recipe, overrides), folder))
        self.inputs = self.run.make_input(np.arange(n), 1000)  # a step at which nothing waits for its start any more
        self.objective = self.run.plan.objective
        with torch.no_grad():
            self.encoded = self.objective.encode(self.inputs)

    def encode(self) -> None:
        """Encode with a backward pass."""
        encoded = self.objective.encode(self.inputs)
        encoded.pooled.sum().backward()

    def rest(self) -> None:
        """Everything behind the encoder."""
        pooled = self.encoded.pooled.detach().requires_grad_()
        separate = {
            name: replace(one, hidden=None if one.hidden is None else one.hidden.detach().requires_grad_())
            for name, one in self.encoded.separate.items()
        }
        losses = self.objective.finish(replace(self.encoded, pooled=pooled, separate=separate), self.inputs)
        losses.total.backward()
        self.objective.after_step(losses.batch, self.run.step.services)


def cpu_s(work: Callable[[], None]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main(arguments: list[str]) -> None:
    """Time every recipe beside its protocol's baseline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="an untuned masked-language model of MiniLM's size")
    parser.add_argument("--n", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--rows", type=int, help="neighbours to choose from")
    options = parser.parse_args(arguments)
    only = ["nnclr-minilm"] if options.rows else options.only
    gallery = tomllib.loads((HERE / "gallery.toml").read_text())
    data, rows = Path(os.environ["SENTEMB_DATA"]), []
    with tempfile.TemporaryDirectory() as folder:
        baselines: dict[str, tuple[Work, float]] = {}
        for number, method in enumerate(gallery["method"]):
            if only and method["recipe"] not in only:
                continue
            protocol = gallery["protocol"][method["protocol"]]
            folders = {
                "data": str(data), "backbone": options.backbone,
                "earlier": options.backbone,  # a model that was trained before costs what the untuned one does
                "made": files_for((*protocol["set"], *method.get("set", [])), str(data)),
            }
            common = [
                f"encoder.backbone={options.backbone}", *with_folders(protocol["set"], **folders),
                "data.max_rows=2000", f"train.batch_size={options.n}", "train.precision=fp32", "train.max_steps=10",
                'train.batches={use="shuffled"}',
            ]
            if method["protocol"] not in baselines:
                own = [*common, *protocol.get("baseline_set", [])]
                work = Work(protocol["baseline"], own, Path(folder) / method["protocol"], options.n)
                encoding = statistics.median(cpu_s(work.encode) for _ in range(options.rounds))
                baselines[method["protocol"]] = work, encoding
            plain, encoding = baselines[method["protocol"]]
            own = [*common, *with_folders(method.get("set", []), **folders)]
            own += [f"companions.0.queue_size={options.rows}"] if options.rows else []
            name = f"{method['recipe']} ({method['protocol']})"
            rows.append(row(name, Work(method["recipe"], own, Path(folder) / str(number), options.n), plain,
                            encoding, options.rounds))
    lines = [SAID, "| recipe | ms | baseline, ms | of a step |", "|-|-:|-:|-:|"]
    lines += [
        f"| {one['recipe']} | {one['ms']:.1f} | {one['baseline_ms']:.1f} | {100 * one['of_a_step']:+.1f} % |"
        for one in sorted(rows, key=lambda one: -one["of_a_step"])
    ]
    title = f"What an objective costs of a training step of {options.n} examples"
    if options.rows:
        title += f", with {options.rows:,} neighbours to choose from"
    name = f"objectives_{options.rows}" if options.rows else "objectives"
    write_report(name, title, "\n".join(lines) + "\n", {**machine(), "rows": rows}, {})


def row(recipe: str, work: Work, plain: Work, encoding: float, rounds: int) -> dict[str, Any]:
    """Medians of both, in turn."""
    times: dict[str, list[float]] = {"own": [], "plain": []}
    for _ in range(rounds):
        times["plain"].append(cpu_s(plain.rest))
        times["own"].append(cpu_s(work.rest))
    own, base = (statistics.median(times[name]) for name in ("own", "plain"))
    return {
        "recipe": recipe, "ms": 1000 * own, "baseline_ms": 1000 * base, "of_a_step": (own - base) / (base + encoding),
    }
