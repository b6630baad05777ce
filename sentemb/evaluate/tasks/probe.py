"""Whether an order of things (by size, by danger) is a direction of the embedding space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import EvaluationError
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.reading import cell_of, number_of, read_rows, text_of
from sentemb.evaluate.results import Items, TaskResult, fingerprint
from sentemb.evaluate.task import EvalSetup, Task, Texts

Rankings = Mapping[str, tuple[list[str], NDArray[np.float64]]]  # list -> items, ranks


@dataclass(frozen=True, kw_only=True)
class Probe(Task):
    """Kendall's τ of rankings with the order along a direction that was fitted to all other rankings.

        ridge:     the direction w with the least  Σ (w · x - rank)² + ‖w‖², vectors and ranks standardised in each list
        pairwise:  logistic regression of the differences of two items' vectors on which of the two ranks lower

    Each list in turn is left out and ordered.

    Args:
        path: rows with the columns list (its name), item (a text) and rank (1 is the first).
        fit: ``pairwise`` or ``ridge``.

    Source: the idea of contrast-consistent ranking (Stoehr et al.): a linear direction that orders items of a list.
    Deviations: the direction is fitted to known ranks; its unsupervised constraints are not published.
    """

    task_type: ClassVar[str] = "Probe"
    packages: ClassVar[tuple[str, ...]] = ("sklearn", "scipy")

    path: str
    fit: Literal["pairwise", "ridge"] = "pairwise"

    def load(self, setup: EvalSetup) -> Rankings:
        lists: dict[str, tuple[list[str], list[float]]] = {}
        for row in read_rows(setup.data.path(self.path)):
            items, ranks = lists.setdefault(str(cell_of(row, "list")), ([], []))
            items.append(text_of(row, "item"))
            ranks.append(number_of(row, "rank"))
        for name, (_, ranks) in lists.items():
            if len(set(ranks)) < 2:
                raise EvaluationError(f'{self.path}: list "{name}" has one rank for all its items; two are needed')
        if len(lists) < 2:
            raise EvaluationError(f"{self.path}: one list; two are needed, as each is ordered by the others' direction")
        return {name: (items, np.array(ranks)) for name, (items, ranks) in lists.items()}

    def texts(self, data: Rankings) -> Sequence[Texts]:
        return [Texts(texts=[item for items, _ in data.values() for item in items])]

    def run(self, data: Rankings, model: EvalModel, setup: EvalSetup) -> TaskResult:
        from scipy.stats import kendalltau

        vectors = np.split(self.encode(model, self.texts(data)[0].texts).astype(np.float64),
                           np.cumsum([len(items) for items, _ in data.values()])[:-1])
        centred = [rows - rows.mean(axis=0) for rows in vectors]
        ranks = [of for _, of in data.values()]
        direction = pairwise_direction if self.fit == "pairwise" else ridge_direction
        taus = []
        for left_out, rows in enumerate(centred):
            others = [number for number in range(len(centred)) if number != left_out]
            w = direction([centred[number] for number in others], [ranks[number] for number in others])
            tau = kendalltau(rows @ w, ranks[left_out]).statistic
            taus.append(0.0 if np.isnan(tau) else float(tau))  # all items at one place: no order at all
        texts = [f"{name}: {item}" for name, (items, _) in data.items() for item in items]
        items = Items(fingerprint=fingerprint(texts, np.concatenate(ranks)), values=taus)
        metrics = {"kendall_tau": 100 * float(np.mean(taus)), "worst list": 100 * min(taus)}
        return self.result(setup, metric="kendall_tau", metrics=metrics, protocol=f"{self.fit}, one list left out",
                           items=items)


def ridge_direction(lists: Sequence[NDArray[np.float64]], ranks: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Of centred vectors (items, d) of every list and their ranks."""
    from sklearn.linear_model import Ridge

    standard = [(of - of.mean()) / of.std() for of in ranks]
    w: NDArray[np.float64] = Ridge(fit_intercept=False).fit(np.concatenate(lists), np.concatenate(standard)).coef_
    return w


def pairwise_direction(
    lists: Sequence[NDArray[np.float64]], ranks: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Of the differences of all pairs of a list with different ranks, each pair both ways round."""
    from sklearn.linear_model import LogisticRegression

    differences = np.stack([
        (rows[i] - rows[j]) * np.sign(of[i] - of[j])
        for rows, of in zip(lists, ranks, strict=True) for i, j in combinations(range(len(of)), 2) if of[i] != of[j]
    ])  # fmt: skip
    x, y = np.concatenate([differences, -differences]), np.repeat([1, 0], len(differences))
    w: NDArray[np.float64] = LogisticRegression(fit_intercept=False, max_iter=1000).fit(x, y).coef_[0]
    return w
