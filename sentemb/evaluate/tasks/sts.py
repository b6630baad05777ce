"""Semantic textual similarity: Spearman's ρ of the cosines of sentence pairs with their gold scores, ×100.

Two protocols of the field, whose scores must not be compared with one another:

* ``simcse``: SentEval's lower-cased, tokenised text; the subsets of a year concatenated; SICK-R is its 4,927 test
  pairs. Source: Gao, Yao & Chen 2021, EMNLP, appendix B.
* ``mteb``: raw text, every set as one; SICK-R is all 9,927 pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from sentemb.data import Record
from sentemb.errors import DataError, EvaluationError, did_you_mean
from sentemb.evaluate.groups import OVERLAP, overlap, quarters, scores_by_group
from sentemb.evaluate.metrics import PairSimilarity, pair_similarities, pearson, spearman
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import PairSet, pairs_of, read_columns, read_lines, read_pairs, read_rows, table_file
from sentemb.evaluate.results import Items, TaskResult, fingerprint
from sentemb.evaluate.task import EvalSetup, Task, Texts

Protocol = Literal["simcse", "mteb"]
Split = Literal["test", "dev"]
Metric = Literal["cosine_spearman", "cosine_pearson", "dot_spearman", "euclidean_spearman", "manhattan_spearman"]

SEVEN = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R")  # in the papers' order
_DEV: Mapping[Protocol, tuple[str, ...]] = {"simcse": ("STSBenchmark", "SICK-R"), "mteb": ("STSBenchmark",)}

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
        by: also Spearman of cosine by group, with the worst group and the gap: ``overlap`` (quarters of the pairs by
            the words that they share), or the name of a column of the file.

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
    by: str = ""

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
        known = SEVEN if self.split == "test" else _DEV[self.protocol]
        # of dev the set that every paper tunes on
        names = self.sets or (SEVEN if self.split == "test" else ("STSBenchmark",))
        for name in names:
            if name not in known:
                where = f"protocol {self.protocol}, split {self.split}"
                raise EvaluationError(f'{where}: no set "{name}"{did_you_mean(name, known)}')
        return [replace(self, sets=(name,)) for name in names]

    def missing(self, setup: EvalSetup) -> list[str]:
        if self.protocol is None:
            return super().missing(setup)
        self._rows(setup)
        return []

    def load(self, setup: EvalSetup) -> PairSet:
        column = "" if self.by == OVERLAP else self.by
        if self.protocol is None:
            return read_pairs(setup.data.path(str(self.path)), by=column)
        pairs = pairs_of(self._rows(setup), source=self.label, by=column)
        return replace(pairs, subset=None) if self.sets[0] in _WITHOUT_SUBSETS else pairs

    def _rows(self, setup: EvalSetup) -> Iterator[Record]:
        """The set's rows, from ``sts-simcse/`` or ``hub/mteb/`` of the data folder, or in SentEval's own layout.

        Raises: EvaluationError: it is not there.
        """
        root, name, is_test = setup.data.required(), self.sets[0], self.split == "test"
        below, stem = "sts-simcse", name if is_test and name != "STSBenchmark" else f"{name}-{self.split}"
        if self.protocol == "mteb":
            below, stem = "hub", f"mteb/{name.lower().replace('-', '')}-sts/{'test' if is_test else 'validation'}"
        path = table_file(root / below, stem) or table_file(root, stem)
        if path is not None:
            return read_rows(path)
        if self.protocol == "simcse" and (rows := senteval_rows(root, name, self.split)) is not None:
            return rows
        raise EvaluationError(
            f"{root}: missing for protocol {self.protocol}: {stem}.jsonl (looked here, in {below}/ and, for simcse, "
            "for SentEval's own files); give the folder that holds it with --data-dir or SENTEMB_DATA"
        )

    def texts(self, data: PairSet) -> Sequence[Texts]:
        return [Texts(texts=[*data.sentence1, *data.sentence2])]

    def run(self, data: PairSet, model: EvalModel, setup: EvalSetup) -> TaskResult:
        vectors = self.encode(model, [*data.sentence1, *data.sentence2])
        similarity = pair_similarities(vectors[: len(data)], vectors[len(data) :])
        metrics = correlations(similarity, data)
        if self.by:
            cosine = similarity["cosine"]
            groups = data.group or quarters(overlap(data.sentence1, data.sentence2))
            metrics |= scores_by_group(groups, self.by, lambda rows: 100 * spearman(cosine[rows], data.score[rows]))
        if np.isnan(metrics[self.metric]):
            raise EvaluationError(
                f"{data.source}: Spearman does not exist: fewer than two pairs, or the gold scores or all "
                "similarities are constant (a collapsed encoder?)"
            )
        name, _, statistic = self.metric.partition("_")
        mark = fingerprint(data.sentence1, data.sentence2, data.score)
        predicted = similarity[cast(PairSimilarity, name)].tolist()
        items = Items(fingerprint=mark, predicted=predicted, gold=data.score.tolist())
        return self.result(
            setup, metric=self.metric, metrics=metrics, count=len(data), split=self.split if self.protocol else "",
            protocol=self.protocol or "file", items=items if statistic == "spearman" else None,
            interval_note="no interval: Pearson is not resampled",
        )  # fmt: skip


_SENTEVAL = {
    ("STSBenchmark", "test"): "STS/STSBenchmark/sts-test.csv",
    ("STSBenchmark", "dev"): "STS/STSBenchmark/sts-dev.csv",
    ("SICK-R", "test"): "SICK/SICK_test_annotated.txt",
    ("SICK-R", "dev"): "SICK/SICK_trial.txt",
}


def senteval_rows(root: Path, name: str, split: Split) -> Iterator[Record] | None:
    """Pairs of an STS set as SentEval's download script leaves it in ``root`` (its ``data/downstream``, or a folder
    above it); None where it is not there."""
    file = _SENTEVAL.get((name, split), f"STS/{name}-en-{split}")
    places = (root / above / file for above in ("", "downstream", "data/downstream", "SentEval/data/downstream"))
    path = next((place for place in places if place.exists()), None)
    if path is None:
        return None
    if name == "STSBenchmark":
        return read_columns(path, "genre file year id score sentence1 sentence2", "\t")
    if name == "SICK-R":
        return islice(read_columns(path, "pair_ID sentence1 sentence2 score", "\t"), 1, None)  # behind the header
    return _senteval_year(path)


def _senteval_year(folder: Path) -> Iterator[Record]:
    """``STS.input.<subset>.txt`` with two tabbed sentences a line and ``STS.gs.<subset>.txt``; unrated pairs are left
    out, as SentEval does."""
    for path in sorted(folder.glob("STS.input.*.txt")):
        subset = path.stem.removeprefix("STS.input.")
        gold = folder / f"STS.gs.{subset}.txt"
        pairs, ratings = list(read_columns(path, "sentence1 sentence2", "\t")), list(read_lines(gold))
        if len(pairs) != len(ratings):
            raise DataError(f"{path}: {len(pairs):,} pairs, but {len(ratings):,} scores in {gold.name}")
        for pair, (number, rating) in zip(pairs, ratings, strict=True):
            if rating.strip():
                yield Record(where=f"{gold}:{number}", fields={**pair.fields, "score": rating, "subset": subset})


def correlations(similarity: Mapping[PairSimilarity, NDArray[np.float64]], pairs: PairSet) -> dict[str, float]:
    """Spearman and Pearson ×100 of every similarity with the gold scores, and Spearman of cosine of each subset."""
    scores = {
        f"{name}_{statistic.__name__}": 100 * statistic(values, pairs.score)
        for statistic in (spearman, pearson)
        for name, values in similarity.items()
    }
    for subset in dict.fromkeys(pairs.subset or ()):
        rows = np.array(pairs.subset) == subset
        scores[f"subset {subset}"] = 100 * spearman(similarity["cosine"][rows], pairs.score[rows])
    return scores
