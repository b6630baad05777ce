"""Prototypes: centres of groups of the data, learned or averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sentemb.companions.companion import Companion
from sentemb.data.grouped import Grouped
from sentemb.distributed import broadcast_object
from sentemb.errors import DataError
from sentemb.maths.clusters import k_means
from sentemb.maths.similarity import at_least_float32
from sentemb.maths.table import contrasted_views
from sentemb.parts import Count, Whole
from sentemb.types import UNKNOWN, Batch, Build, Examples, SentenceModule, Services


class Prototypes(Companion):
    """K unit centres C_k in the space of the embeddings, and which group of the data every example belongs to:

        gradient   C ← C / ‖C‖ after every step; the optimizer moves it
        average    C_k ← normalise( m C_k + (1 - m) mean of the batch's rows of group k ); others stay

    Groups are the classes of the data, or, with ``count`` and ``average``, clusters of the anchors: before training the
    encoder embeds every distinct one, as exported; the embeddings are centred on their mean and clustered by cosine
    (k-means, 20 iterations). With ``count`` and ``gradient`` there are no groups: the prototypes start at random. The
    term ``prototypes`` predicts prototypes, the edit ``groups`` and the batches ``grouped`` read the groups.

    Args:
        count: K; without it, one prototype for each class of the data.
        update: see above.
        momentum: m of ``average``.
        freeze_steps: first batches in which the prototypes get no gradient (``gradient``).
        history: rows of earlier batches that the term spreads over prototypes as well. For encoders that hardly move,
            as late in SwAV's training: while all rows drift, old and new ones are spread over different prototypes,
            which drives the drift, and the loss rises (seen with 1,024 rows at a learning rate of 5e-5).
        clusterings: how often the data are clustered, each time from another start; each has K prototypes of its own.
    Raises:
        ValueError: several clusterings of something that is not clustered.
        DataError: fewer than two classes, or fewer distinct anchors than ``count``.
    Source: gradient, freeze_steps, history: Caron et al. 2020, NeurIPS, "Unsupervised learning of visual features by
        contrasting cluster assignments" (SwAV); clusters as groups of batches: "MCL", several clusterings: "MEOW"
        (their released code).
    Deviations: groups are found once, where MEOW clusters again in every epoch; stages as in MCL are successive runs.
        Centres that are averaged start with their first rows instead of the clusters' means, because heads that serve
        training only put rows elsewhere than the exported embeddings; a centre without rows so far is 0 and predicted
        by nobody. SwAV keeps a history for every view; here all views share one.
    """

    def __init__(
        self, *, count: Count | None = None, update: Literal["gradient", "average"] = "gradient",
        momentum: Annotated[float, Ge(0), Lt(1)] = 0.9, freeze_steps: Whole = 0, history: Whole = 0,
        clusterings: Count = 1,
    ) -> None:
        super().__init__()
        if clusterings > 1 and (count is None or update == "gradient"):
            raise ValueError(f'clusterings = {clusterings}; several need a count and update = "average"')
        self.count, self.update, self.momentum, self.freeze_steps = count, update, momentum, freeze_steps
        self.history_size, self.clusterings = history, clusterings
        if count is None:
            self.needs = frozenset({"labels"})
        self.centres: Float[Tensor, "c k d"]
        self.history: Float[Tensor, "h d"]
        self.seen: Int[Tensor, ""]
        self.members: Int[Tensor, "examples c"]
        self.classes: Int[Tensor, " k"]
        self.log_prior: Float[Tensor, "c k"]

    @property
    def has_groups(self) -> bool:
        """Whether it knows the groups of the data: classes or clusters."""
        return self.count is None or self.update == "average"

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Batches of groups that it does not make, or of more than it makes."""
        train = recipe.get("train")
        if train is None or f"companion:{self.name}" not in train.batches.needs:
            return []
        if not self.has_groups:
            return ['has no groups for train.batches: set update = "average", or leave count out']
        if self.count is not None and isinstance(train.batches, Grouped) and train.batches.groups > self.count:
            return [f"count = {self.count} is below groups = {train.batches.groups} of train.batches"]
        return []

    def bind(self, build: Build) -> None:
        """Keep what the prototypes are made of once the data are there; the history is empty."""
        self._encoder = [build.encoder]  # in a list: it is no module of this companion
        self._seed, self._width = build.seed, build.width
        self.register_buffer("history", torch.zeros(self.history_size, build.width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # rows ever put in

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Find the groups and start the prototypes."""
        rows, count = len(dataset), self.count
        members = torch.full((rows, self.clusterings), UNKNOWN, dtype=torch.int64)
        classes = torch.empty(0, dtype=torch.int64)
        if count is None:
            classes, members[:, 0] = self._classes(dataset)
            count = len(classes)
        elif self.update == "average":
            members[:] = self._clusters(dataset, count, services)
        sizes = torch.stack([torch.bincount(column[column != UNKNOWN], minlength=count) for column in members.T])
        device, dtype = self.history.device, self.history.dtype
        prior = (sizes.to(dtype) / sizes.sum(dim=1, keepdim=True).clamp(min=1)).log()
        for name, value in (("members", members), ("classes", classes), ("log_prior", prior)):
            self.register_buffer(name, value.to(device), persistent=False)  # made again when a run is resumed
        shape = (self.clusterings, count, self._width)
        if self.update == "average":
            self.register_buffer("centres", torch.zeros(shape, dtype=dtype, device=device))
        else:
            start = torch.randn(shape, generator=torch.Generator().manual_seed(self._seed))
            self.centres = torch.nn.Parameter(F.normalize(start, dim=-1).to(device, dtype))

    def _classes(self, dataset: Examples) -> tuple[Int[Tensor, " k"], Int[Tensor, " examples"]]:
        label = torch.from_numpy(dataset.label) if dataset.label is not None else torch.empty(0, dtype=torch.int64)
        classes = label[label != UNKNOWN].unique()
        if len(classes) < 2:
            raise DataError(
                f"companion {self.name}: the data have {len(classes)} known classes; one prototype a class needs two "
                "or more: give the column label, or a count of prototypes"
            )
        return classes, class_numbers(label, classes)

    def _clusters(self, dataset: Examples, count: int, services: Services) -> Int[Tensor, "examples c"]:
        column = dataset.columns["anchor"]
        hashes, row, position = np.unique(column.text, return_index=True, return_inverse=True)
        if len(hashes) < count:
            raise DataError(
                f"companion {self.name}: count = {count}, but the data have {len(hashes)} distinct anchors; lower it"
            )
        services.say(f"companion {self.name}: clustering {len(hashes):,} distinct texts into {count} groups")
        vectors = torch.from_numpy(services.embed(self._encoder[0], column.take(row)))
        vectors = F.normalize(vectors - vectors.mean(dim=0), dim=1)
        found: list[NDArray[np.int64]] = broadcast_object(
            [k_means(vectors, count, seed=self._seed + turn).numpy() for turn in range(self.clusterings)]
        )
        return torch.from_numpy(np.stack(found, axis=1)[position.ravel()])

    # ------------------------------------------------------------------------------------- what parts ask
    def groups(self) -> NDArray[np.int64]:
        """The group of every example (of the first clustering); -1 where it has none."""
        first: NDArray[np.int64] = self.members[:, 0].cpu().numpy()
        return first

    def groups_of(self, ids: Int[Tensor, " n"]) -> Int[Tensor, "n c"]:
        """The group of every example id in every clustering; -1 for rows that are no example."""
        return torch.where((ids == UNKNOWN)[:, None], UNKNOWN, self.members[ids.clamp(min=0)])

    def classes_of(self, label: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The prototype of every class; -1 for unknown ones."""
        return class_numbers(label, self.classes)

    def unit_centres(self, width: int, step: int) -> Float[Tensor, "c k d"]:
        """The centres' first ``width`` dimensions, of unit length; 0 where a centre has no rows so far."""
        centres = self.centres.detach() if step < self.freeze_steps else self.centres
        return F.normalize(at_least_float32(centres)[..., :width], dim=-1)

    def earlier_rows(self) -> Float[Tensor, "r d"]:
        """The unit rows that the history holds."""
        return self.history[: int(self.seen)]

    # ------------------------------------------------------------------------------------- after a step
    @torch.no_grad()
    def after_step(self, batch: Batch, encoder: SentenceModule, services: Services) -> None:
        """Move or normalise the centres; put the batch's rows into the history."""
        views = contrasted_views(batch)
        unit = F.normalize(torch.cat([rows.embedding for rows in views]).to(self.history.dtype), dim=1)
        if self.update == "average":
            self._average(unit, self.groups_of(torch.cat([rows.ids for rows in views])))
        else:
            self.centres.copy_(F.normalize(self.centres, dim=-1))
        if self.history_size:
            last = unit[-self.history_size :]
            slot = (self.seen + torch.arange(len(last), device=self.seen.device)) % self.history_size
            self.history[slot] = last
            self.seen += len(last)

    def _average(self, unit: Float[Tensor, "r d"], groups: Int[Tensor, "r c"]) -> None:
        for centres, group in zip(self.centres, groups.T, strict=True):
            is_known = group != UNKNOWN
            present, place = group[is_known].unique(return_inverse=True)
            own = (place[:, None] == torch.arange(len(present), device=place.device)).to(unit.dtype)
            # a product, not a scattered sum, whose order differs between devices
            mean = own.T @ unit[is_known] / own.sum(dim=0)[:, None]
            centres[present] = F.normalize(self.momentum * centres[present] + (1 - self.momentum) * mean, dim=1)


def class_numbers(label: Int[Tensor, " n"], classes: Int[Tensor, " k"]) -> Int[Tensor, " n"]:
    """The position of every label among the ascending classes; -1 where it is none of them."""
    position = torch.searchsorted(classes, label).clamp(max=max(len(classes) - 1, 0))
    return torch.where(classes[position] == label, position, UNKNOWN)


def prototypes_in(companions: Sequence[Any], name: str) -> Prototypes | None:
    """The prototypes of that name among a recipe's companions, where they are there."""
    return next((entry for entry in companions if isinstance(entry, Prototypes) and entry.name == name), None)
