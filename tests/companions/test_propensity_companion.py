"""DebCSE's companion: candidates, similarities, models, checkpoint."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_module import TinyModule, build_of, column_of, examples_of, services_of

from sentemb.companions import PARTS
from sentemb.companions.propensity import Propensity
from sentemb.errors import CheckpointError, DataError
from sentemb.maths.surface import ngram_bits, surface_table

WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima",
         "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango"] * 2
ROWS = [[int(t) for t in np.random.default_rng(i).integers(5, 25, 1 + i % 6)] for i in range(30)]
ROWS[7] = ROWS[3]
TEXT = list(range(100, 130))
TEXT[7] = TEXT[3]  # the same sentence twice


def prepared(**options: object) -> Propensity:
    chosen = {"neighbours": 4, "random": 3, "positive_threshold": 0.3, "negative_threshold": 0.3}
    companion = Propensity(**chosen | options)
    companion.bind(build_of(TinyModule()))
    companion.prepare(examples_of(anchor=column_of(ROWS, TEXT)), services_of(WORDS))
    return companion


def centred() -> torch.Tensor:
    services = services_of(WORDS)
    places = np.unique(TEXT, return_index=True)[1]
    vectors = torch.from_numpy(services.embed(TinyModule(seed=7), column_of([ROWS[i] for i in places])))
    vectors = vectors - vectors.mean(0)
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_is_a_part():
    assert PARTS["propensity"] is Propensity


def test_pairs_are_centred_cosines_and_surfaces():
    companion = prepared()
    vectors, places = centred(), np.unique(TEXT, return_index=True)[1]
    text = torch.tensor(TEXT)[places]
    sem, sur, known = companion.pairs(text, text)
    torch.testing.assert_close(sem, vectors @ vectors.T, atol=2e-3, rtol=0)  # kept in float16
    texts = services_of(WORDS).decode(column_of([ROWS[i] for i in places]))
    bits = torch.from_numpy(ngram_bits(texts))
    torch.testing.assert_close(sur, surface_table(bits, bits))
    assert known.all()
    _, _, known = companion.pairs(torch.tensor([100, 5000]), torch.tensor([-1, 101]))
    assert known.tolist() == [[False, True], [False, False]]


def test_candidates_are_the_nearest_and_random_others():
    companion = prepared()
    vectors, (_, places) = centred(), np.unique(TEXT, return_index=True)
    sim = vectors @ vectors.T
    sim.fill_diagonal_(-2)
    found = companion.candidates(np.array(TEXT, dtype=np.int64))
    assert found.row.shape == found.sem.shape == found.log_propensity.shape == (30, 7)
    place_of = {TEXT[row]: place for place, row in enumerate(places)}
    for i in range(30):
        own = place_of[TEXT[i]]
        nearest = sim[own].topk(4)
        np.testing.assert_allclose(found.sem[i, :4], nearest.values, atol=1e-5)
        for row, sem, log_propensity in zip(found.row[i], found.sem[i], found.log_propensity[i], strict=True):
            assert TEXT[row] != TEXT[i]  # never itself, nor its duplicate
            assert sem == pytest.approx(float(sim[own, place_of[TEXT[row]]]), abs=2e-3)
            sur = companion.pairs(torch.tensor([TEXT[i]]), torch.tensor([TEXT[row]]))[1]
            assert log_propensity == pytest.approx(float(companion.positive_model.log_propensity(sur)), abs=1e-5)
    assert not companion.candidates(np.array([999])).is_known.any()
    assert companion.rows(np.array([TEXT[3], 999])).tolist() == [3, -1]


def test_prepare_is_deterministic_and_the_seed_matters():
    one, other = prepared(), prepared()
    text = np.array(TEXT, dtype=np.int64)
    assert np.array_equal(one.candidates(text).row, other.candidates(text).row)
    assert (one.positive_model, one.negative_model) == (other.positive_model, other.negative_model)


def test_more_neighbours_than_texts():
    companion = prepared(neighbours=500)
    assert companion.candidates(np.array([TEXT[0]])).row.shape == (1, 28 + 3)


def test_models_increase():
    companion = prepared()
    assert companion.positive_model.slope >= 0
    assert companion.negative_model.slope >= 0


def test_a_checkpoint_of_another_reference_is_refused():
    state = prepared().checkpoint_state()
    other = Propensity()
    other.bind(build_of(TinyModule(), TinyModule(seed=8)))
    with pytest.raises(CheckpointError, match="another frozen model"):
        other.load_checkpoint_state(state)


def test_says_what_the_data_lack():
    companion = Propensity()
    companion.bind(build_of(TinyModule()))
    with pytest.raises(DataError, match="no column anchor; found: positive"):
        companion.prepare(examples_of(positive=column_of(ROWS, TEXT)), services_of(WORDS))
    with pytest.raises(DataError, match="2 distinct texts"):
        companion.prepare(examples_of(anchor=column_of([[5], [6], [5]], [1, 2, 1])), services_of(WORDS))


@pytest.mark.parametrize(
    "bad", [{"neighbours": 0}, {"random": 0}, {"positive_threshold": 1.1}, {"negative_threshold": -1.0},
            {"negative_threshold": math.nan}, {"negative_threshold": 0.9}],
)
def test_refuses_values_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Propensity(**bad)


def test_a_checkpoint_holds_the_fitted_models():
    companion = prepared()
    models = [[model.intercept, model.slope] for model in (companion.positive_model, companion.negative_model)]
    assert companion.checkpoint_state()["models"].tolist() == models
