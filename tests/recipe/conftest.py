"""Small data files and the overrides that put any shipped recipe on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from decoders import save_decoder

_WORDS = "the a man woman dog cat runs eats plays music red blue green river house song film book city team".split()


def sentences(count: int, seed: int) -> list[str]:
    """Different sentences of random words."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(_WORDS, size=generator.integers(4, 12))) + f" {i}" for i in range(count)]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file for every kind of data that recipes name, dev.tsv, and vectors.npy for the lines."""
    folder = tmp_path_factory.mktemp("data")
    first, second, third = (sentences(60, seed) for seed in (1, 2, 3))
    (folder / "lines.txt").write_text("\n".join(first) + "\n")
    classes = "".join(f"{text},{'abcd'[i % 4]}\n" for i, text in enumerate(first))
    (folder / "labelled.csv").write_text("text,label\n" + classes)
    rows = zip(first, second, third, strict=True)
    (folder / "triplets.jsonl").write_text(
        "".join(json.dumps({"anchor": a, "positive": b, "negative": c, "score": len(a) % 3 / 2}) + "\n"
                for a, b, c in rows)
    )
    (folder / "pairs.jsonl").write_text(
        "".join(json.dumps({"anchor": a, "positive": b, "margin": len(a) % 3 / 20, "score": len(a) % 3 / 2,
                            "label": i % 4}) + "\n" for i, (a, b) in enumerate(zip(first, second, strict=True)))
    )
    for name, row_of in {
        "duplicates": lambda i, a, b, c: {"anchor": a, "positive": b, "score": i % 2},
        "scored_pairs": lambda i, a, b, c: {"anchor": a, "positive": b, "score": i % 6},
        "scored_lists": lambda i, a, b, c: {"anchor": a, "positive": b, "negative": c, "score": i % 7, "score_1": 1},
        "graded_lists": lambda i, a, b, c: {"anchor": a, "positive": b, "negative": c, "grade_0": 3, "grade_1": i % 3},
        "queries": lambda i, a, b, c: {"query": a, "title": b, "text": c, "score": i % 6},
        "nli": lambda i, a, b, c: {"premise": a, "hypothesis": b, "label": i % 3},
        "label_texts": lambda i, a, b, c: {"anchor": a, "positive": second[i % 4], "label": i % 4},
    }.items():
        rows = [row_of(i, *texts) for i, texts in enumerate(zip(first, second, third, strict=True))]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    levels = "".join(f"{text},{i % 4},{i % 4 // 2},0\n" for i, text in enumerate(first))
    (folder / "levels.csv").write_text("text,label,label_2,label_3\n" + levels)
    lines = [f"{a}\t{b}\t{i % 5}" for i, (a, b) in enumerate(zip(first[:20], second[:20], strict=True))]
    (folder / "dev.tsv").write_text("sentence1\tsentence2\tscore\n" + "\n".join(lines) + "\n")
    np.save(folder / "vectors.npy", np.random.default_rng(4).normal(size=(len(first), 6)).astype(np.float32))
    return folder


@pytest.fixture(scope="session")
def tiny_decoder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one-layer Qwen3 with the tiny model's vocabulary."""
    folder = tmp_path_factory.mktemp("tiny-decoder")
    return save_decoder(folder, tiny_bert, seed=0, has_head=True, num_hidden_layers=1, max_position_embeddings=128)


@pytest.fixture
def on_tiny_model(data_dir: Path, tiny_bert: Path, tiny_decoder: Path):
    """Recipe tree → overrides that train it for two steps of eight on a tiny model."""

    def overrides(tree: dict) -> list[str]:
        is_decoder = tree["encoder"].get("pooling") == "last"
        result = [
            f"encoder.backbone={tiny_decoder if is_decoder else tiny_bert}", "train.batch_size=8",
            "train.max_steps=2", "train.precision=fp32",
        ]
        parts = {f"parts.{i}.": part for i, part in enumerate(tree["data"].get("parts", []))}
        for where, part in (parts or {"": tree["data"]}).items():
            file = {"lines": "lines.txt", "triplets": "triplets.jsonl"}.get(part["use"], "pairs.jsonl")
            if (data_dir / part["path"]).is_file():
                file = part["path"]
            elif part["use"] == "lines" and part["path"].endswith(".csv"):  # sentences with labels
                file = "labelled.csv"
            result.append(f"data.{where}path={data_dir / file}")
        if parts:
            result.append("data.schedule=round_robin")  # so that two steps see two sources
        result += [
            f"terms.{place}.path={data_dir / 'vectors.npy'}"
            for place, term in enumerate(tree["terms"]) if "path" in term
        ]
        if "layers" in tree["encoder"]:
            result.append("encoder.layers=[1]")
        for place, head in enumerate(tree["encoder"].get("heads", [])):
            if any(term["use"] == "denoise" for term in tree["terms"]):  # the decoder is as wide as the backbone
                result.append(f"encoder.heads.{place}.out_features=32")
            if "groups" in head:
                result.append(f"encoder.heads.{place}.groups=8")
        for place, companion in enumerate(tree.get("companions", [])):
            if "generator" in companion:
                result.append(f"companions.{place}.generator={tiny_bert}")
            if "model" in companion:
                result.append(f"companions.{place}.model={tiny_bert}")
            if "count" in companion:
                result.append(f"companions.{place}.count=4")
        for place, term in enumerate(tree["terms"]):
            if isinstance(term.get("layers"), list):
                result.append(f"terms.{place}.layers=[0,2]")
        for place, edit in enumerate(tree.get("edits", [])):
            if "layer" in edit:
                result.append(f"edits.{place}.layer=1")
        if "groups" in tree.get("train", {}).get("batches", {}):
            result.append("train.batches.groups=2")
        if "dev" in tree:
            result += [f'dev=[{{ use = "sts", path = "{data_dir / "dev.tsv"}" }}]', "train.eval_every=1"]
        return result

    return overrides
