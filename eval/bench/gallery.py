"""Every method of gallery.toml under one budget: method, knock-out and plain baseline, by seed.

    SENTEMB_DATA=…/data python eval/bench/gallery.py --backbone FOLDER                     everything that is missing
    SENTEMB_DATA=…/data python eval/bench/gallery.py --backbone FOLDER --only dcl-minilm   some rows
    SENTEMB_DATA=…/data python eval/bench/gallery.py --static --backbone FOLDER            on a static model
    python eval/bench/gallery.py [--static] --report                                       the page from what was run

A run trains the backbone with a recipe for a fixed number of steps (last step, nothing is chosen on a dev set) and
scores it. The knock-out is the same recipe with the idea broken and the cost kept. Differences are paired by seed,
with a t-interval of 95 %. Where a method's gradients have another size (``sweep``), the learning rate of method,
knock-out and baseline is first chosen among ×1, ×1/3 and ×1/10 on STSBenchmark's dev set with one further seed. A run
that is there already is not run again, so the script may be stopped and started. Everything goes through sentemb's
public functions.

A static model (``sentemb distill CHECKPOINT -o FOLDER``) trains a hundred times as fast. It has its own page, with the
methods that need nothing a table of vectors lacks, and the rate of every arm is chosen.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import sys
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gallery_files import DOMAINS, LAST, THIRDS, files_for, make_files
from harness import lines, mean_and_half, signed

from sentemb import Encoder, Recipe, train
from sentemb.evaluate import Classification, Geometry, Sts, evaluate_model
from sentemb.files import write_json, write_text
from sentemb.pages import Dot, DotRow, dot_chart

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
RATES = {"10": 10.0, "10/3": 10 / 3, "1": 1.0, "1/3": 1 / 3, "1/10": 0.1}
SWEEP = ("1", "1/3", "1/10")
SWEEP_SEED = 7
EPOCH = 2  # raised when training draws other dropout masks or costs less: only runs of one epoch are compared
FORMS = tuple((epoch, precision) for epoch in range(EPOCH, 0, -1) for precision in ("bf16", "fp32"))  # a row has one
OWN_FOLDERS = ("{data}", "{backbone}", "{earlier}", "{made}")  # in settings; gallery.toml says what they stand for
STATIC_RATE = 60.0  # times a recipe's rate: a table of vectors learns at higher ones
DEV = Sts(protocol="simcse", split="dev")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every run has in common."""

    backbone: str
    steps: int
    precision: str
    seeds: tuple[int, ...]
    is_static: bool = False


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train: a recipe with overrides, on a protocol's data."""

    recipe: str
    protocol: str
    name: str = "method"  # or knockout
    overrides: tuple[str, ...] = ()
    rates: tuple[str, ...] = SWEEP


