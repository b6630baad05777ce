"""Static models: every token has one vector, whatever stands beside it, and a text is the mean of its tokens'.

Two layouts are read and written, each with a tokenizer.json and a table in model.safetensors: sentence-transformers'
StaticEmbedding, and model2vec's, which leaves unknown tokens out of the mean. Special tokens are never added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sentemb.encoder.backbone import read_json, read_weights, refused, weight_files, write_weights
from sentemb.encoder.poolings import PoolingChoice, make_pooling
from sentemb.encoder.tokeniser import Tokeniser, checked_max
from sentemb.errors import ModelError
from sentemb.files import write_json
from sentemb.types import Vocabulary

_ENDLESS = 1_000_000  # tokens; sentence-transformers cuts nothing, model2vec after 512 unless its configuration says so


@dataclass(frozen=True, kw_only=True)
class StaticConfig:
    """What a backbone's configuration says, as far as a static one has it."""

    hidden_size: int
    drops_unknown: bool  # model2vec's way
    num_hidden_layers: int = 0
    model_type: str = "static"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class StaticTable(nn.Module):
    """A backbone without layers: the last hidden states are the tokens' vectors.

    Row v, behind the vocabulary's v rows, stands for a text without tokens: zero, and it stays so.
    """

    def __init__(self, vectors: Float[Tensor, "v d"], *, drops_unknown: bool) -> None:
        super().__init__()
        rows, width = vectors.shape
        self.config = StaticConfig(hidden_size=width, drops_unknown=drops_unknown)
        self.embedding = nn.Embedding(rows + 1, width, padding_idx=rows, _weight=F.pad(vectors.float(), (0, 0, 0, 1)))

    @property
    def vectors(self) -> Float[Tensor, "v d"]:
        """The vocabulary's rows."""
        return self.embedding.weight[:-1]

    def forward(
        self, input_ids: Int[Tensor, "b t"], attention_mask: Int[Tensor, "b t"], **_: Any
    ) -> SimpleNamespace:
        """As transformers' models answer; there are no attentions."""
        states = self.embedding(input_ids)
        return SimpleNamespace(last_hidden_state=states, hidden_states=(states,), attentions=None)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def gradient_checkpointing_enable(self, **_: Any) -> None:
        raise ModelError("train.gradient_checkpointing: a static model has no layers to compute again; leave it out")


def refuse_other_pooling(folder: Path, pooling: PoolingChoice | None, layers: Sequence[int] | None) -> None:
    """Raises: ModelError where something else than the mean of the tokens is wanted of a static model."""
    if layers is not None or not (pooling is None or make_pooling(pooling) == make_pooling("mean")):
        raise ModelError(f"{folder}: a static model is the mean of its tokens' vectors; it has no layers and no other "
                         'pooling: take pooling = "mean" (--set encoder.pooling=mean), and no layers')


def model2vec_config(folder: Path) -> dict[str, Any] | None:
    """``config.json`` of a folder that holds a model of model2vec; None of another folder."""
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    return config if isinstance(config, dict) and config.get("model_type") == "model2vec" else None


def load_static(folder: Path, max_tokens: int | None) -> tuple[StaticTable, Tokeniser]:
    """The table and the tokenizer in ``folder``, which is the module's own.

    Raises: ModelError where a file is missing or damaged, or they do not fit together.
    """
    tokeniser, drops_unknown = load_static_tokeniser(folder, max_tokens)
    weights = read_weights(*weight_files(folder))
    vectors = _folded(weights, folder)
    if len(vectors) < tokeniser.vocabulary.size:
        raise ModelError(f"{folder}: model.safetensors has {len(vectors):,} rows, but tokenizer.json numbers "
                         f"{tokeniser.vocabulary.size:,} tokens; they are of different models")
    return StaticTable(vectors[: tokeniser.vocabulary.size], drops_unknown=drops_unknown), tokeniser


def _folded(weights: Mapping[str, Tensor], folder: Path) -> Float[Tensor, "v d"]:
    """One row a token; model2vec may store fewer rows, with a row number and a weight for each token."""
    table = weights.get("embedding.weight", weights.get("embeddings"))
    if table is None or table.dim() != 2:
        raise ModelError(f"{folder / 'model.safetensors'}: holds {', '.join(sorted(weights))}; a static model has a "
                         "table embedding.weight or embeddings")
    if "mapping" in weights:
        table = table[weights["mapping"].long()]
    return table.float() * weights["weights"].float()[:, None] if "weights" in weights else table.float()


def load_static_tokeniser(folder: Path, max_tokens: int | None) -> tuple[Tokeniser, bool]:
    """The tokenizer of the static model in ``folder``, and whether it leaves unknown tokens out."""
    path, config = folder / "tokenizer.json", model2vec_config(folder)
    if not path.is_file():
        raise ModelError(f"{folder}: no tokenizer.json; a static model keeps it beside model.safetensors")
    if config is not None:
        stored = config.get("max_length", 512) or _ENDLESS
    else:
        stored = (read_json(folder / "config.json") if (folder / "config.json").is_file() else {}).get("max_length")
    with refused(path):
        rules = json.loads(path.read_text(encoding="utf-8"))
        limit, is_model2vec = max_tokens or int(stored or _ENDLESS), config is not None
        return static_tokeniser(rules, limit, drops_unknown=is_model2vec), is_model2vec


def static_tokeniser(rules: Mapping[str, Any], max_tokens: int, *, drops_unknown: bool) -> Tokeniser:
    """A tokenizer of these rules (a tokenizer.json) that adds no special tokens."""
    from tokenizers import Tokenizer

    text = json.dumps({**rules, "post_processor": None, "truncation": None, "padding": None})
    fast = Tokenizer.from_str(text)
    size = fast.get_vocab_size()
    special = {number for number, token in fast.get_added_tokens_decoder().items() if token.special}
    model = rules["model"]
    unknown = fast.token_to_id(model["unk_token"]) if model.get("unk_token") else model.get("unk_id")

    def load_hub() -> Any:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text))

    return Tokeniser(
        fast, Vocabulary(size=size, pad=size, mask=None, special=frozenset({*special, size})),
        checked_max(max_tokens, None), load_hub, dropped=unknown if drops_unknown else None,
    )


# ------------------------------------------------------------------------------------------------- writing
def static_home(table: StaticTable) -> str:
    """The folder of the table inside a model's: model2vec looks for it at the top."""
    return "" if table.config.drops_unknown else "0_StaticEmbedding"


def write_static(folder: Path, table: nn.Module, tokeniser: Tokeniser, *, is_normalised: bool) -> None:
    """Table, tokenizer and configuration into a model's folder, in the layout that the table came in."""
    assert isinstance(table, StaticTable)
    home = folder / static_home(table)
    home.mkdir(exist_ok=True)
    name, config = "embedding.weight", {"model_type": "static_embedding", "max_length": tokeniser.max_tokens}
    if table.config.drops_unknown:
        name, config = "embeddings", config | {
            "model_type": "model2vec", "architectures": ["StaticModel"], "tokenizer_name": "",
            "hidden_dim": table.config.hidden_size, "seq_length": _ENDLESS, "normalize": is_normalised,
            "embedding_dtype": "float32",
        }
    write_weights(home, [(name, table.vectors)])
    write_json(home / "config.json", config)
    tokeniser.save(home)
