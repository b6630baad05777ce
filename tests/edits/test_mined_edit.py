"""Mined negatives as columns."""

from __future__ import annotations

import math

import pytest
import torch
from edit_tables import contrast, permuted

from sentemb.companions.neighbours import Neighbours
from sentemb.edits import PARTS
from sentemb.edits.mined import Mined
from sentemb.errors import RecipeError
from sentemb.maths.table import in_batch_table
from sentemb.types import Rows


class Measured(Neighbours):
    """The companion with given similarities of texts 1000 … in place of prepared ones."""

    def __init__(self, sim: torch.Tensor, column: str = "anchor") -> None:
        super().__init__(column=column)
        self.sim = sim

    def similarity(self, left, right):
        one, other = left - 1000, right - 1000
        known = (one < len(self.sim))[:, None] & (other < len(self.sim))[None, :]
        return self.sim[one.clamp(max=len(self.sim) - 1)][:, other.clamp(max=len(self.sim) - 1)], known


def companion(k: int = 12, **options: object) -> Measured:
    return Measured(torch.rand(k, k, generator=torch.Generator().manual_seed(0)), **options)


def test_equals_the_loop(make_rows, make_batch):
    anchor, positive = make_rows(4), make_rows(4, seed=1)
    views = {"anchor": anchor, "positive": positive,
             "mined_2": make_rows(4, seed=2, ids=[5, 6, 7, 8], text=[1005, 1006, 1050, 1000]),
             "mined_1": make_rows(4, seed=3, ids=[0, 9, 2, 3], text=[1009, 1001, 1010, 1011])}
    source = companion()
    batch = make_batch(views, companions={"neighbours": source})
    edited = Mined(threshold=0.6)(in_batch_table(anchor, positive), batch)
    texts = [1009, 1001, 1010, 1011, 1005, 1006, 1050, 1000]
    for i in range(4):
        for j, text in enumerate(texts):
            near = text < 1012 and float(source.sim[i, text - 1000]) > 0.6
            gone = text == 1000 + i or near
            assert edited.log_weight[i, 4 + j] == (-math.inf if gone else 0.0)
            vector = views["mined_1" if j < 4 else "mined_2"].embedding[j % 4]
            wanted = torch.cosine_similarity(anchor.embedding[i], vector, dim=0)
            torch.testing.assert_close(edited.sim[i, 4 + j], wanted)
    assert edited.candidate.ids.tolist() == [0, 1, 2, 3, -1, 9, -1, -1, 5, 6, 7, 8]
    assert not edited.positive[:, 4:].any()


def test_two_by_two_by_hand(make_rows, make_batch):
    views = {"anchor": make_rows(2), "mined_1": make_rows(2, seed=2, ids=[1, 7], text=[1001, 1007])}
    batch = make_batch(views, companions={"neighbours": companion()})
    edited = Mined()(in_batch_table(views["anchor"], make_rows(2, seed=1)), batch)
    # what was mined for anchor 0 is anchor 1 itself
    assert edited.log_weight.tolist() == [[0, 0, 0, 0], [0, 0, -math.inf, 0]]


def test_the_companions_column_decides_what_is_compared(make_rows, make_batch):
    views = {"anchor": make_rows(2), "positive": make_rows(2, text=[1005, 1006]),
             "mined_1": make_rows(2, seed=2, ids=[8, 9], text=[1005, 1000])}
    batch = make_batch(views, companions={"neighbours": companion(column="positive")})
    edited = Mined()(in_batch_table(views["anchor"], views["positive"]), batch)
    assert edited.log_weight[:, 2:].tolist() == [[-math.inf, 0], [0, 0]]


def test_follows_a_permutation_of_the_examples(make_rows, make_batch):
    rows = {"anchor": make_rows(4), "positive": make_rows(4, seed=1), "mined_1": make_rows(4, seed=2, first=5)}
    order = torch.tensor([2, 0, 3, 1])
    moved = {name: permuted(view, order) for name, view in rows.items()}
    source = {"neighbours": companion()}
    one = Mined(threshold=0.5)(in_batch_table(rows["anchor"], rows["positive"]), make_batch(rows, companions=source))
    table = in_batch_table(moved["anchor"], moved["positive"])
    other = Mined(threshold=0.5)(table, make_batch(moved, companions=source))
    columns = torch.cat([order, order + 4])
    torch.testing.assert_close(one.log_weight[order][:, columns], other.log_weight)
    torch.testing.assert_close(one.sim[order][:, columns], other.sim)


def test_gradcheck(make_rows, make_batch):
    known = [make_rows(3), make_rows(3, seed=1), make_rows(3, seed=2, first=5)]

    def loss(*embeddings: torch.Tensor) -> torch.Tensor:
        a, p, x = (Rows(embedding=e, ids=r.ids, text=r.text) for e, r in zip(embeddings, known, strict=True))
        batch = make_batch({"anchor": a, "positive": p, "mined_1": x}, companions={"neighbours": companion()})
        return contrast(Mined(threshold=0.5)(in_batch_table(a, p), batch))

    assert torch.autograd.gradcheck(loss, [rows.embedding.requires_grad_() for rows in known])


def test_edges(make_rows, make_batch):
    one = {name: make_rows(1, dtype=torch.bfloat16) for name in ("anchor", "positive", "mined_1")}
    batch = make_batch(one, companions={"neighbours": companion()})
    edited = Mined()(in_batch_table(one["anchor"], one["positive"]), batch)
    assert edited.log_weight.tolist() == [[0, -math.inf]]  # its own text
    assert float(contrast(edited)) == 0.0


def test_says_what_is_missing(make_rows, make_batch):
    table = in_batch_table(make_rows(2), make_rows(2))
    with pytest.raises(RecipeError, match='needs the companion "neighbours"'):
        Mined()(table, make_batch())
    batch = make_batch({"anchor": make_rows(2)}, companions={"neighbours": companion()})
    with pytest.raises(RecipeError, match="no view mined_1"):
        Mined()(table, batch)
    with pytest.raises(ValueError, match="threshold"):
        Mined(threshold=2.0)


def test_is_a_part():
    assert PARTS["mined"] is Mined
    assert Mined().needs == {"companion:neighbours", "view:mined_1"}
