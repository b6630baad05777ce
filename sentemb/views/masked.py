"""Masked copies of views, for masked-language modelling and for generators that fill them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Gt, Lt

from sentemb.errors import ModelError
from sentemb.parts import Fraction
from sentemb.types import TokenColumn, View, ViewContext, Views
from sentemb.views.view import ViewCopy, ViewNames


class Masked(ViewCopy):
    """A copy ``NAME.masked`` of every named view with a share of its tokens hidden.

    Every token that is not special is chosen independently with ``probability``; a chosen one becomes [MASK]
    with ``mask_share``, another random token with ``random_share``, and stays as it is otherwise.
    ``targets`` holds the original token where one was chosen and -100 elsewhere.

    Args:
        of: names of the views to copy; each is masked on its own, also where two of them are one sentence.
        probability: share of tokens chosen; 0.15 in BERT (section 3.1), 0.30 in DiffCSE (released run_diffcse.sh).
        mask_share: share of the chosen that become [MASK].
        random_share: share of the chosen that become a random token.
    Returns: the copies only.
    Raises: ModelError where the tokenizer has no mask token.
    Source: Devlin et al. 2019, NAACL, section 3.1; Chuang et al. 2022, NAACL, section 3.
    Deviations: random tokens are never special ones (the released code of both draws from the whole vocabulary),
        since a stray [SEP] or [PAD] would count as an end or as padding further on.
    """

    def __init__(
        self, *, of: ViewNames, probability: Annotated[float, Gt(0), Lt(1)] = 0.15, mask_share: Fraction = 0.8,
        random_share: Fraction = 0.1,
    ) -> None:
        if mask_share + random_share > 1 + 1e-9:
            raise ValueError(f"mask_share = {mask_share} and random_share = {random_share} make more than 1")
        self.of = of
        self.probability, self.mask_share, self.random_share = probability, mask_share, random_share
        self.needs = frozenset(f"view:{name}" for name in of)
        self.makes = tuple(f"{name}.masked" for name in of)

    def __call__(self, views: Views, context: ViewContext) -> Views:
        """``NAME.masked`` for every name in ``of``, in that order."""
        mask = context.vocabulary.mask
        if mask is None:
            raise ModelError(
                '[views] copies use = "masked": the tokenizer has no mask token; '
                "use a backbone that was trained by masked-language modelling (BERT, RoBERTa, MPNet, …)"
            )
        return {copy: self._copy(views[name], mask, context) for name, copy in zip(self.of, self.makes, strict=True)}

    def _copy(self, view: View, mask: int, context: ViewContext) -> View:
        original, vocabulary = view.column.flat, context.vocabulary
        special = np.fromiter(vocabulary.special, dtype=np.int32)
        chosen = (context.generator.random(len(original)) < self.probability) & ~np.isin(original, special)
        index = np.flatnonzero(chosen)
        fate = context.generator.random(len(index))
        flat = original.copy()
        flat[index[fate < self.mask_share]] = mask
        randomised = index[(fate >= self.mask_share) & (fate < self.mask_share + self.random_share)]
        ordinary = np.setdiff1d(np.arange(vocabulary.size, dtype=np.int32), special, assume_unique=True)
        flat[randomised] = context.generator.choice(ordinary, size=len(randomised))
        targets = np.where(chosen, original, np.int32(-100)).astype(np.int32, copy=False)
        return View(
            column=TokenColumn(flat=flat, offsets=view.column.offsets, text=view.column.text),
            ids=view.ids,
            targets=targets,
        )
