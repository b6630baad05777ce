"""The trainable module: backbone, pooling, heads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from sentemb.encoder.backbone import eager_attention
from sentemb.encoder.heads import Head
from sentemb.encoder.poolings import Pooling, pool
from sentemb.encoder.runners.families import Unsupported
from sentemb.encoder.runners.trainable import TrainableEncoder
from sentemb.types import Encoded, Tokens


class EncoderModule(nn.Module):
    """A Hugging Face backbone with a pooling and heads; keeps ``types.SentenceModule``.

    Calling it is row-wise. ``project`` runs the heads, which may couple rows.

    Args:
        pooling: not bound yet.
        heads: not bound yet.
        pools_prompt: whether a prompt's tokens are pooled too.
    """

    def __init__(
        self, backbone: nn.Module, pooling: Pooling, heads: Sequence[Head] = (), *, pools_prompt: bool = True
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.heads = nn.ModuleList()
        self.pools_prompt = pools_prompt
        config: Any = backbone.config
        self.width = self.exported_width = pooling.bind(config.hidden_size, config.num_hidden_layers)
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

    @property
    def kept_heads(self) -> list[Head]:
        """The heads that take part in encoding: those that are not ``train_only``."""
        return [head for head in self.heads if isinstance(head, Head) and not head.train_only]

    def forward(self, tokens: Tokens, *, hidden: bool = False, attentions: bool = False) -> Encoded:
        """Backbone and pooling.

        Args:
            tokens: one padded batch.
            hidden: also give the last hidden states.
            attentions: also give every layer's attention weights (switches to eager attention for this call).
        """
        if not attentions and self.training:
            encoded = self._lean([tokens], hidden=hidden)
            if encoded is not None:
                return encoded[0]
        with eager_attention(self.backbone) if attentions else nullcontext():
            output: Any = self.backbone(
                input_ids=tokens.input_ids, attention_mask=tokens.attention_mask,
                output_hidden_states=self.pooling.needs_layers, output_attentions=attentions, return_dict=True,
            )
        last: Float[Tensor, "b t d"] = output.last_hidden_state
        layers = output.hidden_states if self.pooling.needs_layers else [last]
        pooled = self.pool(layers, tokens.attention_mask)
        return Encoded(
            pooled=pooled, hidden=last if hidden else None, attentions=output.attentions if attentions else None
        )

    def pool(
        self, layers: Sequence[Float[Tensor, "b t d"]], mask: Int[Tensor, "b t"], prompt_tokens: int = 0
    ) -> Float[Tensor, "b d"]:
        """The pooling over a text's tokens, a prompt's left out where the model says so."""
        if prompt_tokens and not self.pools_prompt:
            mask = mask.clone()
            mask[:, :prompt_tokens] = 0
        return pool(self.pooling, layers, mask)

    def together(self, batches: Sequence[Tokens]) -> list[Encoded]:
        """``forward`` of several padded batches, in one pass where there is one for this backbone."""
        encoded = self._lean(batches, hidden=False) if self.training else None
        return [self(tokens) for tokens in batches] if encoded is None else encoded

    def _lean(self, batches: Sequence[Tokens], *, hidden: bool) -> list[Encoded] | None:
        """By the lean training forward; None where there is none, or not now."""
        run = self._trainable(batches)
        if run is None:
            return None
        states = run(batches)
        return [Encoded(pooled=self.pool([state], tokens.attention_mask), hidden=state if hidden else None)
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
        for head in self.kept_heads if exported else self.heads:
            pooled = head(pooled)
        return pooled


def _lean_form_of(backbone: nn.Module) -> TrainableEncoder | None:
    try:
        return TrainableEncoder(backbone)
    except Unsupported:
        return None
