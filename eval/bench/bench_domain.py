"""A new domain without labels: what its documents alone teach a search model.

    SENTEMB_DATA=… python eval/bench/run.py domain --backbone MODEL [--data scifact nfcorpus] [--steps 100] [--batch 64]
        [--rates 0.03 0.1 0.3 1] [--seeds 42 43 44]

Arms: a document's title finds its text (recipe pairs); chunks find the document that they were taken from (recipe
chunks-minilm); the titles' knock-out, in which a title finds another document's text; and, as what labels would bring,
the train queries with those of their documents that no scored query has. All take the same steps of the same size. The
learning rate of every arm is chosen with one further seed by nDCG@10 on a fifth of the train queries, which no arm
trains on; then the test queries are scored.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench_index_quality import MODEL
from bench_mined import Task, trained
from bench_mixture import over_seeds
from harness import data, lines, machine, markdown_table, mean_and_half, signed, write_report, write_rows

OTHERS = "titles of others"  # the knock-out, first
RATE_SEED = 7


def arms(folder: Path, judged: list[dict[str, str]], scratch: Path) -> dict[str, tuple[str, Path]]:
    """Recipe and training file by arm; the files come to lie in ``scratch``."""
    from sentemb.data.makers import Chunks, make_data

    corpus = folder / "corpus.jsonl"
    documents = [row for row in lines(corpus) if row.get("title") and row["text"].strip()]
    order = np.random.default_rng(0).permutation(len(documents))
    other = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    titles, texts = [row["title"] for row in documents], [row["text"] for row in documents]
    pairs = {
        OTHERS: [(title, texts[other[i]]) for i, title in enumerate(titles)],
        "titles": list(zip(titles, texts, strict=True)),
        "labels": [(pair["anchor"], pair["positive"]) for pair in judged],
    }
    by_arm = {}
    for name, rows in pairs.items():
        path = scratch / f"{name}.jsonl"
        write_rows(path, ({"anchor": one, "positive": two} for one, two in rows))
        by_arm[name] = "pairs", path
    make_data(Chunks(path=str(corpus)), scratch / "chunks.jsonl", seed=0)
    return by_arm | {"chunks": ("chunks-minilm", scratch / "chunks.jsonl")}


def apart(dev: Task, test: Task) -> list[dict[str, str]]:
    """The pairs that neither dev nor test queries know the document of."""
    in_test = {tuple(pair.values()) for pair in test.pairs}
    return [pair for pair in dev.pairs if tuple(pair.values()) in in_test]


def main(arguments: list[str]) -> None:
    """Choose the rates, train over the seeds, and write the table."""
    parser = argparse.ArgumentParser(prog="run.py domain", description=__doc__)
    parser.add_argument("--backbone", default=MODEL)
    parser.add_argument("--data", nargs="+", default=["scifact", "nfcorpus"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.03, 0.1, 0.3, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    options = parser.parse_args(arguments)
    from sentemb import Encoder

    facts, rows = machine(), []
    before = Encoder.load(options.backbone, max_tokens=options.max_tokens)
    for name in options.data:
        folder = data() / "hub" / "mteb" / name
        dev, test = Task(folder, is_dev=True, apart=True), Task(folder, is_dev=False, apart=True)
        start, figures = test.score(before), dict[str, Any]()
        rows.append([name, "before", "", f"{start:.2f}", "", ""])
        with tempfile.TemporaryDirectory() as scratch:
            for arm, (recipe, file) in arms(folder, apart(dev, test), Path(scratch)).items():
                train_arm = partial(trained, options, recipe, file, precision="fp32")
                by_rate = {rate: dev.score(train_arm(rate, RATE_SEED)) for rate in options.rates}
                rate = max(by_rate, key=lambda rate: by_rate[rate])
                scores = [test.score(train_arm(rate, seed)) for seed in options.seeds]
                print(name, arm, by_rate, scores, flush=True)
                figures[arm] = {"dev": by_rate, "rate": rate, "test": scores}
                gains = [signed(*mean_and_half(np.subtract(scores, base))) for base in (start, figures[OTHERS]["test"])]
                rows.append([name, arm, f"{rate:g}", over_seeds(scores), *gains])
        facts[name] = {"before": start, **figures}
    facts["arguments"] = vars(options)
    text = (f"{options.backbone}, recipes pairs and chunks-minilm, {options.steps} steps of {options.batch}, "
            f"{options.max_tokens} tokens, {len(options.seeds)} seeds. nDCG@10 of the test queries over all documents, "
            "mean ± standard deviation; gains with a t-interval of 95 % over the seeds.\n\n")
    text += markdown_table(["data", "arm", "rate", "nDCG@10", "over the start", f"over the {OTHERS}"], rows)
    write_report("domain", "A new domain without labels", text, facts, {})
