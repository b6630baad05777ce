"""Does training with mined negatives beat in-batch ones? SciFact's train pairs, scored on its held-out test queries.

    SENTEMB_DATA=… python eval/bench/run.py mined [--backbone FOLDER] [--steps 100] [--seeds 42 43 44]

Both arms start from one checkpoint and take the same pairs, steps, batches and learning rate; one adds a mined
negative for each pair (mined once, by the starting checkpoint, from the whole corpus with a relative margin).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_index_quality import MODEL, lines, load, ndcg
from harness import machine, machine_line, markdown_table, write_report

RECIPE = """
[encoder]
backbone = {backbone}

[data]
use = "{use}"
path = {path}
max_tokens = {max_tokens}

[views]
use = "columns"
{edits}
[[terms]]
use = "info_nce"
temperature = 0.05

[train]
batch_size = {batch}
learning_rate = {rate}
max_steps = {steps}
epochs = 1000
warmup_fraction = 0.1
seed = {seed}
"""


def pairs(folder: Path, corpus: dict[str, str]) -> list[dict[str, str]]:
    """Train queries with their relevant documents."""
    texts = {row["_id"]: row["text"] for row in lines(folder / "queries.jsonl")}
    judged = [row for row in lines(folder / "qrels" / "train.jsonl") if row["score"] > 0]
    return [{"anchor": texts[row["query-id"]], "positive": corpus[row["corpus-id"]]} for row in judged]


def score(model: Any, folder: Path) -> float:
    """nDCG@10 on the test queries, through a flat index."""
    from sentemb.search import SearchIndex

    documents, queries, judged = load(folder)
    with tempfile.TemporaryDirectory() as place:
        index = SearchIndex.build(place, documents, encoder=model, kind="flat")
        hits = index.search([row["text"] for row in queries], 10)
    values = [ndcg([str(h.id) for h in row], judged[q["_id"]]) for row, q in zip(hits, queries, strict=True)]
    return 100 * float(np.mean(values))


def prepare(folder: Path, place: Path, backbone: str) -> tuple[Path, Path, dict[str, Any]]:
    """The in-batch and the mined training file, and the mined set's report."""
    from sentemb.encoder import Encoder
    from sentemb.search.mine_file import mine_file, read_pairs
    from sentemb.search.mine_rules import MiningRules

    documents, _, _ = load(folder)
    rows = pairs(folder, {row["id"]: row["text"] for row in documents})
    plain, mined = place / "pairs.jsonl", place / "mined.jsonl"
    plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rules = MiningRules(negatives=1, relative_margin=0.05, rank_max=50, sampling="random")
    found = read_pairs(rows, documents, anchor="anchor", positive="positive")
    report = mine_file(found, mined, Encoder.load(backbone), rules)
    # the same pairs in both arms: those for which a negative was found
    kept = [json.loads(line) for line in mined.read_text().splitlines()]
    columns = ("anchor", "positive", "negative_1")
    plain.write_text("".join(json.dumps({name: row[name] for name in columns[:2]}) + "\n" for row in kept))
    mined.write_text("".join(json.dumps({name: row[name] for name in columns}) + "\n" for row in kept))
    return plain, mined, {"pairs": len(kept), "eci": report.eci, "hardness": report.hardness, "safety": report.safety}


def main(arguments: list[str]) -> None:
    """Train both arms over the seeds and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default=MODEL)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-5)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    asked = parser.parse_args(arguments)
    from sentemb.encoder import Encoder
    from sentemb.recipe import train

    folder = Path(os.environ["SENTEMB_DATA"]) / "hub" / "mteb" / "scifact"
    facts = machine()
    found: dict[str, list[float]] = {"in-batch": [], "in-batch + mined": []}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        plain, mined, mining = prepare(folder, place, asked.backbone)
        before = score(Encoder.load(asked.backbone), folder)
        for seed in asked.seeds:
            for arm, path in zip(found, (plain, mined), strict=True):
                recipe = place / f"arm-{seed}-{path.stem}.toml"
                edits = '\n[[edits]]\nuse = "given"\n' if path == mined else ""
                recipe.write_text(RECIPE.format(
                    backbone=json.dumps(asked.backbone), use="triplets" if edits else "pairs",
                    path=json.dumps(str(path)), edits=edits, batch=asked.batch,
                    rate=asked.rate, steps=asked.steps, seed=seed, max_tokens=asked.max_tokens,
                ))
                result = train(str(recipe), output=place / recipe.stem)
                found[arm].append(score(Encoder.load(result.model_dir), folder))
                print(arm, seed, found[arm][-1], flush=True)
    facts.update(mining=mining, before=before, ndcg=found, arguments=vars(asked))
    table = [["before training", f"{before:.2f}", "–"]]
    for arm, values in found.items():
        spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
        table.append([arm, f"{np.mean(values):.2f} ± {spread:.2f}", ", ".join(f"{value:.2f}" for value in values)])
    text = f"# Training with mined negatives: SciFact train to test\n\n{machine_line(facts)}\n\n"
    text += f"{asked.backbone}; {mining['pairs']} pairs, {asked.steps} steps of {asked.batch}. Mined set: "
    text += f"ECI {mining['eci']:.3f}, hardness {mining['hardness']:.3f}, safety {mining['safety']:.3f}.\n\n"
    text += markdown_table(["negatives", "nDCG@10 on test", "by seed"], table)
    print(write_report("mined", text, facts, {}).read_text())


if __name__ == "__main__":
    main([])
