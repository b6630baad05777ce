"""One budget, several methods, several seeds: STS before and after training, mean ± standard deviation.

    SENTEMB_DATA=…/data python eval/bench/sts_table.py --backbone FOLDER --output eval/results/sts_table

Every row trains the same checkpoint with a recipe of the small-model family for the same steps, batch size and learning
rate, without choosing a checkpoint on a dev set, and is scored on the seven STS sets (SimCSE protocol, all
subsets concatenated, Spearman of cosine ×100, fp32). A run that is there already is not run again, so the script may be
stopped and started. Needs SENTEMB_DATA (STS sets, text/wiki1m.txt.zst, nli/snli_triplets.tsv.zst).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

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


def score(encoder: Encoder) -> dict[str, float]:
    """Main score of the seven sets and their average."""
    results = evaluate_model(encoder, [Sts(protocol="simcse")], precision="fp32", resamples=0)
    scores = {task.task: task.main for task in results.tasks}
    return {**scores, "average": statistics.fmean(scores.values())}


def one_run(row: str, seed: int, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train and score one row with one seed, or read what an earlier call left."""
    file = folder / f"{ROWS[row]}-seed{seed}.json"
    if file.is_file():
        return json.loads(file.read_text())
    data = Path(os.environ["SENTEMB_DATA"])
    supervised = "sup-" in ROWS[row] and "unsup" not in ROWS[row]
    overrides = [
        f"encoder.backbone={arguments.backbone}",
        f"data.path={data / ('nli/snli_triplets.tsv.zst' if supervised else 'text/wiki1m.txt.zst')}",
        f"data.max_rows={arguments.rows}", f"train.seed={seed}", f"train.max_steps={arguments.steps}",
        f"train.learning_rate={arguments.learning_rate}", "train.precision=fp32",
    ]
    if row == "DiffCSE":
        overrides.append(f"companions.0.generator={arguments.backbone}")
    run_dir = folder / "runs" / file.stem
    started = time.monotonic()
    result = train(Recipe.load(ROWS[row], overrides), output=run_dir, resume=True)
    trained = time.monotonic() - started
    scores = score(Encoder.load(result.model_dir))
    entry = {
        "row": row, "recipe": ROWS[row], "seed": seed, "overrides": overrides, "scores": scores,
        "train_seconds": round(trained, 1), "examples_per_second": round(result.examples_per_second, 1),
        "recipe_hash": json.loads((run_dir / "run.json").read_text())["recipe_hash"],
        "threads": torch.get_num_threads(),
    }
    write_json(file, entry)
    sys.stderr.write(f"{row} seed {seed}: {scores['average']:.2f} ({trained:.0f} s)\n")
    return entry


def untuned(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The checkpoint as it is, with both poolings."""
    file = folder / "untuned.json"
    if not file.is_file():
        write_json(file, [
            {"row": f"untuned ({pooling})", "scores": score(Encoder.load(arguments.backbone, pooling=pooling))}
            for pooling in ("cls", "mean")
        ])
    return json.loads(file.read_text())


def table(rows: dict[str, list[dict[str, float]]], arguments: argparse.Namespace) -> str:
    """The Markdown table."""
    columns = [*SEVEN, "average"]
    lines = [
        f"STS, SimCSE protocol, Spearman of cosine ×100. {arguments.steps} steps of batch 64, learning rate "
        f"{arguments.learning_rate}, fp32, {arguments.rows} training rows, "
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
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="an untuned masked-language model of MiniLM's size")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs' JSON and the table")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--learning-rate", default="5e-5")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    arguments = parser.parse_args()
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    rows = {entry["row"]: [entry["scores"]] for entry in untuned(arguments, folder)}
    for seed in arguments.seeds:
        for row in arguments.only:
            rows.setdefault(row, []).append(one_run(row, seed, arguments, folder)["scores"])
    write_text(folder / "table.md", table(rows, arguments))
    sys.stdout.write(table(rows, arguments))


if __name__ == "__main__":
    main()
