"""A training run for a browser: curves, evaluations, speed, data, recipe and machine, from what its folder holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sentemb.errors import DataError, did_you_mean
from sentemb.pages import Chart, Line, Node, fragment, line_chart, node, table
from sentemb.pages.lines import thinned
from sentemb.pages.page import details, facts, figure, origin, scrolling, versions_of
from sentemb.training.plan import TrainResult

Curve = Literal["loss", "dev", "learning_rate", "gradient_norm"]
# curve -> (title, what stands at the axis, keys of metrics.jsonl or how they begin)
_CURVES: Mapping[Curve, tuple[str, str, tuple[str, ...]]] = {
    "loss": ("Loss by term", "loss", ("loss/",)),
    "dev": ("Dev scores", "score", ("dev", "dev/")),
    "learning_rate": ("Learning rate", "learning rate", ("learning_rate",)),
    "gradient_norm": ("Norm of the gradient before it is clipped", "norm", ("gradient_norm", "gradient_norm/")),
}
_ROWS = 20  # of a table of curves


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run's folder says of it; a run that is not finished has no result."""

    name: str
    metrics: Sequence[Mapping[str, Any]] = ()  # lines of metrics.jsonl
    facts: Mapping[str, Any] = field(default_factory=dict)  # run.json
    result: Mapping[str, Any] = field(default_factory=dict)  # result.json
    recipe: str = ""

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Raises: DataError: a file of the folder is damaged; names file and line."""
        recipe = folder / "recipe.toml"
        try:
            text = recipe.read_text(encoding="utf-8") if recipe.is_file() else ""
        except UnicodeDecodeError as error:
            raise DataError(f"{recipe}: not UTF-8: {error}") from None
        return cls(
            name=folder.resolve().name, metrics=read_metrics(folder), facts=_table(folder / "run.json"),
            result=_table(folder / "result.json"), recipe=text,
        )  # fmt: skip

    def lines(self, curve: Curve) -> list[Line]:
        """Points (step, value) by term, task or source."""
        whole = _CURVES[curve][2]
        keys = dict.fromkeys(key for entry in self.metrics for key in entry if _is_of(key, whole))
        return [
            Line(name=_name_of(key), points=[
                (entry["step"], entry[key]) for entry in self.metrics if key in entry])
            for key in keys
        ]  # fmt: skip

    @property
    def chosen(self) -> int | None:
        """The step whose model was kept."""
        best_steps = [int(entry["step"]) for entry in self.metrics if entry.get("is_best")]
        return best_steps[-1] if best_steps else None


def is_run(folder: Path) -> bool:
    """Whether a folder is one that training wrote."""
    return any((folder / name).is_file() for name in ("run.json", "metrics.jsonl"))


def curve_chart(run: RunRecord, curve: Curve = "loss") -> Chart:
    """A run's curve over its steps.

    Raises: DataError: there is no such curve, or the run has no values for it.
    """
    if curve not in _CURVES:
        raise DataError(f'curve "{curve}": allowed: {", ".join(_CURVES)}{did_you_mean(curve, _CURVES)}')
    lines, (title, axis, _) = run.lines(curve), _CURVES[curve]
    if not lines:
        raise DataError(f'{run.name}: metrics.jsonl has no values for the curve "{curve}"')
    return line_chart(lines, title=title, axis=axis, chosen=run.chosen if curve == "dev" else None,
                      is_log=curve in ("loss", "gradient_norm"))  # fmt: skip


def run_section(run: RunRecord) -> tuple[str, list[Node | None]]:
    """The page's section of one run."""
    content: list[Node | None] = []
    if not run.result:
        step = max((int(entry["step"]) for entry in run.metrics), default=0)
        content.append(node("p", {"class": "fault"}, f"This run is not finished: its last entry is of step {step}."))
    content.append(facts(_course(run.result)))
    for curve, (title, _, _) in _CURVES.items():
        if run.lines(curve):
            content += [node("h3", {}, title), figure(curve_chart(run, curve).tree, f"{title} over the steps"),
                        details("Numbers", scrolling(_numbers(run.lines(curve)), title))]  # fmt: skip
    content += [node("h3", {}, "Data and machine"), facts(_origin(run.facts, run.result)), versions_of(run.facts)]
    if run.recipe:
        content.append(details("Recipe, resolved", node("pre", {"tabindex": "0"}, run.recipe)))
    return f"Run: {run.name}", content


