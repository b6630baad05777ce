"""Haystack: models as embedders, an index as document store, and its retriever; each goes through pipelines and YAML.

>>> store = SentembDocumentStore("docs.index", model="MODEL")
>>> pipeline.add_component("query", SentembTextEmbedder("MODEL"))
>>> pipeline.add_component("retriever", SentembRetriever(store))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from sentemb.encoder import Encoder
from sentemb.errors import SearchError, needs_extra
from sentemb.integrations import filters as expressions
from sentemb.integrations.folder import IndexFolder
from sentemb.search import Document as Stored
from sentemb.search import Hit, SearchIndex

needs_extra("haystack", "haystack")

from haystack import Document, component, default_from_dict, default_to_dict  # noqa: E402 - behind its absence
from haystack.document_stores.errors import DuplicateDocumentError  # noqa: E402
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy, apply_filter_policy  # noqa: E402
from haystack.errors import FilterError  # noqa: E402

Filters = dict[str, Any] | None


class _Model:
    """A model that is loaded when it is first needed."""

    def __init__(self, model: str, precision: str) -> None:
        self.model, self.precision = str(model), precision
        self._encoder: Encoder | None = None

    def warm_up(self) -> None:
        """Load the model."""
        _ = self.encoder

    @property
    def encoder(self) -> Encoder:
        """The model."""
        if self._encoder is None:
            self._encoder = Encoder.load(self.model, precision=self.precision)
        return self._encoder


@component
class SentembTextEmbedder(_Model):
    """Embeds a query, with the prompt that the model was saved with.

    Args:
        model: what ``Encoder.load`` takes: a folder, a hub id, ``package:NAME/FOLDER``.
        precision: of encoding, as in ``Encoder.load``.
    """

    def __init__(self, model: str, precision: str = "auto") -> None:
        _Model.__init__(self, model, precision)  # component makes another class, of which super knows nothing

    def to_dict(self) -> dict[str, Any]:
        """For pipelines that are saved."""
        return default_to_dict(self, model=self.model, precision=self.precision)  # type: ignore[no-any-return]

    @component.output_types(embedding=list[float])  # type: ignore[untyped-decorator]
    def run(self, text: str) -> dict[str, Any]:
        """The vector of a query."""
        if not isinstance(text, str):
            raise TypeError("SentembTextEmbedder embeds one text; SentembDocumentEmbedder embeds documents")
        return {"embedding": self.encoder.encode_query(text).tolist()}


@component
class SentembDocumentEmbedder(_Model):
    """Embeds documents, with the prompt that the model was saved with.

    Args:
        model: what ``Encoder.load`` takes: a folder, a hub id, ``package:NAME/FOLDER``.
        precision: of encoding, as in ``Encoder.load``.
        meta_fields_to_embed: stand in front of the text.
        embedding_separator: between them.
    """

    def __init__(
        self, model: str, precision: str = "auto", meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
    ) -> None:
        _Model.__init__(self, model, precision)  # component makes another class, of which super knows nothing
        self.meta_fields_to_embed, self.embedding_separator = meta_fields_to_embed or [], embedding_separator

    def to_dict(self) -> dict[str, Any]:
        """For pipelines that are saved."""
        return default_to_dict(  # type: ignore[no-any-return]
            self, model=self.model, precision=self.precision, meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
        )

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """The documents with their vectors; those that were given stay as they are."""
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise TypeError("SentembDocumentEmbedder embeds a list of documents; SentembTextEmbedder embeds a text")
        texts = []
        for one in documents:
            fields = [str(one.meta[name]) for name in self.meta_fields_to_embed if one.meta.get(name) is not None]
            texts.append(self.embedding_separator.join([*fields, one.content or ""]))
        vectors = self.encoder.encode_document(texts).tolist() if texts else []
        return {"documents": [replace(one, embedding=row) for one, row in zip(documents, vectors, strict=True)]}


class SentembDocumentStore:
    """An index as Haystack's document store.

    Documents keep id, content and metadata; vectors stay in the index and are not given back. A document without an
    embedding is encoded by the store's model. Filters mean the fields of ``meta``, and ``id`` and ``content``.

    Args:
        index: a folder: its index, or the one that its first documents make. None: a temporary folder, which is removed
            with the store.
        model: encodes documents that come without an embedding; None: the model that built the index.
        precision: of encoding, as in ``Encoder.load``.
    """

    def __init__(self, index: str | None = None, model: str | None = None, precision: str = "auto") -> None:
        self.model, self.precision = model, precision
        self._given = None if index is None else str(index)
        encoder = None if model is None else Encoder.load(model, precision=precision)
        self._folder = IndexFolder(index, encoder)

    @property
    def index(self) -> SearchIndex | None:
        """The index; None before there are documents."""
        return self._folder.index

    def to_dict(self) -> dict[str, Any]:
        """For pipelines that are saved."""
        return default_to_dict(self, index=self._given, model=self.model, precision=self.precision)  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SentembDocumentStore:
        """From what ``to_dict`` gave."""
        return default_from_dict(cls, data)  # type: ignore[no-any-return]

    def count_documents(self) -> int:
        """How many documents there are."""
        return len(self._folder)

    def filter_documents(self, filters: Filters = None) -> list[Document]:
        """The documents that the filters find; None: all."""
        return [_document(one) for one in self._folder.matching(where_of(filters))]

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Write documents, all of them durably, or none; gives how many. Without a policy duplicates are refused.

        Raises:
            DuplicateDocumentError: an id is there already.
            ValueError: something else than documents.
        """
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise ValueError("write_documents takes a list of documents")
        held = next((one for one in documents if one.blob is not None or one.sparse_embedding is not None), None)
        if held is not None:
            raise ValueError(f"document {held.id}: holds a blob or a sparse embedding, which an index cannot keep")
        rows = {one.id: one for one in documents} if policy != DuplicatePolicy.SKIP else {}
        for one in documents:
            rows.setdefault(one.id, one)
        known = {str(one.id) for one in self._folder.documents(list(rows))}
        if policy in (DuplicatePolicy.NONE, DuplicatePolicy.FAIL):
            twice = sorted(known) or sorted({one.id for one in documents if one is not rows[one.id]})
            if twice:
                raise DuplicateDocumentError(f"document {twice[0]} is there already; see DuplicatePolicy")
        wanted = [one for one in rows.values() if policy != DuplicatePolicy.SKIP or one.id not in known]
        self._folder.put([Stored(one.id, one.content, one.meta) for one in wanted], self._vectors(wanted))
        return len(documents) if policy == DuplicatePolicy.OVERWRITE else len(wanted)

    def _vectors(self, documents: Sequence[Document]) -> Any:
        """Vectors of documents, encoded where one has none; None where all are to be encoded."""
        without = [one for one in documents if one.embedding is None]
        if len(without) == len(documents):
            return None
        encoded = iter(self._folder.encoded([one.content or "" for one in without]) if without else ())
        return np.array([next(encoded) if one.embedding is None else one.embedding for one in documents], np.float32)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents; ids that are not there are no fault."""
        self._folder.delete(document_ids)


@component
class SentembRetriever:
    """Finds the documents nearest to a query's vector; given the query's text too, by words as well, fused by ranks.

    Args:
        document_store: where.
        filters: of every query.
        top_k: how many.
        filter_policy: whether a run's filters replace these, or are merged with them.
    """

    def __init__(
        self, document_store: SentembDocumentStore, filters: Filters = None, top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        if not isinstance(document_store, SentembDocumentStore):
            raise TypeError(f"document_store is {type(document_store).__name__}; give a SentembDocumentStore")
        self.document_store, self.filters, self.top_k = document_store, filters, top_k
        self.filter_policy = filter_policy

    def to_dict(self) -> dict[str, Any]:
        """For pipelines that are saved."""
        return default_to_dict(  # type: ignore[no-any-return]
            self, document_store=self.document_store, filters=self.filters, top_k=self.top_k,
            filter_policy=self.filter_policy.value,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SentembRetriever:
        """From what ``to_dict`` gave."""
        parameters = dict(data["init_parameters"])
        parameters["filter_policy"] = FilterPolicy.from_str(parameters.get("filter_policy", "replace"))
        return default_from_dict(cls, {**data, "init_parameters": parameters})  # type: ignore[no-any-return]

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(
        self, query_embedding: list[float], query: str | None = None, filters: Filters = None, top_k: int | None = None,
    ) -> dict[str, Any]:
        """The documents, best first, with their scores."""
        where = where_of(apply_filter_policy(self.filter_policy, self.filters, filters))
        index, k = self.document_store.index, self.top_k if top_k is None else top_k
        if index is None:
            return {"documents": []}
        vectors = np.array([query_embedding], dtype=np.float32)
        if query is None:
            hits = index.search(vectors, k, where=where)[0]
        else:
            hits = index.hybrid([query], k, where=where, vectors=vectors)[0]
        return {"documents": [replace(_document(hit), score=hit.score) for hit in hits]}


def _document(one: Stored | Hit) -> Document:
    return Document(id=str(one.id), content=one.text, meta=one.metadata)


def where_of(filters: Mapping[str, Any] | None) -> str | None:
    """Haystack's filters as an expression; raises FilterError for what its protocol does not allow."""
    if not filters:
        return None
    try:
        return _of_condition(filters)
    except SearchError as error:
        raise FilterError(str(error)) from None


