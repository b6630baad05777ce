"""Next-token prediction beside the contrast, for decoders."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from sentemb.encoder.pretrained import load_causal_head
from sentemb.maths.similarity import at_least_float32
from sentemb.terms.term import Term
from sentemb.types import Batch, Build, PairScores, Share
from sentemb.views.view import ViewNames


class CausalLM(Term):
    """Predict every next token of the views, so that a decoder stays a language model while its embeddings learn:

        L = -Σ_i Σ_t log softmax(head(h_it))[x_i,t+1] / Σ_i Σ_t 1

    ``masked_lm`` is its sibling for encoders.

    Args:
        of: the views; the anchors by default.
    Returns: this device's share over all tokens but padding.
    Raises: ModelError (when built) where the checkpoint is no causal language model.
    Source: Yu et al. 2025, "CAFe: unifying representation and generation with contrastive-autoregressive finetuning",
        after its readme.
    Deviations: the head's weights are a copy of the word embeddings where the checkpoint ties them, and learn apart.
    """

    def __init__(self, *, of: ViewNames = ("anchor",)) -> None:
        super().__init__()
        self.of = of
        self.encodes = frozenset(of)
        self.needs = frozenset({"hidden", "tokens", *(f"view:{name}" for name in of)})
        self.head: nn.Linear | None = None

    def bind(self, build: Build) -> None:
        """Load the head."""
        self.head = load_causal_head(build.folder_of(build.backbone), trust_remote_code=build.trust_remote_code)

    def forward(self, table: PairScores, batch: Batch) -> Share:
        """The share of this device's tokens."""
        assert self.head is not None
        total, count = at_least_float32(table.sim).new_zeros(()), 0
        for name in self.of:
            hidden, tokens = batch.encoded[name].hidden, batch.tokens[name]
            assert hidden is not None
            follows = tokens.attention_mask[:, 1:].bool()
            logits = at_least_float32(self.head(hidden[:, :-1][follows]))
            total = total + F.cross_entropy(logits, tokens.input_ids[:, 1:][follows], reduction="sum")
            count += logits.shape[0]
        return Share(total=total, count=total.new_tensor(float(count)))
