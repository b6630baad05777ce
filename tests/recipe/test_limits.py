"""Where a method has nothing of its own left, its recipe trains as the one that it extends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sentemb import Recipe
from sentemb.recipe.load import read_tree
from sentemb.recipe.train import build
from sentemb.training.run import Run

SIMCSE, TRIPLETS = "simcse-unsup-minilm", "simcse-sup-minilm"
DATA = {SIMCSE: "lines.txt", TRIPLETS: "triplets.jsonl"}
MLP = 'encoder.heads=[{ use = "mlp", train_only = true }]'
# method → (what it must equal, settings that take its own idea away)
LIMITS = {
    "dclr-minilm": (SIMCSE, ['edits=[{ use = "false_negative", by = ["reference"], threshold = 1.0 }]']),
    "clusterns-minilm": (SIMCSE, ["companions.0.start_below=-1.0"]),
    "micse-minilm": (SIMCSE, ["terms.1.weight=0.0"]),
    "whitenedcse-minilm": (SIMCSE, [MLP, 'terms.0.of=["positive"]']),
    "clear-minilm": (SIMCSE, ["views.first=[]", "views.second=[]"]),
    "mcse-minilm": (SIMCSE, ["terms.1.weight=0.0"]),
    "supcl-seq-minilm": (
        SIMCSE, [MLP, "views.count=2", "views.dropouts=[0.0, 0.0]",
                 'terms=[{ use = "view_contrast", temperature = 0.05 }]', 'train.batches="no_duplicates"'],
    ),
    "syncse-minilm": (TRIPLETS, ["terms.1.weight=0.0"]),
    "promcse-sup-minilm": (TRIPLETS, ["encoder.adapters=[]", "terms.1.weight=0.0", "train.learning_rate=5e-5"]),
}


@pytest.fixture
def trained(still_bert: Path, on_tiny_model, data_dir: Path, tmp_path: Path):
    """``trained(name, lines or triplets, overrides)``: the first term's loss of a second step, and embeddings then."""

    def run(name: str, data: str, overrides: Sequence[str] = ()) -> tuple[float, np.ndarray]:
        own = [*on_tiny_model(read_tree(name)[0]), f"data.path={data_dir / data}", *overrides]
        made = Run(build(Recipe.load(name, [*own, f"encoder.backbone={still_bert}"]), tmp_path / name))
        for batches in made.inputs():
            made.train_step(batches)
        vectors = made.plan.encoder.encode(["a red house", "a dog runs"], precision="fp32")
        return float(next(iter(made.last_losses.values()))), vectors

    return run


@pytest.mark.parametrize("name", LIMITS)
def test_without_its_idea_a_method_is_its_baseline(name, trained):
    baseline, overrides = LIMITS[name]
    data = DATA[baseline]
    loss, vectors = trained(name, data, overrides)
    expected_loss, expected = trained(baseline, data)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    np.testing.assert_allclose(vectors, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["dclr-minilm", "clear-minilm", "syncse-minilm"])
def test_with_its_idea_it_is_not(name, trained):
    baseline, _ = LIMITS[name]
    _, vectors = trained(name, DATA[baseline])
    _, expected = trained(baseline, DATA[baseline])
    assert np.abs(vectors - expected).max() > 2e-4
