"""Evaluate, fine-tune, evaluate again, index, search: every step through the interfaces that users have."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sentemb.errors import DataError, EvaluationError, needs_extra
from sentemb.files import write_json
from sentemb.quickstart.corpus import Docstring, read_docstrings
from sentemb.quickstart.model import verified_model
from sentemb.quickstart.split import DOCUMENTS, QUERIES, Split, split, write_task, write_training

if TYPE_CHECKING:
    from sentemb import Recipe
    from sentemb.evaluate import TaskResult
    from sentemb.evaluate.significance import Comparison

logger = logging.getLogger(__name__)

RECIPE = "quickstart"
METRIC = "mrr@10"
PAIRS = 9_600
QUESTIONS = (
    "how do I open a compressed file",
    "shortest path between two nodes",
    "draw random numbers from a normal distribution",
)


@dataclass(frozen=True, kw_only=True)
class QuickstartResult:
    """What the journey measured and left behind. Scores are ×100."""

    data: Split
    before: TaskResult
    after: TaskResult
    keywords: float  # BM25's score
    gain: Comparison  # of the reciprocal ranks, 0 to 1
    answers: Mapping[str, Sequence[tuple[float, str, str]]]  # question -> (score, name, text)
    seconds: Mapping[str, float]  # of every step

    def to_json(self) -> dict[str, object]:
        """What ``result.json`` holds."""
        from sentemb.provenance import provenance

        gain, data = self.gain, self.data
        assert gain.interval is not None
        return {
            "task": {"documents": len(data.documents), "queries": len(data.queries), "train_pairs": len(data.train)},
            "before": dict(self.before.metrics),
            "after": dict(self.after.metrics),
            "bm25": {METRIC: self.keywords},
            METRIC: {
                "difference": gain.difference, "low": gain.interval.low, "high": gain.interval.high,
                "level": gain.interval.level, "p": gain.p, "test": gain.test,
            },
            "seconds": dict(self.seconds),
            **asdict(provenance()),
        }  # fmt: skip


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
) -> QuickstartResult:
    """The whole journey; its files come to lie in ``output``.

    Args:
        pairs: for training.
        documents, queries: size of the held-out task.
        overwrite: replace what an earlier quickstart left in ``output``.
        model: the encoder to start from; by default all-MiniLM-L6-v2, verified.
        roots: folders of Python source; by default this interpreter's packages.
        recipe: the settings to train with; its backbone, data and seed are replaced. The default is ``quickstart``.

    Raises: SentembError, one of its kinds.
    """
    # what can go wrong early goes wrong before anything is removed or computed
    for package in ("accelerate", "matplotlib", "pytrec_eval", "faiss"):
        needs_extra(package, "quickstart")
    from sentemb import train
    from sentemb.evaluate.significance import paired_permutation

    model = model or verified_model()
    recipe = _recipe(recipe, model, output, seed)
    _empty(output, overwrite=overwrite)
    clock = _Clock()
    with clock("corpus"):
        docstrings = read_docstrings(pairs + documents, roots)
        data = split(docstrings, pairs=pairs, seed=seed, documents=documents, queries=queries)
        write_training(data.train, output / "train.jsonl")
        write_task(data, output / "task")
    logger.info(
        f"{len(data.train):,} training pairs, such as {data.train[0].query!r} → {data.train[0].text!r}; held out: "
        f"{len(data.queries):,} queries, {len(data.documents):,} docstrings"
    )
    with clock("evaluation before"):
        before = _evaluate(model, output / "task")
    logger.info(f"before training: {METRIC} {before.main:.2f}")
    with clock("training"):
        tuned = train(recipe, output=output / "run").model_dir
    with clock("evaluation after"):
        after = _evaluate(str(tuned), output / "task")
    logger.info(f"after training: {METRIC} {after.main:.2f}")
    with clock("index"):
        # an absolute path, so that `sentemb search` finds the model from any folder
        answers = _index_and_ask(tuned.resolve(), output / "index", [*data.train, *data.documents])
    reciprocal_ranks = [np.asarray(result.items.values) for result in (before, after) if result.items]
    outcome = QuickstartResult(
        data=data, before=before, after=after, keywords=before.baselines["BM25"],
        gain=paired_permutation(*reciprocal_ranks, seed=seed), answers=answers, seconds=clock.seconds,
    )  # fmt: skip
    write_json(output / "result.json", outcome.to_json())
    return outcome


def _empty(output: Path, *, overwrite: bool) -> None:
    """Remove an earlier quickstart if that was asked for; any other folder is left alone."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / "train.jsonl").is_file() or not (output / "task").is_dir():
        raise DataError(f"{output} holds something else than a quickstart; choose another folder with --output")
    if not overwrite:
        raise DataError(f"{output} holds a quickstart already; replace it with --overwrite, or choose another --output")
    shutil.rmtree(output)


def _evaluate(model: str, task: Path) -> TaskResult:
    from sentemb.evaluate import Retrieval, evaluate_model

    held_out = Retrieval(path=str(task.resolve()), name="docstrings", metric=METRIC)
    results = evaluate_model(model, held_out, resamples=0)
    if results.failures:
        raise EvaluationError(results.failures[0].error)
    return results.tasks[0]


def _recipe(given: Recipe | None, model: str, output: Path, seed: int) -> Recipe:
    from sentemb import Recipe
    from sentemb.data import TextPairs

    recipe = given or Recipe.named(RECIPE)
    return recipe.replace(
        encoder=replace(recipe.encoder, backbone=model),
        data=TextPairs(path=str(output / "train.jsonl"), max_tokens=recipe.data.max_tokens),
        train=replace(recipe.train, seed=seed),
    )


def _index_and_ask(
    model: Path, folder: Path, docstrings: Sequence[Docstring]
) -> dict[str, list[tuple[float, str, str]]]:
    from sentemb.search import SearchIndex

    records = ({"id": doc.name, "text": doc.text, "module": doc.module} for doc in docstrings)
    with SearchIndex.build(folder, records, encoder=model) as index:
        answers = index.search(list(QUESTIONS), k=3)
    return {
        question: [(hit.score, str(hit.id), hit.text or "") for hit in hits]
        for question, hits in zip(QUESTIONS, answers, strict=True)
    }


class _Clock:
    """Seconds of every step by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - start, 1)
