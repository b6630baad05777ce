"""Texts to token ids in bulk."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from sentemb.data.templates import Template
from sentemb.data.tokens import column_of, concatenate
from sentemb.encoder.backbone import refused
from sentemb.errors import ModelError
from sentemb.types import Frame, TokenColumn, Vocabulary

# texts handed to the tokenizers library at once: bounds the memory of its Encoding objects
_CHUNK = 16_384


class Tokeniser:
    """A checkpoint's tokenizer, through the `tokenizers` library where the checkpoint has one.

    Args:
        fast: the `tokenizers` backend, or None; it is changed, so it must be this object's own.
        max_tokens: longest row, special tokens included; longer texts are cut, and counted in ``cut_count``.
        load_hub: gives the transformers tokenizer when it is first needed (saving, decoding).
        dropped: a token that is left out of every row.
    """

    def __init__(
        self, fast: Any, vocabulary: Vocabulary, max_tokens: int, load_hub: Callable[[], Any], *,
        dropped: int | None = None,
    ) -> None:
        self.vocabulary, self.max_tokens, self.cut_count = vocabulary, max_tokens, 0
        self._fast, self._load_hub, self.dropped = fast, load_hub, dropped
        if fast is not None:
            fast.no_padding()
            fast.enable_truncation(max_tokens)

    def cut_to(self, max_tokens: int) -> Tokeniser:
        """The same tokenizer with a shorter limit; a longer one changes nothing."""
        fast = None if self._fast is None else type(self._fast).from_str(self._fast.to_str())
        limit = min(max_tokens, self.max_tokens)
        return Tokeniser(fast, self.vocabulary, limit, lambda: self.hub, dropped=self.dropped)

    @cached_property
    def hub(self) -> Any:
        """The transformers tokenizer."""
        return self._load_hub()

    @property
    def backend_json(self) -> str | None:
        """The `tokenizers` backend as JSON, or None where there is none."""
        return None if self._fast is None else str(self._fast.to_str())

    @cached_property
    def mask_token(self) -> str | None:
        """What the mask token is called in texts."""
        if self.vocabulary.mask is None or self._fast is None:
            return None if self.vocabulary.mask is None else str(self.hub.mask_token)
        return str(self._fast.id_to_token(self.vocabulary.mask))

    def __call__(self, texts: Sequence[str], template: Template | None = None) -> TokenColumn:
        """Token ids of every text, special tokens included, cut to ``max_tokens``; the texts are not hashed.

        Texts are written into the template and tokenised with it. A text that is too long for both is cut at its end;
        the words behind it stay.

        Raises: ModelError for a template that leaves no room for a text, or has a mask that the tokenizer lacks.
        """
        columns = [column_of([])]
        for start in range(0, len(texts), _CHUNK):
            part = list(texts[start : start + _CHUNK])
            columns.append(column_of(
                self._ids(part, start) if template is None else self._filled(part, start, template)
            ))
        return concatenate(columns)

    def prompt_tokens(self, prompt: str) -> int:
        """Leading tokens that ``prompt`` takes in front of a text (special tokens at the end do not count)."""
        row = self._ids([prompt], 0)[0] if prompt else []
        while row and row[-1] in self.vocabulary.special:
            row = row[:-1]
        return len(row)

    def frame(self, template: Template) -> Frame:
        """The template's token ids without a text; raises ``ModelError`` where it leaves no room for one."""
        begin, both = self._whole([*self._written([""], Template(before=template.before.rstrip())),
                                   *self._written(["x"], Template(before=template.before))])
        whole = self._whole(self._written(["x"], template))[0]
        first = len(begin) - self._closing
        last = len(whole) - len(both) + self._closing
        if first + last >= self.max_tokens:
            raise ModelError(f"max_tokens = {self.max_tokens} leaves no room for a text in the template "
                             f"'{template.before}{{text}}{template.after}', which takes {first + last} tokens itself; "
                             f"allowed: at least {first + last + 1}")
        return Frame(begin=tuple(whole[:first]), end=tuple(whole[len(whole) - last :]))

    def _filled(self, texts: list[str], start: int, template: Template) -> list[list[int]]:
        """Rows of texts in a template: tokenised as a whole, then the last tokens of long texts are left out."""
        frame, written = self.frame(template), self._written(texts, template)
        if not template.after:
            return self._ids(written, start)
        rows, behind = self._guarded(self._whole, written, start), len(frame.end)
        room = self.max_tokens - behind
        self.cut_count += sum(len(row) > self.max_tokens for row in rows)
        return [row if len(row) <= self.max_tokens else row[:room] + row[len(row) - behind :] for row in rows]

    def _written(self, texts: list[str], template: Template) -> list[str]:
        try:
            return template.fill(texts, self.mask_token)
        except ValueError as error:
            raise ModelError(str(error)) from None

    @cached_property
    def _uncut(self) -> Any:
        """The `tokenizers` backend without a limit."""
        fast = type(self._fast).from_str(self._fast.to_str())
        fast.no_truncation()
        return fast

    @cached_property
    def _closing(self) -> int:
        """How many special tokens the tokenizer puts behind a text."""
        if self._fast is None:
            special = self.hub("x", return_special_tokens_mask=True)["special_tokens_mask"]
        else:
            special = self._uncut.encode("x").special_tokens_mask
        return next((place for place, is_special in enumerate(reversed(special)) if not is_special), 0)

    def _whole(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts, special tokens included, of any length."""
        if self._fast is None:
            rows: list[list[int]] = self.hub(texts, truncation=False, verbose=False)["input_ids"]
            return self._without_dropped(rows)
        return self._without_dropped([encoding.ids for encoding in self._uncut.encode_batch_fast(texts)])

    def decode(self, column: TokenColumn) -> list[str]:
        """Text of every row, special tokens left out."""
        rows = [column.flat[begin:end].tolist() for begin, end in pairwise(column.offsets)]
        result: list[str] = self.hub.batch_decode(rows, skip_special_tokens=True)
        return result

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into ``folder``."""
        before = self.hub.model_max_length
        self.hub.model_max_length = self.max_tokens  # sentence-transformers 6 reads the limit from the tokenizer
        try:
            self.hub.save_pretrained(folder)
        finally:
            self.hub.model_max_length = before

    def fingerprint(self) -> str:
        """Hex SHA-256 of what the tokenizer does, apart from ``max_tokens``."""
        if self._fast is None:
            return hashlib.sha256(repr(sorted(self.hub.get_vocab().items())).encode()).hexdigest()
        rules = json.loads(self._fast.to_str()) | {"truncation": None, "padding": None}
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()

    def _ids(self, texts: list[str], start: int) -> list[list[int]]:
        # a tokenizer without special tokens makes nothing of an empty text; a row needs one token
        return [row or [self.vocabulary.pad] for row in self._guarded(self._cut, texts, start)]

    def _cut(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts, cut to ``max_tokens``, and counted where they were."""
        if self._fast is None:
            rows: list[list[int]] = self.hub(texts, truncation=True, max_length=self.max_tokens)["input_ids"]
            full = [text for text, row in zip(texts, rows, strict=True) if len(row) == self.max_tokens]
            room = self.max_tokens - self.hub.num_special_tokens_to_add()
            self.cut_count += sum(len(self.hub.tokenize(text)) > room for text in full)
            return self._without_dropped(rows)
        encodings = self._fast.encode_batch_fast(texts)
        rows = [encoding.ids for encoding in encodings]
        # only a row of the full length can have been cut; asking the others would cost time
        self.cut_count += sum(
            len(row) == self.max_tokens and bool(encoding.overflowing)
            for row, encoding in zip(rows, encodings, strict=True)
        )
        return self._without_dropped(rows)

    def _without_dropped(self, rows: list[list[int]]) -> list[list[int]]:
        if self.dropped is None:
            return rows
        return [[token for token in row if token != self.dropped] for row in rows]

    def _guarded(
        self, tokenise: Callable[[list[str]], list[list[int]]], texts: list[str], start: int
    ) -> list[list[int]]:
        """Rows of texts, of which ``start`` is the first's number; a text that cannot be encoded is named."""
        try:
            return tokenise(texts)
        except (TypeError, ValueError) as error:
            broken = [row for row, text in enumerate(texts) if any("\ud800" <= letter <= "\udfff" for letter in text)]
            if not broken:
                raise
            raise ModelError(f"text {start + broken[0]} has a lone surrogate, which no encoding can hold; read the "
                             'file as UTF-8 with errors="replace"') from error


def load_tokeniser(
    folder: Path, *, max_tokens: int | None, stored_max: int | None, limit: int | None, lower_case: bool,
    trust_remote_code: bool = False,
) -> Tokeniser:
    """The tokenizer in ``folder``; the shortest of the checkpoint's limits holds unless ``max_tokens`` is given."""
    hub = load_hub(folder, lower_case=lower_case, trust_remote_code=trust_remote_code)
    if max_tokens is None:
        shortest = min(stored_max or hub.model_max_length, limit or sys.maxsize)
        max_tokens = int(shortest) if shortest < 10**9 else 512
    pad = hub.pad_token_id if hub.pad_token_id is not None else hub.eos_token_id
    special = frozenset(hub.all_special_ids)
    vocabulary = Vocabulary(size=len(hub), pad=int(pad or 0), mask=hub.mask_token_id, special=special)
    # a copy of our own: transformers changes truncation and padding of the shared one whenever it is called, which
    # another thread must not feel
    fast = type(hub.backend_tokenizer).from_str(hub.backend_tokenizer.to_str()) if hub.is_fast else None
    return Tokeniser(fast, vocabulary, checked_max(max_tokens, limit), lambda: hub)


def checked_max(max_tokens: int, limit: int | None) -> int:
    """``max_tokens``; raises ``ModelError`` beyond the position embeddings, or where only special tokens would fit."""
    if max_tokens < 3 or (limit is not None and max_tokens > limit):
        raise ModelError(f"max_tokens = {max_tokens}; allowed: 3 to {limit or sys.maxsize}")
    return max_tokens


def load_hub(folder: Path, *, lower_case: bool, trust_remote_code: bool = False) -> Any:
    """The transformers tokenizer in ``folder``, made to lower-case where the checkpoint's configuration says so."""
    from transformers import AutoTokenizer

    with refused(folder):
        hub = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    # without its files transformers makes a vocabulary of special tokens, for which every word is unknown
    needed = set(type(hub).vocab_files_names.values()) | ({"tokenizer.json"} if hub.is_fast else set())
    if type(hub).vocab_files_names and not any((folder / name).is_file() for name in needed):
        raise ModelError(f"{folder}: no tokenizer; needed is one of {', '.join(sorted(needed))}. Copy the tokenizer's "
                         "files beside config.json")
    if lower_case:
        if not hub.is_fast:
            raise ModelError(f"{folder}: do_lower_case is set for a tokenizer without a `tokenizers` backend; convert "
                             "it to tokenizer.json first")
        from tokenizers.normalizers import Lowercase, Sequence

        backend = hub.backend_tokenizer
        backend.normalizer = Sequence([Lowercase(), *([backend.normalizer] if backend.normalizer else [])])
    return hub
