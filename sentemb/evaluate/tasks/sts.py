"""Semantic textual similarity: Spearman's ρ of the cosines of sentence pairs with their gold scores, ×100.

Two protocols of the field, whose scores must not be compared with one another:

* ``simcse``: SentEval's lower-cased, tokenised text; the subsets of a year concatenated; SICK-R is its 4,927 test
  pairs. Source: Gao, Yao & Chen 2021, EMNLP, appendix B.
* ``mteb``: raw text, every set as one; SICK-R is all 9,927 pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import EvaluationError, did_you_mean
from sentemb.evaluate.data_folder import DataFolder
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading.pairs import PairSet, read_pairs
from sentemb.evaluate.reading.senteval import senteval_set
from sentemb.evaluate.reading.tables import table_file
from sentemb.evaluate.reports.results import Items, TaskResult, fingerprint
from sentemb.evaluate.statistics.metrics import Correlation, PairSimilarity, correlation, pair_similarities
from sentemb.evaluate.task import EvalSetup, Task, Texts

Protocol = Literal["simcse", "mteb"]
Split = Literal["test", "dev"]
Metric = Literal["cosine_spearman", "cosine_pearson", "dot_spearman", "euclidean_spearman", "manhattan_spearman"]

# name -> file without ending, per protocol and split; the seven of every paper, in the papers' order
_FILES: Mapping[Protocol, Mapping[Split, Mapping[str, str]]] = {
    "simcse": {
        "test": {
            **{f"STS{year}": f"STS{year}" for year in (12, 13, 14, 15, 16)},
            "STSBenchmark": "STSBenchmark-test",
            "SICK-R": "SICK-R",
        },
        "dev": {"STSBenchmark": "STSBenchmark-dev", "SICK-R": "SICK-R-dev"},
    },
    "mteb": {
        "test": {
            **{f"STS{year}": f"mteb/sts{year}-sts/test" for year in (12, 13, 14, 15, 16)},
            "STSBenchmark": "mteb/stsbenchmark-sts/test",
            "SICK-R": "mteb/sickr-sts/test",
        },
        "dev": {"STSBenchmark": "mteb/stsbenchmark-sts/validation"},
    },
}
SEVEN: tuple[str, ...] = tuple(_FILES["simcse"]["test"])
# what a set is without being asked for: all seven of test; of dev the one that every paper tunes on
_DEFAULT: Mapping[Split, tuple[str, ...]] = {"test": SEVEN, "dev": ("STSBenchmark",)}

# SentEval scores these as one set: their "subset" only says where a pair comes from
_WITHOUT_SUBSETS = frozenset({"STSBenchmark", "SICK-R"})


@dataclass(frozen=True, kw_only=True)
class Sts(Task):
    """Correlation of sentence similarities with people's judgements.

    Args:
        path: a file of pairs with the columns sentence1, sentence2, score and, optionally, subset.
        protocol: without a path: whose text and sets, ``simcse`` or ``mteb``.
        sets: without a path: the sets; by default all seven of the test split, STSBenchmark of the dev split.
        split: without a path: ``test`` or ``dev``.
        metric: the main score.

    Source: Cer et al. 2017, SemEval (STS-B); Agirre et al. 2012 to 2016, SemEval; Marelli et al. 2014, LREC (SICK).
    Deviations: none; Spearman shares ranks among ties.
    """

    task_type: ClassVar[str] = "STS"
    packages: ClassVar[tuple[str, ...]] = ("scipy",)

    path: str | None = None
    protocol: Protocol | None = None
    sets: tuple[str, ...] = ()
    split: Split = "test"
    metric: Metric = "cosine_spearman"

    def __post_init__(self) -> None:
        if (self.path is None) == (self.protocol is None):
            raise ValueError('give path = "FILE", or protocol = "simcse" or "mteb"')
        if self.path is not None and self.sets:
            raise ValueError("sets belong to a protocol, not to a file")

    @property
    def label(self) -> str:
        return self.name or (self.sets[0] if len(self.sets) == 1 else super().label)

    def expand(self, setup: EvalSetup) -> Sequence[Task]:
        if self.protocol is None:
            return (self,)
        names = self.sets or _DEFAULT[self.split]
        known = _FILES[self.protocol][self.split]
        for name in names:
            if name not in known:
                where = f"protocol {self.protocol}, split {self.split}"
                raise EvaluationError(f'{where}: no set "{name}"{did_you_mean(name, known)}')
        return [replace(self, sets=(name,)) for name in names]

    def missing(self, setup: EvalSetup) -> list[str]:
        if self.protocol is None:
            return super().missing(setup)
        root = setup.data.required()
        if _set_file(setup.data, self.protocol, self.split, self.sets[0]) is not None:
            return []
        if self.protocol == "simcse" and senteval_set(root, self.sets[0], self.split) is not None:
            return []
        where = "sts-simcse/, or as SentEval lays them out" if self.protocol == "simcse" else "hub/"
        return [
            f"{root}: missing for protocol {self.protocol}: {_FILES[self.protocol][self.split][self.sets[0]]}.jsonl "
            f"(looked here and under {where}); give the folder that holds it with --data-dir or SENTEMB_DATA"
        ]

    def load(self, setup: EvalSetup) -> PairSet:
        if self.path is not None:
            return read_pairs(setup.data.path(self.path), name=self.label)
        assert self.protocol is not None
        return read_sts_set(setup.data, self.protocol, self.sets[0], split=self.split)

    def texts(self, data: PairSet) -> Sequence[Texts]:
        return [Texts(texts=[*data.sentence1, *data.sentence2])]

    def run(self, data: PairSet, model: EvalModel, setup: EvalSetup) -> TaskResult:
        vectors = self.encode(model, [*data.sentence1, *data.sentence2])
        similarity = pair_similarities(vectors[: len(data)], vectors[len(data) :])
        metrics = correlations(similarity, data)
        if np.isnan(metrics[self.metric]):
            raise EvaluationError(
                f"{data.source or data.name}: Spearman does not exist: fewer than two pairs, or the gold scores or all "
                "similarities are constant (a collapsed encoder?)"
            )
        name, _, statistic = self.metric.partition("_")
        items = None
        if statistic == "spearman":
            mark = fingerprint(data.sentence1, data.sentence2, data.score)
            predicted = similarity[cast(PairSimilarity, name)].tolist()
            items = Items(fingerprint=mark, predicted=predicted, gold=data.score.tolist())
        return self.result(
            setup, metric=self.metric, metrics=metrics, count=len(data), split=self.split if self.protocol else "",
            protocol=self.protocol or "file", items=items, interval_note="no interval: Pearson is not resampled",
        )  # fmt: skip


def read_sts_set(data: DataFolder, protocol: Protocol, name: str, *, split: Split = "test") -> PairSet:
    """One of the STS sets, from ``sts-simcse/`` or ``hub/mteb/`` of the data folder, or in SentEval's own layout.

    Raises:
        EvaluationError: it is not there.
        DataError: a malformed file.
    """
    path = _set_file(data, protocol, split, name)
    pairs = read_pairs(path, name=name) if path is not None else None
    if pairs is None and protocol == "simcse":
        pairs = senteval_set(data.required(), name, split)
    if pairs is None:
        raise EvaluationError(f"{data.required()}: no {name} ({split}) of protocol {protocol}")
    return replace(pairs, subset=None) if name in _WITHOUT_SUBSETS else pairs


def _set_file(data: DataFolder, protocol: Protocol, split: Split, name: str) -> Path | None:
    root, stem = data.required(), _FILES[protocol][split][name]
    below = root / ("sts-simcse" if protocol == "simcse" else "hub")
    return table_file(below, stem) or table_file(root, stem)


def correlations(similarity: Mapping[PairSimilarity, NDArray[np.float64]], pairs: PairSet) -> dict[str, float]:
    """Spearman and Pearson ×100 of every similarity with the gold scores, and Spearman of cosine of each subset."""
    scores = {
        f"{name}_{kind}": 100 * correlation(kind, values, pairs.score)
        for kind in get_args(Correlation)
        for name, values in similarity.items()
    }
    for subset in dict.fromkeys(pairs.subset or ()):
        rows = np.array(pairs.subset) == subset
        scores[f"subset {subset}"] = 100 * correlation("spearman", similarity["cosine"][rows], pairs.score[rows])
    return scores
