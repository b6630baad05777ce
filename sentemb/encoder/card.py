"""A model's README.md: what the hub shows of it, and how to use it here and in sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentemb.data.sources import HUB_ID
from sentemb.encoder.source import PACKAGE

if TYPE_CHECKING:
    from sentemb.encoder.encoder import Encoder

_CREATED_BY = "sentence-transformers"  # the hub's name of the layout


def card_of(
    encoder: Encoder, folder: Path, *, name: str, title: str | None = None,
    sections: Mapping[str, str] | None = None, facts: Mapping[str, Any] | None = None,
) -> str:
    """The text of a model card, in Markdown with the hub's table of facts above it.

    Args:
        folder: the saved model, which says whether sentence-transformers can open it.
        name: what readers load: a hub id or a folder.
        title: what they call it; None: the name.
        sections: title -> text, below the use.
        facts: further entries of the hub's table (license, language, datasets, model-index, …).
    """
    is_on_hub = bool(HUB_ID.fullmatch(encoder.source)) and not Path(encoder.source).exists()
    base = encoder.source if is_on_hub or encoder.source.startswith(PACKAGE) else Path(encoder.source).name
    table: dict[str, Any] = {
        "library_name": _CREATED_BY, "pipeline_tag": "sentence-similarity",
        "tags": [_CREATED_BY, "sentence-similarity", "feature-extraction", "sentemb"],
        **({"base_model": base} if is_on_hub else {}), **(facts or {}),
    }
    kinds = [module["type"] for module in json.loads((folder / "modules.json").read_text(encoding="utf-8"))]
    is_theirs = all(kind.startswith("sentence_transformers.") for kind in kinds)
    prompts = {name: text for name, text in encoder.prompts.items() if text}
    lines = [
        "---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()), "---", "",
        f"# {title or name}", "",
        f"A sentence-embedding model: it turns a text into {encoder.width} numbers, so that texts of like meaning are "
        f"near one another by {'cosine' if encoder.similarity_name == 'cosine' else 'dot product'}. It reads "
        f"{encoder.max_tokens} tokens of a text and cuts what is beyond. Saved by sentemb, from `{base}`.", "",
        "## Use", "", "```python", "from sentemb import Encoder", "", f'encoder = Encoder.load("{name}")',
        f'vectors = encoder.encode(["a text", "another"])  # (2, {encoder.width}) float32', "```", "",
    ]  # fmt: skip
    if is_theirs:
        lines += ["```python", "from sentence_transformers import SentenceTransformer", "",
                  f'vectors = SentenceTransformer("{name}").encode(["a text", "another"])', "```", ""]  # fmt: skip
    else:
        lines += ["It has a part that sentence-transformers does not know, so only sentemb opens it.", ""]
    if prompts:
        lines += ["Texts get a prompt in front: "
                  + ", ".join(f"`{json.dumps(text, ensure_ascii=False)}` ({use})" for use, text in prompts.items())
                  + ". `encode_query` and `encode_document` put them there.", ""]  # fmt: skip
    for title, text in (sections or {}).items():
        lines += [f"## {title}", "", text.strip(), ""]
    return "\n".join(lines)
