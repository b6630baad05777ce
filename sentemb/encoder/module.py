"""The trainable module: backbone, pooling, heads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from sentemb.encoder.backbone import eager_attention
from sentemb.encoder.fast import Unsupported
from sentemb.encoder.fast.trainable import TrainableEncoder
from sentemb.encoder.heads import Head
from sentemb.encoder.pooling import Pooling
from sentemb.types import Encoded, Tokens


class EncoderModule(nn.Module):
    """A Hugging Face backbone with a pooling and heads; keeps ``types.SentenceModule``.

    Calling it is row-wise. ``project`` runs the heads, which may couple rows.
    """

    def __init__(self, backbone: nn.Module, pooling: Pooling, heads: list[Head]) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.heads = nn.ModuleList()
        self.pooled_width = self.width = self.exported_width = pooling.width
        self._lean_form: tuple[nn.Module, TrainableEncoder | None] | None = None  # of which backbone
        self._is_compared = False  # that form with the plain forward
        for head in heads:
            self.add_head(head)

    def add_head(self, head: Head) -> None:
        """Bind a head behind the others."""
        self.width = head.bind(self.width)
        if not head.train_only:
            self.exported_width = self.width
        self.heads.append(head)

    def forward(
        self, tokens: Tokens, *, hidden: bool = False, attentions: bool = False, prompt_tokens: int = 0
    ) -> Encoded:
        """Backbone and pooling.

        Args:
            tokens: one padded batch.
            hidden: also give the last hidden states.
            attentions: also give every layer's attention weights (switches to eager attention for this call).
            prompt_tokens: leading tokens that belong to a prompt; left out of the pooling where the model says so.
        """
        if not attentions and prompt_tokens == 0 and self.training:
            found = self._lean([tokens], hidden=hidden)
            if found is not None:
                return found[0]
        with eager_attention(self.backbone) if attentions else nullcontext():
            output: Any = self.backbone(
                input_ids=tokens.input_ids, attention_mask=tokens.attention_mask,
                output_hidden_states=self.pooling.needs_layers, output_attentions=attentions, return_dict=True,
            )
        last: Float[Tensor, "b t d"] = output.last_hidden_state
        pooled_from = self.pooling.combine(output.hidden_states) if self.pooling.needs_layers else last
        pooled = self.pooling(pooled_from, tokens.attention_mask, prompt_tokens)
        return Encoded(pooled, last if hidden else None, output.attentions if attentions else None)

    def together(self, batches: Sequence[Tokens]) -> list[Encoded]:
        """``forward`` of several padded batches, in one pass where there is one for this backbone."""
        found = self._lean(batches, hidden=False) if self.training else None
        return [self(tokens) for tokens in batches] if found is None else found

    def _lean(self, batches: Sequence[Tokens], *, hidden: bool) -> list[Encoded] | None:
        """By the lean training forward; None where there is none, or not now."""
        run = self._trainable(batches)
        if run is None:
            return None
        states = run(batches)
        return [Encoded(self.pooling(state, tokens.attention_mask, 0), state if hidden else None)
                for state, tokens in zip(states, batches, strict=True)]

    def _trainable(self, batches: Sequence[Tokens]) -> TrainableEncoder | None:
        if self.pooling.needs_layers:
            return None
        if self._lean_form is None or self._lean_form[0] is not self.backbone:
            self._lean_form, self._is_compared = (self.backbone, _lean_form_of(self.backbone)), False
        run = self._lean_form[1]
        if run is None or not run.is_usable():
            return None
        if not self._is_compared:
            self._is_compared = True
            if not run.agrees(min(batches, key=lambda tokens: tokens.input_ids.numel())):
                self._lean_form = self.backbone, None
                warnings.warn(f"sentemb's lean training forward of {type(self.backbone).__name__} differs from the "
                              "plain one; the plain one is used", stacklevel=2)
        return self._lean_form[1]

    def project(self, pooled: Float[Tensor, "n d"], *, exported: bool = False) -> Float[Tensor, "n o"]:
        """Run the heads; ``exported`` leaves out those that serve training only."""
        for head in self.heads:
            assert isinstance(head, Head)
            if not (exported and head.train_only):
                pooled = head(pooled)
        return pooled

    @property
    def couples_rows(self) -> bool:
        """Whether a head mixes the rows of a batch while training (GradCache must then keep it outside)."""
        return any(isinstance(head, Head) and head.couples_rows for head in self.heads)


def _lean_form_of(backbone: nn.Module) -> TrainableEncoder | None:
    try:
        return TrainableEncoder(backbone)
    except Unsupported:
        return None
