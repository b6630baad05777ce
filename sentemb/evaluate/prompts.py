"""Which of a model's named prompts goes in front of a text, by task name, task type and the text's role.

Priority, as MTEB documents it: ``<task>-<role>``, ``<task>``, ``<type>-<role>``, ``<type>``, ``<role>``. The roles are
``query`` and ``document``; what many models call ``passage`` serves as ``document``.
"""

from __future__ import annotations

from collections.abc import Mapping

_ALIASES = {"query": ("query",), "document": ("document", "passage")}


def prompt_for(
    prompts: Mapping[str, str], *, task: str = "", task_type: str = "", role: str | None = None
) -> str | None:
    """The prompt's text, or None where no name fits (the model's own default then applies)."""
    roles = _ALIASES.get(role, (role,)) if role else ()
    candidates = [
        *(f"{task}-{name}" for name in roles),
        task,
        *(f"{task_type}-{name}" for name in roles),
        task_type,
        *roles,
    ]
    return next((prompts[name] for name in candidates if name and name in prompts), None)