class Gallery:
    """The rows of gallery.toml, and the runs that there are of them."""

    def __init__(self, budget: Budget, folder: Path) -> None:
        tree = tomllib.loads((HERE / "gallery.toml").read_text())
        self.protocols, self.methods = tree["protocol"], tree["method"]
        self.unmeasured, self.unsuited = tree["unmeasured"], tree["unsuited"]
        self.budget, self.folder, self.file = budget, folder, folder / "runs.jsonl"
        self.runs = self._read_runs()
        if budget.is_static:
            self.unmeasured = [{**row, "why": f"It needs {row['needs']}."} for row in self.methods if "needs" in row]
            self.methods = [
                {**row, "sweep": True, "set": [text for text in row.get("set", ()) if "encoder.pooling" not in text]}
                for row in self.methods if "needs" not in row
            ]
            used = {row["protocol"] for row in self.methods}
            self.protocols = {
                name: {**protocol, "title": protocol.get("static_title", protocol["title"]),
                       "set": [*protocol.get("static_set", protocol["set"]), "encoder.pooling=mean"]}
                for name, protocol in self.protocols.items() if name in used
            }

    # ------------------------------------------------------------------------------------------------- running
    def run(self, only: list[str]) -> None:
        """Train and score whatever is missing of these rows, seed by seed."""
        for method in self.methods:
            if only and not {method["recipe"], f"{method['recipe']}:{method['protocol']}"} & set(only):
                continue
            arms = self.arms(method)
            rates = {name: self._rate(arm) if method.get("sweep") else "1" for name, arm in arms.items()}
            for seed in self.budget.seeds:
                for name, arm in arms.items():
                    self._entry(arm, seed, rates[name])
            self.report()

    def arms(self, method: dict[str, Any]) -> dict[str, Arm]:
        """Baseline, method and knock-out of a row."""
        own = tuple(method.get("set", ()))
        rates = tuple(method.get("static_rates", SWEEP)) if self.budget.is_static else SWEEP
        arm = Arm(recipe=method["recipe"], protocol=method["protocol"], overrides=own, rates=rates)
        return {
            "baseline": self.baseline(method["protocol"]), "method": arm,
            "knockout": replace(arm, name="knockout", overrides=(*own, *method["knockout"])),
        }

    def baseline(self, protocol: str) -> Arm:
        """What a protocol's methods are compared with."""
        settings = self.protocols[protocol]
        return Arm(recipe=settings["baseline"], protocol=protocol, overrides=tuple(settings.get("baseline_set", ())))

    def _rate(self, arm: Arm) -> str:
        """The factor of the learning rate with the best dev score."""
        return max(arm.rates, key=lambda rate: self._entry(arm, SWEEP_SEED, rate)["dev"])

    def name_of(self, arm: Arm, seed: int, rate: str, form: tuple[int, str] | None = None) -> str:
        """What a run is called in runs.jsonl, by default in today's form; the budget is part of the name."""
        epoch, precision = form or (EPOCH, self.budget.precision)
        arms = f"{arm.protocol}.{arm.recipe}.{arm.name}.{self.budget.steps}-{precision}"
        return f"{arms}.rate-{rate.replace('/', '_')}.seed-{seed}.epoch-{epoch}"

    def _read_runs(self) -> dict[str, dict[str, Any]]:
        """The runs by name; of several of one name, which other settings made, the last."""
        return {entry["run"]: entry for entry in (lines(self.file) if self.file.is_file() else [])}

    def _done(self, arm: Arm, seed: int, rate: str, form: tuple[int, str] | None = None) -> dict[str, Any] | None:
        """The result of a run, where there is one and its settings are still those of gallery.toml."""
        entry = self.runs.get(self.name_of(arm, seed, rate, form))
        if entry is None:
            return None
        count = len(arm.overrides)
        then = entry["overrides"][len(entry["overrides"]) - count :]
        return entry if len(then) == count and all(map(is_same, arm.overrides, then)) else None

    def _entry(self, arm: Arm, seed: int, rate: str) -> dict[str, Any]:
        name, self.runs = self.name_of(arm, seed, rate), self._read_runs()  # another process may have added to them
        entry = self._done(arm, seed, rate)
        if entry is not None:
            return entry
        data, protocol = Path(os.environ["SENTEMB_DATA"]), self.protocols[arm.protocol]
        scratch, overrides = self.folder / "scratch" / name, self._overrides(arm, seed, rate)
        start = time.process_time()
        result = train(Recipe.load(arm.recipe, overrides), output=scratch, resume=True)
        cpu_s = time.process_time() - start
        encoder = Encoder.load(result.model_dir)
        entry = {
            "run": name, "recipe": arm.recipe, "arm": arm.name, "seed": seed, "rate": rate, "overrides": overrides[2:],
            "cpu_s_per_step": cpu_s / self.budget.steps, "losses": dict(result.last_losses),
            **(scores(encoder, protocol["task"], data) if seed in self.budget.seeds else dev_score(encoder, data)),
        }
        self.runs[name] = entry
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        shutil.rmtree(scratch)
        sys.stderr.write(f"{name}: dev {entry['dev']:.2f}\n")
        return entry

    def _overrides(self, arm: Arm, seed: int, rate: str) -> list[str]:
        data, factor = os.environ["SENTEMB_DATA"], RATES[rate] * (STATIC_RATE if self.budget.is_static else 1.0)
        learning_rate = Recipe.named(arm.recipe).train.learning_rate * factor
        common = self.protocols[arm.protocol]["set"]
        earlier = self._earlier(arm.protocol) if any("{earlier}" in text for text in arm.overrides) else ""
        folders = {
            "data": data, "backbone": self.budget.backbone, "earlier": earlier,
            "made": files_for((*common, *arm.overrides), data),
        }
        return [
            f"encoder.backbone={self.budget.backbone}", *with_folders(common, **folders),
            f"train.seed={seed}", f"train.max_steps={self.budget.steps}", f"train.precision={self.budget.precision}",
            f"train.learning_rate={learning_rate}", "train.epochs=1000",
            *with_folders(arm.overrides, **folders),
        ]

    def _earlier(self, protocol: str) -> str:
        """A model that the protocol's baseline made with the sweep's seed; it is kept."""
        arm = self.baseline(protocol)
        output = self.folder / "scratch" / f"earlier.{self.name_of(arm, SWEEP_SEED, '1')}"
        recipe = Recipe.load(arm.recipe, self._overrides(arm, SWEEP_SEED, "1"))
        return str(train(recipe, output=output, resume=True).model_dir)

    # ----------------------------------------------------------------------------------------------- reporting
    def report(self) -> None:
        """Write gallery.json, gallery.md and the picture."""
        rows = [self._row(method) for method in self.methods]
        write_json(self.folder / "gallery.json", {"budget": vars(self.budget) | {"backbone": ""}, "rows": rows})
        write_text(self.folder / "README.md", page(self, rows))
        picture([row for row in rows if "gain" in row], self.folder / "gallery.svg")

    def _row(self, method: dict[str, Any]) -> dict[str, Any]:
        row = {key: method[key] for key in ("recipe", "protocol", "what_breaks", "mechanism")}
        complete = ((form, runs) for form in FORMS if (runs := self._runs(method, form)) is not None)
        form, runs = next(complete, (None, None))
        figure = method["mechanism"]
        return row if form is None or runs is None else row | {
            "precision": form[1],
            "gain": paired(runs["method"], runs["baseline"]), "over_knockout": paired(runs["method"], runs["knockout"]),
            "baseline_sd": statistics.stdev(entry["score"] for entry in runs["baseline"]),
            "rates": {name: entries[0]["rate"] for name, entries in runs.items()},
            "figure": {
                name: statistics.fmean(entry["geometry"][figure] for entry in entries) for name, entries in runs.items()
            },
            "cost": statistics.median(  # a run that was resumed says only what it took since then
                a["cpu_s_per_step"] / b["cpu_s_per_step"] for a, b in zip(runs["method"], runs["baseline"], strict=True)
            ),
        }

    def _runs(self, method: dict[str, Any], form: tuple[int, str]) -> dict[str, list[dict[str, Any]]] | None:
        """A row's runs by arm, in the order of the seeds; None where one is missing."""
        runs = {}
        for name, arm in self.arms(method).items():
            rate = self._chosen(arm, form) if method.get("sweep") else "1"
            done = [self._done(arm, seed, rate, form) for seed in self.budget.seeds]
            runs[name] = [entry for entry in done if entry is not None]
        return runs if all(len(entries) == len(self.budget.seeds) for entries in runs.values()) else None

    def _chosen(self, arm: Arm, form: tuple[int, str]) -> str:
        done = {rate: self._done(arm, SWEEP_SEED, rate, form) for rate in arm.rates}
        dev = {rate: entry["dev"] for rate, entry in done.items() if entry is not None}
        return max(dev, key=lambda rate: dev[rate]) if len(dev) == len(arm.rates) else "none"


