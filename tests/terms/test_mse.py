"""mse against a loop over rows, by hand, and at its edges."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_module import TinyModule, build_of

from sentemb.companions.reference import Reference
from sentemb.errors import RecipeError
from sentemb.maths.table import in_batch_table
from sentemb.recipe.recipe import Recipe
from sentemb.terms import MSE
from sentemb.types import Batch, Rows


class Known(Reference):
    """A reference that knows these texts by hash."""

    def __init__(self, table: dict[int, list[float]]) -> None:
        super().__init__(precompute=True)
        self.hashes = torch.tensor(sorted(table))
        self.table = torch.tensor([table[text] for text in sorted(table)], dtype=torch.float64)
        self.dimensions = self.table.shape[1]


TEACHER = {1: [1.0, 0.0], 2: [0.0, 1.0], 3: [0.6, 0.8]}


def rows_of(embedding: torch.Tensor, text: list[int]) -> Rows:
    return Rows(embedding=embedding, ids=torch.arange(len(text)), text=torch.tensor(text))


def batch_of(anchor: torch.Tensor, positive: torch.Tensor, texts=((1, 2, 9), (3, 2, 1)), teacher=None) -> Batch:
    views = {"anchor": rows_of(anchor, list(texts[0])), "positive": rows_of(positive, list(texts[1]))}
    companions = {"reference": teacher or Known(TEACHER)}
    return Batch(views=views, local=slice(0, len(anchor)), tokens={}, encoded={}, companions=companions)


def loss_of(term: MSE, batch: Batch, similarity="cosine") -> torch.Tensor:
    return term(in_batch_table(batch.views["anchor"], batch.views["positive"], similarity), batch)


def bound(term: MSE, width: int, teacher=None) -> MSE:
    build = build_of(TinyModule(width))
    object.__setattr__(build, "companions", {"reference": teacher or Known(TEACHER)})
    torch.manual_seed(0)
    term.bind(build)
    return term.double()


def random(n: int, d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64, requires_grad=True)


def loop(term: MSE, batch: Batch, similarity: str) -> float:
    views = []
    for name in term.of:
        own, texts = batch.views[name].embedding.tolist(), batch.views[term.toward or name].text.tolist()
        errors = []
        for row, text in zip(own, texts, strict=True):
            if text not in TEACHER:
                continue
            if isinstance(term.map, torch.nn.Linear):
                row = [sum(w * x for w, x in zip(weights, row, strict=True)) for weights in term.map.weight.tolist()]
            length = math.sqrt(sum(x * x for x in row)) if similarity == "cosine" else 1.0
            errors.append(sum((x / length - t) ** 2 for x, t in zip(row, TEACHER[text], strict=True)))
        views.append(sum(errors) / max(len(errors), 1))
    return sum(views) / len(views)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize("options", [{}, {"toward": "anchor"}, {"of": ["positive"]}])
def test_equals_the_loop(similarity, width, options):
    term, batch = bound(MSE(**options), width), batch_of(random(3, width, 1), random(3, width, 2))
    wanted = loop(term, batch, similarity)
    assert loss_of(term, batch, similarity).item() == pytest.approx(wanted, rel=1e-6)  # the table is float32


def test_hand_worked():
    # anchors (2, 0) and (0, -1) toward (1, 0) and (0, 1): unit vectors, errors 0 and 4, mean 2
    anchor = torch.tensor([[2.0, 0.0], [0.0, -1.0]])
    batch = batch_of(anchor, anchor, texts=((1, 2), (1, 2)))
    assert loss_of(MSE(), batch).item() == pytest.approx(2.0)
    assert loss_of(MSE(), batch, "dot").item() == pytest.approx((1.0 + 4.0) / 2)  # lengths count


def test_a_translation_learns_from_its_source():
    embedding = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    batch = batch_of(embedding, embedding, texts=((1, 2), (7, 8)))  # translations are unknown to the teacher
    assert loss_of(MSE(of=["positive"], toward="anchor"), batch).item() == pytest.approx(0.0)
    assert loss_of(MSE(of=["positive"]), batch).item() == 0.0  # nothing is known
    opposite = batch_of(embedding, -embedding, texts=((1, 2), (7, 8)))
    assert loss_of(MSE(of=["positive"], toward="anchor"), opposite).item() == pytest.approx(4.0)


def test_order_of_examples_does_not_matter():
    anchor, positive, order = random(3, 2, 1), random(3, 2, 2), [2, 0, 1]
    shuffled = batch_of(anchor[order], positive[order], texts=((9, 1, 2), (1, 3, 2)))
    assert loss_of(MSE(), shuffled).item() == pytest.approx(loss_of(MSE(), batch_of(anchor, positive)).item())


def test_gradcheck_and_the_map_learns():
    term, anchor, positive = bound(MSE(), 3), random(3, 3, 1), random(3, 3, 2)
    assert torch.autograd.gradcheck(lambda a, b: loss_of(term, batch_of(a, b)), (anchor, positive))
    loss_of(term, batch_of(anchor, positive)).backward()
    assert term.map.weight.grad.abs().sum() > 0
    assert anchor.grad[2].abs().sum() == 0  # its text is unknown


def test_equal_widths_need_no_map():
    assert not list(bound(MSE(), 2).parameters())


@pytest.mark.parametrize("n", [0, 1])
def test_few_rows_and_half_precision(n):
    rows = random(n, 2, 1).detach().bfloat16().requires_grad_()
    loss = loss_of(MSE(), batch_of(rows, rows, texts=((1,) * n, (2,) * n)))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_needs_a_reference_and_refuses_nested_dimensions():
    with pytest.raises(RecipeError, match='needs the companion "reference"'):
        MSE().bind(build_of(TinyModule()))
    recipe = Recipe.named("distill-minilm")
    with pytest.raises(ValueError, match="compares whole embeddings"):
        recipe.replace(train=type(recipe.train)(nested_dims=[8]))
    for options in ({"of": []}, {"of": ["anchor", "anchor"]}):
        with pytest.raises(ValueError, match="of"):
            MSE(**options)
