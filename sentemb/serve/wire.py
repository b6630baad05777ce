"""What comes over the wire: requests that are checked in every field, and errors as OpenAI's clients expect them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr, ValidationError

from sentemb.errors import SentembError

Id = StrictStr | StrictInt
Request = TypeVar("Request", bound=BaseModel)
Kind = TypeVar("Kind")


class Refusal(SentembError):  # noqa: N818 - the request is at fault, not the server
    """A request that is answered with a status and one sentence."""

    def __init__(self, status: int, message: str, *, param: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.param, self.headers = status, param, headers or {}


class EmbeddingsRequest(BaseModel):
    """``POST /v1/embeddings``: OpenAI's fields, and ``truncate`` and ``prompt_name`` beside them."""

    input: Any
    model: StrictStr | None = None
    dimensions: Annotated[StrictInt, Gt(0)] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    user: StrictStr | None = None  # taken and not used
    truncate: bool = False
    prompt_name: StrictStr | None = None


class RerankRequest(BaseModel):
    """``POST /v1/rerank``, as Cohere and Jina have it."""

    query: StrictStr
    documents: list[StrictStr | dict[str, Any]]
    model: StrictStr | None = None
    top_n: Annotated[StrictInt, Gt(0)] | None = None
    return_documents: bool = False


class SearchRequest(BaseModel):
    """``POST /search``: one of ``query``, ``vector``, ``like`` (with ``unlike``) or ``more_like``."""

    model_config = ConfigDict(extra="forbid")

    index: StrictStr | None = None
    query: StrictStr | None = None
    vector: list[float] | None = None
    like: list[StrictStr] | None = None
    unlike: list[StrictStr] | None = None
    more_like: Id | None = None
    k: Annotated[StrictInt, Gt(0)] = 10
    where: StrictStr | None = None
    by: Literal["meaning", "words", "hybrid"] = "meaning"
    diverse: Annotated[float, Ge(0), Le(1)] | None = None
    rerank: StrictStr | None = None  # a re-ranker's name
    map: bool = False  # where the query lies on the map as well

    def question(self) -> str:
        """Which field asks; raises Refusal where not exactly one does."""
        given = [name for name in ("query", "vector", "like", "more_like") if getattr(self, name) is not None]
        if len(given) != 1:
            raise Refusal(
                422, f"give one of query, vector, like, more_like; found {' and '.join(given) or 'none of them'}"
            )
        name = given[0]
        if self.unlike and name != "like":
            raise Refusal(422, "unlike says what results of like should not be like; give like as well", param="unlike")
        if name != "query" and (self.by != "meaning" or self.rerank):
            raise Refusal(422, f"{'rerank' if self.rerank else 'by'} is for a query; it does not go with {name}")
        if self.diverse is not None and (name not in ("query", "vector") or self.by != "meaning"):
            raise Refusal(422, "diverse is for a query or a vector, by meaning", param="diverse")
        texts = [self.query] if name == "query" else [*(self.like or ()), *(self.unlike or ())]
        if name in ("query", "like") and (not texts or not all(text and text.strip() for text in texts)):
            raise Refusal(422, f"{name} is empty; write a text to search for", param=name)
        return name


def parse(kind: type[Request], body: bytes) -> Request:
    """A request from its JSON; raises Refusal that names the first field at fault."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        status = 400 if first["type"] == "json_invalid" else 422
        raise Refusal(status, f"{where}: {first['msg']}" if where else first["msg"], param=where or None) from None


def inputs_of(value: Any, most: int) -> list[str] | list[list[int]]:
    """OpenAI's ``input``: a text, texts, token ids, or lists of token ids."""
    is_whole = isinstance(value, list) and value and all(type(entry) is int for entry in value)
    entries = [value] if isinstance(value, str) or is_whole else value
    if not isinstance(entries, list) or not entries:
        raise Refusal(400, "input is a text, a list of texts, or token ids, and not empty", param="input")
    if len(entries) > most:
        raise Refusal(413, f"input has {len(entries):,} entries; at most {most:,} a request", param="input")
    if all(isinstance(entry, str) for entry in entries):
        empty = next((place for place, text in enumerate(entries) if not text), None)
        if empty is not None:
            raise Refusal(400, f"input {empty} is an empty text", param="input")
        return entries
    for place, entry in enumerate(entries):
        if not isinstance(entry, list) or not entry or not all(type(number) is int for number in entry):
            raise Refusal(400, f"input {place} is no text and no list of token ids (all of one kind)", param="input")
    return entries


def named(kinds: dict[str, Kind], name: str | None, what: str) -> tuple[str, Kind]:
    """What the name names; without a name the only one there is. Raises Refusal."""
    if name is None and len(kinds) == 1:
        return next(iter(kinds.items()))
    known = ", ".join(kinds) or "none"
    if name is None:
        raise Refusal(400, f"{what} is missing; this server has: {known}", param=what)
    if name not in kinds:
        raise Refusal(404, f'{what} "{name}" is not here; this server has: {known}', param=what)
    return name, kinds[name]


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, kind)
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def texts_of(documents: Sequence[str | dict[str, Any]]) -> list[str]:
    """Documents to re-rank: texts, or objects with a field ``text``."""
    texts = [entry if isinstance(entry, str) else entry.get("text") for entry in documents]
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise Refusal(422, f'documents.{place} is no text and has no field "text" with one', param="documents")
    return texts  # type: ignore[return-value]