def result_in_cell(result: TrainResult) -> str:
    """How a run went as HTML, for a notebook's cell."""
    lines = {"model": str(result.model_dir), **_course(asdict(result))}
    return fragment(table(["run", ""], [[name, str(value)] for name, value in lines.items() if value], text_columns=2))


def _course(result: Mapping[str, Any]) -> dict[str, object]:
    """How it went, by what a reader calls it."""
    best, losses = result.get("best_score"), result.get("last_losses") or {}
    return {
        "steps": result.get("steps"), "stopped because": result.get("stopped"),
        "time": _shown(result.get("seconds"), "{:,.1f} s"),
        "examples a second": _shown(result.get("examples_per_second"), "{:,.1f}"),
        "best dev score": _shown(best, "{:.4f}") + (f" at step {result.get('best_step')}" if best is not None else ""),
        "last losses": ", ".join(f"{name} {_shown(value, '{:.4f}')}" for name, value in dict(losses).items()),
        "skipped steps": result.get("skipped_steps") or "",
    }


def _origin(start: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, object]:
    at_limit = start.get("texts_at_limit")
    devices = result.get("devices")
    return {
        "rows": _shown(start.get("rows"), "{:,}"), "tokens": _shown(start.get("tokens"), "{:,}"),
        "texts as long as the limit": "" if at_limit is None else f"{at_limit:,} (cut there, or of just that length)",
        "digest of the data": result.get("data_hash"), "recipe's hash": start.get("recipe_hash"),
        "digest of the model at the start": start.get("model_digest"), "seed": start.get("seed"),
        "number format": result.get("precision"),
        "devices": f"{devices} × {result.get('device')}" if devices else "", **origin(start),
    }  # fmt: skip


def _numbers(lines: Sequence[Line]) -> Node:
    """The curves as a table of at most twenty steps."""
    by_step: dict[float, dict[str, float]] = {}
    for line in lines:
        for step, value in line.points:
            by_step.setdefault(step, {})[line.name] = value
    steps = [step for step, _ in thinned([(step, 0.0) for step in sorted(by_step)], _ROWS)]
    rows = [[f"{step:g}", *(_shown(by_step[step].get(line.name), "{:.5g}") for line in lines)] for step in steps]
    return table(["step", *(line.name for line in lines)], rows, text_columns=0)


def _name_of(key: str) -> str:
    """What a curve is called: a term of somebody's module by its class."""
    return key.removeprefix("loss/").rpartition(":")[2] if key.startswith("loss/") else key.removeprefix("dev/")


def _is_of(key: str, names: Sequence[str]) -> bool:
    return any(key.startswith(name) if name.endswith("/") else key == name for name in names)


def _shown(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) else ""


def _table(path: Path) -> dict[str, Any]:
    """A file's JSON object; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not a readable JSON file: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: found {type(content).__name__}; needed is a JSON object")
    return content


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl with what is a number in them, without one that a killed process left half-written."""
    path, entries = folder / "metrics.jsonl", []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.is_file() else []
    for line_number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{line_number}: not JSON: {error}") from None
        step = entry.get("step") if isinstance(entry, dict) else None
        if not isinstance(step, int | float) or not math.isfinite(step):
            raise DataError(f'{path}:{line_number}: no number "step"; a line of a training run has one')
        entries.append({key: value for key, value in entry.items() if isinstance(value, int | float)})
    return entries
