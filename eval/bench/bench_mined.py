"""Does training with mined negatives beat in-batch ones? SciFact's train pairs, scored on its held-out test queries.

    SENTEMB_DATA=… python eval/bench/run.py mined [--steps 100] [--batch 32] [--max-tokens 128] [--seeds 42 43 44]
        [--held-out dev]

Both arms are the recipe mined-negatives from one checkpoint with the same pairs, steps, batches and learning rate; the
in-batch one leaves the mined negative of each pair out (mined once, by the starting checkpoint, from the whole corpus,
with the rules that the recipe names). ``--held-out dev`` scores a fifth of the train queries instead, which are then
not trained on: for choosing anything, so that the test queries choose nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_index_quality import MODEL, load, ndcg_by_query
from harness import data, lines, machine, markdown_table, write_report, write_rows

from sentemb.evaluate.metrics import judged_queries
from sentemb.types import Embedder

RECIPE = "mined-negatives"
IN_BATCH = "pairs"  # which the other one extends, so that everything else is equal


class Remembering:
    """An encoder that encodes a text once: mining and the score before training see one corpus."""

    def __init__(self, encoder: Embedder) -> None:
        self._encoder, self._known = encoder, dict[str, Any]()

    def encode(self, texts: Sequence[str]) -> Any:
        """Vectors (texts, d)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode(new), strict=True))
        return np.stack([self._known[text] for text in texts])


