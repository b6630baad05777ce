"""A decoder writes a text again from one embedding."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from sentemb.encoder.pretrained import head_of_decoder, load_decoder
from sentemb.errors import ModelError
from sentemb.maths.similarity import at_least_float32
from sentemb.terms.term import Term
from sentemb.types import Batch, Build, Footprint, PairScores, Share


class Reconstruction(Term):
    """Predict every token of a text from those before it and from the embedding of its damaged copy.

        L = -Σ_i Σ_{t ≥ 2} log p(x_it | x_i1 … x_i,t-1; u_i) / Σ_i Σ_{t ≥ 2} 1

    The decoder is the checkpoint itself as a language model: a causal mask, and in every layer cross-attention to u_i,
    the embedding behind the heads, as the only state. What the words before leave open must come from u. Differs from
    ``denoise`` in having words to continue instead of noisy embeddings of all words, and in needing no contrast beside
    it. The decoder is trained beside the encoder and left behind.

    Args:
        of: the view to write again.
        by: the view whose embedding the decoder reads.
    Returns: this device's share over all tokens but the first and padding.
    Raises: ModelError (when built) where transformers has no decoder of the checkpoint's kind, or the embeddings are
        not as wide as its states.
    Source: Wang, Reimers & Gurevych 2021, Findings of EMNLP, "TSDAE: using transformer-based sequential denoising
        auto-encoder for unsupervised sentence embedding learning".
    Deviations: the decoder starts from the encoder's weights and learns apart from them, as in sentence-transformers'
        ``DenoisingAutoEncoderLoss`` with ``tie_encoder_decoder = False``; the paper ties the two. Damage is done to
        tokens (view ``edited``), in the paper to words.
    """

    def __init__(self, *, of: str = "positive", by: str = "anchor") -> None:
        super().__init__()
        self.of, self.by = of, by
        self.needs = frozenset({"tokens", f"view:{of}", f"view:{by}"})

    def footprint(self, *, hidden: int, vocabulary: int, texts: int, tokens: int) -> Footprint:
        """Self-attention, cross-attention and feed-forward as of twelve layers, both embeddings, and the logits."""
        layer = 16 * hidden**2
        return Footprint(parameters=12 * layer + 2 * vocabulary * hidden,
                         activation_bytes=4.0 * texts * tokens * (12 * 24 * hidden + 3 * vocabulary))

    def bind(self, build: Build) -> None:
        """Load the decoder."""
        folder = build.folder_of(build.backbone)
        self.decoder: Any = load_decoder(folder, trust_remote_code=build.trust_remote_code)
        if build.width != self.decoder.config.hidden_size:
            raise ModelError(f"terms: {self.name}: the embeddings are {build.width} wide and the decoder's states "
                             f"{self.decoder.config.hidden_size}; leave out the head that changes the width")

    def forward(self, table: PairScores, batch: Batch) -> Share:
        """The share of this device's tokens."""
        tokens, embedding = batch.tokens[self.of], batch.views[self.by].embedding[batch.local]
        is_told = tokens.attention_mask[:, 1:].bool()
        states = embedding[:, None].to(next(self.decoder.parameters()).dtype)
        output = self.decoder.base_model(
            input_ids=tokens.input_ids[:, :-1], attention_mask=tokens.attention_mask[:, :-1],
            encoder_hidden_states=states, use_cache=False,
        )
        # logits of padding would be a third of the step's largest product
        logits = at_least_float32(head_of_decoder(self.decoder)(output.last_hidden_state[is_told]))
        total = F.cross_entropy(logits, tokens.input_ids[:, 1:][is_told], reduction="sum")
        return Share(total=total, count=total.new_tensor(float(len(logits))))
