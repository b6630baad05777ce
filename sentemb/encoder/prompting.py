"""What a model puts around texts before it encodes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from sentemb.data.templates import MASK, TEXT, Template, require_one_mask
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.tokeniser import Tokeniser
from sentemb.errors import ModelError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Prompting:
    """A model's named prompts, prefixes and templates alike; saved with it."""

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None  # the name of the one that is used where none is given
    subtract_empty: float = 0.0  # how much of the template's own vector, without a text, is subtracted

    @property
    def has_templates(self) -> bool:
        """Whether sentence-transformers, which only knows prefixes, would encode texts differently."""
        return bool(self.subtract_empty) or any(TEXT in prompt or MASK in prompt for prompt in self.prompts.values())

    def changed(
        self, prompts: Mapping[str, str], default_prompt: str | None, subtract_empty: float | None
    ) -> Prompting:
        """With further prompts, which override those of their names; what is None stays."""
        return replace(
            self, prompts={**self.prompts, **prompts}, default_prompt=default_prompt or self.default_prompt,
            subtract_empty=self.subtract_empty if subtract_empty is None else subtract_empty,
        )

    def check(self, module: EncoderModule, tokeniser: Tokeniser, source: str) -> None:
        """Raise ``ModelError`` for a prompt that cannot be used with this model."""
        if self.default_prompt is not None and self.default_prompt not in self.prompts:
            raise ModelError(f'{source}: default_prompt = "{self.default_prompt}"'
                             f"{did_you_mean(self.default_prompt, self.prompts)}")
        for name, prompt in self.prompts.items():
            try:
                template = Template.read(prompt)
                if name == self.default_prompt and module.pooling.reads_mask_token:
                    require_one_mask(prompt)
                if template.after or template.masks:
                    tokeniser.frame(template)
            except (ValueError, ModelError) as error:
                raise ModelError(f"{source}: prompts.{name}: {error}") from None


def template_of(
    prompt: str | None, prompt_name: str | None, prompting: Prompting, source: str, *, reads_mask_token: bool,
    pools_prompt: bool = True,
) -> Template | None:
    """The template of a prompt, of a named one, or of the model's default; None without any.

    Args:
        reads_mask_token: the pooling's, which then needs a template with one.
        pools_prompt: whether a prompt's tokens are pooled; if not, it stands in front of the text.

    Raises: ModelError for an unknown name, and where the model cannot use the prompt.
    """
    name = prompting.default_prompt if prompt_name is None else prompt_name
    if prompt is None and name is not None:
        if name not in prompting.prompts:
            raise ModelError(f'prompt_name = "{name}"{did_you_mean(name, prompting.prompts)}')
        prompt = prompting.prompts[name]
    try:
        if reads_mask_token:
            require_one_mask(prompt)
        template = Template.read(prompt) if prompt else None
    except ValueError as error:
        raise ModelError(f"{source}: prompt {error}") from None
    if template is not None and template.after and not pools_prompt:
        raise ModelError(f"{source}: the model leaves prompts out of its pooling, and knows only those in front of a "
                         f"text; the template '{prompt}' has words behind {TEXT}")
    return template


class Templates:
    """Stands in ``modules.json`` of models whose texts are written into templates, so that no library that does not
    know them encodes texts without, unnoticed."""

    @classmethod
    def load(cls, *_: Any, **__: Any) -> NoReturn:
        """What sentence-transformers calls: says in one sentence why the model does not open there."""
        raise ModelError("this model writes every text into a template, or reads its vector at a mask token, which "
                         "sentence-transformers cannot do; open it with sentemb: Encoder.load(FOLDER)")
