"""Named prompts: what a model was trained to see in front of queries, documents and the like."""

from __future__ import annotations

from collections.abc import Mapping

from sentemb.errors import ModelError, did_you_mean

_DOCUMENTS = ("document", "passage", "corpus")


def prompt_text(prompts: Mapping[str, str], prompt: str | None, name: str | None) -> str:
    """The prompt that is given as text, else the one that is named, else none.

    Raises:
        ModelError: an unknown name.
    """
    if prompt is not None or name is None:
        return prompt or ""
    if name not in prompts:
        raise ModelError(f'prompt_name = "{name}"{did_you_mean(name, prompts)}')
    return prompts[name]


def query_name(prompts: Mapping[str, str]) -> str | None:
    """The name of the prompt for queries, where there is one."""
    return "query" if "query" in prompts else None


def document_name(prompts: Mapping[str, str]) -> str | None:
    """The name of the prompt for documents, where there is one: ``document``, ``passage`` or ``corpus``."""
    return next((name for name in _DOCUMENTS if name in prompts), None)
