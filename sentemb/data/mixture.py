"""Several sources in one recipe: every batch comes from one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Annotated, Any, Protocol

import numpy as np
from annotated_types import MinLen
from numpy.typing import NDArray
from pydantic import AfterValidator

from sentemb.data.data_source import DataSource
from sentemb.data.orders import BatchOrder, Deal
from sentemb.data.repeated_texts import RowNumbers
from sentemb.data.table import Table
from sentemb.data.texts import temporary_file
from sentemb.data.tokens import TextTokeniser, concatenate
from sentemb.data.turns import Floor, Supply, Turns
from sentemb.errors import DataError
from sentemb.types import UNKNOWN, Examples, TokenColumn

_MAPPED_FROM = 2**26  # token ids of a column
_WRITTEN = 2**22  # token ids at a time
_SHARED = ("columns", "max_rows", "max_tokens", "prefixes", "skip_faulty")


@dataclass(frozen=True, kw_only=True)
class Mixture(DataSource):
    """Several sources, each with columns, prefixes and a batch size of its own:

        [data]
        use = "mixture"
        schedule = "floor"

        [[data.parts]]
        name = "search"
        use = "triplets"
        path = "mined.jsonl"
        prefixes = { anchor = "query: " }

        [[data.parts]]
        name = "sts"
        use = "table"
        path = "graded.tsv"
        batch_size = 32

    All rows of a batch come from one source, on every device. Terms, edits, companions and copies of views with
    ``only = ["sts"]`` take part in that source's batches alone. The view maker ``by_source`` gives every source views
    of its own. ``columns``, ``max_rows``, ``max_tokens``, ``prefixes`` and ``skip_faulty`` of the mixture hold for
    every source that does not say otherwise. Labels are compared within a batch: two sources may use the same ones.

    Args:
        parts: the sources, each with a ``name``, and where wanted with a ``batch_size`` (else train.batch_size) and a
            ``weight``: how often its batches come beside what the schedule says.
        schedule: which source gives the next batch (``sentemb list turns``).
    Raises: DataError where a source makes no batch.
    """

    parts: Annotated[Sequence[DataSource], MinLen(1), AfterValidator(tuple)]
    schedule: Turns = field(default_factory=Floor)

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [str(part.given_marks.get("name", "")) for part in self.parts]
        for number, name in enumerate(names):
            if not name or "/" in name:
                raise ValueError(f'parts[{number}] needs a name = "…" without a slash; found "{name}"')
        for name, count in Counter(names).items():
            if count > 1:
                raise ValueError(f'has {count} parts named "{name}"; give each a name of its own')
        if any(isinstance(part, Mixture) for part in self.parts):
            raise ValueError("a part of a mixture cannot be a mixture; list its parts here")

    @property
    def sources(self) -> Mapping[str, DataSource]:
        """The parts by name, with what the mixture says for all of them."""
        said = {name: value for name, value in self.changed_settings().items() if name in _SHARED}
        return {str(part.given_marks["name"]): _with_defaults(part, said) for part in self.parts}

    def replaced(self, data: Mapping[str, DataSource]) -> Mixture:
        """The mixture with other sources under the same names, batch sizes and weights."""
        parts = [data[name].marked(**part.given_marks) for name, part in zip(self.sources, self.parts, strict=True)]
        return replace(self, parts=parts)

    def __str__(self) -> str:
        return f"mixture of {', '.join(self.sources)}"


def _with_defaults(part: DataSource, said: Mapping[str, object]) -> DataSource:
    own = part.changed_settings()
    return type(part)(**{**part.settings, **{name: value for name, value in said.items() if name not in own}}).marked(
        **part.given_marks
    )


class TrainingTokeniser(TextTokeniser, Protocol):
    """A tokenizer of which there are shorter ones."""

    def cut_to(self, max_tokens: int) -> TextTokeniser:
        """The same tokenizer with a shorter limit."""
        ...


class TableReader(Protocol):
    """How the table of a source becomes examples."""

    @property
    def together(self) -> Sequence[frozenset[str]]:
        """Columns of which a row may lack some, see ``DataSource.load``."""
        ...

    def read(self, table: Table, tokeniser: TextTokeniser) -> Examples:
        """The tokenised examples of a table."""
        ...


def load_examples(
    data: DataSource, tokeniser: TrainingTokeniser, *, reader_of: Callable[[str], TableReader],
    keep_texts: bool = False,
) -> Examples:
    """The tokenised examples of all sources, one source after the other, each by the reader of its name.

    A text that a source has no column for is a row without tokens whose hash is ``UNKNOWN``; a batch has only the
    columns of its source. ``keep_texts`` gives the texts too.
    """
    parts: dict[str, Examples] = {}
    for name, source in data.sources.items():
        cut = tokeniser if source.max_tokens is None else tokeniser.cut_to(source.max_tokens)
        reader = reader_of(name)
        table = source.load(together=reader.together)
        examples = reader.read(table, cut)
        parts[name] = replace(examples, texts=table.columns) if keep_texts else examples
    return joined(parts) if isinstance(data, Mixture) else parts[""]


def joined(parts: Mapping[str, Examples]) -> Examples:
    """One data set of several, by name; ``sources`` are the parts with the ids of the whole."""
    ends = np.cumsum([len(part) for part in parts.values()])
    ids = np.arange(ends[-1])
    roles = dict.fromkeys(role for part in parts.values() for role in part.columns)
    columns = {role: _appended([_column(part, role) for part in parts.values()]) for role in roles}
    sources = {
        name: replace(
            part, ids=ids[end - len(part) : end],
            columns={role: columns[role].rows(end - len(part), end) for role in part.columns},
        )
        for end, (name, part) in zip(ends, parts.items(), strict=True)
    }
    every, rows = parts.values(), [len(part) for part in parts.values()]
    grades = dict.fromkeys(role for part in every for role in part.grades)
    scores = dict.fromkeys(role for part in every for role in part.negative_scores)
    texts = dict.fromkeys(role for part in every for role in part.texts)
    return Examples(
        ids=ids, columns=columns, sources=sources,
        label=_together([part.label for part in every], rows),
        levels=_together([part.levels for part in every], rows),
        score=_together([part.score for part in every], rows),
        margin=_together([part.margin for part in every], rows),
        weight=_together([part.weight for part in every], rows),
        negative_scores={role: _together([part.negative_scores.get(role) for part in every], rows) for role in scores},
        grades={role: _together([part.grades.get(role) for part in every], rows) for role in grades},
        texts={role: _texts_together([part.texts.get(role) for part in every], rows) for role in texts},
    )


def _appended(columns: Sequence[TokenColumn]) -> TokenColumn:
    """The columns one after the other; ids that were mapped from files are mapped from one temporary file."""
    lengths = np.concatenate([column.lengths for column in columns])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if offsets[-1] < _MAPPED_FROM:
        return concatenate(columns)
    dtype = np.result_type(*(column.flat.dtype for column in columns if len(column.flat)))
    with temporary_file() as file:
        for column in columns:
            for start in range(int(column.offsets[0]), int(column.offsets[-1]), _WRITTEN):
                end = min(start + _WRITTEN, int(column.offsets[-1]))
                file.write(column.flat[start:end].astype(dtype).tobytes())
        file.flush()
        flat = np.asarray(np.memmap(file, dtype=dtype, mode="r"))
    return TokenColumn(flat=flat, offsets=offsets, text=np.concatenate([column.text for column in columns]))


def _column(part: Examples, role: str) -> TokenColumn:
    if role in part.columns:
        return part.columns[role]
    none = np.zeros(0, dtype=np.int32)
    return TokenColumn(
        flat=none, offsets=np.zeros(len(part) + 1, dtype=np.int64), text=np.full(len(part), UNKNOWN, dtype=np.int64)
    )


def _texts_together(columns: Sequence[Sequence[str] | None], rows: Sequence[int]) -> list[str]:
    """Texts of all parts; empty where a part has none."""
    return list(chain.from_iterable(
        [""] * count if column is None else column for column, count in zip(columns, rows, strict=True)
    ))


def _together(values: Sequence[NDArray[Any] | None], rows: Sequence[int]) -> Any:
    """Labels or numbers of all parts; UNKNOWN or NaN where a part has none, None where no part has any."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    shape = max(value.shape[1:] for value in known)
    unknown = UNKNOWN if known[0].dtype.kind == "i" else np.nan
    whole = np.full((sum(rows), *shape), unknown, dtype=known[0].dtype)
    for value, count, end in zip(values, rows, np.cumsum(rows), strict=True):
        if value is not None:  # a source may have fewer levels of labels than another
            whole[(slice(end - count, end), *map(slice, value.shape[1:]))] = value
    return whole


