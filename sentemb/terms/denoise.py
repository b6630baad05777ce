"""A decoder restores a text from its noisy word embeddings and its sentence embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor, nn

from sentemb.encoder.pretrained import load_masked_lm_head
from sentemb.errors import ModelError, RecipeError
from sentemb.maths.similarity import at_least_float32
from sentemb.parts import Count
from sentemb.terms.term import Term
from sentemb.types import Batch, Build, Footprint, PairScores, Share, Tokens

_FEED_FORWARD = 2048


class Denoise(Term):
    """Tell every token of a text, given its word embeddings under heavy dropout and one sentence embedding:

        ẽ = dropout(e(x))                                     e: the backbone's embedding layer, as a constant
        L = -Σ_i Σ_{t ∈ i} log softmax( head(decoder(ẽ_i, memory = u_i))_t )[x_it] / Σ_i Σ_{t ∈ i} 1

    The decoder is a stack of post-norm transformer layers without a causal mask; it reads u, the embedding behind the
    heads, by cross-attention. What dropout hides must come from u, which so learns what a text says, beside a contrast
    that learns which texts are alike. Decoder and vocabulary head are trained beside the encoder and left behind.

    Args:
        of: the view to restore; a translation to another language and back of the anchor, or the anchor's dropout twin.
        by: the view whose embedding the decoder reads.
        layers: of the decoder, whose dropout is the backbone's.
        heads: of its attention; must divide the embeddings' width.
        dropout: of the word embeddings; 0 leaves nothing to restore.
    Returns: this device's share over all tokens but padding, special tokens included.
    Raises: ModelError (when built) where the embeddings are not as wide as the backbone's, heads do not divide them, or
        the backbone has no embedding layer or a masked-LM head of an unknown shape.
    Source: Wang et al. 2024, AAAI, "DenoSent: a denoising objective for self-supervised sentence representation
        learning", released code.
    Deviations: the head's output weights are a copy of the word embeddings and learn apart from them, where the release
        ties the two. The release decodes padding as well and leaves it out of the loss; here it is masked.
    """

    def __init__(
        self, *, of: str = "positive", by: str = "anchor", layers: Count = 16, heads: Count = 1,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.825,
    ) -> None:
        super().__init__()
        self.of, self.by, self.layers, self.heads, self.dropout = of, by, layers, heads, dropout
        self.needs = frozenset({"tokens", f"view:{of}", f"view:{by}"})
        self._embeddings: tuple[nn.Module] | None = None  # in a tuple: not a module of its own

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Embeddings that no device has whole."""
        train = recipe.get("train")
        if train is not None and train.shard:
            return ["calls the backbone's embedding layer by itself; train.shard = true deals it to the devices: leave "
                    "one of them out"]
        return []

    def footprint(self, *, hidden: int, vocabulary: int, texts: int, tokens: int) -> Footprint:
        """Decoder and head, what their layers keep for backward, and the logits with their softmax."""
        layer = 8 * hidden**2 + 2 * hidden * _FEED_FORWARD
        values = self.layers * (20 * hidden + 2 * _FEED_FORWARD + 2 * self.heads * tokens) + 3 * vocabulary
        return Footprint(parameters=self.layers * layer + hidden * (hidden + vocabulary),
                         activation_bytes=4.0 * texts * tokens * values)

    def bind(self, build: Build) -> None:
        """Make the decoder, load the head, remember the embedding layer."""
        encoder: Any = build.encoder
        embeddings, width = getattr(encoder.backbone, "embeddings", None), encoder.backbone.config.hidden_size
        if not isinstance(embeddings, nn.Module):
            raise ModelError(f"terms: {self.name}: {type(encoder.backbone).__name__} has no embedding layer whose "
                             "output could be denoised; use BERT, RoBERTa, MPNet, DistilBERT or one built like them")
        if build.width != width or width % self.heads:
            raise ModelError(f"terms: {self.name}: the embeddings are {build.width} wide, the decoder reads word "
                             f"embeddings of {width} with {self.heads} heads; both widths must be equal, and the heads "
                             "divide them: use a head of the backbone's width, or other heads")
        self._embeddings = (embeddings,)
        rate = getattr(encoder.backbone.config, "hidden_dropout_prob", 0.1)
        layer = nn.TransformerDecoderLayer(width, self.heads, _FEED_FORWARD, rate, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, self.layers)
        self.head, _ = load_masked_lm_head(
            build.folder_of(build.backbone), seed=build.seed, trust_remote_code=build.trust_remote_code
        )

    def forward(self, table: PairScores, batch: Batch) -> Share:
        """The share of this device's tokens."""
        tokens = batch.tokens[self.of]
        is_text = tokens.attention_mask.bool()
        states = self.decoder(
            self._noisy(tokens), batch.views[self.by].embedding[batch.local][:, None], tgt_key_padding_mask=~is_text
        )
        logits = at_least_float32(self.head(states[is_text]))
        total = F.cross_entropy(logits, tokens.input_ids[is_text], reduction="sum")
        return Share(total=total, count=total.new_tensor(float(len(logits))))

    @torch.no_grad()
    def _noisy(self, tokens: Tokens) -> Tensor:
        """Word embeddings under dropout; the embedding layer learns nothing from having to restore them."""
        if self._embeddings is None:
            raise RecipeError(f"{self.name} needs the encoder: it works in recipes, where bind() gives it")
        embedded: Tensor = self._embeddings[0](input_ids=tokens.input_ids)
        return F.dropout(embedded, self.dropout, self.training)
