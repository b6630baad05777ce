"""The frozen reference encoder, alone and behind the edit ``false_negative``."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_module import TinyModule, build_of, column_of, examples_of, services_of, tokens_of

from sentemb.companions import PARTS
from sentemb.companions.reference import Reference
from sentemb.data.vector_writer import vector_writer
from sentemb.edits.false_negative import FalseNegative
from sentemb.edits.noise import Noise
from sentemb.errors import CheckpointError, DataError, RecipeError
from sentemb.maths.table import add_candidates, in_batch_table
from sentemb.types import Batch, Rows

WORDS = [f"w{i}" for i in range(40)]


def bound(frozen: TinyModule | None = None, **options: object) -> Reference:
    companion = Reference(**options)
    companion.bind(build_of(TinyModule(), frozen or TinyModule(seed=7)))
    return companion


def by_hand(module: TinyModule, rows: list[list[int]]) -> torch.Tensor:
    module = module.eval()
    return F.normalize(module.project(module(tokens_of(rows)).pooled), dim=1).detach()


def test_is_a_part():
    assert PARTS["reference"] is Reference
    assert Reference().needs == {"tokens"}
    assert Reference(precompute=True).needs == Reference(vectors="v.npy").needs == {"texts"}


def test_loads_what_is_named_else_the_start():
    seen: list[str] = []
    for options in ({}, {"model": "other"}):
        Reference(**options).bind(build_of(TinyModule(), seen=seen))
    assert seen == ["start", "other"]


def test_observes_unit_embeddings_without_dropout_or_gradient():
    frozen = TinyModule(seed=7)
    companion = bound(frozen)
    companion.train()
    anchor, positive = [[5, 6], [7]], [[8], [9, 10, 11]]
    outputs = companion.observe({"anchor": tokens_of(anchor), "positive": tokens_of(positive)}, {})
    torch.testing.assert_close(outputs["anchor"], by_hand(frozen, anchor))
    torch.testing.assert_close(outputs["positive"], by_hand(frozen, positive))
    assert not outputs["anchor"].requires_grad
    twin = companion.observe({"anchor": tokens_of(anchor), "positive": tokens_of(anchor)}, {})
    assert twin["anchor"] is twin["positive"]  # encoded once


def test_precomputed_table_knows_every_text_of_the_data():
    frozen = TinyModule(seed=7)
    companion = bound(frozen, precompute=True)
    rows = [[5, 6], [7], [8, 9], [10]]
    columns = {"anchor": column_of(rows[:3], [40, 10, 30]), "positive": column_of(rows[1:], [10, 30, 20])}
    companion.prepare(examples_of(words=WORDS, **columns), services_of(WORDS))
    assert companion.hashes.tolist() == [10, 20, 30, 40]
    found, known = companion.lookup(torch.tensor([10, 30, 99]))
    assert known.tolist() == [True, True, False]
    torch.testing.assert_close(found[:2], by_hand(frozen, [[7], [8, 9]]), atol=1e-3, rtol=0)
    assert companion.observe({}, {}) == {}


def batch_with(companion: Reference, outputs: dict[str, torch.Tensor] | None = None) -> Batch:
    companions = {"reference": companion}
    return Batch(views={}, local=slice(0), tokens={}, encoded={}, outputs=outputs or {}, companions=companions)


def rows_of(n: int, seed: int, text: list[int]) -> Rows:
    return Rows(
        embedding=torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)),
        ids=torch.arange(n),
        text=torch.tensor(text),
    )


def test_false_negative_by_reference_in_the_batch_only():
    anchor = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), dim=1)
    outputs = {"reference/anchor": anchor, "reference/positive": anchor}
    table = add_candidates(in_batch_table(rows_of(3, 0, [1, 2, 3]), rows_of(3, 1, [4, 5, 6])), rows_of(1, 2, [7]))
    edit = FalseNegative(by=["reference"], threshold=0.9)
    assert edit.needs == {"companion:reference"}
    edited = edit(table, batch_with(bound(), outputs))
    gone = -math.inf
    assert edited.log_weight.tolist() == [[0, gone, 0, 0], [gone, 0, 0, 0], [0, 0, 0, 0]]


def test_a_reference_that_finds_all_alike_leaves_positives_and_noise():
    alike = torch.ones(3, 2) / math.sqrt(2)
    batch = batch_with(bound(), {"reference/anchor": alike, "reference/positive": alike})
    table = in_batch_table(rows_of(3, 0, [1, 2, 3]), rows_of(3, 1, [4, 5, 6]))
    edited = Noise(count=2)(FalseNegative(by=["reference"], threshold=0.9)(table, batch), batch)
    alive = edited.log_weight > -math.inf
    assert alive[:, :3].tolist() == torch.eye(3, dtype=torch.bool).tolist()
    assert alive[:, 3:].all()


def test_false_negative_by_precomputed_reference_equals_the_loop():
    frozen = TinyModule(seed=7)
    companion = bound(frozen, precompute=True)
    tokens = [[token] for token in range(5, 12)]
    companion.prepare(examples_of(words=WORDS, anchor=column_of(tokens, range(7))), services_of(WORDS))
    table = in_batch_table(rows_of(4, 0, [0, 1, 2, 3]), rows_of(4, 1, [0, 1, 2, 3]))
    table = add_candidates(table, rows_of(4, 2, [4, 5, 6, 77]))  # 77 is no text of the data
    edited = FalseNegative(by=["reference"], threshold=0.2)(table, batch_with(companion))
    vectors = by_hand(frozen, tokens)
    for i in range(4):
        for j, text in enumerate([0, 1, 2, 3, 4, 5, 6, 77]):
            is_false = text != 77 and i != j and float(vectors[i] @ vectors[text]) > 0.2
            assert edited.log_weight[i, j] == (-math.inf if is_false else 0)
    assert 0 < int(edited.log_weight.isinf().sum()) < 24


def test_a_guide_removes_what_it_finds_nearer_than_the_positive():
    """GISTEmbed: negatives above cos(r(anchor), r(positive)) - margin are none."""
    unit = [F.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(k)), dim=1) for k in (5, 6)]
    outputs = {"reference/anchor": unit[0], "reference/positive": unit[1]}
    table = in_batch_table(rows_of(4, 0, [1, 2, 3, 4]), rows_of(4, 1, [5, 6, 7, 8]))
    for margin in (0.0, 0.3):
        edited = FalseNegative(by=["reference"], margin=margin)(table, batch_with(bound(), outputs))
        for i in range(4):
            limit = float(unit[0][i] @ unit[1][i]) - margin
            for j in range(4):
                is_false = i != j and float(unit[0][i] @ unit[1][j]) > limit
                assert edited.log_weight[i, j] == (-math.inf if is_false else 0)
        assert 0 < int(edited.log_weight.isinf().sum()) < 12


def test_a_positive_that_the_guide_does_not_know_removes_nothing():
    companion = bound(TinyModule(seed=7), precompute=True)
    companion.prepare(examples_of(words=WORDS, anchor=column_of([[5], [6], [7], [8]], range(4))), services_of(WORDS))
    table = in_batch_table(rows_of(2, 0, [0, 1]), rows_of(2, 1, [77, 2]))
    edited = FalseNegative(by=["reference"], margin=2.0)(table, batch_with(companion))
    assert edited.log_weight.tolist() == [[0, 0], [0, 0]]  # 77 is no text of the data, and so no negative to judge
    table = add_candidates(table, rows_of(1, 2, [3]))
    edited = FalseNegative(by=["reference"], margin=2.0)(table, batch_with(companion))
    assert edited.log_weight.tolist() == [[0, 0, 0], [0, 0, -math.inf]]


def test_threshold_goes_with_reference():
    for options in ({"by": ["reference"]}, {"threshold": 0.9}, {"by": ["reference"], "threshold": 1.5},
                    {"margin": 0.1}, {"by": ["reference"], "threshold": 0.9, "margin": 0.1}):
        with pytest.raises(ValueError, match="threshold"):
            FalseNegative(**options)


def test_checkpoint_holds_the_fingerprint_and_refuses_another_model():
    state = bound(TinyModule(seed=7)).checkpoint_state()
    assert set(state) == {"fingerprint"}
    bound(TinyModule(seed=7)).load_checkpoint_state(state)
    with pytest.raises(CheckpointError, match="another frozen model"):
        bound(TinyModule(seed=8)).load_checkpoint_state(state)
    with pytest.raises(CheckpointError, match="another frozen model"):
        bound().load_checkpoint_state({})


def test_lookup_without_a_table_says_what_to_do():
    with pytest.raises(RecipeError, match="precompute = true"):
        bound(precompute=True).lookup(torch.tensor([1]))


def test_a_bfloat16_model_has_a_fingerprint_too():
    one = bound(TinyModule(seed=7).to(torch.bfloat16)).checkpoint_state()["fingerprint"]
    other = bound(TinyModule(seed=7)).checkpoint_state()["fingerprint"]
    assert one.dtype == torch.uint8
    assert np.any(one.numpy() != other.numpy())


# ------------------------------------------------------------------------------------- vectors from a file
ROWS = [[5, 6], [7], [8, 9], [7]]
TEXTS = ["w5 w6", "w7", "w8 w9", "w7"]


def vectors(rows: int, width: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)


def prepared(path, texts: list[int] | None = None, **options: object) -> Reference:
    companion = bound(vectors=str(path), **options)
    columns = {"anchor": column_of(ROWS, [40, 10, 30, 10] if texts is None else texts)}
    companion.prepare(examples_of(words=WORDS, **columns), services_of(WORDS))
    return companion


def parquet_of(path, texts: list[str], array: np.ndarray):
    with vector_writer(path)(array.shape[1]) as write:
        write(texts, array)
    return path


def test_vectors_are_found_by_text_whatever_the_order_of_the_file(tmp_path):
    array = vectors(4)
    companion = prepared(parquet_of(tmp_path / "v.parquet", ["w7", "another", " w8 w9", "w5 w6"], array))
    assert companion.dimensions == 3
    found, known = companion.lookup(torch.tensor([40, 10, 30, 5]))
    assert known.tolist() == [True, True, True, False]
    wanted = F.normalize(torch.from_numpy(array[[3, 0, 2]]), dim=1)
    torch.testing.assert_close(found[:3], wanted, atol=1e-3, rtol=0)


def test_vectors_are_found_by_row(tmp_path):
    array = vectors(4)
    np.save(tmp_path / "v.npy", array)
    found, _ = prepared(tmp_path / "v.npy").lookup(torch.tensor([40, 10, 30]))
    torch.testing.assert_close(found, F.normalize(torch.from_numpy(array[:3]), dim=1), atol=1e-3, rtol=0)


def test_fewer_dimensions_keep_the_inner_products_best(tmp_path):
    array = np.zeros((4, 3), dtype=np.float32)
    array[:, :2] = vectors(4, 2)
    array[:, 2] = 1e-3  # of next to no weight
    np.save(tmp_path / "v.npy", array)
    hashes = torch.tensor([40, 10, 30])
    whole, _ = prepared(tmp_path / "v.npy").lookup(hashes)
    companion = prepared(tmp_path / "v.npy", width=2)
    cut, _ = companion.lookup(hashes)
    assert cut.shape == (3, 2)
    assert companion.dimensions == 2
    torch.testing.assert_close(cut @ cut.T, whole @ whole.T, atol=5e-3, rtol=0)


def test_its_checkpoint_knows_the_vectors(tmp_path):
    np.save(tmp_path / "a.npy", vectors(4))
    np.save(tmp_path / "b.npy", -vectors(4))
    state = prepared(tmp_path / "a.npy").checkpoint_state()
    prepared(tmp_path / "a.npy").load_checkpoint_state(state)
    with pytest.raises(CheckpointError, match="another frozen model"):
        prepared(tmp_path / "b.npy").load_checkpoint_state(state)


def test_files_that_do_not_fit_are_named(tmp_path):
    np.save(tmp_path / "short.npy", vectors(3))
    with pytest.raises(DataError, match=r"short.npy has 3 rows, the data have 4"):
        prepared(tmp_path / "short.npy")
    path = parquet_of(tmp_path / "v.parquet", ["w7", "w5 w6"], vectors(2))
    with pytest.raises(DataError, match=r"1 of the data's 3 texts have no vector, the first is 'w8 w9'"):
        prepared(path)
    broken = vectors(4)
    broken[2] = np.nan
    np.save(tmp_path / "broken.npy", broken)
    with pytest.raises(DataError, match=r"1 of 3 vectors are zero, or not finite"):
        prepared(tmp_path / "broken.npy")
    with pytest.raises(DataError, match=r"no positive; they have anchor"):
        prepared(path, columns=["positive"])
    with pytest.raises(RecipeError, match="width = 3 must be below"):
        bound(vectors=str(path), width=3)
    with pytest.raises(DataError, match="no such file"):
        bound(vectors=str(tmp_path / "none.parquet"))


def test_a_npy_file_is_of_one_column(tmp_path):
    np.save(tmp_path / "v.npy", vectors(4))
    companion = bound(vectors=str(tmp_path / "v.npy"))
    examples = examples_of(words=WORDS, anchor=column_of(ROWS), positive=column_of(ROWS))
    with pytest.raises(DataError, match=r'columns = \["anchor"\]'):
        companion.prepare(examples, services_of(WORDS))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"vectors": "v.npy", "model": "m"}, "leave out model"), ({"vectors": "v.npy", "precompute": True}, "leave out"),
     ({"vectors": "v.txt"}, "must be a .parquet or .npy"), ({"width": 3}, "of known texts"),
     ({"columns": ["anchor"]}, "of known texts"), ({"precompute": True, "width": 0}, "width")],
)
def test_settings_that_contradict_each_other_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Reference(**options)


def test_embeddings_of_a_view(tmp_path):
    outputs = {"reference/anchor": torch.eye(2)}
    vector, known = bound().embeddings("anchor", rows_of(2, 0, [1, 2]), outputs)
    assert torch.equal(vector, torch.eye(2))
    assert known.all()
    with pytest.raises(RecipeError, match="not negative_1; set precompute = true"):
        bound().embeddings("negative_1", rows_of(2, 0, [1, 2]), outputs)