def is_same(now: str, then: str) -> bool:
    """Whether a row's setting is what it was, whatever folders stood in it."""
    parts = re.split("|".join(map(re.escape, OWN_FOLDERS)), now)
    return re.fullmatch(".*".join(map(re.escape, parts)), then) is not None


def with_folders(settings: Iterable[str], **folders: str) -> list[str]:
    """A row's settings with OWN_FOLDERS filled in; the other braces of a setting are its own."""
    for name, folder in folders.items():
        settings = [text.replace(f"{{{name}}}", folder) for text in settings]
    return list(settings)


def scores(encoder: Encoder, task: str, data: Path) -> dict[str, Any]:
    """Test score (the mean of STS sets or domains, or accuracy), dev score and geometry of an encoder."""
    geometry = Geometry(path=str(data / "sts-simcse/STSBenchmark-dev.jsonl"))
    tests = {
        "sts": Sts(protocol="simcse"),
        # the scored training pairs are from the years of the other sets
        "scored": Sts(protocol="simcse", sets=("STSBenchmark", "SICK-R")),
        "labels": Classification(path=str(data / "hub/mteb/banking77"), method="knn"),
    }
    if task in ("domains", "thirds"):
        made = make_files(str(data))
        tests = {
            "domains": Sts(path=str(made / LAST), by="domain"),
            "thirds": Classification(path=str(made / "thirds"), method="knn", by="third"),
        }
    results = evaluate_model(encoder, [tests[task], DEV, geometry], data_dir=data, resamples=0)
    *main, dev_result, shape = results.tasks
    sets, figures = {result.task: result.main for result in main}, dict(shape.metrics)
    if task == "domains":
        sets = {domain: main[0].metrics[f"by domain: {domain}"] for domain in DOMAINS}
        inside = sets.pop("captions")  # the score is that of the other domains
        figures["drop"] = inside - statistics.fmean(sets.values())
    if task == "thirds":
        sets = {third: main[0].metrics[f"by third: {third}"] for third in THIRDS}
        figures["frequent"] = sets["frequent"]
        sets = {"rare": sets["rare"]}
    return {"score": statistics.fmean(sets.values()), "scores": sets, "dev": dev_result.main, "geometry": figures}