def _of_condition(one: Any) -> str:
    if not isinstance(one, Mapping):
        raise FilterError(f"a condition is a mapping; found {one!r}")
    keys = ("field", "operator", "value") if "field" in one else ("operator", "conditions")
    absent = next((key for key in keys if key not in one), None)
    if absent is not None:
        raise FilterError(f"a condition has field, operator and value, or operator and conditions; {absent} is missing")
    if "field" in one:
        return _of_comparison(str(one["field"]), one["operator"], one["value"])
    parts = [_of_condition(part) for part in one["conditions"]]
    ways = {
        "AND": expressions.all_of, "OR": expressions.any_of,
        "NOT": lambda parts: expressions.negated(expressions.all_of(parts)),
    }
    if one["operator"] not in ways:
        raise FilterError(f"no operator {one['operator']!r} between conditions; known: AND, OR, NOT")
    return ways[one["operator"]](parts)


def _of_comparison(field: str, operator: str, value: Any) -> str:
    own = {"id": expressions.OWN_ID, "content": expressions.OWN_TEXT}
    name = own.get(field, field.removeprefix("meta."))
    if operator in ("in", "not in"):
        if not isinstance(value, list):
            raise FilterError(f"filter on {field}: {operator} takes a list; found {value!r}")
        is_among = expressions.among(name, value)
        return is_among if operator == "in" else expressions.negated(is_among)
    if operator in ("==", "!="):
        equal = expressions.compared(name, "=", value)
        return equal if operator == "==" else expressions.negated(equal)
    if operator not in expressions.ORDERS:
        raise FilterError(f"filter on {field}: no operator {operator!r}; known: == != > >= < <= in, not in")
    if value is None:
        return expressions.NOTHING
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise FilterError(f"filter on {field}: {operator} compares numbers and dates; found {value!r}") from None
    return expressions.compared(name, operator, value)
