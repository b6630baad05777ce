"""A model's README.md: what the hub shows of it, and how to use it here and in sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentemb.data.sources import HUB_ID
from sentemb.encoder.source import public_name

if TYPE_CHECKING:
    from sentemb.encoder.encoder import Encoder
    from sentemb.encoder.exported import ExportFacts

_CREATED_BY = "sentence-transformers"  # the hub's name of the layout
_INHERITED = ("license", "license_name", "license_link", "language", "base_model")  # from the model that it came from

# runtime -> how a graph is opened, and called
_RUNTIMES = {
    "onnxruntime": ('onnxruntime.InferenceSession("model.onnx")', "graph.run(None, inputs)[0]"),
    "openvino": (
        'openvino.compile_model("openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})', "graph(inputs)[0]"
    ),
}
_CODE = """import numpy as np
import RUNTIME
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")  # cuts and pads
graph = OPENED


def encode(texts):
    rows = tokenizer.encode_batch(WRITTEN)
    inputs = {
        "input_ids": np.array([row.ids for row in rows], dtype=np.int64),
        "attention_mask": np.array([row.attention_mask for row in rows], dtype=np.int64),
    }
    return CALLED


vectors = encode(["a text", "another"])  # (2, WIDTH) float32"""


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
    kinds = [module["type"] for module in json.loads((folder / "modules.json").read_text(encoding="utf-8"))]
    use = ["```python", "from sentemb import Encoder", "", f'encoder = Encoder.load("{name}")',
           f'vectors = encoder.encode(["a text", "another"])  # (2, {encoder.width}) float32', "```", ""]
    if all(kind.startswith("sentence_transformers.") for kind in kinds):
        use += ["```python", "from sentence_transformers import SentenceTransformer", "",
                f'vectors = SentenceTransformer("{name}").encode(["a text", "another"])', "```", ""]  # fmt: skip
    else:
        use += ["It has a part that sentence-transformers does not know, so only sentemb opens it.", ""]
    stored = folder / "config.json"
    if stored.is_file() and json.loads(stored.read_text(encoding="utf-8")).get("dtype") == "bfloat16":
        use += ["Its weights are stored in bfloat16.", ""]
    if prompts := _named(encoder.prompts):
        use += [f"Texts get a prompt in front: {prompts}. `encode_query` and `encode_document` put them there.", ""]
    own = {"library_name": _CREATED_BY}
    return _card(encoder, title or name, use, sections or {}, own, facts or {})


def export_card(encoder: Encoder, exported: ExportFacts, *, title: str) -> str:
    """The card of a graph of ``sentemb export``: how to run it, what goes in and out, how near it is to the model."""
    runtime = {"onnx": "onnxruntime", "openvino": "openvino"}[exported.format]
    opened, called = _RUNTIMES[runtime]
    before, after = _around(exported.prompts.get(exported.default_prompt or "", ""), encoder)
    words = " + ".join([*([json.dumps(before)] if before else []), "text", *([json.dumps(after)] if after else [])])
    code = _CODE
    written = f"[{words} for text in texts]" if before or after else "texts"
    for place, value in {"RUNTIME": runtime, "OPENED": opened, "CALLED": called, "WIDTH": str(exported.width),
                         "WRITTEN": written}.items():  # fmt: skip
        code = code.replace(place, value)
    use = [
        f"Run in this folder, after `pip install {runtime} tokenizers`:", "", "```python", code, "```", "",
        f"`input_ids` and `attention_mask` (int64, any batch and length, padding on the right) give "
        f"`sentence_embedding` (float32): pooling{', heads and unit length' * exported.is_normalised} are in the graph "
        f"(ONNX opset {exported.opset}). On {exported.compared_texts} texts of one to some hundred words its vectors "
        f"differ from the model's by {exported.largest_difference:.1e} of their length at most.", "",
        "`sentemb eval` scores this folder, `sentemb.encoder.exported.ExportedModel.load` opens it.", "",
    ]  # fmt: skip
    if prompts := _named(exported.prompts):
        use += [f"Prompts of the model, which are not in the graph: {prompts}.", ""]
    if after:
        use += ["The tokenizer cuts the end of a long text together with the words behind it: shorten such texts "
                "before.", ""]  # fmt: skip
    return _card(encoder, title, use, {}, {"library_name": runtime, "tags": [exported.format]}, {})


def _around(prompt: str, encoder: Encoder) -> tuple[str, str]:
    """What a prompt puts before and behind a text."""
    mask = encoder.tokeniser.mask_token or ""
    before, _, after = (prompt if "{text}" in prompt else prompt + "{text}").partition("{text}")
    return before.replace("{mask}", mask), after.replace("{mask}", mask)


def _named(prompts: Mapping[str, str]) -> str:
    return ", ".join(f"`{json.dumps(text, ensure_ascii=False)}` ({use})" for use, text in prompts.items() if text)


def _card(
    encoder: Encoder, title: str, use: Sequence[str], sections: Mapping[str, str], own: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> str:
    """The hub's table, what the model is, its licence, how it is used, where it comes from, and the sections."""
    is_on_hub = bool(HUB_ID.fullmatch(encoder.source)) and not Path(encoder.source).exists()
    inherited = _inherited(encoder.folder)
    table: dict[str, Any] = {
        "pipeline_tag": "sentence-similarity", **own,
        "tags": [*own.get("tags", [_CREATED_BY]), "sentence-similarity", "feature-extraction", "sentemb"],
        **inherited, **({"base_model": encoder.source} if is_on_hub else {}), **facts,
    }
    licence = table.get("license_name") or table.get("license")
    if licence is None:
        said = "Licence: not stated. Those of the model and the data that it was made from hold."
    else:
        said = f"Licence: {licence}" + ("." if "license" in facts else ", that of the model which it was made from.")
    origin = [encoder.origin] if encoder.origin else []
    if encoder.eight_bits is not None:
        origin.append("Its larger products are in eight bits: prepared with {prepared_texts:,} texts; on "
                      "{held_out_texts:,} others the cosine to the vectors in full precision was {mean_cosine} on "
                      "average and {least_cosine} at least. `sentemb` encodes so, the full weights lie "
                      "beside.".format(**encoder.eight_bits.facts))
    lines = [
        "---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()), "---", "",
        f"# {title}", "",
        f"A sentence-embedding model: it turns a text into {encoder.width} numbers, so that texts of like meaning are "
        f"near one another by {'cosine' if encoder.similarity_name == 'cosine' else 'dot product'}. It reads "
        f"{encoder.max_tokens} tokens of a text and cuts what is beyond. Saved by sentemb, from "
        f"`{public_name(encoder.source)}`.", "",
        said, "", "## Use", "", *use,
    ]  # fmt: skip
    for heading, text in {**({"Origin": "\n\n".join(origin)} if origin else {}), **sections}.items():
        lines += [f"## {heading}", "", text.strip(), ""]
    return "\n".join(lines)


def _inherited(folder: Path) -> dict[str, Any]:
    """Licence, language and base model as the card of the model in ``folder`` states them."""
    from huggingface_hub import metadata_load

    home = folder.parent if (folder.parent / "modules.json").is_file() else folder  # of a module in a model's folder
    try:
        stated = metadata_load(home / "README.md") or {}
    except (OSError, ValueError):  # no card, or a stranger's that cannot be read: nothing is stated
        return {}
    return {key: stated[key] for key in _INHERITED if stated.get(key)}
