"""Propensity models."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sentemb.maths.propensity import Logistic, fit_logistic


def sample(intercept: float, slope: float, n: int = 50_000) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    value = generator.random(n)
    return value, generator.random(n) < 1 / (1 + np.exp(-(intercept + slope * value)))


@pytest.mark.parametrize(("intercept", "slope"), [(-2.0, 5.0), (-6.0, 9.0), (1.0, 0.7)])
def test_recovers_the_truth(intercept, slope):
    model = fit_logistic(*sample(intercept, slope))
    assert model.intercept == pytest.approx(intercept, abs=0.15)
    assert model.slope == pytest.approx(slope, rel=0.1, abs=0.1)


def test_equals_sklearn():
    from sklearn.linear_model import LogisticRegression

    value, picked = sample(-1.0, 3.0, 500)
    centred = value - value.mean()  # the ridge pulls the slope about the mean
    reference = LogisticRegression(C=1.0, tol=1e-10).fit(centred[:, None], picked)
    model = fit_logistic(value, picked)
    assert model.slope == pytest.approx(float(reference.coef_[0, 0]), rel=1e-4)
    assert model.intercept == pytest.approx(float(reference.intercept_[0]) - model.slope * value.mean(), rel=1e-4)


def test_fitted_share_equals_the_observed_one():
    """The intercept's score equation: the mean fitted chance is the share of picked pairs."""
    value, picked = sample(-3.0, 4.0, 2000)
    fitted = fit_logistic(value, picked).log_propensity(torch.from_numpy(value)).exp()
    assert float(fitted.mean()) == pytest.approx(picked.mean(), rel=1e-6)


def test_separable_pairs_have_a_finite_slope():
    value = np.linspace(0, 1, 101)
    model = fit_logistic(value, value > 0.5)
    assert 3 < model.slope < 100
    assert model.intercept + 0.5 * model.slope == pytest.approx(0, abs=0.2)


def test_a_slope_of_the_wrong_sign_is_none():
    value, picked = sample(2.0, -5.0)
    model = fit_logistic(value, picked)
    assert model.slope == 0
    assert 1 / (1 + math.exp(-model.intercept)) == pytest.approx(picked.mean(), abs=1e-3)


@pytest.mark.parametrize("picked", [0, 4])
def test_nothing_or_everything_picked(picked):
    model = fit_logistic(np.linspace(0, 1, 4), np.arange(4) < picked)
    assert model.slope == 0
    assert 1 / (1 + math.exp(-model.intercept)) == pytest.approx((picked + 1) / 6)


def test_log_propensity_does_not_overflow():
    values = Logistic(-2000.0, 1.0).log_propensity(torch.tensor([0.0, 1.0]))
    assert values.tolist() == [-2000.0, -1999.0]
