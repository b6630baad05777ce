"""Files in WordNet's form."""

from __future__ import annotations

from pathlib import Path

import pytest

NOUNS = """  1 This is a licence, indented.
00000010 03 n 01 entity 0 000 | that which exists; "an entity"
00000020 05 n 03 dog 0 domestic_dog 0 hound 0 001 @ 00000010 n 0000 | a tame animal; "the dog barked"
00000030 18 n 02 dog 1 cad 0 001 @ 00000010 n 0000 | a man who is not nice
"""
VERBS = "00000010 29 v 02 run 0 dash 0 000 01 + 02 00 | move fast\n"
ADJECTIVES = """00000010 00 s 02 asleep(p) 0 dozing 0 001 ! 00000020 a 0101 | not awake
00000020 00 a 01 awake(p) 0 001 ! 00000010 a 0101 | not asleep
00000030 00 a 01 wet 0 001 ! 00000040 a 0101 | with water on it
00000040 00 a 01 dry 0 001 ! 00000030 a 0101 | without water
00000050 00 a 01 dry 1 001 ! 00000060 a 0101 | of wine: with little sugar
00000060 00 a 01 sweet 0 001 ! 00000050 a 0101 | with sugar
"""


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    """A folder with a small WordNet."""
    folder = tmp_path / "wordnet"
    folder.mkdir()
    for part, text in {"noun": NOUNS, "verb": VERBS, "adj": ADJECTIVES, "adv": ""}.items():
        (folder / f"data.{part}").write_text(text)
    return folder
