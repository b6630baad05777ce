"""Generator and conditioned discriminator of replaced-token detection (DiffCSE)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sentemb.companions.companion import Companion
from sentemb.encoder.backbone import load_backbone
from sentemb.encoder.pretrained import check_same_tokenizer, lacks_head, load_masked_lm
from sentemb.encoder.runners.trainable import TrainableEncoder, trainable
from sentemb.errors import CheckpointError, ModelError
from sentemb.types import Build, Tokens, Vocabulary

# tokens generated at a time by kind of device: their logits over the vocabulary are the step's largest tensor (0.5 GB
# of 4,096 tokens and 30,522 words); of other kinds 4,096
GENERATED_TOKENS = {"cpu": 512}


@dataclass(frozen=True)
class Detection:
    """What the discriminator says of every token of the edited sentences, and what is true."""

    logits: Float[Tensor, "b t 2"]  # kept, replaced
    replaced: Bool[Tensor, "b t"]
    counted: Bool[Tensor, "b t"]  # neither padding nor special


class Detector(Companion):
    """Edits masked sentences with a frozen masked-LM and detects the edits with a trained, conditioned one.

        x″_t = argmax G(x′)_t at every position, special tokens kept
        y_t  = 1[x″_t ≠ x_t]
        ŷ    = softmax(W D(x″ | h) + b), where h takes the place of [CLS] in D's input

    G, the generator, never learns and runs without dropout. D, the discriminator, is a second copy of the encoder's
    backbone and learns, with a linear head on top. h is the sentence embedding as the contrastive term sees it (after
    heads and projector), so the loss of ŷ reaches encoder and heads through it. The term ``replaced_token_detection``
    turns the detection into a loss.

    Args:
        generator: path or id of a masked-language model with the encoder's vocabulary;
            distilbert-base-uncased for BERT, distilroberta-base for RoBERTa.
        backbone: path or id that the discriminator starts from; the encoder's own by default.
    Source: Chuang et al. 2022, NAACL, section 3; the place of h (after D's embedding layer) from its released code.
    Deviations: special tokens and padding are neither replaced nor counted, where the released code replaces [SEP]
        and counts padding as kept, so that its loss falls with the padding of a batch. The generator runs without
        dropout; in the released code it inherits the training mode. [CLS] is found by position, not by BERT's number.
        The head's bias starts at zero, there as PyTorch draws it.
    """

    special: Tensor
    model_bytes = 4 + 16  # a frozen generator, and a discriminator with gradient and moments

    def __init__(self, *, generator: str, backbone: str | None = None) -> None:
        super().__init__()
        self.generator_source, self.backbone_source = generator, backbone

    @property
    def checkpoints(self) -> tuple[str, ...]:
        return tuple(source for source in (self.generator_source, self.backbone_source) if source)

    def bind(self, build: Build) -> None:
        """Load both models; the head's start is drawn from the run's seed."""
        trust = build.trust_remote_code
        own = build.folder_of(build.backbone)
        generator_folder = build.folder_of(self.generator_source)
        folder = own if self.backbone_source is None else build.folder_of(self.backbone_source)
        for other in {generator_folder, folder} - {own}:
            check_same_tokenizer(own, other, "companions: detector", trust_remote_code=trust)
        self.generator, missing = load_masked_lm(generator_folder, trust_remote_code=trust)
        if lacks_head(missing):
            raise ModelError(
                f"companions: detector: {self.generator_source} has no masked-language-model head, so it cannot fill "
                "masks; name a checkpoint trained by masked-language modelling, e.g. distilbert-base-uncased"
            )
        self.discriminator, _ = load_backbone(folder, trust_remote_code=trust)
        self._check_fit(build)
        width = build.width
        self.head = nn.Linear(width, 2)
        nn.init.uniform_(self.head.weight, -(width**-0.5), width**-0.5, torch.Generator().manual_seed(build.seed))
        nn.init.zeros_(self.head.bias)
        self.generator.requires_grad_(False)
        self.vocabulary: Vocabulary = build.vocabulary
        self.register_buffer("special", torch.tensor(sorted(build.vocabulary.special)), persistent=False)
        self.train(self.training)

    def _check_fit(self, build: Build) -> None:
        config: Any = self.discriminator.config
        if config.hidden_size != build.width:
            raise ModelError(
                f"companions: detector: the embeddings are {build.width} wide, but the discriminator's input is "
                f"{config.hidden_size} wide; use a head that keeps the backbone's width, or another backbone"
            )
        if not isinstance(getattr(self.discriminator, "embeddings", None), nn.Module):
            raise ModelError(
                f"companions: detector: {type(self.discriminator).__name__} has no embedding layer that a sentence "
                "embedding could enter; use BERT, RoBERTa, MPNet, DistilBERT or one built like them"
            )
        if not build.vocabulary.special:
            raise ModelError("companions: detector: the tokenizer has no [CLS] whose place the embedding could take")

    def train(self, mode: bool = True) -> Detector:
        """As ``nn.Module.train``, but the generator stays in evaluation mode."""
        super().train(mode)
        if "generator" in self._modules:
            self.generator.eval()
        return self

    def detect(self, masked: Sequence[Tokens], sentences: Sequence[Float[Tensor, "b d"]]) -> Detection:
        """Edit masked copies (one for each view, all in one forward pass) and detect the edits, conditioned on the
        unmasked sentences' embeddings. Gives the views' rows one after the other.
        """
        tokens = concatenate_tokens(masked, self.vocabulary.pad)
        assert tokens.targets is not None
        original = torch.where(tokens.targets == -100, tokens.input_ids, tokens.targets)
        counted = tokens.attention_mask.bool() & ~torch.isin(original, self.special)
        edited = torch.where(counted, self.generate(tokens), original)
        logits = self.discriminate(edited, tokens.attention_mask, torch.cat(list(sentences)))
        return Detection(logits, edited != original, counted)

    @torch.no_grad()
    def generate(self, tokens: Tokens) -> Int[Tensor, "b t"]:
        """The generator's best token at every position; some token at padding."""
        ids, mask, best = tokens.input_ids, tokens.attention_mask, tokens.input_ids.clone()
        size = GENERATED_TOKENS.get(ids.device.type, 4096)
        for rows in mask.sum(dim=1).argsort().split(max(1, size // ids.shape[1])):  # alike in length: little padding
            end = int(mask[rows].nonzero()[:, 1].max()) + 1
            logits = self.generator(input_ids=ids[rows, :end], attention_mask=mask[rows, :end]).logits
            best[rows, :end] = logits.argmax(dim=-1)
        return best

    def discriminate(
        self, input_ids: Int[Tensor, "b t"], attention_mask: Int[Tensor, "b t"], sentence: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b t 2"]:
        """Logits of kept and replaced, with ``sentence`` in [CLS]'s place."""
        tokens = Tokens(input_ids=input_ids, attention_mask=attention_mask)
        if self._lean is not None and self._lean.is_usable([tokens]):
            hidden = self._lean([tokens], first=[sentence])[0]
        else:
            hidden = self._plain_states(tokens, sentence)
        logits: Tensor = self.head(hidden)
        return logits

    def _plain_states(self, tokens: Tokens, sentence: Float[Tensor, "b d"]) -> Float[Tensor, "b t d"]:
        def condition(_: nn.Module, __: Any, embedded: Tensor) -> Tensor:
            return torch.cat([sentence[:, None].to(embedded.dtype), embedded[:, 1:]], dim=1)

        # a hook reaches the place behind the embedding layer in every architecture; it lives for this call only
        handle = self.discriminator.embeddings.register_forward_hook(condition)  # type: ignore[union-attr]
        try:
            output: Any = self.discriminator(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        finally:
            handle.remove()
        states: Tensor = output.last_hidden_state
        return states

    @cached_property
    def _lean(self) -> TrainableEncoder | None:
        return trainable(self.discriminator)

    def checkpoint_state(self) -> dict[str, Tensor]:
        """Discriminator and head; the generator is loaded again from its source."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("generator.")}

    def load_checkpoint_state(self, state: Mapping[str, Tensor]) -> None:
        """Raises: CheckpointError where the state is of another detector."""
        missing, unexpected = self.load_state_dict(dict(state), strict=False)
        wrong = [name for name in missing if not name.startswith("generator.")] + list(unexpected)
        if wrong:
            raise CheckpointError(f"companions: detector: the checkpoint is of another detector (e.g. {wrong[0]})")


def concatenate_tokens(parts: Sequence[Tokens], pad: int) -> Tokens:
    """Rows of several token batches with targets, padded to the longest."""
    width = max(part.input_ids.shape[1] for part in parts)

    def widen(tensors: Sequence[Tensor], value: int) -> Tensor:
        return torch.cat([F.pad(tensor, (0, width - tensor.shape[1]), value=value) for tensor in tensors])

    return Tokens(
        input_ids=widen([part.input_ids for part in parts], pad),
        attention_mask=widen([part.attention_mask for part in parts], 0),
        targets=widen([part.targets for part in parts if part.targets is not None], -100),
    )
