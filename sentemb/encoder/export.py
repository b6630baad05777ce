"""A model as one graph, from padded token ids to final vectors, for runtimes that know nothing of sentemb."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sentemb.encoder.adapters import merged, prefix_of
from sentemb.encoder.backbone import evaluating, whole_folder
from sentemb.encoder.card import export_card
from sentemb.encoder.encoder import Encoder
from sentemb.encoder.exported import FACTS, GRAPHS, OUTPUT, ExportedModel, ExportFacts, Format
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.static import StaticTable
from sentemb.errors import ModelError, did_you_mean, first_line, needs_extra
from sentemb.files import write_json, write_text
from sentemb.types import Tokens

OPSET = 20
ALLOWED = 1e-4  # difference of an entry, in units of the vector's length
_INSIDE = 1 << 30  # bytes of weights that lie in model.onnx itself; the format ends at two GiB
_SENTENCES = (
    "Yes.", "A man is playing a guitar.", "How do I reset my password?", "def add(a, b): return a + b",
    "Zwölf Boxkämpfer jagen Viktor quer über den Deich.", "今日はとても良い天気です。",
    "The quick brown fox jumps over the lazy dog; 1,234.50 €!",
)  # fmt: skip
# single sentences, and texts of some 20 to 500 words, the longest beyond what most models read
COMPARED = (*_SENTENCES, *(" ".join(_SENTENCES * count) for count in (1, 2, 3, 5, 8, 16)))


class SentenceGraph(nn.Module):
    """Padded token ids to vectors: backbone, pooling, kept heads, unit length where the model has it."""

    def __init__(self, module: EncoderModule, *, is_normalised: bool, dropped: int | None) -> None:
        super().__init__()
        self.module, self.backbone = module, merged(module.backbone)
        self.is_normalised, self.dropped = is_normalised, dropped

    def forward(
        self, input_ids: Int[Tensor, "b t"], attention_mask: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b d"]:
        mask = attention_mask
        if isinstance(self.backbone, StaticTable):
            mask = mask if self.dropped is None else mask * (input_ids != self.dropped)
        else:  # a text without any token is one padding token, as in ``Encoder.encode``
            is_first = torch.arange(mask.shape[1], device=mask.device) == 0
            mask = torch.where(is_first & (mask.sum(dim=1, keepdim=True) == 0), 1, mask)
        tokens = Tokens(input_ids=input_ids, attention_mask=mask)
        _, pooled = self.module.plain(self.backbone, tokens)
        vectors = self.module.project(pooled.float(), exported=True)
        return nn.functional.normalize(vectors, dim=-1) if self.is_normalised else vectors


def export(model: str | Path | Encoder, output: str | Path, *, to: Format = "onnx") -> ExportFacts:
    """Write a model as one graph that ONNX Runtime or OpenVINO runs without sentemb, transformers or PyTorch.

    The graph takes ``input_ids`` and ``attention_mask`` (batch, length; any of both) and gives ``sentence_embedding``
    (batch, width) in float32: pooling, heads and unit length are inside. Beside it lie ``tokenizer.json``, which cuts
    and pads, ``export.json`` (prompts, limits, what was measured) and a README.md with code. The graph's vectors are
    compared with those of ``Encoder.encode`` before the folder appears. A model of eight bits is exported in float32.

    Args:
        model: a folder, a hub id, ``package:NAME/FOLDER``, or an ``Encoder``.
        output: the folder that is written, whole or not at all.
        to: ``onnx`` (model.onnx, opset 20) or ``openvino`` (openvino_model.xml and .bin, made of that).

    Returns:
        What ``export.json`` says.

    Raises:
        ModelError: a model that a graph cannot hold (a prefix, a subtracted template, prompts that are not pooled, a
            tokenizer without tokenizer.json), or vectors that differ by more than 1e-4 of their length.
        MissingExtra: the exporter or the runtime is not installed.
    """
    if to not in GRAPHS:
        raise ModelError(f'to = "{to}"{did_you_mean(to, GRAPHS)}')
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needs_extra(package, "export")
    if to == "openvino":
        needs_extra("openvino", "openvino")
    encoder = model if isinstance(model, Encoder) else Encoder.load(model, device="cpu", precision="fp32")
    _refuse(encoder)
    facts = _facts(encoder, to)
    with whole_folder(Path(output)) as folder:
        _write_graph(encoder, folder, to)
        _write_tokenizer(encoder, folder)
        write_json(folder / "config.json", _config(encoder.module.backbone))
        write_json(folder / FACTS, asdict(facts))
        facts = _compared(encoder, folder, facts)
        write_json(folder / FACTS, asdict(facts))
        write_text(folder / "README.md", export_card(encoder, facts, title=Path(output).name))
    return facts


def _refuse(encoder: Encoder) -> None:
    fault = ""
    if encoder.weights == "nf4":
        raise ModelError(f"{encoder.source}: weights in four bits have no form as a graph; export the saved model")
    if prefix_of(encoder.module.backbone) is not None:
        fault = "its adapter prefix enters every layer's attention from outside"
    elif encoder.subtract_empty:
        fault = "it subtracts the vector of its empty template, which is another text"
    elif not encoder.module.pools_prompt:
        fault = "it leaves a prompt's tokens out of its pooling, and a graph does not know where the prompt ends"
    elif encoder.tokeniser.backend_json is None:
        fault = "its tokenizer has no form as tokenizer.json"
    if fault:
        raise ModelError(f"{encoder.source}: cannot be exported: {fault}; serve it with sentemb (sentemb serve)")


def _facts(encoder: Encoder, to: Format) -> ExportFacts:
    known, module = encoder.vocabulary, encoder.module
    return ExportFacts(
        sentemb=version("sentemb"), format=to, opset=OPSET, model=encoder.digest(), width=encoder.width,
        max_tokens=encoder.max_tokens, is_normalised=encoder.is_normalised, similarity=encoder.similarity_name,
        prompts=dict(encoder.prompts), default_prompt=encoder.default_prompt,
        reads_mask_token=module.pooling.reads_mask_token, dropped=encoder.tokeniser.dropped,
        vocabulary={"size": known.size, "pad": known.pad, "mask": known.mask, "special": sorted(known.special)},
    )


def _config(backbone: nn.Module) -> dict[str, Any]:
    config: Any = backbone.config
    return {name: value for name, value in config.to_dict().items() if not name.startswith("_")}


def _write_tokenizer(encoder: Encoder, folder: Path) -> None:
    """``tokenizer.json`` that cuts and pads by itself."""
    from tokenizers import Tokenizer

    encoder.tokeniser.save(folder)
    fast = Tokenizer.from_str(str(encoder.tokeniser.backend_json))
    fast.enable_truncation(encoder.max_tokens)
    pad = encoder.vocabulary.pad
    fast.enable_padding(pad_id=pad, pad_token=fast.id_to_token(pad) or "[PAD]")
    fast.save(str(folder / "tokenizer.json"))


def _write_graph(encoder: Encoder, folder: Path, to: Format) -> None:
    module, path = encoder.module, folder / GRAPHS["onnx"]
    graph = SentenceGraph(module, is_normalised=encoder.is_normalised, dropped=encoder.tokeniser.dropped)
    ids = torch.full((2, 3), encoder.vocabulary.pad)  # sizes of 1 would be taken for constants
    axes = {0: "batch", 1: "length"}
    size = sum(value.numel() * value.element_size() for value in graph.parameters())
    with evaluating(module), torch.no_grad(), _quiet("torch.onnx"):
        try:
            program: Any = torch.onnx.export(
                graph.eval(), (ids, torch.ones_like(ids)), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=["input_ids", "attention_mask"], output_names=[OUTPUT], dynamic_shapes=(axes, axes),
            )
        except Exception as error:  # the exporter passes on whatever a model's code raises in it
            cause = error.__cause__ or error
            raise ModelError(f"{encoder.source}: PyTorch cannot export {type(module.backbone).__name__} to ONNX "
                             f"({type(cause).__name__}: {first_line(cause)})") from error
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # traces of the exporter's calls, with paths of this machine
    program.save(path, external_data=size > _INSIDE)
    if to == "openvino":
        import openvino

        # float16 weights, its default, would cost three digits
        openvino.save_model(openvino.convert_model(path), folder / GRAPHS["openvino"], compress_to_fp16=False)
        for file in folder.glob("model.onnx*"):
            file.unlink()


def _compared(encoder: Encoder, folder: Path, facts: ExportFacts) -> ExportFacts:
    """The facts with what was measured; raises ``ModelError`` where the graph's vectors are others than the model's."""
    prompt = "{text} {mask}" if facts.reads_mask_token and facts.default_prompt is None else None
    with _quiet("sentemb"):  # that texts were cut is meant
        expected = encoder.encode(COMPARED, prompt=prompt, precision="fp32", progress=False)
        exported = ExportedModel.load(folder).encode(COMPARED, prompt=prompt)
    length = np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    largest = float((np.abs(exported - expected) / length).max())
    if not largest <= ALLOWED:
        raise ModelError(f"{encoder.source}: the exported graph's vectors differ from the model's by {largest:.1e} of "
                         f"their length, more than {ALLOWED:g}; nothing was written. Try other releases of torch and "
                         "onnxruntime")
    cosine = (expected * exported).sum(axis=1) / length[:, 0] / np.maximum(np.linalg.norm(exported, axis=1), 1e-12)
    return replace(facts, compared_texts=len(COMPARED), largest_difference=float(f"{largest:.2g}"),
                   least_cosine=round(float(cosine[length[:, 0] > 1e-6].min(initial=1)), 7))


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Without a logger's remarks, and without warnings."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
