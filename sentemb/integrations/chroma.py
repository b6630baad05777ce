"""Chroma: a model as an embedding function, with its own prompts for queries.

>>> collection = client.create_collection("notes", embedding_function=SentembEmbeddingFunction("runs/mine/model"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentemb.encoder import Encoder
from sentemb.types import Vectors


class SentembEmbeddingFunction:
    """What Chroma calls, by its methods' names; chromadb itself is not imported.

    Args:
        model: what ``Encoder.load`` takes: a folder, a hub id, ``package:NAME/FOLDER``. A collection keeps it, not the
            weights.
    """

    def __init__(self, model: str | Path) -> None:
        self._model, self.encoder = str(model), Encoder.load(model)

    def __call__(self, input: Sequence[str]) -> list[Vectors]:
        """Vectors of documents."""
        return list(self.encoder.encode_document(input))

    def embed_query(self, input: Sequence[str]) -> list[Vectors]:
        """Vectors of queries."""
        return list(self.encoder.encode_query(input))

    @staticmethod
    def name() -> str:
        """Its name in a collection's configuration."""
        return "sentemb"

    def get_config(self) -> dict[str, Any]:
        """What a collection keeps of it."""
        return {"model": self._model}

    @classmethod
    def build_from_config(cls, config: dict[str, Any]) -> SentembEmbeddingFunction:
        """From what a collection kept."""
        return cls(config["model"])

    def default_space(self) -> str:
        """The measure of a new collection."""
        return "cosine" if self.encoder.similarity_name == "cosine" else "ip"

    def supported_spaces(self) -> list[str]:
        """Measures that the vectors are fit for."""
        return ["cosine", "l2", "ip"]

    @staticmethod
    def is_legacy() -> bool:
        """It has a configuration."""
        return False

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Nothing to check before the model is opened."""

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Vectors of another model cannot be compared; raises ``ValueError``."""
        if old_config["model"] != new_config["model"]:
            raise ValueError(f"the collection's vectors are those of {old_config['model']}; make a new collection")
