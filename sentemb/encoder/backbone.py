"""The Hugging Face model inside an encoder: loading it, and what sentemb must know of it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.errors import ModelError, NumericError, RecipeError, first_line
from sentemb.files import atomic_folder


def load_backbone(
    folder: Path, *, trust_remote_code: bool = False, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[nn.Module, dict[str, Tensor]]:
    """The encoder of the checkpoint in ``folder``, its weights in ``dtype``, without task heads; ``options`` are of
    transformers' ``from_pretrained``.

    BERT's unused ``pooler``, whose parameters would never get a gradient, is taken out; its weights come beside the
    encoder, so that a saved copy has them again.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

    weight_files(folder)
    read_config(folder)
    with refused(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    # of T5 and its like only the encoder half, which says so once it was saved alone
    is_half = any(name.endswith("EncoderModel") for name in config.architectures or [])
    family = AutoModelForTextEncoding if config.is_encoder_decoder or is_half else AutoModel
    model, missing = load_pretrained(
        family, folder, trust_remote_code=trust_remote_code, config=config, dtype=dtype, **options
    )
    if "quantization_config" in options:
        del model.config.quantization_config  # how the weights lie in memory, not what the model is
    lacking = sorted(name for name in missing if not name.startswith("pooler."))
    if lacking:
        raise ModelError(f"{folder}: the checkpoint lacks {len(lacking)} of the backbone's weights, e.g. "
                         f"{', '.join(lacking[:3])}; it is damaged or of another architecture")
    pooler: dict[str, Tensor] = {}
    if "add_pooling_layer" in inspect.signature(type(model).__init__).parameters:
        pooler = {name: weight for name, weight in model.state_dict().items() if name.startswith("pooler.")}
        model.pooler = None
    return model.eval(), {} if missing & pooler.keys() else pooler


def freeze(backbone: nn.Module, names: Sequence[str]) -> None:
    """Take the modules of these names out of training; "" is the backbone itself.

    Raises: RecipeError where it has no such module.
    """
    for name in names:
        try:
            module = backbone.get_submodule(name)
        except AttributeError:
            known = ", ".join(child for child, _ in backbone.named_children())
            raise RecipeError(
                f'encoder.freeze: the backbone has no module "{name}"; it has {known}, and those inside them '
                '("encoder.layer.0")'
            ) from None
        module.requires_grad_(False)


def keep_layers(backbone: Any, layers: Sequence[int]) -> None:
    """Take all layers out but these, given by number from 0 on, in this order; the configuration says how many stayed.

    Raises: ModelError where the backbone has no such layers, or layers of several kinds, which are told apart by place.
    """
    count, name = backbone.config.num_hidden_layers, type(backbone).__name__
    stacks = [(path, part) for path, part in backbone.named_modules()
              if isinstance(part, nn.ModuleList) and len(part) == count]
    kinds = set(getattr(backbone.config, "layer_types", None) or ())
    if len(stacks) != 1 or len(kinds) > 1 or getattr(backbone.config, "is_encoder_decoder", False):
        raise ModelError(f"layers: those of {name} cannot be taken out one by one; those of BERT, RoBERTa, DistilBERT, "
                         "MPNet, Qwen3 and others whose layers are all of one kind can")
    wrong = [number for number in layers if not 0 <= number < count]
    if wrong or not layers or len(set(layers)) < len(layers):
        raise ModelError(f"layers = {list(layers)}: {name} has the layers 0 to {count - 1}; name one or more of them, "
                         "each once")
    path, stack = stacks[0]
    chosen = nn.ModuleList(stack[number] for number in layers)
    for place, layer in enumerate(chosen):
        for part in layer.modules():
            if "layer_idx" in vars(part):  # where a decoder keeps its keys
                vars(part)["layer_idx"] = place
    owner, _, attribute = path.rpartition(".")
    setattr(backbone.get_submodule(owner), attribute, chosen)
    backbone.config.num_hidden_layers = len(chosen)
    if kinds:
        backbone.config.layer_types = backbone.config.layer_types[: len(chosen)]


def load_pretrained(
    family: Any, folder: Path, *, trust_remote_code: bool, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[Any, set[str]]:
    """A checkpoint through one of transformers' Auto classes and the names of weights that it lacks: quietly, because
    callers decide which may be missing. Weights become ``dtype`` one at a time, as they are read.

    Raises: ModelError where it cannot be opened.
    """
    from transformers.utils import logging

    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with refused(folder):
            model, report = family.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True,
                trust_remote_code=trust_remote_code, **options,
            )
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()
    return model, set(report["missing_keys"])


@contextmanager
def refused(where: Path | str) -> Iterator[None]:
    """What libraries raise for a file that they cannot read or write becomes a ``ModelError`` that names it."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise ModelError(f"{where}: its weights are damaged or cut short ({first_line(error)}); fetch or copy the "
                         "model again") from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(f"{where}: {first_line(error)}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a checkpoint."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise ModelError(f"{folder / 'config.json'}: not a JSON object")
    return config


def read_json(path: Path) -> Any:
    """A checkpoint's JSON file; raises ``ModelError`` where it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not JSON ({error})") from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint; raises ``ModelError`` where there are none."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    single = folder / "model.safetensors"
    if not single.is_file():
        others = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "no weights"
        raise ModelError(f"{folder}: found {others}, needed model.safetensors; pickled weights are never read (they "
                         "can run any code). Convert them once: sentemb convert MODEL -o FOLDER")
    return [single]


def is_stored_as(folder: Path, dtype: torch.dtype) -> bool:
    """Whether all numbers of a checkpoint's weights are stored in ``dtype``."""
    from safetensors import safe_open

    name = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}[dtype]
    for path in weight_files(folder):
        with refused(path), safe_open(path, framework="pt") as file:
            if any(file.get_slice(key).get_dtype() not in (name, "I64", "I32", "BOOL") for key in file.keys()):  # noqa: SIM118
                return False
    return True


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; raises ``ModelError`` where it is missing or damaged."""
    from safetensors.torch import load_file

    with refused(path):
        weights: dict[str, Tensor] = load_file(path)
    return weights


def write_weights(folder: Path, tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype = torch.float32) -> None:
    """Copies in ``dtype``; raises ``NumericError`` where a weight is NaN or infinite."""
    from safetensors.torch import save_file

    written = {}
    for name, tensor in tensors:
        form = dtype if tensor.is_floating_point() else tensor.dtype
        written[name] = tensor.detach().to("cpu", form, copy=True).contiguous()
        if not bool(written[name].isfinite().all()):
            raise NumericError(f"the model is not saved: its weight {name} holds NaN or infinity")
    save_file(written, folder / "model.safetensors", metadata={"format": "pt"})


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` when everything in it was written."""
    from safetensors import SafetensorError

    try:
        with atomic_folder(folder) as temporary:
            yield temporary
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder}: the model could not be saved ({first_line(error)}); make room or save it "
                         "elsewhere") from error


