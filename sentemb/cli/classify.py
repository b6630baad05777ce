"""``sentemb classify fit DATA``, ``sentemb classify predict CLASSIFIER DATA`` and ``sentemb classify eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentemb.cli.options import DEFAULT_MODEL, Data, Json, Model, Overwrite, Precision, Seed, Split, TextColumn, part_of
from sentemb.cli.output import print_json

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Texts to labels, from few examples.")

Labelled = Annotated[str, typer.Argument(metavar="DATA", help="file, or split of a folder, with columns text, label")]
Folder = Annotated[Path, typer.Argument(metavar="CLASSIFIER", help="folder that sentemb classify fit wrote")]
ModelNow = Annotated[str | None, typer.Option("--model", "-m", help="where the classifier's encoder is now")]


@app.command()
def fit(
    data: Labelled,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write the classifier to")],
    model: Model = DEFAULT_MODEL,
    method: Annotated[str, typer.Option(metavar="NAME:KEY=VALUE,…", help=(
        "logistic, knn (over an index), prototypes, label_texts (the labels' names), tfidf, or funnel of several"))]
    = "logistic",
    split: Split = None,
    precision: Precision = "auto",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Fit a classifier on labelled texts; the encoder stays as it is (sentemb list classifiers).

    funnel:views=["tfidf","logistic"],folds=5 combines views. To fine-tune the encoder on the examples first, as SetFit
    does: sentemb data make label_pairs, then sentemb train setfit-minilm. Examples are added to knn without fitting:
    sentemb index upsert CLASSIFIER/index more.jsonl.
    """
    from time import perf_counter

    from sentemb.classify import TextClassifier
    from sentemb.encoder import Encoder
    from sentemb.evaluate.reading import read_labelled

    chosen = part_of("classifiers", method)
    examples = read_labelled(data, split)
    encoder = Encoder.load(model, precision=precision)
    start = perf_counter()
    classifier = TextClassifier.fit(examples.texts, examples.labels, encoder=encoder, method=chosen)
    classifier.save(output, overwrite=overwrite)
    facts = {"classifier": str(output), "examples": len(examples), "labels": len(classifier.labels),
             "seconds": round(perf_counter() - start, 3)}
    if json:
        print_json(facts)
        return
    typer.echo(f"{output}: {facts['labels']} labels from {len(examples):,} examples in {facts['seconds']:.1f} s\n"
               f"next     sentemb classify eval {output} DATA; sentemb classify predict {output} TEXTS")


@app.command()
def predict(
    classifier: Folder,
    data: Data,
    output: Annotated[Path | None, typer.Option("--output", "-o", help=".jsonl file to write; default: print")] = None,
    model: ModelNow = None,
    text_column: TextColumn = None,
    split: Split = None,
    precision: Precision = "auto",
) -> None:
    """Give texts their labels: a JSON object a text, with text, label and probability."""
    from json import dumps

    from sentemb.classify import TextClassifier
    from sentemb.data import iter_texts
    from sentemb.errors import DataError
    from sentemb.files import write_text

    loaded = TextClassifier.load(classifier, model=model, precision=precision)
    texts = [text for path in data for text in iter_texts(path, text_column, split=split)]
    if not texts:
        raise DataError(f"{', '.join(data)}: no texts")
    predictions = loaded.predict(texts)
    rows = zip(texts, predictions.labels, predictions.probabilities.tolist(), strict=True)
    objects = ({"text": text, "label": label, "probability": round(share, 6)} for text, label, share in rows)
    lines = "".join(dumps(one, ensure_ascii=False) + "\n" for one in objects)
    if output is None:
        typer.echo(lines, nl=False)
        return
    write_text(output, lines)
    typer.echo(f"{output}: labels of {len(texts):,} texts")


@app.command("eval")
def eval_(
    classifier: Folder,
    data: Labelled,
    model: ModelNow = None,
    split: Split = None,
    precision: Precision = "auto",
    seed: Seed = 42,
    json: Json = False,
) -> None:
    """Score a classifier: accuracy with its interval, and macro F1."""
    from sentemb.classify import TextClassifier
    from sentemb.evaluate.reading import read_labelled
    from sentemb.evaluate.task import EvalSetup
    from sentemb.evaluate.tasks.classification import score_classifier

    gold = read_labelled(data, split)
    loaded = TextClassifier.load(classifier, model=model, precision=precision)
    result = score_classifier(loaded, gold, EvalSetup(seed=seed))
    if json:
        print_json(result)
        return
    interval = f" (95 % interval {result.interval.low:.2f} to {result.interval.high:.2f})" if result.interval else ""
    typer.echo(f"accuracy  {result.main:.2f}{interval}\nmacro F1  {result.metrics['f1_macro']:.2f}\n"
               f"texts     {result.count:,} in {result.seconds:.1f} s" + (f"\n{result.notes}" if result.notes else ""))
