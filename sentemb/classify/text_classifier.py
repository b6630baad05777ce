"""A fitted classifier with its encoder: fit, predict, save, load.

    CLASSIFIER/classifier.json        method, labels, and the encoder: where it was, and its digest
    CLASSIFIER/state.safetensors      what fitting found
    CLASSIFIER/index                  of ``knn`` in place of that: the examples
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sentemb.classify.linear import Logistic
from sentemb.classify.method import ClassifierMethod, LabelledVectors, Posteriors, State
from sentemb.classify.nearest import NearestNeighbours
from sentemb.encoder import Encoder
from sentemb.errors import DataError, ModelError, PartError, first_line
from sentemb.files import atomic_folder, write_json
from sentemb.parts import room, to_table
from sentemb.search import SearchIndex

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a classifier says of texts."""

    labels: Sequence[str]  # the best one of every text
    probabilities: NDArray[np.float64]  # of the best label, (texts,)


class TextClassifier:
    """Texts to labels; made with ``TextClassifier.fit`` or ``TextClassifier.load``.

    >>> classifier = TextClassifier.fit(["it rains", "I pay"], ["weather", "money"], encoder="MODEL")
    >>> classifier.predict(["it snows"]).labels
    ['weather']
    """

    def __init__(
        self, method: ClassifierMethod, labels: Sequence[str], encoder: Encoder, *, state: State | None = None,
        index: SearchIndex | None = None, examples: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.method, self.labels, self.encoder = method, tuple(labels), encoder
        self._state, self._index, self._examples = state, index, examples

    @classmethod
    def fit(
        cls, texts: Sequence[str], labels: Sequence[str], *, encoder: Encoder | str | Path,
        method: ClassifierMethod | None = None,
    ) -> Self:
        """Fit a classifier on labelled texts.

        Args:
            encoder: an ``Encoder``, or a model's path or id.
            method: ``sentemb list classifiers``; by default logistic regression.

        Raises: DataError: fewer than two labels, or a label with fewer examples than the method needs.
        """
        method = method or Logistic()
        if len(texts) != len(labels):
            raise DataError(f"{len(texts):,} texts and {len(labels):,} labels; every text needs one")
        names, targets, counts = np.unique(np.asarray(labels, dtype=str), return_inverse=True, return_counts=True)
        if len(names) < 2:
            too_few = f"only the label {str(names[0])!r}" if len(names) else "no examples"
            raise DataError(f"{too_few}; at least two labels are needed")
        if counts.min() < method.least:
            rare = str(names[int(counts.argmin())])
            use = room("classifiers").name_of(type(method))
            raise DataError(f"label {rare!r} has {counts.min()} example; {use} needs {method.least} of every label: "
                            "add examples, or take another method")
        loaded = encoder if isinstance(encoder, Encoder) else Encoder.load(encoder)
        data = LabelledVectors(texts=list(texts), vectors=loaded.encode(texts), targets=targets, labels=names.tolist())
        state = method.fit(data, lambda further: loaded.encode(list(further)))
        examples = list(zip(texts, map(str, labels), strict=True)) if isinstance(method, NearestNeighbours) else ()
        return cls(method, data.labels, loaded, state=state, examples=examples)

    def predict(self, texts: Sequence[str]) -> Predictions:
        """The best label of every text, and its probability."""
        labels, posteriors = self.posteriors(texts)
        best = posteriors.argmax(axis=1)
        return Predictions(labels=[labels[row] for row in best.tolist()], probabilities=posteriors.max(axis=1))

    def posteriors(self, texts: Sequence[str]) -> tuple[Sequence[str], Posteriors]:
        """The labels, and the probability of each for every text (texts, labels)."""
        if not len(texts):
            return self.labels, np.zeros((0, len(self.labels)))
        vectors = self.encoder.encode(texts)
        if self._index is not None:
            return self._from_index(self._index, vectors)
        assert self._state is not None
        return self.labels, self.method.posteriors(self._state, texts, vectors)

    def _from_index(self, index: SearchIndex, vectors: NDArray[np.float32]) -> tuple[Sequence[str], Posteriors]:
        assert isinstance(self.method, NearestNeighbours)
        lists = index.search(vectors, self.method.k)
        for hit in (hit for hits in lists for hit in hits):
            if hit.metadata.get("label") in (None, ""):
                raise DataError(f"{index.folder}: the document with id {hit.id!r} has no label; give it one with "
                                "sentemb index upsert (columns id, text, label), or delete it")
        neighbour_labels = {str(hit.metadata["label"]) for hits in lists for hit in hits}
        labels = sorted({*self.labels, *neighbour_labels})  # examples of new labels may have been added
        number = {label: position for position, label in enumerate(labels)}
        targets = np.full((len(lists), self.method.k), -1, dtype=np.int64)
        scores = np.zeros(targets.shape, dtype=np.float32)
        for row, hits in enumerate(lists):
            targets[row, : len(hits)] = [number[str(hit.metadata["label"])] for hit in hits]
            scores[row, : len(hits)] = [hit.score for hit in hits]
        return labels, self.method.votes(targets, scores, len(labels))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write it, whole or not at all.

        Raises: DataError: something lies there; with ``overwrite`` a classifier is replaced, nothing else is.
        """
        from safetensors.numpy import save_file

        folder = Path(folder)
        is_classifier = (folder / "classifier.json").is_file()
        if folder.exists() and not (is_classifier and overwrite):
            advice = "give --overwrite to replace it" if is_classifier else "choose another folder"
            raise DataError(f"{folder}: {'a classifier' if is_classifier else 'something'} lies there; {advice}")
        with atomic_folder(folder) as temporary:
            if isinstance(self.method, NearestNeighbours):
                rows = ({"text": text, "label": label} for text, label in self._all_examples())
                prompt = self.encoder.prompts.get(self.encoder.default_prompt or "", "")
                SearchIndex.build(temporary / "index", rows, encoder=self.encoder, kind="flat", query_prompt=prompt,
                                  document_prompt=prompt).close()
            else:
                save_file({name: np.ascontiguousarray(array) for name, array in (self._state or {}).items()},
                          temporary / "state.safetensors")
            write_json(temporary / "classifier.json", {
                "format": FORMAT, "method": to_table(self.method), "labels": list(self.labels),
                "model": {"source": self.encoder.source, "digest": self.encoder.digest()},
            })
        return folder

    def _all_examples(self) -> Sequence[tuple[str, str]]:
        if self._index is not None:
            raise DataError(f"{self._index.folder}: a classifier over an index is changed there; copy its folder")
        return self._examples

    @classmethod
    def load(cls, folder: str | Path, *, model: str | Path | None = None, precision: str = "auto") -> Self:
        """Open a saved classifier.

        Args:
            model: where the encoder is now; by default where it was.

        Raises:
            DataError: no classifier, or a damaged one.
            ModelError: the encoder is not the one that the classifier was fitted on.
        """
        folder = Path(folder)
        facts = _facts(folder)
        try:
            method: Any = room("classifiers").make(facts["method"])
        except PartError as error:
            raise DataError("\n".join(error.located(f"{folder / 'classifier.json'}: method."))) from None
        encoder = Encoder.load(model or facts["model"]["source"], precision=precision)
        known, now = facts["model"]["digest"], encoder.digest()
        if known != now:
            raise ModelError(
                f"{folder}: fitted on the vectors of {facts['model']['source']} (digest {known[:12]}), but "
                f"{encoder.source} has the digest {now[:12]}: the model changed, and its vectors mean something else. "
                "Fit the classifier again, or name the model that it was fitted on with --model"
            )
        if isinstance(method, NearestNeighbours):
            return cls(method, facts["labels"], encoder, index=SearchIndex.open(folder / "index", encoder=encoder))
        return cls(method, facts["labels"], encoder, state=_state(folder / "state.safetensors"))


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "classifier.json"
    if not path.is_file():
        raise DataError(f"{folder}: no classifier (classifier.json is missing); sentemb classify fit makes one")
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        is_known = facts["format"] == FORMAT
        assert facts["labels"]
        assert {"source", "digest"} <= facts["model"].keys()
        assert "use" in facts["method"]
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise DataError(f"{path}: damaged; fit the classifier again") from None
    if not is_known:
        raise DataError(f"{path}: format {facts['format']}; this sentemb reads {FORMAT}: fit the classifier again")
    return facts


def _state(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        state: State = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: missing or damaged ({first_line(error)}); fit the classifier again") from None
    return state
