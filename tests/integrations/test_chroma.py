"""What Chroma asks of an embedding function, asked as it asks it (run once with chromadb 1.5.9)."""

from __future__ import annotations

import numpy as np
import pytest

from sentemb import Encoder
from sentemb.integrations.chroma import SentembEmbeddingFunction


def test_documents_queries_and_its_configuration(tiny_bert, tmp_path):
    encoder = Encoder.load(tiny_bert, prompts={"query": "find: "})
    folder = str(encoder.save(tmp_path / "model"))
    function = SentembEmbeddingFunction(folder)
    texts = ["the dog", "a house"]
    assert np.allclose(function(input=texts), encoder.encode(texts), atol=1e-6)
    assert np.allclose(function.embed_query(input=texts), encoder.encode_query(texts), atol=1e-6)
    assert not np.allclose(function.embed_query(input=texts), function(input=texts), atol=1e-3)
    again = SentembEmbeddingFunction.build_from_config(function.get_config())
    assert np.array_equal(again(texts), function(texts))
    assert function.name() == SentembEmbeddingFunction.name()
    assert function.default_space() in function.supported_spaces()
    with pytest.raises(ValueError, match="make a new collection"):
        function.validate_config_update(function.get_config(), {"model": "another"})
