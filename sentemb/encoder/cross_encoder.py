"""Cross-encoders: a transformer reads a query and a text together and gives one score.

The checkpoint is transformers' sequence classifier with one output, which sentence-transformers' ``CrossEncoder`` opens
too. On CPUs BERT's family runs through the lean forward pass of training (``runners/trainable.py``), with gradients and
without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sentemb.data.tokens import column_of, pad
from sentemb.encoder.backbone import (
    evaluating,
    load_pretrained,
    position_limit,
    read_config,
    read_json,
    refused,
    whole_folder,
    write_weights,
)
from sentemb.encoder.encode import BATCH_TOKENS, budget_batches, length_order
from sentemb.encoder.layout import read_layout
from sentemb.encoder.runners.families import Unsupported
from sentemb.encoder.runners.trainable import TrainableEncoder
from sentemb.encoder.source import locate
from sentemb.encoder.tokeniser import checked_max, load_hub
from sentemb.errors import ModelError, NumericError
from sentemb.machine.precision import find_device
from sentemb.machine.resources import keep_freed_memory
from sentemb.progress import Progress
from sentemb.types import TokenColumn, Tokens

_IDENTITY = "torch.nn.modules.linear.Identity"
_WINDOW = 32_768  # pairs that are tokenised at a time
_BAR_FROM = 2_000  # pairs; fewer are scored without a progress bar


@dataclass(frozen=True, kw_only=True)
class PairTokens:
    """Token ids of (query, text) pairs, and which of the two texts each token belongs to."""

    ids: TokenColumn
    types: TokenColumn | None = None  # None: the model does not tell the two apart

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every pair."""
        return self.ids.lengths

    def take(self, rows: NDArray[np.int64]) -> PairTokens:
        """The given pairs, in the given order."""
        return PairTokens(ids=self.ids.take(rows), types=None if self.types is None else self.types.take(rows))

    def padded(self, pad_id: int) -> Tokens:
        """As one rectangle."""
        types = None if self.types is None else pad(self.types, 0).input_ids
        return replace(pad(self.ids, pad_id), token_types=types)


