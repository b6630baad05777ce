"""What every kind of vector index must do, as tests: for the kinds of sentemb, and for yours.

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_kind(check, tmp_path):
        check(MyKind(m=16), tmp_path)

A kind may be approximate: with its greatest effort it must find nine of ten exact neighbours (one, where it is coarse).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sentemb.maths.neighbours import Metric, top
from sentemb.parts import room, to_table
from sentemb.search.vectors.kind import Rows, VectorIndex, Vectors

ROWS, DIMENSION, K = 1000, 16, 10


def made_vectors(rows: int = ROWS, *, seed: int = 0) -> Vectors:
    """Unit vectors in twelve clusters."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(12, DIMENSION))
    vectors = centres[generator.integers(0, 12, rows)] + 0.6 * generator.normal(size=(rows, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)  # type: ignore[no-any-return]


def filled(kind: VectorIndex, vectors: Vectors, metric: Metric = "cosine") -> VectorIndex:
    """A new index of the kind's settings with the vectors."""
    index = kind.fresh()
    index.create(dimension=DIMENSION, metric=metric, rows=len(vectors))
    if index.needs_training:
        index.train(vectors[: index.training_rows(len(vectors))], seed=3)
    for block in np.array_split(vectors, 3):
        index.add(block)
    return index


def _recall(index: VectorIndex, queries: Vectors, vectors: Vectors, allowed: Rows | None = None) -> float:
    rows = np.arange(len(vectors)) if allowed is None else allowed
    truth = rows[top(queries, vectors[rows], K, metric=index.metric, device="cpu").ids]
    mask = None if allowed is None else np.isin(np.arange(len(vectors)), allowed)
    effort = index.knob.largest if index.knob is not None else None
    _, neighbours = index.search(queries, K, allowed=mask, effort=effort)
    return float((truth[:, :, None] == neighbours[:, None, :]).any(axis=2).mean())


def finds_neighbours(kind: VectorIndex, folder: Path) -> None:
    """Best first, with scores of the metric, for one query and for many."""
    vectors, queries = made_vectors(), made_vectors(40, seed=9)
    metrics: tuple[Metric, ...] = ("cosine", "l2")
    for metric in metrics:
        index = filled(kind, vectors, metric)
        assert (index.rows, index.dimension, index.metric) == (ROWS, DIMENSION, metric)
        assert _recall(index, queries, vectors) >= (0.1 if index.is_coarse else 0.9)
        for some in (queries, queries[:1]):
            scores, rows = index.search(some, K)
            assert scores.shape == rows.shape == (len(some), K)
            assert (np.diff(scores, axis=1) * (1 if metric == "l2" else -1) >= -1e-6).all()
        if index.is_exact:
            exact = top(queries, vectors, K, metric=metric, device="cpu").scores
            np.testing.assert_allclose(index.search(queries, K)[0], exact, atol=1e-4)


def honours_filters(kind: VectorIndex, folder: Path) -> None:
    """Only allowed rows are found, also where few are allowed; places without one have row -1."""
    vectors, queries = made_vectors(), made_vectors(5, seed=9)
    index = filled(kind, vectors)
    effort = index.knob.largest if index.knob is not None else None
    for allowed in (np.arange(0, ROWS, 2), np.arange(0, ROWS, 50), np.array([3, 70])):
        mask = np.isin(np.arange(ROWS), allowed)
        _, rows = index.search(queries, K, allowed=mask, effort=effort)
        assert np.isin(rows[rows >= 0], allowed).all()
        assert (rows >= 0).sum(axis=1).tolist() == [min(K, len(allowed))] * len(queries)
    assert _recall(index, queries, vectors, np.arange(0, ROWS, 2)) >= (0.1 if index.is_coarse else 0.9)


def gives_vectors_back(kind: VectorIndex, folder: Path) -> None:
    """In any order; nearer to the vectors that were added than those are to one another."""
    vectors = made_vectors()
    index = filled(kind, vectors)
    if index.can_reconstruct:
        rows = np.array([7, 3, 999, 0])
        reconstructed = index.reconstruct(rows)
        assert reconstructed.shape == (4, DIMENSION)
        assert ((reconstructed @ vectors.T).argmax(axis=1) == rows).all() or index.is_coarse
        if index.keeps_vectors:
            np.testing.assert_allclose(reconstructed, vectors[rows], atol=1e-6)


def is_saved_whole(kind: VectorIndex, folder: Path) -> None:
    """What is loaded answers the same, loaded or mapped, and takes further vectors."""
    vectors, queries = made_vectors(), made_vectors(5, seed=9)
    index = filled(kind, vectors)
    path = folder / "index"
    with path.open("wb") as file:
        index.save(file.write)
    wanted = index.search(queries, K)
    for is_mapped in (False, True):
        again = kind.fresh()
        again.load(path, dimension=DIMENSION, metric="cosine", is_mapped=is_mapped)
        assert (again.rows, again.dimension, again.metric) == (ROWS, DIMENSION, "cosine")
        results = again.search(queries, K)
        np.testing.assert_array_equal(results[1], wanted[1])
        np.testing.assert_allclose(results[0], wanted[0], atol=1e-6)
    again = kind.fresh()
    again.load(path, dimension=DIMENSION, metric="cosine")
    again.add(made_vectors(10, seed=5))
    assert again.rows == ROWS + 10


def starts_empty(kind: VectorIndex, folder: Path) -> None:
    """Trained and empty, an index can be saved, and takes vectors after it is loaded."""
    index = kind.fresh()
    index.create(dimension=DIMENSION, metric="cosine", rows=ROWS)
    if index.needs_training:
        index.train(made_vectors(index.training_rows(ROWS)), seed=3)
        with (folder / "trained").open("wb") as file:
            index.save(file.write)
        index = kind.fresh()
        index.load(folder / "trained", dimension=DIMENSION, metric="cosine")
    assert index.rows == 0
    index.add(made_vectors(20))
    assert set(index.search(made_vectors(1), 20)[1][0].tolist()) >= {0}


def is_a_part(kind: VectorIndex, folder: Path) -> None:
    """Its table and its repr make it again."""
    assert room("kinds").make(to_table(kind)) == kind == kind.fresh()


CHECKS: tuple[Callable[[VectorIndex, Path], None], ...] = (
    finds_neighbours, honours_filters, gives_vectors_back, is_saved_whole, starts_empty, is_a_part,
)
