"""The trainable module: backbone, pooling, heads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sentemb.encoder.backbone import eager_attention
from sentemb.encoder.heads import Head
from sentemb.encoder.poolings import Cls, Pooling
from sentemb.encoder.runners.trainable import TrainableEncoder, trainable
from sentemb.encoder.static import StaticTable
from sentemb.errors import ModelError, RecipeError
from sentemb.types import Encoded, Tokens


class EncoderModule(nn.Module):
    """A Hugging Face backbone with a pooling (not bound yet) and heads; keeps ``types.SentenceModule``.

    Calling it is row-wise. ``project`` runs the heads, which may couple rows.
    """

    def __init__(
        self, backbone: nn.Module, pooling: Pooling, *, pools_prompt: bool = True, mask_token: int | None = None
    ) -> None:
        """Raises: ModelError for a pooling of mask tokens where the tokenizer has none."""
        super().__init__()
        if pooling.reads_mask_token and mask_token is None:
            raise ModelError('the pooling "mask" reads the mask token, and the tokenizer has none; use a backbone that '
                             "was trained by masked-language modelling (BERT, RoBERTa, MPNet, …), or another pooling")
        self.mask_token = mask_token
        self.backbone = backbone
        self.pooling = pooling
        self.heads = nn.ModuleList()
        self.pools_prompt = pools_prompt
        config: Any = backbone.config
        self.pooled_width = pooling.bind(config.hidden_size, config.num_hidden_layers)
        self.width = self.exported_width = self.pooled_width
        self._inner: int | None = None  # a layer that training pools beside the last one

    def add_head(self, head: Head) -> None:
        """Bind a head behind the others."""
        self.width = head.bind(self.width)
        if not head.train_only:
            self.exported_width = self.width
        self.heads.append(head)

    def also_pool(self, layer: int, part: str) -> None:
        """Pool the states of this layer, too, in every later call (0: the embeddings); ``part`` asks for it.

        Raises: RecipeError where there is no such layer, where another one is pooled already, or where the pooling
            reads all layers.
        """
        config: Any = self.backbone.config
        fault = ""
        if layer > config.num_hidden_layers:
            fault = f"the backbone's layers are 0 (its embeddings) to {config.num_hidden_layers}"
        elif self._inner not in (None, layer):
            fault = f"another part reads layer {self._inner}; all must read the same one"
        elif self.pooling.needs_layers:
            fault = "the recipe's pooling reads all layers; take one of the last layer, such as cls or mean"
        if fault:
            raise RecipeError(f"{part}: layer = {layer}: {fault}")
        self._inner = layer

    @property
    def kept_heads(self) -> list[Head]:
        """The heads that take part in encoding: those that are not ``train_only``."""
        return [head for head in self.heads if isinstance(head, Head) and not head.train_only]

    def forward(self, tokens: Tokens, *, hidden: bool = False, attentions: bool = False) -> Encoded:
        """Backbone and pooling of one padded batch; ``attentions`` switches to eager attention for this call."""
        encoded = None if attentions else self._lean([tokens], hidden=hidden)
        if encoded is not None:
            return encoded[0]
        with eager_attention(self.backbone) if attentions else nullcontext():
            output, pooled = self.plain(
                self.backbone, tokens, attentions=attentions, every_layer=self._inner is not None
            )
        inner = None
        if self._inner is not None:
            inner = self.pool([output.hidden_states[self._inner]], tokens)
        return Encoded(pooled=pooled, hidden=output.last_hidden_state if hidden else None, inner=inner,
                       attentions=output.attentions if attentions else None)

    def together(self, batches: Sequence[Tokens]) -> list[Encoded]:
        """``forward`` of several padded batches, in one pass where there is one for this backbone."""
        if isinstance(self.backbone, StaticTable) and not self.pooling.needs_layers and self._inner is None:
            return self._by_one_lookup(batches)
        return self._lean(batches, hidden=False) or [self(tokens) for tokens in batches]

    def plain(
        self, backbone: nn.Module, tokens: Tokens, *, prompt_tokens: int = 0, attentions: bool = False,
        every_layer: bool = False,
    ) -> tuple[Any, Float[Tensor, "b d"]]:
        """What the backbone, or a copy of it in another format, gives by itself, and that pooled."""
        output = backbone(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, return_dict=True,
            output_hidden_states=every_layer or self.pooling.needs_layers,
            **({"output_attentions": True} if attentions else {}),
        )
        layers = output.hidden_states if self.pooling.needs_layers else [output.last_hidden_state]
        return output, self.pool(layers, tokens, prompt_tokens)

    def pool(
        self, layers: Sequence[Float[Tensor, "b t d"]], tokens: Tokens, prompt_tokens: int = 0
    ) -> Float[Tensor, "b d"]:
        """The pooling over a text's tokens, a prompt's left out where the model says so, or over its mask token."""
        mask = tokens.attention_mask
        if self.pooling.reads_mask_token:
            mask = mask * (tokens.input_ids == self.mask_token)
        elif prompt_tokens and not self.pools_prompt:
            mask = mask.clone()
            mask[:, :prompt_tokens] = 0
        weight = next(self.pooling.parameters(), None)
        if weight is not None:  # a pooling's weights stay in float32
            layers = [layer.to(weight.dtype) for layer in layers]
        return self.pooling.pool_layers(layers, mask)

    @cached_property
    def _trainable(self) -> TrainableEncoder | None:
        return trainable(self.backbone)

    def _lean(self, batches: Sequence[Tokens], *, hidden: bool) -> list[Encoded] | None:
        """By the lean training forward; None where there is none, or not now. In evaluation mode it serves companions,
        which take no gradients."""
        is_usual = self.training or not torch.is_grad_enabled()
        if not is_usual or self.pooling.needs_layers or self._inner is not None:
            return None
        if self._trainable is None or not self._trainable.is_usable(batches):
            return None
        if isinstance(self.pooling, Cls) and not hidden:
            return [Encoded(pooled=pooled) for pooled in self._trainable.first_states(batches)]
        return [Encoded(pooled=self.pool([state], tokens), hidden=state if hidden else None)
                for state, tokens in zip(self._trainable(batches), batches, strict=True)]

    def _by_one_lookup(self, batches: Sequence[Tokens]) -> list[Encoded]:
        """A static model's, whose table so takes one gradient of its whole size and not one for every batch."""
        ids = torch.cat([tokens.input_ids.flatten() for tokens in batches])[None]
        states = self.backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        parts = states.split([tokens.input_ids.numel() for tokens in batches])
        return [Encoded(pooled=self.pool([part.view(*tokens.input_ids.shape, -1)], tokens))
                for part, tokens in zip(parts, batches, strict=True)]

    def project(
        self, pooled: Float[Tensor, "n d"], *, exported: bool = False, views: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n o"]:
        """Run the heads; ``exported`` leaves out those that serve training only.

        The rows are those of ``views`` views, one view after the other; heads that are ``per_view`` see one at a time
        and draw from the generator.
        """
        for head in self.kept_heads if exported else self.heads:
            if isinstance(head, Head) and head.per_view:
                pooled = torch.cat([head(rows, generator) for rows in pooled.chunk(views)])
            else:
                pooled = head(pooled)
        return pooled
