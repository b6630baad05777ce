"""Training steps of one batch size, for `run.py memory`: each contender is a process with its own peak."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = ["the", "a", "man", "woman", "dog", "cat", "plays", "music", "guitar", "red", "blue", "river", "house", "song"]


def steps(
    *, backbone: str, batch_size: int, tokens: int, chunk_size: int | None, kept_graphs_mib: float = 0.0,
    precision: str = "fp32",
) -> Callable[[], dict[str, Any]]:
    """One SimCSE step of a batch, through the recipe, a run and its step."""
    import numpy as np

    from sentemb.recipe.build import build
    from sentemb.recipe.recipe import Recipe
    from sentemb.training.run import Run

    folder = Path(tempfile.mkdtemp(prefix="sentemb-bench-"))
    draw = random.Random(0)
    lines = (f"{' '.join(draw.choices(WORDS, k=tokens))} {number}" for number in range(batch_size))
    (folder / "texts.txt").write_text("\n".join(lines) + "\n")
    train: dict[str, Any] = {"batch_size": batch_size, "precision": precision, "max_steps": 1000, "epochs": 1000}
    if chunk_size is not None:
        train |= {"chunk_size": chunk_size, "kept_graphs_mib": kept_graphs_mib}
    tree = {
        "encoder": {"backbone": backbone, "pooling": "cls", "max_tokens": tokens,
                    "heads": [{"use": "mlp", "train_only": True}]},
        "data": {"use": "lines", "path": str(folder / "texts.txt")}, "views": {"use": "twice"},
        "terms": [{"use": "info_nce", "temperature": 0.05}], "train": train,
    }
    run = Run(build(Recipe.from_tree(tree, "bench.toml"), folder))
    done = 0

    def work() -> dict[str, Any]:
        nonlocal done
        result = run.step([run.make_input(np.arange(batch_size), done)])
        done += 1
        kept = run.step.cache.kept if run.step.cache is not None else 0
        return {"loss": float(result.parts["info_nce"]), "kept_chunks": kept}

    return work


def base_model(folder: Path) -> Path:
    """A backbone of BERT-base's size with random weights (memory and time do not depend on them)."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789",
             *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"), *WORDS]
    words = list(dict.fromkeys(words))
    BertTokenizerFast(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    return folder
