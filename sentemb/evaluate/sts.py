"""Semantic textual similarity, in the two protocols of the field.

* ``simcse``: SentEval's lower-cased, tokenised text; the subsets of a year concatenated (``all``), or the plain or
  pair-weighted mean of the subsets' scores (``mean``, ``wmean``); SICK-R is its 4,927 test pairs.
  Source: Gao, Yao & Chen 2021, EMNLP, appendix B.
* ``mteb``: raw text, every set as one; SICK-R is all 9,927 pairs.

Scores of the two must not be compared with one another, so every result carries its protocol's name. Spearman and
Pearson are given ×100, as everywhere in the field.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import DataError, EvaluationError, did_you_mean
from sentemb.evaluate.metrics import PairSimilarity, correlation, pair_similarities
from sentemb.evaluate.once import encode_once
from sentemb.evaluate.pairs import PairSet, read_pairs
from sentemb.evaluate.senteval import senteval_set
from sentemb.types import Embedder

Protocol_ = Literal["simcse", "mteb"]
PROTOCOLS: tuple[Protocol_, ...] = get_args(Protocol_)
Aggregation = Literal["all", "mean", "wmean"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
Split = Literal["test", "dev"]

# name -> file without ending, per protocol and split; the seven of every paper, in the papers' order
_SIMCSE: dict[Split, dict[str, str]] = {
    "test": {
        **{f"STS{year}": f"STS{year}" for year in (12, 13, 14, 15, 16)},
        "STSBenchmark": "STSBenchmark-test",
        "SICK-R": "SICK-R",
    },
    "dev": {"STSBenchmark": "STSBenchmark-dev", "SICK-R": "SICK-R-dev"},
}
_MTEB: dict[Split, dict[str, str]] = {
    "test": {
        **{f"STS{year}": f"mteb/sts{year}-sts/test" for year in (12, 13, 14, 15, 16)},
        "STSBenchmark": "mteb/stsbenchmark-sts/test",
        "SICK-R": "mteb/sickr-sts/test",
    },
    "dev": {"STSBenchmark": "mteb/stsbenchmark-sts/validation"},
}
SEVEN: tuple[str, ...] = tuple(_SIMCSE["test"])

# SentEval scores these as one set, whatever the aggregation: their "subset" only says where a pair comes from
_WITHOUT_SUBSETS = frozenset({"STSBenchmark", "SICK-R"})


@dataclass(frozen=True)
class StsScore:
    """The scores of one set of pairs, ×100. ``main`` is Spearman of cosine under the chosen aggregation."""

    name: str
    protocol: str
    aggregation: Aggregation
    pairs: int
    main: float
    spearman: Mapping[PairSimilarity, float]
    pearson: Mapping[PairSimilarity, float]
    subsets: Mapping[str, float] = field(default_factory=dict)  # Spearman of cosine of each subset
    cosine: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), repr=False)  # (pairs,), for resampling
    gold: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), repr=False)


def sts_sets(
    root: Path | str | None = None,
    protocol: str = "simcse",
    *,
    names: Sequence[str] | None = None,
    split: str = "test",
) -> list[PairSet]:
    """The STS sets of a protocol from a data folder.

    Args:
        root: A folder with ``sts-simcse/*.jsonl`` and ``hub/mteb/<name>/<split>.jsonl`` (or one of these two folders
            itself), or SentEval's ``data/downstream``; the environment's ``SENTEMB_DATA`` if not given.
        protocol: ``simcse`` or ``mteb``.
        names: Which sets; all seven (of ``test``), or all that there are (of ``dev``), if not given.
        split: ``test`` or ``dev``.

    Raises:
        EvaluationError: An unknown protocol, set or split; lists every missing file at once.
    """
    known = _known_sets(protocol, split)
    chosen = list(known) if names is None and split == "test" else list(names or ["STSBenchmark"])
    place = data_root(root)
    found: list[PairSet] = []
    missing = []
    for name in chosen:
        if name not in known:
            raise EvaluationError(f'protocol {protocol}, split {split}: no set "{name}"{did_you_mean(name, known)}')
        path = _find(place, protocol, known[name])
        pairs = read_pairs(path, name=name) if path is not None else None
        if pairs is None and protocol == "simcse":
            pairs = senteval_set(place, name, split)
        if pairs is None:
            missing.append(known[name] + ".jsonl")
        else:
            found.append(_plain(pairs))
    if missing:
        where = "sts-simcse/, or as SentEval lays them out" if protocol == "simcse" else "hub/"
        raise EvaluationError(
            f"{place}: missing for protocol {protocol}: {', '.join(missing)} (looked here and under {where}); "
            "give the folder that holds them with --data-dir or SENTEMB_DATA"
        )
    return found


def _known_sets(protocol: str, split: str) -> dict[str, str]:
    if protocol not in PROTOCOLS:
        raise EvaluationError(f'no STS protocol "{protocol}"{did_you_mean(protocol, PROTOCOLS)}')
    splits = _SIMCSE if protocol == "simcse" else _MTEB
    if split == "test" or split == "dev":
        return splits[split]  # type: ignore[index]
    raise EvaluationError(f'no split "{split}" of the STS sets{did_you_mean(split, splits)}')


def data_root(root: Path | str | None) -> Path:
    """``root``, or the folder that ``SENTEMB_DATA`` names.

    Raises:
        EvaluationError: Neither is given.
    """
    given = root or os.environ.get("SENTEMB_DATA")
    if not given:
        raise EvaluationError("no data folder: give one with --data-dir, or set SENTEMB_DATA to one")
    return Path(given)


def _find(root: Path, protocol: str, stem: str) -> Path | None:
    folders = [root / "sts-simcse", root] if protocol == "simcse" else [root / "hub", root]
    for folder in folders:
        for ending in (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".tsv", ".csv"):
            path = folder / (stem + ending)
            if path.is_file():
                return path
    return None


def _plain(pairs: PairSet) -> PairSet:
    if pairs.name not in _WITHOUT_SUBSETS:
        return pairs
    return PairSet(pairs.name, pairs.sentence1, pairs.sentence2, pairs.score, None, pairs.source)


def evaluate_sts(
    embedder: Embedder,
    sets: Sequence[PairSet],
    *,
    protocol: str = "file",
    aggregation: str = "all",
) -> list[StsScore]:
    """Score an embedder on sets of pairs; all texts of all sets are encoded in one deduplicated pass.

    Args:
        embedder: Anything with ``encode(texts) -> (texts, d)``.
        sets: What ``sts_sets`` or ``read_pairs`` gave.
        protocol: Its name, for the report.
        aggregation: ``all`` (subsets concatenated), ``mean`` or ``wmean`` (weighted by pairs) of the subsets.

    Raises:
        NumericError: The embedder gave NaN or infinite values.
        EvaluationError: Vectors of a wrong shape, or an unknown aggregation.
    """
    if aggregation not in AGGREGATIONS:
        raise EvaluationError(f'no aggregation "{aggregation}"{did_you_mean(aggregation, AGGREGATIONS)}')
    columns = [column for pairs in sets for column in (pairs.sentence1, pairs.sentence2)]
    vectors = encode_once(embedder, *columns)
    return [
        score_pairs(pairs, vectors[2 * i], vectors[2 * i + 1], protocol=protocol, aggregation=aggregation)
        for i, pairs in enumerate(sets)
    ]


def score_pairs(
    pairs: PairSet,
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    *,
    protocol: str = "file",
    aggregation: Aggregation = "all",
) -> StsScore:
    """The scores of one set from its vectors, both (pairs, d)."""
    similarity = pair_similarities(first, second)
    parts = subset_rows(pairs)
    subsets = (
        {
            name: 100 * correlation("spearman", similarity["cosine"][rows], pairs.score[rows])
            for name, rows in parts.items()
        }
        if pairs.subset is not None
        else {}
    )
    rho = {name: _aggregate("spearman", values, pairs, parts, aggregation) for name, values in similarity.items()}
    r = {name: _aggregate("pearson", values, pairs, parts, aggregation) for name, values in similarity.items()}
    return StsScore(
        pairs.name, protocol, aggregation, len(pairs), rho["cosine"], rho, r, subsets, similarity["cosine"], pairs.score
    )


def subset_rows(pairs: PairSet) -> dict[str, NDArray[np.int64]]:
    """Rows of every subset; all of them under the set's name where it has none."""
    if pairs.subset is None:
        return {pairs.name: np.arange(len(pairs))}
    names = np.array(pairs.subset)
    return {str(name): np.flatnonzero(names == name) for name in dict.fromkeys(pairs.subset)}


def _aggregate(
    kind: Literal["spearman", "pearson"],
    values: NDArray[np.float64],
    pairs: PairSet,
    parts: dict[str, NDArray[np.int64]],
    aggregation: Aggregation,
) -> float:
    if aggregation == "all":
        return 100 * correlation(kind, values, pairs.score)
    scores = [correlation(kind, values[rows], pairs.score[rows]) for rows in parts.values()]
    weights = [len(rows) if aggregation == "wmean" else 1 for rows in parts.values()]
    return 100 * float(np.average(scores, weights=weights))


def sts_dev(
    path_or_name: Path | str, protocol: str = "simcse", *, root: Path | str | None = None
) -> Callable[[Embedder], float]:
    """A monitor for training: embedder → Spearman of cosine ×100 on a development set, which is read now, once.

    Args:
        path_or_name: A pair file, or a set's name (``STSBenchmark``) whose dev split is looked up under ``root``.
        protocol: For a name: ``simcse`` or ``mteb``.
        root: For a name: the data folder, else ``SENTEMB_DATA``.

    Raises:
        DataError, EvaluationError: The set is missing or malformed.
    """
    path = Path(path_or_name)
    if path.suffix or path.exists():
        if path.is_dir():
            raise DataError(f"{path}: a folder; a file of pairs (sentence1, sentence2, score) is needed")
        pairs = read_pairs(path)
    else:
        (pairs,) = sts_sets(root, protocol, names=[str(path_or_name)], split="dev")

    def dev(embedder: Embedder) -> float:
        score = evaluate_sts(embedder, [pairs], protocol=protocol)[0].main
        if np.isnan(score):
            raise EvaluationError(
                f"{pairs.source}: Spearman does not exist: the gold scores or all similarities are constant "
                "(a collapsed encoder?)"
            )
        return score

    return dev
