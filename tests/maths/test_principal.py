"""Principal axes against numpy's singular vectors."""

from __future__ import annotations

import numpy as np
import pytest

from sentemb.maths import principal


@pytest.mark.parametrize("centred", [False, True])
def test_axes_are_the_leading_singular_vectors(centred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principal, "_ROWS_AT_ONCE", 7)
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32) + 1
    axes = principal.principal_axes(vectors, 3, centred=centred)
    rows = vectors - vectors.mean(axis=0) if centred else vectors
    wanted = np.linalg.svd(rows, full_matrices=False)[2][:3]
    assert axes.shape == (6, 3)
    np.testing.assert_allclose(np.abs((axes.T * wanted).sum(axis=1)), 1.0, atol=1e-5)
    assert (axes[np.abs(axes).argmax(axis=0), range(3)] > 0).all()