def dev_score(encoder: Encoder, data: Path) -> dict[str, Any]:
    """What a learning rate is chosen by."""
    return {"dev": evaluate_model(encoder, [DEV], data_dir=data, resamples=0).tasks[0].main}


def paired(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, float]:
    """Mean difference by seed, and half the width of its 95 % t-interval."""
    mean, half = mean_and_half([a["score"] - b["score"] for a, b in zip(one, other, strict=True)])
    return {"mean": mean, "half": half, "seeds": len(one)}


def verdict(row: dict[str, Any]) -> str:
    """In plain words; a difference within its interval, the baseline's own spread or half a point is none."""
    gain = row["gain"]
    if abs(gain["mean"]) <= max(gain["half"], row["baseline_sd"], 0.5):
        return "no effect seen at this scale"
    return "gain seen" if gain["mean"] > 0 else "loss seen"


def remark(row: dict[str, Any]) -> str:
    """That a gain or a loss does not come from the idea, where the knock-out has it too."""
    over = row["over_knockout"]
    is_effect = row["gain"]["mean"] * over["mean"] > 0 and abs(over["mean"]) > max(over["half"], 0.5)
    return "" if is_effect or "no effect" in verdict(row) else ", and the same of its knock-out"


MINILM = (
    "from the same untuned checkpoint of MiniLM's size, in bf16, or in fp32 where the row says so (all runs of a row "
    "in one format)"
)
STATIC = (
    "from a static model (30,522 tokens × 256) that was distilled from the gallery's untuned checkpoint, in fp32; "
    f"rates are ×1, ×1/3 or ×1/10 of {STATIC_RATE:g} times the recipe's (a dash: all arms ×1, the highest tried), for "
    "losses that fit a teacher's scores ×10, ×10/3 or ×1"
)


