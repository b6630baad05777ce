"""Making, widening and narrowing the score table. Unknown identity and class are -1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sentemb.errors import RecipeError
from sentemb.maths.similarity import pairwise
from sentemb.types import UNKNOWN, Batch, PairScores, Rows, Similarity


def score_table(
    anchors: Float[Tensor, "n d"],
    positives: Float[Tensor, "n d"],
    *,
    negatives: Sequence[Float[Tensor, "n d"]] = (),
    labels: Int[Tensor, " n"] | None = None,
    scores: Float[Tensor, " n"] | None = None,
    margins: Float[Tensor, " n"] | None = None,
    weights: Float[Tensor, " n"] | None = None,
    levels: Int[Tensor, "n l"] | None = None,
    negative_scores: Sequence[Float[Tensor, " n"]] = (),
    grades: Sequence[Float[Tensor, " n"]] = (),
    texts: Mapping[str, Sequence[str]] | None = None,
    similarity: Similarity = "cosine",
    generator: torch.Generator | None = None,
) -> tuple[PairScores, Batch]:
    """The table and the batch of embeddings, for edits and terms in a training loop of one's own.

        table, batch = score_table(anchors, positives, negatives=[hard], labels=labels)
        table = Given(weight=2.0)(table, batch)
        loss = InfoNCE(temperature=0.05)(table, batch)

    Args:
        anchors: embeddings, before normalisation.
        positives: row i belongs to anchor i.
        negatives: hard negatives, row i of each given for anchor i; the edit ``Given`` puts them into the table.
        labels: class of every anchor and its positive; the edit ``SameLabel`` reads them.
        scores: graded similarity of every pair.
        negative_scores: the same of the anchors and every entry of ``negatives``.
        margins: by how much every positive is to be preferred; the edit ``Margin`` reads them.
        weights: how much every pair counts.
        levels: the anchors' coarser classes, finest first.
        grades: relevance of the positives, then of every entry of ``negatives``; the edit ``Given`` reads them.
        texts: the texts behind "anchor", "positive", "negative_1", …; the edit ``FalseNegative`` compares them.
        similarity: how embeddings are compared.
        generator: of the edits that draw (on the CPU); the default is torch's own.
    """
    embeddings = {"anchor": anchors, "positive": positives}
    embeddings |= {f"negative_{i}": negative for i, negative in enumerate(negatives, 1)}
    ids = torch.arange(len(anchors), device=anchors.device)
    number: dict[str, int] = {}
    views = {}
    for name, embedding in embeddings.items():
        text = torch.full_like(ids, UNKNOWN)
        if texts is not None and name in texts:
            text = ids.new_tensor([number.setdefault(one, len(number)) for one in texts[name]])
        views[name] = Rows(embedding=embedding, ids=ids, text=text, label=labels)
    batch = Batch(
        views=views, local=slice(0, len(anchors)), tokens={}, encoded={}, score=scores, margin=margins,
        weight=weights, levels=levels, grades=dict(zip(list(embeddings)[1:], grades, strict=bool(grades))),
        negative_scores=dict(zip(list(embeddings)[2:], negative_scores, strict=bool(negative_scores))),
        generator=generator,
    )
    return in_batch_table(views["anchor"], views["positive"], similarity), batch


def in_batch_table(anchor: Rows, candidate: Rows, similarity: Similarity = "cosine") -> PairScores:
    """Anchor i's positive is candidate i, every other candidate is a negative."""
    sim = pairwise(anchor.embedding, candidate.embedding, similarity)
    positive = torch.eye(*sim.shape, dtype=torch.bool, device=sim.device)
    return PairScores(
        sim=sim, positive=positive, log_weight=torch.zeros_like(sim), anchor=anchor, candidate=candidate,
        similarity=similarity,
    )


def mark_same_label(table: PairScores) -> PairScores:
    """The table where candidates of an anchor's class are its positives; unknown classes equal nothing."""
    anchor, candidate = table.anchor.label, table.candidate.label
    if anchor is None or candidate is None:
        raise RecipeError("edit same_label: the data have no label column; add one, or drop the edit")
    same = (anchor[:, None] == candidate[None, :]) & (anchor != UNKNOWN)[:, None]
    return replace(table, positive=table.positive | same)


