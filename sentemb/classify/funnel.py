"""Several classifiers whose probabilities a last one reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, MinLen
from pydantic import AfterValidator

from sentemb.classify.linear import Logistic, WordFrequencies, linear_state
from sentemb.classify.method import ClassifierMethod, Encode, LabelledVectors, Posteriors, State, softmax
from sentemb.classify.nearest import LabelTexts, NearestNeighbours
from sentemb.errors import needs_extra
from sentemb.parts import Whole
from sentemb.types import Vectors

VIEWS: tuple[ClassifierMethod, ...] = (WordFrequencies(), Logistic(), LabelTexts(), NearestNeighbours())


@dataclass(frozen=True, kw_only=True)
class Funnel(ClassifierMethod):
    """The probabilities that several classifiers give, at unit length and averaged, are classified once more.

        z(x) = mean over views of P_view(· | x) / ‖P_view(· | x)‖,   P(label | x) = logistic regression of z(x)

    The last classifier is fitted on probabilities of examples that the view had not seen (out of fold); the views are
    then fitted on all examples.

    Args:
        views: the classifiers.
        folds: parts of the examples, each of which is classified by views fitted on the others; fewer where a label
            has fewer examples.
        seed: of the folds.

    Source: gFun (the andreapdr/gFun repository).
    Deviations: out of fold, where gFun's last classifier sees probabilities of models that saw the examples; one
        language; logistic regressions in place of support vector machines.
    """

    least = 2

    views: Annotated[Sequence[ClassifierMethod], AfterValidator(tuple), MinLen(1)] = VIEWS
    folds: Annotated[int, Ge(2)] = 5
    seed: Whole = 42

    def fit(self, data: LabelledVectors, encode: Encode) -> State:
        needs_extra("sklearn", "eval")
        from sklearn.model_selection import StratifiedKFold

        folds = min(self.folds, int(np.bincount(data.targets).min()))
        unseen = np.zeros((len(data.targets), len(data.labels)))
        for seen, held_out in StratifiedKFold(folds, shuffle=True, random_state=self.seed).split(unseen, data.targets):
            states = [view.fit(data.take(seen), encode) for view in self.views]
            part = data.take(held_out)
            unseen[held_out] = self._joined(states, part.texts, part.vectors)
        state = dict(linear_state(unseen, data.targets, c=1.0, iterations=1000, seed=self.seed))
        for number, view in enumerate(self.views):
            state |= {f"{number}.{name}": array for name, array in view.fit(data, encode).items()}
        return state

    def posteriors(self, state: State, texts: Sequence[str], vectors: Vectors) -> Posteriors:
        states = [
            {name.removeprefix(f"{number}."): array for name, array in state.items() if name.startswith(f"{number}.")}
            for number in range(len(self.views))
        ]
        return softmax(self._joined(states, texts, vectors) @ state["weights"].T + state["bias"])

    def _joined(self, states: Sequence[State], texts: Sequence[str], vectors: Vectors) -> Posteriors:
        """z."""
        each = [view.posteriors(state, texts, vectors) for view, state in zip(self.views, states, strict=True)]
        joined: Posteriors = np.mean([one / np.linalg.norm(one, axis=1, keepdims=True) for one in each], axis=0)
        return joined