def position_limit(backbone: nn.Module) -> int | None:
    """Longest input that the position embeddings allow, or None where there is no table."""
    config: Any = backbone.config
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None or limit <= 0:
        return None
    # RoBERTa and MPNet count positions from padding_idx + 1
    for module in backbone.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            return int(limit) - int(table.padding_idx) - 1
    return int(limit)


def is_causal(backbone: nn.Module) -> bool:
    """Whether tokens see only what stands before them (then the last token's vector is the default pooling)."""
    config: Any = backbone.config
    architectures = getattr(config, "architectures", None) or []
    return bool(getattr(config, "is_decoder", False)) or any(name.endswith("ForCausalLM") for name in architectures)


@contextmanager
def eager_attention(backbone: Any) -> Iterator[None]:
    """Switch to the attention that returns its weights, and back."""
    before = backbone.config._attn_implementation
    with refused(f"{type(backbone).__name__} cannot return attention weights"):
        backbone.set_attn_implementation("eager")
    try:
        yield
    finally:
        backbone.set_attn_implementation(before)


def dropout_rates(module: nn.Module) -> list[tuple[nn.Module, str, float]]:
    """Every place of a module that drops something out: whose attribute it is, its name, the rate."""
    kinds = {"p": nn.Dropout, "attention_dropout": nn.Module}
    return [
        (part, name, value) for part in module.modules() for name, kind in kinds.items()
        if isinstance(part, kind) and isinstance(value := getattr(part, name, None), (int, float))
    ]


@contextmanager
def dropout_at(module: nn.Module, rate: float | None) -> Iterator[None]:
    """Another dropout rate in all places for a while, every place's own restored; None changes nothing."""
    before = [] if rate is None else dropout_rates(module)
    try:
        for part, name, _ in before:
            setattr(part, name, rate)
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, every submodule's own mode restored."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