def add_candidates(
    table: PairScores,
    rows: Rows,
    *,
    positive: Bool[Tensor, "n k"] | None = None,
    log_weight: Float[Tensor, "n k"] | None = None,
    grade: Float[Tensor, "n k"] | None = None,
) -> PairScores:
    """Append k columns; they are negatives of weight 1, without a share or a grade, unless said otherwise.

    A grade is taken only into a table that has grades.
    """
    sim = pairwise(table.anchor.embedding, rows.embedding, table.similarity)
    if positive is None:
        positive = torch.zeros_like(sim, dtype=torch.bool)
    if log_weight is None:
        log_weight = torch.zeros_like(sim)
    share = None if table.share is None else torch.cat([table.share, torch.zeros_like(sim)], dim=1)
    if table.grade is not None:
        grade = torch.cat([table.grade, (torch.zeros_like(sim) if grade is None else grade).to(table.grade)], dim=1)
    return replace(
        table,
        share=share,
        grade=None if table.grade is None else grade,
        sim=torch.cat([table.sim, sim], dim=1),
        positive=torch.cat([table.positive, positive], dim=1),
        log_weight=torch.cat([table.log_weight, log_weight.to(table.log_weight.dtype)], dim=1),
        candidate=concatenate_rows(table.candidate, rows),
    )


def with_anchors(table: PairScores, rows: Rows) -> PairScores:
    """The table with other rows in the anchors' place; what is known of the pairs stays."""
    return replace(
        table, anchor=rows, sim=pairwise(rows.embedding, table.candidate.embedding, table.similarity)
    )


def with_candidates(table: PairScores, rows: Rows) -> PairScores:
    """The table with other rows in the place of its n in-batch candidates; what is known of the pairs stays."""
    n = len(rows)
    sim = pairwise(table.anchor.embedding, rows.embedding, table.similarity)
    return replace(
        table, sim=torch.cat([sim, table.sim[:, n:]], dim=1),
        candidate=concatenate_rows(rows, take_rows(table.candidate, slice(n, None))),
    )


def take_rows(rows: Rows, which: slice) -> Rows:
    """Some of the rows."""
    return Rows(
        embedding=rows.embedding[which], ids=rows.ids[which], text=rows.text[which],
        label=None if rows.label is None else rows.label[which],
    )


def concatenate_rows(first: Rows, second: Rows) -> Rows:
    """One set of rows after the other; labels survive only where both have them."""
    label = None
    if first.label is not None and second.label is not None:
        label = torch.cat([first.label, second.label])
    return Rows(
        embedding=torch.cat([first.embedding, second.embedding.to(first.embedding.dtype)]),
        ids=torch.cat([first.ids, second.ids]),
        text=torch.cat([first.text, second.text]),
        label=label,
    )


def extra_rows(
    embedding: Float[Tensor, "k d"],
    like: Rows,
    *,
    ids: Int[Tensor, " k"] | None = None,
    text: Int[Tensor, " k"] | None = None,
) -> Rows:
    """Candidates of unknown class, and of unknown identity where it is not given.

    Args:
        embedding: what was encoded or made.
        like: the rows they will be appended to; labels are carried (as -1) only where these have labels, so that
            appending does not lose the others' classes.
        ids: example ids the texts come from.
        text: content hashes.
    """
    unknown = torch.full((embedding.shape[0],), UNKNOWN, dtype=torch.int64, device=embedding.device)
    return Rows(
        embedding=embedding,
        ids=unknown if ids is None else ids,
        text=unknown if text is None else text,
        label=None if like.label is None else unknown.to(like.label.dtype),
    )


def transposed(table: PairScores) -> PairScores:
    """The in-batch square as the candidates see it: row i is candidate i, with the scale of its example."""
    n = len(table.anchor)
    return replace(
        table, sim=table.sim[:, :n].T, positive=table.positive[:, :n].T, log_weight=table.log_weight[:, :n].T,
        anchor=take_rows(table.candidate, slice(n)), candidate=table.anchor,
        share=None if table.share is None else table.share[:, :n].T,
        grade=None if table.grade is None else table.grade[:, :n].T,
    )


def contrasted_names(batch: Batch) -> list[str]:
    """The views of the anchors and of their positives (positive, positive_2, …)."""
    return [name for name in batch.views if name == "anchor" or name.startswith("positive")]


def contrasted_views(batch: Batch) -> list[Rows]:
    """The rows of these views, view after view."""
    return [batch.views[name] for name in contrasted_names(batch)]


def narrow_rows(rows: Rows, width: int) -> Rows:
    """The rows' first ``width`` dimensions."""
    return replace(rows, embedding=rows.embedding[:, :width])


def narrow_table(table: PairScores, width: int) -> PairScores:
    """The table as the first ``width`` dimensions see it: other similarities, the same positives and log-weights.

    An edited table holds the rows behind all its columns, queued and made ones too, so edits need not run again.
    """
    anchor, candidate = narrow_rows(table.anchor, width), narrow_rows(table.candidate, width)
    sim = pairwise(anchor.embedding, candidate.embedding, table.similarity)
    return replace(table, sim=sim, anchor=anchor, candidate=candidate)


def narrow_batch(batch: Batch, width: int) -> Batch:
    """The batch with all views cut to their first ``width`` dimensions."""
    return replace(batch, views={name: narrow_rows(rows, width) for name, rows in batch.views.items()})
