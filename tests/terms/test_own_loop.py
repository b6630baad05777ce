"""Terms and edits in anybody's own training loop: two tensors in, a scalar out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sentemb.edits import PARTS as EDITS
from sentemb.edits import FalseNegative, Given, Hardness, Mixed, Noise, SameLabel
from sentemb.edits.edit import Edit
from sentemb.errors import RecipeError
from sentemb.maths.table import score_table
from sentemb.terms import PARTS, CoSENT, InfoNCE, MaskedLM, SupervisedContrast, Triplet
from sentemb.terms.term import Term
from sentemb.types import Share

N, WIDTH = 6, 8
MORE_THAN_EMBEDDINGS = {
    "attention_agreement", "bidirectional_margin", "causal_lm", "denoise", "distill", "grounded_contrast",
    "label_words", "local", "masked_lm", "mse", "prototypes", "reconstruction", "replaced_token_detection",
    "self_guided", "softmax_nli", "stay_near", "token_contrast", "words",
}
ANCHORS_LEARN = {"inter_set", "level_contrast"}  # the positives are not read, or carry no gradient


def embeddings(count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(N, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(count)]


@pytest.mark.parametrize("name", sorted(set(PARTS) - MORE_THAN_EMBEDDINGS))
def test_every_term_of_embeddings_is_the_term_of_their_table(name):
    anchors, positives, hard = embeddings(3)
    score = torch.rand(N, dtype=torch.float64)
    all_known = {
        "scores": {"scores": score.round() if "contrastive" in name else score},
        "labels": {"labels": torch.arange(N) // 2},
        "grades": {"grades": [score + 1, score], "negatives": [hard]},
        "negative_scores": {"scores": score, "negative_scores": [1 - score], "negatives": [hard]},
    }
    known = {key: value for kind in PARTS[name].needs for key, value in all_known.get(kind, {}).items()}
    loss = PARTS[name]()(anchors, positives, **known)
    assert loss.shape == ()
    table, batch = score_table(anchors, positives, **known)
    assert torch.equal(loss, PARTS[name]()(Given()(table, batch) if "negatives" in known else table, batch))
    loss.backward()
    assert anchors.grad.abs().sum() > 0
    assert name in ANCHORS_LEARN or positives.grad.abs().sum() > 0


def test_a_term_of_the_unit_sphere_refuses_another_similarity():
    with pytest.raises(RecipeError, match='similarity = "dot", allowed: cosine'):
        PARTS["alignment"]()(*embeddings(), similarity="dot")


def test_weights_of_pairs():
    anchors, positives = embeddings()
    weights = torch.tensor([1.0, 0, 0, 0, 0, 0])
    loss = InfoNCE(row_weight="weight")(anchors, positives, weights=weights)
    only = InfoNCE(row_weight="weight")(anchors, positives, weights=7 * weights)
    assert loss.item() == pytest.approx(only.item())
    with pytest.raises(RecipeError, match="info_nce needs weights"):
        InfoNCE(row_weight="weight")(anchors, positives)


@pytest.mark.parametrize("name", sorted(MORE_THAN_EMBEDDINGS))
def test_a_term_that_needs_more_says_what(name):
    labels = torch.arange(N) if name == "softmax_nli" else None
    with pytest.raises(RecipeError, match=f"{name} needs .*(tokens|companion|encoder|pooled)"):
        PARTS[name]()(*embeddings(), labels=labels)


def test_info_nce_is_cross_entropy_over_cosines_and_hard_negatives():
    anchors, positives, hard = embeddings(3)
    unit = [torch.nn.functional.normalize(rows, dim=1) for rows in (anchors, positives, hard)]
    logits = torch.cat([unit[0] @ unit[1].T, unit[0] @ unit[2].T], dim=1) / 0.1
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(N))
    torch.testing.assert_close(InfoNCE(temperature=0.1)(anchors, positives, negatives=[hard]), expected)
    dot = InfoNCE(temperature=2.0)(anchors, positives, similarity="dot")
    torch.testing.assert_close(dot, torch.nn.functional.cross_entropy(anchors @ positives.T / 2, torch.arange(N)))


def test_labels_make_positives_of_one_class_but_not_of_hard_negatives():
    anchors, positives, hard = embeddings(3)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    table, batch = score_table(anchors, positives, negatives=[hard], labels=labels)
    expected = SupervisedContrast()(SameLabel()(Given()(table, batch), batch), batch)
    given = SupervisedContrast()(anchors, positives, labels=labels, negatives=[hard])
    torch.testing.assert_close(given, expected)


def test_a_temperature_is_learned_by_any_optimizer():
    term = InfoNCE(temperature=0.5, learnable_temperature=True)
    optimizer = torch.optim.SGD(term.parameters(), lr=0.1)
    term(*embeddings()).backward()
    optimizer.step()
    assert term.temperature.item() != pytest.approx(0.5)


def test_terms_without_their_scores_say_so():
    with pytest.raises(RecipeError, match="cosent needs scores"):
        CoSENT()(*embeddings())


@pytest.mark.parametrize("edit", [FalseNegative(), Given(weight=2.0), Hardness(), Mixed(), Noise(), SameLabel()])
def test_every_edit_of_embeddings_takes_the_tables_of_score_table(edit):
    anchors, positives, hard = embeddings(3)
    texts = {"anchor": list("abcdea"), "positive": list("ABCDEF"), "negative_1": list("uvwxyB")}
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(N) // 2
    table, batch = score_table(
        anchors, positives, negatives=[hard], labels=labels, texts=texts, generator=generator
    )
    edited = edit(table, batch)
    loss = Triplet(margin=0.5)(edited, batch)
    assert torch.isfinite(loss)
    loss.backward()
    assert anchors.grad.abs().sum() > 0


def test_equal_texts_are_false_negatives():
    anchors, positives, hard = embeddings(3)
    texts = {"anchor": list("abcdea"), "positive": list("ABCDEF"), "negative_1": list("uvwxyB")}
    table, batch = score_table(anchors, positives, negatives=[hard], texts=texts)
    edited = FalseNegative(by=["text"])(Given()(table, batch), batch)
    removed = edited.log_weight.isinf().nonzero().tolist()
    assert removed == [[0, 5], [1, 11], [5, 0]]  # two examples with the anchor "a"; a hard negative that is a positive


class Broken(Term):
    """Returns what it was made with."""

    def __init__(self, result):
        super().__init__()
        self.result = result

    def forward(self, table, batch):
        return self.result


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "None"), (torch.zeros(3), r"shape \(3,\)"), (0.5, "0.5"),
        (Share(total=torch.zeros(2), count=torch.zeros(())), "Share"),
    ],
)
def test_a_term_that_gives_no_scalar_is_named(result, words):
    with pytest.raises(RecipeError, match=f"(?s){Broken(None).name}.*{words}.*scalar"):
        Broken(result)(*embeddings())


class WrongEdit(Edit):
    """Returns what a function makes of the table."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, table, batch):
        return self.make(table)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda table: None, "NoneType"),
        (lambda table: table.sim, "Tensor"),
        (lambda table: replace(table, sim=table.sim[:, :2]), r"sim of shape \(6, 2\)"),
        (lambda table: replace(table, log_weight=torch.zeros(N, N + 1)), r"log_weight of shape \(6, 7\)"),
    ],
)
def test_an_edit_that_gives_no_table_is_named(make, words):
    table, batch = score_table(*embeddings())
    with pytest.raises(RecipeError, match=f"{WrongEdit(make).name}.*{words}"):
        WrongEdit(make)(table, batch)


def test_own_loops_cover_every_term_and_edit():
    assert set(PARTS) >= MORE_THAN_EMBEDDINGS
    others = {"cluster_negatives", "composed", "inner_layer", "mined", "nearest", "propensity", "queue", "regulators"}
    assert set(EDITS) - others - {"soften"} == {
        "attraction", "false_negative", "given", "groups", "hardness", "margin", "mixed", "mixed_hard_pair",
        "mixed_ordered",
        "mixed_partners", "moved", "neighbours_in_text", "noise", "same_label", "temperature",
    }
    assert MaskedLM().needs