def page(gallery: Gallery, rows: list[dict[str, Any]]) -> str:
    """The gallery as Markdown."""
    budget = gallery.budget
    text = ["# Gallery on a static model" if budget.is_static else "# Gallery", ""]
    text += [
        f"Every method for {budget.steps} steps at its recipe's batch size, {STATIC if budget.is_static else MINILM}; "
        f"seeds {', '.join(map(str, budget.seeds))}; the last step, nothing chosen on a dev set except the learning "
        "rate where the table names one. Differences are paired by seed, in points of the protocol's score, with a "
        "t-interval of 95 %; one that is within it, within the baseline's own standard deviation or below half a point "
        "is no effect. The knock-out keeps a method's cost and breaks its "
        "idea. Cost is CPU time over the baseline's, with whatever is prepared before the first step, which weighs "
        "more here than in a longer run. Figures: baseline → method (knock-out), of STSBenchmark's dev texts.", "",
    ]
    text += [
        "All methods, on a transformer: [the gallery](../gallery/README.md)." if budget.is_static else
        "Those that need no transformer, on a static model: [its gallery](../gallery_static/README.md).",
        "",
    ]
    for name, protocol in gallery.protocols.items():
        text.append(f"* Protocol {name}: {protocol['title']}; baseline {link(protocol['baseline'])}.")
    if any("gain" in row for row in rows):
        text += ["", "![Differences to the baseline, sorted](gallery.svg)"]
    header = "| method | | over the baseline | over its knock-out | what the knock-out breaks | rates | figure | cost |"
    text += ["", header, "|-|-|-|-|-|-|-|-|"]
    done = [row for row in rows if "gain" in row]
    for row in sorted(done, key=lambda row: -row["gain"]["mean"]):
        figure, rates = row["figure"], row["rates"]
        form = "" if budget.is_static or row["precision"] == "bf16" else f", {row['precision']}"
        gain, over = (signed(row[name]["mean"], row[name]["half"]) for name in ("gain", "over_knockout"))
        chosen = "–" if set(rates.values()) == {"1"} else ", ".join(f"{arm} ×{rate}" for arm, rate in rates.items())
        text.append(
            f"| {link(row['recipe'])} ({row['protocol']}{form}) | **{verdict(row)}**{remark(row)} "
            f"| {gain} | {over} | {row['what_breaks']} | {chosen} "
            f"| {row['mechanism']} {figure['baseline']:.2f} → {figure['method']:.2f} ({figure['knockout']:.2f}) "
            f"| {row['cost']:.2f} |"
        )
    missing = [f"{link(row['recipe'])} ({row['protocol']})" for row in rows if "gain" not in row]
    if missing:
        option = "--static " if budget.is_static else ""
        text += ["", f"Not run yet (`python eval/bench/gallery.py {option}--backbone FOLDER --only NAME`): "
                  + ", ".join(missing) + "."]
    text += ["", "## Not for a static model" if budget.is_static else "## Not measured", ""]
    text += [f"* {link(entry['recipe'])}: {entry['why']}" for entry in gallery.unmeasured]
    if not budget.is_static:
        text += ["", "## Not for text", "", *(f"* {entry['method']}: {entry['why']}" for entry in gallery.unsuited)]
    return "\n".join(text) + "\n"


def link(recipe: str) -> str:
    """A recipe's name that leads to its file."""
    return f"[{recipe}](../../../recipes/{recipe}.toml)"


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Differences with their intervals, sorted."""
    dots = []
    for row in sorted(rows, key=lambda row: -row["gain"]["mean"]):
        mean, half = row["gain"]["mean"], row["gain"]["half"]
        dot = Dot(value=mean, low=mean - half, high=mean + half, note=verdict(row) + remark(row))
        dots.append(DotRow(label=f"{row['recipe']} ({row['protocol']})", dots=[dot]))
    if dots:
        dot_chart(dots, ["method"], title="Gallery", axis="points over the baseline", zero=True).save(path)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="", help="an untuned masked-language model of MiniLM's size")
    parser.add_argument("--static", action="store_true", help="the backbone is a static model")
    parser.add_argument("--steps", type=int, help="default: 60, of a static model 200")
    parser.add_argument("--precision", help="default: bf16, of a static model fp32")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--only", nargs="+", default=[], help="recipes, or recipe:protocol; by default every row")
    parser.add_argument("--output", type=Path, help="default: eval/results/gallery, or gallery_static")
    parser.add_argument("--report", action="store_true", help="write the page from the runs that there are")
    arguments = parser.parse_args()
    is_static = arguments.static
    budget = Budget(
        backbone=arguments.backbone, is_static=is_static, steps=arguments.steps or (200 if is_static else 60),
        precision=arguments.precision or ("fp32" if is_static else "bf16"),
        seeds=tuple(arguments.seeds),
    )
    gallery = Gallery(budget, arguments.output or RESULTS / ("gallery_static" if is_static else "gallery"))
    if not arguments.report:
        if not arguments.backbone:
            parser.error("--backbone is needed to train; --report only writes the page")
        gallery.run(arguments.only)
    gallery.report()


if __name__ == "__main__":
    main()