class MixedBatches(BatchOrder):
    """The batches of a mixture: those that ``batches`` makes of every source, in the order of the schedule."""

    def __init__(self, *, mixture: Mixture, batches: BatchOrder) -> None:
        self.mixture, self.batches, self.needs = mixture, batches, batches.needs

    def dealer(self, examples: Examples, *, batch_size: int) -> Deal:
        """One epoch deals every source as often as its turns need."""
        deals, starts, rows = [], [], []
        for (name, own), part in zip(examples.sources.items(), self.mixture.parts, strict=True):
            if any(need.startswith("companion:") for need in self.needs):  # its groups stand as labels of all rows
                own = replace(own, label=None if examples.label is None else examples.label[own.ids])
            size = int(part.given_marks.get("batch_size", batch_size))
            try:
                deals.append(self.batches.dealer(own, batch_size=size))
            except DataError as error:
                raise DataError(f'source "{name}": {error}') from None
            starts.append(int(own.ids[0]))
            rows.append(len(own))
        supply = Supply(
            names=tuple(examples.sources), rows=np.array(rows),
            batches=np.array([len(deal(np.random.default_rng(0))) for deal in deals]),
            weight=np.array([float(part.given_marks.get("weight", 1.0)) for part in self.mixture.parts]),
        )

        def deal(generator: np.random.Generator) -> list[RowNumbers]:
            turns = self.mixture.schedule.order(supply, generator)
            wanted = np.bincount(turns, minlength=len(deals))
            streams = []
            for count, make, start in zip(wanted, deals, starts, strict=True):
                own: list[RowNumbers] = []
                while len(own) < count:
                    own.extend(make(generator))
                streams.append(iter([batch + start for batch in own[:count]]))
            return [next(streams[turn]) for turn in turns]

        return deal