class CrossEncoder:
    """Scores (query, text) pairs; made with ``CrossEncoder.load``, or ``CrossEncoder.untrained`` to be trained.

    >>> CrossEncoder.load("runs/reranker/model").score([("what is a cat", "A cat is a small animal.")])

    Scores are the model's logits, unless the checkpoint's settings ask for their sigmoid, as sentence-transformers
    gives them: comparable within one query, not between models.
    """

    def __init__(self, model: Any, tokenizer: Any, *, source: str, max_tokens: int, is_sigmoid: bool = False) -> None:
        self.model, self.tokenizer, self.source = model, tokenizer, source
        self.max_tokens, self.is_sigmoid = max_tokens, is_sigmoid

    @classmethod
    def load(cls, source: str | Path, *, max_tokens: int | None = None, device: str | None = None) -> Self:
        """A trained cross-encoder: a folder, a hub id, or ``package:NAME/FOLDER``.

        Raises: ModelError: there is none, or it has another number of outputs than one.
        """
        folder = locate(source)
        if not is_sequence_classifier(folder):
            raise ModelError(f"{source}: no cross-encoder, but {_architecture(folder)}; sentemb rerank train makes one "
                             f"of it: sentemb rerank train LISTS --backbone {source} -o FOLDER")
        made, missing = cls._open(folder, str(source), max_tokens, device)
        if missing:
            raise ModelError(f"{source}: the checkpoint lacks {len(missing)} weights, e.g. {min(missing)}: "
                             "it is damaged")
        return made

    @classmethod
    def untrained(
        cls, source: str | Path, *, seed: int, max_tokens: int | None = None, device: str | None = None
    ) -> Self:
        """The encoder of any checkpoint with an output of random weights (its own, where it is a cross-encoder)."""
        folder = locate(source)
        folder = folder if (folder / "config.json").is_file() else read_layout(folder).backbone
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made, missing = cls._open(folder, str(source), max_tokens, device)
        prefix = f"{made.model.base_model_prefix}."
        lacking = [name for name in missing if name.startswith(prefix) and "pooler" not in name]
        if lacking:
            raise ModelError(f"{source}: the checkpoint lacks {len(lacking)} of the encoder's weights, e.g. "
                             f"{lacking[0]}; it is damaged or of another architecture")
        made.is_sigmoid = False
        return made

    @classmethod
    def _open(cls, folder: Path, source: str, max_tokens: int | None, device: str | None) -> tuple[Self, set[str]]:
        from transformers import AutoModelForSequenceClassification

        model, missing = load_pretrained(
            AutoModelForSequenceClassification, folder, trust_remote_code=False, num_labels=1
        )
        tokenizer, limit = load_hub(folder, lower_case=False), position_limit(model.base_model)
        longest = min(tokenizer.model_max_length, limit or 512)
        if tokenizer.pad_token_id is None:
            raise ModelError(f"{source}: its tokenizer has no padding token; pairs of several lengths need one")
        model.eval().to(find_device(device))
        return cls(model, tokenizer, source=source, max_tokens=checked_max(max_tokens or longest, limit),
                   is_sigmoid=_gives_sigmoid(folder)), missing

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def tokenise(self, pairs: Sequence[tuple[str, str]]) -> PairTokens:
        """Token ids; a pair that is too long loses tokens of its longer text first."""
        if not pairs:
            return PairTokens(ids=column_of([]))
        first, second = (list(texts) for texts in zip(*pairs, strict=True))
        rows = self.tokenizer(first, second, truncation=True, max_length=self.max_tokens, return_attention_mask=False)
        types = rows.get("token_type_ids")
        return PairTokens(ids=column_of(rows["input_ids"]), types=None if types is None else column_of(types))

    def logits(self, tokens: PairTokens) -> Float[Tensor, " b"]:
        """The output for every pair, with gradients where they are on."""
        padded = tokens.padded(self.tokenizer.pad_token_id).to(self.device)
        lean, head = self._lean
        if lean is not None and head is not None and lean.is_usable([padded]):
            out: Tensor = head(lean.first_states([padded])[0][:, None])
        else:
            types = {} if padded.token_types is None else {"token_type_ids": padded.token_types}
            out = self.model(input_ids=padded.input_ids, attention_mask=padded.attention_mask, **types).logits
        return out.flatten()

    @cached_property
    def _lean(self) -> tuple[TrainableEncoder | None, Callable[[Tensor], Tensor] | None]:
        """The lean forward pass of the model's encoder, and what the model makes of its last states."""
        try:
            return TrainableEncoder(self.model.base_model), _head_of(self.model)
        except Unsupported:
            return None, None

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """The score of every pair, in order; higher is more relevant.

        Raises: NumericError: a score is not finite.
        """
        if self.device.type == "cpu":
            keep_freed_memory()
        scores = np.empty(len(pairs), dtype=np.float32)
        budget = BATCH_TOKENS.get(self.device.type, 16_384)
        with (
            torch.inference_mode(), evaluating(self.model),
            Progress("scoring", total=len(pairs), unit="pairs", enabled=len(pairs) > _BAR_FROM) as bar,
        ):
            for start in range(0, len(pairs), _WINDOW):
                tokens = self.tokenise(pairs[start : start + _WINDOW])
                order = length_order(tokens.lengths)
                for begin, end in budget_batches(tokens.lengths[order], budget):
                    rows = order[begin:end]
                    logits = self.logits(tokens.take(rows)).float()
                    scores[start + rows] = (logits.sigmoid() if self.is_sigmoid else logits).cpu().numpy()
                    bar.advance(len(rows))
        if not np.isfinite(scores).all():
            bad = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise NumericError(f"{self.source}: no finite score for pair {bad + 1}, {pairs[bad][0][:60]!r}")
        return scores

    def save(self, folder: str | Path) -> Path:
        """Write it as transformers does, with what sentence-transformers needs beside it; whole or not at all."""
        config = self.model.config
        config.architectures, config.sentence_transformers = [type(self.model).__name__], {"activation_fn": _IDENTITY}
        before, self.tokenizer.model_max_length = self.tokenizer.model_max_length, self.max_tokens
        try:
            with whole_folder(Path(folder)) as temporary, refused(Path(folder)):
                config.save_pretrained(temporary)
                write_weights(temporary, self.model.state_dict().items())
                self.tokenizer.save_pretrained(temporary)
        finally:
            self.tokenizer.model_max_length = before
        return Path(folder)


def is_sequence_classifier(folder: Path) -> bool:
    """Whether the folder's checkpoint is a sequence classifier; of several outputs none can be a score.

    Raises: ModelError: it is one of several outputs.
    """
    if not (folder / "config.json").is_file():
        return False
    config = read_config(folder)
    if not any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ()):
        return False
    outputs = len(config.get("id2label") or ()) or config.get("num_labels", 2)
    if outputs != 1:
        raise ModelError(f"{folder}: a classifier of {outputs} outputs; a cross-encoder has one, the score")
    return True


def _architecture(folder: Path) -> str:
    names = read_config(folder).get("architectures") if (folder / "config.json").is_file() else None
    return f"a {names[0]}" if names else "a checkpoint of another kind"


def _gives_sigmoid(folder: Path) -> bool:
    """Whether scores are sigmoids of logits: what the checkpoint says, else as sentence-transformers does."""
    separate = folder / "config_sentence_transformers.json"
    own = read_json(separate) if separate.is_file() else {}
    config = read_config(folder)
    activation = (
        own.get("activation_fn") or (config.get("sentence_transformers") or {}).get("activation_fn")
        or config.get("sbert_ce_default_activation_function") or "Sigmoid"
    )
    return str(activation).rsplit(".", 1)[-1] == "Sigmoid"


def _head_of(model: Any) -> Callable[[Tensor], Tensor] | None:
    """From last hidden states to logits, for the architectures where the first token's make them; None for others."""
    kind = model.config.model_type
    if kind == "bert":
        return lambda hidden: model.classifier(model.dropout(model.bert.pooler(hidden)))
    return model.classifier if kind in ("roberta", "xlm-roberta", "camembert", "electra") else None
