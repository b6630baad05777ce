"""Evaluate, fine-tune, evaluate again, index, search: every step through the interfaces that users have."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sentemb.errors import DataError
from sentemb.files import write_json
from sentemb.quickstart.corpus import Docstring, read_docstrings
from sentemb.quickstart.model import verified_model
from sentemb.quickstart.split import DOCUMENTS, QUERIES, Split, split, write_task, write_training

if TYPE_CHECKING:
    from sentemb import Recipe
    from sentemb.evaluate.statistics.significance import Comparison
    from sentemb.evaluate.tasks.retrieval import RetrievalScore

RECIPE = "quickstart"
METRIC = "mrr@10"
PAIRS = 9_600
ASKED = (
    "how do I open a compressed file",
    "shortest path between two nodes",
    "draw random numbers from a normal distribution",
)


@dataclass(frozen=True)
class Outcome:
    """What the journey measured and left behind. Scores are ×100."""

    output: Path
    before: RetrievalScore
    after: RetrievalScore
    keywords: RetrievalScore  # BM25
    gain: Comparison  # of the reciprocal ranks, 0 to 1
    answers: Mapping[str, Sequence[tuple[float, str, str]]]  # query -> (score, name, text)
    seconds: Mapping[str, float]


def quickstart(
    output: Path,
    *,
    pairs: int = PAIRS,
    seed: int = 42,
    documents: int = DOCUMENTS,
    queries: int = QUERIES,
    overwrite: bool = False,
    model: str | None = None,
    roots: Sequence[Path] | None = None,
    recipe: Recipe | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """The whole journey; its files come to lie in ``output``.

    Args:
        pairs: for training.
        documents, queries: size of the held-out task.
        overwrite: replace what an earlier quickstart left in ``output``.
        model: the encoder to start from; by default all-MiniLM-L6-v2, verified.
        roots: folders of Python source; by default this interpreter's packages.
        recipe: the settings to train with; its backbone, data and seed are replaced. The default is ``quickstart``.
        say: told what happens, line by line.

    Raises: SentembError, one of its kinds.
    """
    from sentemb import train
    from sentemb.evaluate.statistics.significance import paired_permutation

    # what can go wrong early goes wrong before anything is removed or computed
    model = model or verified_model()
    recipe = _recipe(recipe, model, output, seed)
    _make_room(output, overwrite)
    clock = _Clock()
    with clock("corpus"):
        parts = _prepare(output, pairs, seed, documents, queries, roots)
    held_out = f"{len(parts.queries):,} queries, {len(parts.documents):,} docstrings"
    say(f"{len(parts.train):,} training pairs; held out: {held_out}")
    say(f"  e.g. {parts.queries[0].query!r} → {parts.queries[0].text!r}")
    with clock("evaluation before"):
        before, keywords = _evaluate(model, output / "task", baselines=True)
    say(f"before   {METRIC} {before.metrics[METRIC]:.2f}   (keywords, BM25: {keywords.metrics[METRIC]:.2f})")
    with clock("training"):
        tuned = train(recipe, output=output / "run").model_dir
    with clock("evaluation after"):
        after = _evaluate(str(tuned), output / "task", baselines=False)[0]
    gain = paired_permutation(before.values[METRIC], after.values[METRIC], seed=seed)
    say(f"after    {METRIC} {after.metrics[METRIC]:.2f}   {_told(gain)}")
    with clock("index"):
        # an absolute path, so that `sentemb search` finds the model from any folder
        answers = _index_and_ask(tuned.resolve(), output / "index", [*parts.train, *parts.documents])
    outcome = Outcome(output, before, after, keywords, gain, answers, clock.seconds)
    write_json(output / "result.json", _as_json(outcome, parts))
    return outcome


def _make_room(output: Path, overwrite: bool) -> None:
    """An earlier quickstart may be replaced; any other folder is left alone."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / "train.jsonl").is_file() or not (output / "task").is_dir():
        raise DataError(f"{output} holds something else than a quickstart; choose another folder with --output")
    if not overwrite:
        raise DataError(f"{output} holds a quickstart already; replace it with --overwrite, or choose another --output")
    shutil.rmtree(output)


def _prepare(
    output: Path, pairs: int, seed: int, documents: int, queries: int, roots: Sequence[Path] | None
) -> Split:
    docs = read_docstrings(pairs + documents, roots)
    parts = split(docs, pairs=pairs, seed=seed, documents=documents, queries=queries)
    write_training(parts.train, output / "train.jsonl")
    write_task(parts, output / "task")
    return parts


def _evaluate(model: str, task: Path, *, baselines: bool) -> list[RetrievalScore]:
    from sentemb.evaluate.opening import open_model
    from sentemb.evaluate.reading.retrieval import read_retrieval
    from sentemb.evaluate.tasks.retrieval import evaluate_retrieval

    return evaluate_retrieval(open_model(model), read_retrieval(task, name="docstrings"), baselines=baselines)[:2]


def _recipe(given: Recipe | None, model: str, output: Path, seed: int) -> Recipe:
    from sentemb import Recipe
    from sentemb.data import Pairs

    recipe = given or Recipe.named(RECIPE)
    return recipe.replace(
        encoder=replace(recipe.encoder, backbone=model),
        data=Pairs(path=str(output / "train.jsonl"), max_tokens=recipe.data.max_tokens),
        train=replace(recipe.train, seed=seed),
    )


def _index_and_ask(
    model: Path, folder: Path, docs: Sequence[Docstring]
) -> dict[str, list[tuple[float, str, str]]]:
    from sentemb.search import SearchIndex

    records: Iterator[dict[str, str]] = ({"id": doc.name, "text": doc.text, "module": doc.module} for doc in docs)
    with SearchIndex.build(folder, records, encoder=model) as index:
        found = index.search(list(ASKED), k=3)
    return {
        query: [(hit.score, str(hit.id), hit.text or "") for hit in hits]
        for query, hits in zip(ASKED, found, strict=True)
    }


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 1)


def _told(gain: Comparison) -> str:
    assert gain.interval is not None
    low, high = 100 * gain.interval.low, 100 * gain.interval.high
    return f"gain {100 * gain.difference:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}, p {gain.p:.2g}"


def _as_json(outcome: Outcome, parts: Split) -> dict[str, object]:
    from sentemb.provenance import provenance

    gain = outcome.gain
    assert gain.interval is not None
    return {
        "task": {"documents": len(parts.documents), "queries": len(parts.queries), "train_pairs": len(parts.train)},
        "before": dict(outcome.before.metrics),
        "after": dict(outcome.after.metrics),
        "bm25": dict(outcome.keywords.metrics),
        METRIC: {
            "difference": gain.difference, "low": gain.interval.low, "high": gain.interval.high,
            "level": gain.interval.level, "p": gain.p, "test": gain.test,
        },
        "seconds": dict(outcome.seconds),
        **asdict(provenance()),
    }  # fmt: skip
