"""sentemb's models as mteb sees them: ``EncoderProtocol`` and ``SearchProtocol`` in one object.

Every distinct text of a run is encoded once (the model remembers: both sides of a pair task, texts that recur between
tasks), and retrieval is an exact search in tiles instead of heaps in Python. Prompts follow MTEB's priorities.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sentemb.errors import EvaluationError
from sentemb.evaluate.model import EvalModel
from sentemb.evaluate.retrievers import Ranking, rerank, to_run
from sentemb.maths.neighbours import top
from sentemb.types import Vectors


class MtebEncoder:
    """What ``mteb.evaluate`` is given."""

    def __init__(self, model: EvalModel) -> None:
        from mteb import similarity_functions as score

        is_dot = model.identity.similarity == "dot"
        self.similarity = score.dot_score if is_dot else score.cos_sim
        self.similarity_pairwise = score.pairwise_dot_score if is_dot else score.pairwise_cos_sim
        self.model = model
        self.mteb_model_meta = model_meta(model)
        self._documents: tuple[list[str], Vectors] | None = None

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **_: Any) -> Vectors:
        """Vectors of a mteb data loader's texts, (texts, d)."""
        return self._vectors(_loader_texts(inputs, task_metadata.name), task_metadata, prompt_type)

    def index(self, corpus: Any, *, task_metadata: Any, **_: Any) -> None:
        """Encode the corpus: title and text of every document, joined as mteb does."""
        texts = _column(corpus, "text", task_metadata.name)
        if "title" in corpus.column_names:
            texts = [f"{title or ''} {text}" for title, text in zip(corpus["title"], texts, strict=True)]
        vectors = self._vectors([text.strip() for text in texts], task_metadata, "document")
        self._documents = [str(name) for name in corpus["id"]], vectors

    def search(
        self, queries: Any, *, task_metadata: Any, top_k: int, top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> Ranking:  # fmt: skip
        """Best documents of every query, or its given candidates in the model's order (``top_ranked``)."""
        assert self._documents is not None, "mteb calls index first"
        document_ids, documents = self._documents
        self._documents = None  # mteb indexes anew for every subset
        vectors = self._vectors(query_texts(queries, task_metadata.name), task_metadata, "query")
        query_ids, similarity = [str(name) for name in queries["id"]], self.model.identity.similarity
        if top_ranked is not None:
            of_query = dict(zip(query_ids, vectors, strict=True))
            of_document = dict(zip(document_ids, documents, strict=True))
            return rerank(of_query, of_document, top_ranked, similarity=similarity, k=top_k)
        return to_run(top(vectors, documents, top_k, metric=similarity), query_ids, document_ids)

    def _vectors(self, texts: list[str], task_metadata: Any, prompt_type: Any) -> Vectors:
        role = None if prompt_type is None else str(getattr(prompt_type, "value", prompt_type))
        prompt = self.model.prompt(task=task_metadata.name, task_type=str(task_metadata.type), role=role)
        return self.model.encode(texts, prompt=prompt)


def model_meta(model: EvalModel) -> Any:
    """mteb's description of a model. A local model's revision is its digest, so that results of two checkpoints in one
    folder are never taken for one another; a precision other than fp32 is kept apart as an experiment."""
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    facts = model.identity
    overwrites: dict[str, Any] = {
        "name": facts.name if facts.name.count("/") == 1 else "sentemb/" + re.sub(r"[^\w.-]+", "_", facts.name),
        "similarity_fn_name": ScoringFunction.DOT_PRODUCT if facts.similarity == "dot" else ScoringFunction.COSINE,
        "embed_dim": facts.width,
        "max_tokens": facts.max_tokens,
        "framework": ["Sentence Transformers", "PyTorch"] if facts.backend != "callable" else [],
        "use_instructions": bool(model.prompts),
        "modalities": ["text"],
    }
    if revision := facts.revision or (facts.digest or "")[:40]:
        overwrites["revision"] = revision
    if facts.precision not in (None, "float32"):
        overwrites["experiment_kwargs"] = {"precision": facts.precision}
    return ModelMeta.create_empty(overwrites)


def _loader_texts(inputs: Any, task: str) -> list[str]:
    """The texts behind a mteb data loader: straight from its data set where that holds plain strings."""
    if "text" in getattr(getattr(inputs, "dataset", None), "column_names", ()):
        texts = list(inputs.dataset["text"])
        if all(isinstance(text, str) for text in texts):
            return texts
    return [text for batch in inputs for text in _column(batch, "text", task)]


def query_texts(queries: Any, task: str) -> list[str]:
    """Text of every query as mteb prepares it: a text with its instruction behind it; a conversation as one line, its
    instruction in front."""
    texts = _column(queries, "text", task)
    instructions = queries["instruction"] if "instruction" in queries.column_names else [None] * len(texts)
    prepared: list[str] = []
    for text, instruction in zip(texts, instructions, strict=True):
        is_talk = isinstance(text, list)
        if is_talk:
            text = "; ".join(turn if isinstance(turn, str) else f"{turn['role']}: {turn['content']}" for turn in text)
        parts = [text] if instruction is None else [instruction, text] if is_talk else [text, instruction]
        prepared.append(" ".join(parts))
    return prepared


def _column(rows: Any, name: str, task: str) -> list[Any]:
    """A column of a data set or a batch.

    Raises: EvaluationError: there is none: images or sounds.
    """
    if name not in getattr(rows, "column_names", rows):
        raise EvaluationError(f"{task}: it has no {name}; sentemb encodes texts")
    return list(rows[name])
