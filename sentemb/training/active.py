"""Which parts of an objective take part in a batch, and what happens to its views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sentemb.companions.companion import Companion
from sentemb.edits.edit import Edit
from sentemb.terms.term import Term
from sentemb.training.inputs import ViewUse
from sentemb.types import Component, Views


@dataclass(frozen=True, kw_only=True)
class WeightedTerm:
    """One summand of the objective."""

    name: str
    term: Term
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ActiveParts:
    """The parts that are for one source of a mixture; outside a mixture, all parts."""

    companions: Mapping[str, Companion]
    edits: tuple[tuple[int, str, Edit], ...]  # with their number among all edits
    terms: tuple[WeightedTerm, ...]

    @property
    def parts(self) -> list[Component]:
        """Companions, edits and terms."""
        return [*self.companions.values(), *(edit for _, _, edit in self.edits), *(entry.term for entry in self.terms)]

    @property
    def needs(self) -> frozenset[str]:
        """What they read."""
        return frozenset().union(*(part.needs for part in self.parts))

    def use_of(self, views: Views) -> ViewUse:
        """What happens to each view: the one place that decides it.

        Anchor, positives and negatives are embedded; a copy (``anchor.masked``) only where a part's ``encodes`` names
        it. Views are encoded together unless a term reads their hidden states or attentions.
        """
        needs, encodes = self.needs, frozenset().union(*(part.encodes for part in self.parts))
        embedded = [name for name in views if "." not in name]
        separate: list[str] = []
        if needs & {"hidden", "attentions"}:
            separate = [name for name in views if name in encodes or "attentions" in needs]
        together = [name for name in views if name not in separate and (name in embedded or name in encodes)]
        return ViewUse(
            together=tuple(together),
            separate=tuple(separate),
            embedded=(*together, *(name for name in separate if name in embedded)),
            tokens=tuple(views) if "tokens" in needs else tuple(separate),
        )
