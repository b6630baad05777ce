"""Scores by group: of a task's pairs or texts by a column, or of pairs by how many words they share.

A mean hides the group that is served worst. ``by = "overlap"`` splits pairs into quarters by the Jaccard similarity of
their word sets: a model that only counts shared words fails where that says little about the meaning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import EvaluationError
from sentemb.evaluate.significance import Values

OVERLAP = "overlap"
PREFIX = "by "  # of the names of metrics that are scores of groups
MOST_GROUPS = 100
WORST, GAP = "worst group", "gap between groups"
_QUARTERS = ("1st quarter (least)", "2nd quarter", "3rd quarter", "4th quarter (most)")
_WORD = re.compile(r"\w+")


def overlap(first: Sequence[str], second: Sequence[str]) -> Values:
    """|A ∩ B| / |A ∪ B| of the lower-cased words of every pair, (pairs,); 0 where neither has a word."""
    sets = ([set(_WORD.findall(text.lower())) for text in texts] for texts in (first, second))
    return np.array([len(a & b) / max(len(a | b), 1) for a, b in zip(*sets, strict=True)])


def quarters(values: Values) -> list[str]:
    """The quarter of every value; equal values are in one quarter, so the four need not be equally large."""
    bounds = np.quantile(values, [0.25, 0.5, 0.75])
    return [_QUARTERS[quarter] for quarter in np.searchsorted(bounds, values)]


def scores_by_group(groups: Sequence[str], by: str, score: Callable[[NDArray[np.bool_]], float]) -> dict[str, float]:
    """The score of every group in the order of their names, then the worst and the difference of best and worst.

    A group whose score does not exist (a single pair, one gold score) is NaN, and neither best nor worst.

    Args:
        score: of the items that a mask (items,) chooses.

    Raises: EvaluationError: there are more groups than anybody reads.
    """
    of, names = np.array(groups), sorted(set(groups))
    if len(names) > MOST_GROUPS:
        count = f"{len(names):,} different values"
        raise EvaluationError(f'by = "{by}": {count}; at most {MOST_GROUPS}: name a column of few groups')
    scores = {f"{PREFIX}{by}: {name}": score(of == name) for name in names}
    known = [value for value in scores.values() if not math.isnan(value)] or [math.nan]
    return {**scores, f"{PREFIX}{by}: {WORST}": min(known), f"{PREFIX}{by}: {GAP}": max(known) - min(known)}


def group_line(task: str, metrics: Mapping[str, float]) -> str:
    """``STS12 by overlap: 1st quarter (least) 61.20, …``; empty where a task was not scored by groups."""
    scores = {name.removeprefix(PREFIX): value for name, value in metrics.items() if name.startswith(PREFIX)}
    if not scores:
        return ""
    by = next(iter(scores)).partition(": ")[0]
    shown = ("–" if math.isnan(value) else f"{value:.2f}" for value in scores.values())
    return f"{task} by {by}: " + ", ".join(
        f"{name.partition(': ')[2]} {value}" for name, value in zip(scores, shown, strict=True)
    )