class Task:
    """SciFact: the corpus, the pairs to train on, the queries to score.

    Of the test judgements of SciFact 64 % are of documents that train queries have as well, often for the same claim
    negated. ``apart`` leaves such pairs out of training; ``is_new`` tells the scored queries without such a document.
    """

    def __init__(self, folder: Path, *, is_dev: bool, apart: bool = False) -> None:
        self.documents, test, judged = load(folder)
        texts = {row["_id"]: row["text"] for row in lines(folder / "queries.jsonl")}
        train = [row for row in lines(folder / "qrels" / "train.jsonl") if row["score"] > 0]
        names = sorted({row["query-id"] for row in train})
        held = set(np.random.default_rng(0).permutation(names)[: len(names) // 5].tolist()) if is_dev else set()
        corpus = {row["id"]: row["text"] for row in self.documents}
        self.judged: dict[str, dict[str, int]] = {} if is_dev else judged
        for row in train if is_dev else ():
            if row["query-id"] in held:
                self.judged.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
        self.queries = [{"_id": name, "text": texts[name]} for name in self.judged] if is_dev else test
        relevant = {query: {name for name, grade in self.judged[query].items() if grade > 0} for query in self.judged}
        scored = set().union(*relevant.values()) if apart else set()
        used = [row for row in train if row["query-id"] not in held and row["corpus-id"] not in scored]
        self.pairs = [
            {"anchor": texts[row["query-id"]], "positive": corpus[row["corpus-id"]]} for row in used
        ]
        taught = {row["corpus-id"] for row in used}
        self.is_new = np.array([not relevant[query] & taught for query in judged_queries(self.judged)])

    def score(self, model: Embedder) -> float:
        """nDCG@10 ×100, through a flat index."""
        return float(self.by_query(model).mean())

    def by_query(self, model: Embedder) -> Any:
        """The same of every query, in the order of ``is_new``."""
        from sentemb.search import SearchIndex

        with tempfile.TemporaryDirectory() as scratch:
            index = SearchIndex.build(scratch, self.documents, encoder=model, kind="flat")
            hits = index.search([row["text"] for row in self.queries], 10)
        return ndcg_by_query(hits, self.queries, self.judged)


def prepare(task: Task, scratch: Path, encoder: Embedder) -> tuple[Path, Path, dict[str, Any]]:
    """The in-batch and the mined training file, and the mined set's report."""
    from sentemb.mining.rules import RelativeMargin
    from sentemb.mining.run import mine

    plain, mined = scratch / "pairs.jsonl", scratch / "mined.jsonl"
    report = mine(
        task.pairs, corpus=task.documents, encoder=encoder, output=mined, negatives=1,
        rules=[RelativeMargin(fraction=0.05)], candidates=50, sampling="random",
    ).report
    # the same pairs in both arms: those for which a negative was found
    rows = lines(mined)
    write_rows(plain, ({name: row[name] for name in ("anchor", "positive")} for row in rows))
    facts = {"pairs": len(rows), "of": len(task.pairs), "negative_similarity": report.negative_similarity,
             "positive_similarity": report.positive_similarity, "false_negatives": report.false_negatives}
    return plain, mined, facts


def trained(
    options: argparse.Namespace, recipe: str, file: Path, rate: float, seed: int, *, precision: str = "auto"
) -> Embedder:
    """The encoder that a recipe makes of the options' backbone and a file of training rows."""
    from sentemb import Recipe, train
    from sentemb.encoder import Encoder

    chosen = Recipe.load(recipe, [
        f"encoder.backbone={options.backbone}", f"data.path={file}", f"data.max_tokens={options.max_tokens}",
        f"train.batch_size={options.batch}", f"train.learning_rate={rate}", "train.epochs=1000",
        f"train.max_steps={options.steps}", f"train.seed={seed}", f"train.precision={precision}",
    ])  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        result = train(chosen, output=Path(folder) / "run")
        return Encoder.load(result.model_dir, max_tokens=options.max_tokens)


def main(arguments: list[str]) -> None:
    """Train both arms over the seeds and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default=MODEL)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-5)
    parser.add_argument("--max-tokens", type=int, default=256, help="of training, mining and scoring")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--held-out", choices=["test", "dev"], default="test")
    options = parser.parse_args(arguments)
    from sentemb.encoder import Encoder

    task = Task(data() / "hub" / "mteb" / "scifact", is_dev=options.held_out == "dev")
    facts = machine()
    ndcg_by_arm: dict[str, list[float]] = {"in-batch": [], "in-batch + mined": []}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        start = Remembering(Encoder.load(options.backbone, max_tokens=options.max_tokens))
        plain, mined, mining = prepare(task, scratch, start)
        before = task.score(start)
        print("before", before, mining, flush=True)
        for seed in options.seeds:
            for arm, recipe, path in zip(ndcg_by_arm, (IN_BATCH, RECIPE), (plain, mined), strict=True):
                ndcg_by_arm[arm].append(task.score(trained(options, recipe, path, options.rate, seed)))
                print(arm, seed, ndcg_by_arm[arm][-1], flush=True)
    facts.update(mining=mining, before=before, ndcg=ndcg_by_arm, arguments=vars(options))
    table = [["before training", f"{before:.2f}", "–"]]
    for arm, values in ndcg_by_arm.items():
        table.append([arm, _mean(values), ", ".join(f"{value:.2f}" for value in values)])
    first, second = ndcg_by_arm.values()
    gains = [b - a for a, b in zip(first, second, strict=True)]
    table.append(["gain by mined ones", _mean(gains), ", ".join(f"{value:+.2f}" for value in gains)])
    text = (f"{options.backbone}, recipe {RECIPE}; {mining['pairs']} of {mining['of']} pairs, {options.steps} steps of "
             f"{options.batch} at {options.rate:g}, {options.max_tokens} tokens. Cosine to the anchor: "
             f"positives {mining['positive_similarity']:.3f}, negatives {mining['negative_similarity']:.3f}.\n\n")
    text += markdown_table(["negatives", f"nDCG@10 on {options.held_out}", "by seed"], table)
    write_report("mined" if options.held_out == "test" else "mined_dev",
                 f"Training with mined negatives: SciFact train to {options.held_out}", text, facts, {})


def _mean(values: list[float]) -> str:
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.2f} ± {spread:.2f}"
