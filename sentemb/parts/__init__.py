"""Parts: everything that a recipe, a suite, a flag or an argument can name.

A part is a class with keyword-only typed settings. It is light to make (nothing is loaded), and its docstring is its
document: one line; the formula, indented; ``Args``; ``Source``; ``Deviations``. Every part has the same four things:

* **a value**: ``==`` and ``repr`` by settings, a TOML table (``to_table``, ``Room.make``), wrong settings refused in
  the same words from Python, TOML and the command line;
* **a name**: its room's dict ``PARTS``, ``package.module:Class``, or an installed package's entry point ``ROOM.NAME``
  of the group ``sentemb``;
* **needs**: claims on data, views and companions that are checked before anything is loaded;
* **help**: ``describe`` reads the docstring, ``schema_of`` makes a JSON schema for editors.

A part of your own inherits its room's base class, in any file of yours.
"""

from sentemb.errors import PartError
from sentemb.parts.help import Facts, describe, schema_of
from sentemb.parts.part import Part, to_table
from sentemb.parts.rooms import ROOMS, Room, room
from sentemb.parts.settings import Count, Fraction, NonNegative, Positive, Setting, Whole, settings_of, spell

__all__ = [
    "ROOMS", "Count", "Facts", "Fraction", "NonNegative", "Part", "PartError", "Positive", "Room", "Setting", "Whole",
    "describe", "room", "schema_of", "settings_of", "spell", "to_table",
]
