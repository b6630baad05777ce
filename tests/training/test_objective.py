from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from part_examples import INFO_NCE, tree_of
from rank_work import open_run
from torch import nn

from sentemb import Recipe
from sentemb.errors import NumericError, RecipeError
from sentemb.maths.similarity import pairwise
from sentemb.maths.table import narrow_table
from sentemb.terms.term import Term
from sentemb.training.active import WeightedTerm
from sentemb.training.gradcache import check_backbone
from sentemb.training.objective import Objective
from sentemb.types import Batch, Share

Open = Any


@pytest.fixture
def make(still_bert: Path, pairs_file: Path, tmp_path: Path) -> Open:
    def run(room: str, name: str, **train: Any) -> Any:
        return open_run(tree_of(room, name, str(still_bert), str(pairs_file), **train), str(tmp_path))

    return run


def test_loss_is_the_weighted_sum_of_its_parts(make: Open) -> None:
    run = make("terms", "masked_lm")
    losses = run.plan.objective(run.make_input(np.arange(7), 0))
    parts = losses.parts
    assert set(parts) == {"info_nce", "masked_lm"}
    torch.testing.assert_close(losses.total.detach(), parts["info_nce"] + 0.5 * parts["masked_lm"])


def test_table_by_hand(make: Open) -> None:
    run = make("views", "columns")
    objective = run.plan.objective
    batch = run.make_input(np.arange(5), 0)
    losses = objective(batch)
    encode = run.plan.encoder
    columns = run.plan.dataset.columns
    rows = np.arange(5)
    unit = {name: torch.from_numpy(encode.encode(columns[name].take(rows), normalise=True, precision="fp32")).double()
            for name in ("anchor", "positive")}
    logits = unit["anchor"] @ unit["positive"].T / INFO_NCE["temperature"]
    expected = nn.functional.cross_entropy(logits, torch.arange(5))
    assert float(losses.parts["info_nce"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("edit", ["queue", "mixed", "noise", "given", "hardness", "false_negative"])
def test_edited_tables_hold_the_rows_behind_their_similarities(make: Open, edit: str) -> None:
    """``narrow_table`` relies on it."""
    run = make("edits", edit)
    for step in range(2):
        inputs = run.make_input(np.arange(7), step)
        table, _ = run.plan.objective.table(run.plan.objective.encode(inputs), inputs)
        run.plan.objective.after_step(run.plan.objective(inputs).batch, run.step.services)
    torch.testing.assert_close(
        table.sim, pairwise(table.anchor.embedding, table.candidate.embedding, table.similarity)
    )
    narrow = narrow_table(table, 8)
    assert narrow.sim.shape == table.sim.shape
    assert torch.equal(narrow.log_weight, table.log_weight)


def test_nested_loss_is_the_mean_over_widths(make: Open) -> None:
    whole = make("train", "nested_dims", nested_dims=[])
    batch = whole.make_input(np.arange(7), 0)
    pooled = whole.plan.objective.encode(batch)
    table, table_batch = whole.plan.objective.table(pooled, batch)
    term = whole.plan.objective.terms[0]
    by_hand = [term(narrow_table(table, width), table_batch) for width in (8, 20, 32)]
    nested = make("train", "nested_dims")
    found = nested.plan.objective(nested.make_input(np.arange(7), 0)).parts["info_nce"]
    torch.testing.assert_close(found, torch.stack(by_hand).mean().detach())


@pytest.mark.parametrize("dims", [[32], [40]])
def test_nested_widths_are_below_the_embeddings(make: Open, dims: list[int]) -> None:
    with pytest.raises(RecipeError, match=r"nested_dims.*below the embeddings' 32"):
        make("train", "nested_dims", nested_dims=dims)


class _Broken(Term):
    def forward(self, table: Any, batch: Batch) -> Share:
        return Share(total=table.sim.sum() * torch.nan, count=table.sim.new_ones(()))


def test_non_finite_loss_names_the_part_and_the_step(make: Open) -> None:
    run = make("views", "columns")
    objective = Objective(
        run.plan.encoder.module,
        terms=[
            WeightedTerm(name="good", term=run.plan.objective.terms[0]), WeightedTerm(name="broken", term=_Broken()),
        ],
    ).double()
    inputs = run.make_input(np.arange(4), 17)
    error = objective.explain_non_finite(inputs, objective(inputs))
    assert isinstance(error, NumericError)
    assert "step 17" in str(error)
    assert "part: broken" in str(error)


@pytest.mark.parametrize(("term", "states"), [("masked_lm", "hidden"), ("attention_agreement", "attentions")])
def test_chunks_refuse_parts_that_read_the_states_of_tokens(make: Open, term: str, states: str) -> None:
    with pytest.raises(RecipeError, match=rf"train\.chunk_size: .*{term}.* reads {states}"):
        make("terms", term, chunk_size=4)


def test_chunks_refuse_a_backbone_that_couples_rows(make: Open) -> None:
    run = make("views", "columns")
    check_backbone(run.plan.encoder.module.backbone)
    run.plan.encoder.module.backbone.extra = nn.BatchNorm1d(3)
    with pytest.raises(RecipeError, match="BatchNorm, which couples the rows"):
        check_backbone(run.plan.encoder.module.backbone)


def test_a_term_sees_the_table_without_the_edits_that_it_leaves_out(make: Open) -> None:
    run = make("edits", "mixed")
    plan = run.plan
    term = plan.objective.terms[0]
    inputs = run.make_input(np.arange(7), 0)
    widths: list[int] = []

    class Spy(Term):
        def forward(self, table: Any, batch: Batch) -> Any:
            widths.append(table.sim.shape[1])
            return table.sim.sum() * 0.0

    spies = [Spy(), Spy().marked(without=["mixed"]), Spy().marked(without=["given", "mixed"])]
    objective = Objective(
        plan.encoder.module, edits=list(zip(plan.objective.edit_names, plan.objective.edits, strict=True)),
        terms=[WeightedTerm(name=str(i), term=spy) for i, spy in enumerate([*spies, term])],
    )
    objective(inputs)
    assert widths == [7 * (3 + 5), 7 * 3, 7]


def test_leaving_an_edit_out_changes_no_draw_of_another(make: Open) -> None:
    run = make("edits", "noise")
    noise = run.plan.objective.edits[0]
    inputs = run.make_input(np.arange(7), 0)
    both = Objective(run.plan.encoder.module, terms=[], edits=[("one", noise), ("two", noise)])
    plain, batch = both.in_batch(both.encode(inputs), inputs)
    whole = both.edited(plain, batch, inputs.seed).sim
    torch.testing.assert_close(both.edited(plain, batch, inputs.seed, frozenset({"one"})).sim[:, 7:], whole[:, 14:])
    assert not torch.equal(whole[:, 7:14], whole[:, 14:])


def test_outputs_of_the_example_before(still_bert: Path, pairs_file: Path, tmp_path: Path) -> None:
    outputs = []
    for rolled in (False, True):
        tree = tree_of("companions", "layers", str(still_bert), str(pairs_file))
        tree["companions"] = [{**tree["companions"][0], "rolled": rolled}]
        run = open_run(tree, str(tmp_path / str(rolled)))
        inputs = run.make_input(np.arange(5), 0)
        outputs.append(run.plan.objective.table(run.plan.objective.encode(inputs), inputs)[1].outputs["layers/anchor"])
    plain, moved = outputs
    assert torch.equal(moved[1:], plain[:-1])
    assert torch.equal(moved[0], plain[-1])


@pytest.mark.parametrize(
    ("companion", "words"),
    [
        ({"use": "clusters", "rolled": True}, "clusters observes nothing"),
        ({"use": "reference", "precompute": True, "rolled": True}, "knows its texts before"),
    ],
)
def test_a_companion_without_outputs_cannot_give_those_of_others(companion: dict[str, Any], words: str) -> None:
    tree = tree_of("terms", "info_nce", "nowhere", "nowhere.jsonl")
    with pytest.raises(RecipeError, match=words):
        Recipe.from_tree({**tree, "companions": [companion]}, "r.toml")
