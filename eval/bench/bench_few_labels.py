"""How far do a few examples a label carry? Banking77: 77 intents, 1 to 16 examples of each, five draws.

    SENTEMB_DATA=… python eval/bench/run.py few_labels [--shots 1 2 4] [--draws 5] [--tuned 4 8]

Every method sees the same draws and is scored on the whole test split. Seconds are those of fitting, and of training
where the encoder is fine-tuned; encoding is told apart, because all methods on the untouched encoder share it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from bench_index_quality import MODEL
from harness import data, lines, machine, markdown_table, write_report, write_rows

SEED = 7
# the rows of encoders that are tuned on the examples; the recipes are setfit-minilm and label-cosine-minilm
ROWS = {
    "SetFit": "SetFit ({iterations} pairs of either kind a text) + logistic regression",
    "label_cosine": "label_cosine in the batch ({epochs} epochs) + logistic regression",
}


def methods() -> dict[str, Any]:
    """The classifiers of the table, by the name of its row."""
    from sentemb.classify import Funnel, LabelTexts, Logistic, NearestNeighbours, Prototypes, WordFrequencies

    return {
        "logistic regression": Logistic(), "kNN, k = 5": NearestNeighbours(), "prototypes": Prototypes(),
        "label texts (no examples)": LabelTexts(), "TF-IDF + logistic regression": WordFrequencies(),
        "funnel of TF-IDF and logistic": Funnel(views=[WordFrequencies(), Logistic()]),
        "funnel of four": Funnel(),
    }


def drawn(labels: Any, shots: int, draw: int) -> Any:
    """Rows of a draw: the first ``shots`` of every label in a shuffled order; more shots contain the fewer."""
    order = np.random.default_rng([SEED, draw]).permutation(len(labels))
    return np.concatenate([order[labels[order] == label][:shots] for label in np.unique(labels)])


def main(arguments: list[str]) -> None:
    """Fit and score everything, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--tuned", type=int, nargs="*", default=[4, 8], help="shots at which the encoder is tuned too")
    parser.add_argument("--tuned-draws", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=2, help="SetFit: so many pairs of either kind for every text")
    parser.add_argument("--epochs", type=int, default=4, help="label_cosine: passes over the examples")
    options = parser.parse_args(arguments)
    from sentemb.classify import LabelledVectors, Logistic
    from sentemb.encoder import Encoder

    facts, folder = machine(), data() / "hub" / "mteb" / "banking77"
    train, test = (lines(folder / f"{split}.jsonl") for split in ("train", "test"))
    name = "label_text" if "label_text" in train[0] else "label"
    (texts, labels), (test_texts, gold) = (
        ([row["text"] for row in rows], np.array([str(row[name]) for row in rows])) for rows in (train, test)
    )
    used = np.unique(np.concatenate([drawn(labels, max(options.shots), draw) for draw in range(options.draws)]))
    encoder, start = Encoder.load(options.model), time.perf_counter()
    vectors = np.zeros((len(texts), encoder.width), dtype=np.float32)
    vectors[used] = encoder.encode([texts[row] for row in used])
    test_vectors = encoder.encode(test_texts)
    encoding = time.perf_counter() - start
    print(f"encoded in {encoding:.0f} s", flush=True)
    names = np.unique(labels)

    def examples(rows: Any, of: Any) -> LabelledVectors:
        return LabelledVectors(texts=[texts[row] for row in rows], vectors=of, labels=names.tolist(),
                               targets=np.searchsorted(names, labels[rows]))

    def scored(method: Any, rows: Any, model: Any, of: Any, of_test: Any) -> tuple[float, float]:
        start = time.perf_counter()
        state = method.fit(examples(rows, of), lambda further: model.encode(list(further)))
        seconds = time.perf_counter() - start
        best = method.posteriors(state, test_texts, of_test).argmax(axis=1)
        return 100 * float(np.mean(names[best] == gold)), seconds

    cells_by_row: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row, method in methods().items():
        for shots in options.shots:
            if shots < method.least or (row.startswith("label texts") and shots > options.shots[0]):
                continue
            cells_by_row.setdefault(row, {})[str(shots)] = [
                scored(method, rows, encoder, vectors[rows], test_vectors)
                for rows in (drawn(labels, shots, draw) for draw in range(options.draws))
            ]
            print(row, shots, cells_by_row[row][str(shots)], flush=True)
    for arm in ("SetFit", "label_cosine"):
        for shots in options.tuned:
            cells = cells_by_row.setdefault(ROWS[arm].format(iterations=options.iterations, epochs=options.epochs), {})
            for draw in range(options.tuned_draws):
                rows = drawn(labels, shots, draw)
                model, seconds = tuned(arm, [texts[row] for row in rows], labels[rows], options)
                of = model.encode([texts[row] for row in rows])
                accuracy, fitting = scored(Logistic(), rows, model, of, model.encode(test_texts))
                cells.setdefault(str(shots), []).append((accuracy, seconds + fitting))
                print(arm, shots, cells[str(shots)], flush=True)
    report(options, facts, cells_by_row, encoding, len(used) + len(test_texts))


