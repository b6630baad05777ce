"""With the core alone every verb works or names the command that installs what it lacks; nothing is computed before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# put before the standard finder in a child: the packages of all extras are absent
CORE_ONLY = """
import sys
from importlib.machinery import PathFinder

EXTRAS = {extras!r}

class CoreOnly(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in EXTRAS else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = CoreOnly
"""
EXTRAS = {
    "accelerate", "datasets", "pyarrow", "zstandard", "mteb", "scipy", "sklearn", "pytrec_eval", "faiss",
    "sentence_transformers", "peft", "ray", "pandas", "polars", "Stemmer", "tensorboard", "mcp",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("core")
    (root / "site").mkdir()
    (root / "site" / "sitecustomize.py").write_text(CORE_ONLY.format(extras=EXTRAS))
    (root / "texts.txt").write_text("a cat\na dog\nhello world\n")
    (root / "texts.parquet").write_bytes(b"PAR1")
    (root / "texts.txt.zst").write_bytes(b"(\xb5/\xfd")
    pairs = [f'{{"anchor": "a cat {i}", "positive": "the cat {i}"}}\n' for i in range(8)]
    (root / "pairs.jsonl").write_text("".join(pairs))
    (root / "pairs.tsv").write_text("sentence1\tsentence2\tscore\na cat\tthe cat\t5\na dog\ta cat\t1\n")
    return root


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / "site"), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "sentemb", *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["train", "--help"], ["list"], ["list", "terms"], ["show", "diffcse-bert-base-sts"],
        ["check", "simcse-unsup-minilm", "--set", "data.path=texts.txt"],
        ["encode", "texts.txt", "-m", "MODEL", "-o", "vectors.npy"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_the_core_is_enough(arguments: list[str], folder: Path, tiny_bert: Path) -> None:
    done = run(folder, *(str(tiny_bert) if word == "MODEL" else word for word in arguments))
    assert done.returncode == 0, done.stderr
    assert done.stdout or (folder / "vectors.npy").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("data", ["encode", "texts.txt", "-m", "MODEL", "-o", "vectors.parquet"]),
        ("data", ["encode", "texts.parquet", "-m", "MODEL", "-o", "vectors.npy"]),
        ("data", ["encode", "texts.txt.zst", "-m", "MODEL", "-o", "vectors.npy"]),
        ("data", ["encode", "somebody/texts", "-m", "MODEL", "-o", "vectors.npy"]),
        ("train", ["train", "quickstart", "--set", "data.path=pairs.jsonl", "--set", "encoder.backbone=MODEL"]),
        ("eval", ["eval", "MODEL", "--sts", "pairs.tsv"]),
        ("eval", ["eval", "MODEL", "--task", "SciFact"]),
        ("eval", ["data", "verify", "--task", "SciFact", "--data-dir", "."]),
        ("search", ["index", "build", "texts.txt", "-m", "MODEL", "-o", "texts.index"]),
        ("search", ["index", "texts.txt", "-m", "MODEL", "-o", "texts.index", "--kind", "hnsw"]),
        ("mcp", ["mcp", "texts.index"]),
        ("quickstart", ["quickstart"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_missing_extra_is_named_before_anything_is_written(
    extra: str, arguments: list[str], folder: Path, tiny_bert: Path
) -> None:
    before = sorted(folder.rglob("*"))
    done = run(folder, *(word.replace("MODEL", str(tiny_bert)) for word in arguments))
    assert done.returncode == 2, done.stderr
    assert f'pip install "sentemb[{extra}]"' in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(folder.rglob("*")) == before
