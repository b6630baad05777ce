"""One budget, several methods, several seeds: STS before and after training, mean ± standard deviation.

    SENTEMB_DATA=…/data python eval/bench/sts_table.py --backbone FOLDER --output eval/results/sts_table

Every row trains the same checkpoint with a recipe of the small-model family for the same steps and batch size, without
choosing a checkpoint on a dev set, and is scored on the seven STS sets (SimCSE protocol, all subsets concatenated,
Spearman of cosine ×100, fp32). Of several ``--rates`` each row takes the one with the best score on STSBenchmark's dev
set, trained with one further seed; the search ends with the first rate that is no better than the one before. A run
that is there already is not run again, so the script may be stopped and started. Needs SENTEMB_DATA (STS sets,
text/wiki1m.txt.zst, nli/snli_triplets.tsv.zst).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from harness import mean_and_half, signed

from sentemb import Encoder, Recipe, train
from sentemb.evaluate import Sts, evaluate_model
from sentemb.evaluate.tasks.sts import SEVEN
from sentemb.files import write_json, write_text

ROWS = {
    "SimCSE": "simcse-unsup-minilm",
    "DiffCSE": "diffcse-minilm",
    "DebCSE": "debcse-minilm",
    "SimCSE + queue": "simcse-queue-minilm",
    "SimCSE supervised": "simcse-sup-minilm",
}
COMPARED = ("DiffCSE", "DebCSE", "SimCSE + queue")  # with SimCSE: the same sentences, seed by seed
RATE_SEED = 7


def score(encoder: Encoder, split: str = "test") -> dict[str, float]:
    """Main score of the seven sets and their average, or of STSBenchmark's dev set."""
    results = evaluate_model(encoder, [Sts(protocol="simcse", split=split)], precision="fp32", resamples=0)
    scores = {task.task: task.main for task in results.tasks}
    return {**scores, "average": statistics.fmean(scores.values())}


def best_rate(row: str, arguments: argparse.Namespace) -> str:
    """The learning rate with the best dev score, up to the first that is no better than the one before."""
    rates: list[str] = arguments.rates
    if len(rates) == 1:
        return rates[0]
    best, best_score = rates[0], float("-inf")
    for rate in rates:
        dev = one_run(row, RATE_SEED, rate, arguments, split="dev")["scores"]["average"]
        if dev <= best_score:
            break
        best, best_score = rate, dev
    return best


def one_run(row: str, seed: int, rate: str, arguments: argparse.Namespace, split: str = "test") -> dict[str, Any]:
    """Train and score one row with one seed, or read what an earlier call left."""
    folder: Path = arguments.output
    file = folder / f"{ROWS[row]}-seed{seed}{f'-rate{rate}' if split == 'dev' else ''}.json"
    if file.is_file():
        return json.loads(file.read_text())
    data = Path(os.environ["SENTEMB_DATA"])
    supervised = "sup-" in ROWS[row] and "unsup" not in ROWS[row]
    overrides = [
        f"encoder.backbone={arguments.backbone}",
        f"data.path={data / ('nli/snli_triplets.tsv.zst' if supervised else 'text/wiki1m.txt.zst')}",
        f"data.max_rows={arguments.rows}", f"train.seed={seed}", f"train.max_steps={arguments.steps}",
        f"train.learning_rate={rate}", "train.precision=fp32",
    ]
    if row == "DiffCSE":
        overrides.append(f"companions.0.generator={arguments.backbone}")
    run_dir = folder / "runs" / file.stem
    started = time.monotonic()
    result = train(Recipe.load(ROWS[row], overrides), output=run_dir, resume=True)
    trained = time.monotonic() - started
    scores = score(Encoder.load(result.model_dir), split)
    entry = {
        "row": row, "recipe": ROWS[row], "seed": seed, "rate": rate, "overrides": overrides, "scores": scores,
        "train_seconds": round(trained, 1), "examples_per_second": round(result.examples_per_second, 1),
        "recipe_hash": json.loads((run_dir / "run.json").read_text())["recipe_hash"],
        "threads": torch.get_num_threads(),
    }
    write_json(file, entry)
    shutil.rmtree(run_dir)
    sys.stderr.write(f"{row} seed {seed} rate {rate}: {scores['average']:.2f} ({trained:.0f} s)\n")
    return entry


def untuned(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The checkpoint as it is, with both poolings."""
    file = arguments.output / "untuned.json"
    if not file.is_file():
        write_json(file, [
            {"row": f"untuned ({pooling})", "scores": score(Encoder.load(arguments.backbone, pooling=pooling))}
            for pooling in ("cls", "mean")
        ])
    return json.loads(file.read_text())


def table(rows: dict[str, list[dict[str, float]]], rates: dict[str, str], arguments: argparse.Namespace) -> str:
    """The Markdown table, and the differences to SimCSE."""
    columns = [*SEVEN, "average"]
    chosen = arguments.rates[0] if len(arguments.rates) == 1 else (
        "of " + ", ".join(arguments.rates) + ", tried in this order until STSBenchmark's dev set (seed "
        + f"{RATE_SEED}) says no better: " + ", ".join(f"{row} {rate}" for row, rate in rates.items())
    )
    lines = [
        f"STS, SimCSE protocol, Spearman of cosine ×100. {arguments.steps} steps of batch 64, learning rate "
        f"{chosen}; fp32, {arguments.rows} training rows, "
        f"seeds {', '.join(map(str, arguments.seeds))}; mean "
        "± sample standard deviation; last checkpoint, no dev selection.", "",
        "| | " + " | ".join(columns) + " |", "|" + "-|" * (len(columns) + 1),
    ]
    for row, scores in rows.items():
        cells = []
        for column in columns:
            values = [entry[column] for entry in scores]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.2f}{spread}")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    plain = rows.get("SimCSE", [])
    for row in COMPARED:
        pairs = list(zip(rows.get(row, []), plain, strict=False))  # a seed that is still to come has no pair
        if len(pairs) > 1:
            mean, half = mean_and_half([own["average"] - other["average"] for own, other in pairs])
            lines += ["", f"{row} over SimCSE, paired by seed, with a t-interval of 95 %: {signed(mean, half)}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, seed by seed, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="an untuned masked-language model of MiniLM's size")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs' JSON and the table")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rates", nargs="+", default=["5e-5"], help="learning rates to try, in order; default: 5e-5")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = {entry["row"]: [entry["scores"]] for entry in untuned(arguments)}
    rates = {row: best_rate(row, arguments) for row in arguments.only}
    for seed in arguments.seeds:
        for row in arguments.only:
            rows.setdefault(row, []).append(one_run(row, seed, rates[row], arguments)["scores"])
        write_text(arguments.output / "table.md", table(rows, rates, arguments))
    sys.stdout.write(table(rows, rates, arguments))


if __name__ == "__main__":
    main()