def tuned(arm: str, texts: list[str], labels: Any, options: Any) -> tuple[Any, float]:
    """The encoder after training on the examples, and the seconds that making data and training took."""
    from sentemb import Encoder, Recipe, train
    from sentemb.data.makers.label_pairs import LabelPairs

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        few, pairs = scratch / "few.jsonl", scratch / "pairs.jsonl"
        rows = [{"text": text, "label": label} for text, label in zip(texts, labels.tolist(), strict=True)]
        write_rows(few, rows)
        if arm == "SetFit":
            maker = LabelPairs(path=str(few), iterations=options.iterations)
            made = maker.rows(np.random.default_rng(SEED), Counter())
            write_rows(pairs, made)
            recipe, changes = "setfit-minilm", [f"data.path={pairs}"]
        else:
            recipe, changes = "label-cosine-minilm", [
                f"data.path={few}", f"train.epochs={options.epochs}", "train.learning_rate=2e-5",
                "train.warmup_fraction=0.1",
            ]
        result = train(Recipe.load(recipe, [f"encoder.backbone={options.model}", *changes]), output=scratch / "run")
        seconds = time.perf_counter() - start
        return Encoder.load(result.model_dir), seconds


def report(options: Any, facts: dict[str, Any], cells_by_row: dict[str, Any], encoding: float, encoded: int) -> None:
    """The tables of accuracy and of seconds."""
    facts.update(arguments=vars(options), accuracy_and_seconds=cells_by_row, encoding_s=encoding)
    shots = [str(number) for number in options.shots]

    def row(name: str, cells: dict[str, list[tuple[float, float]]], part: int, form: str) -> list[str]:
        shown = []
        for number in shots:
            values = [cell[part] for cell in cells.get(number, ())]
            spread = f" ± {np.std(values, ddof=1):{form}}" if len(values) > 1 and part == 0 else ""
            shown.append(f"{np.mean(values):{form}}{spread}" if values else "–")
        return [name, *shown]

    headers = ["examples an intent", *shots]
    text = (f"{options.model}; accuracy on the test split's 3,080 texts, mean ± standard deviation over "
            f"{options.draws} draws ({options.tuned_draws} where the encoder is tuned). A funnel needs two examples of "
            "every intent.\n\n")
    text += markdown_table(headers, [row(name, cells, 0, ".1f") for name, cells in cells_by_row.items()])
    text += (f"\nSeconds of fitting and of training, mean over draws. Encoding {encoded:,} texts "
             f"once took {encoding:.0f} s, for all methods together.\n\n")
    text += markdown_table(headers, [row(name, cells, 1, ".2f") for name, cells in cells_by_row.items()])
    write_report("few_labels", "Few labels: Banking77, 1 to 16 examples an intent", text, facts, {})
