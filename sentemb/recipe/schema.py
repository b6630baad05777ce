"""A JSON schema of recipe files, for editors that complete and check TOML."""

from __future__ import annotations

from typing import Any

from sentemb.parts import schema_of
from sentemb.parts.help import schema_of_class
from sentemb.recipe.recipe import Recipe

_ROOMS = (
    "sources", "copies", "companions", "edits", "terms", "poolings", "heads", "adapters", "batches", "optimizers",
    "schedules", "callbacks", "tasks",
)  # fmt: skip


def recipe_schema() -> dict[str, Any]:
    """Every table, every part, every setting. A recipe that extends another one may leave out what it keeps."""
    schema = schema_of_class(Recipe)
    properties = schema["properties"]
    copies = properties.pop("copies")
    views = schema_of("views")["anyOf"]
    for entry in views:
        entry["properties"]["copies"] = copies
    extended = {"type": "object", "not": {"required": ["use"]}, "title": "further settings of the extended recipe's"}
    properties["views"] = {"anyOf": [*views, extended]}
    properties["data"] = {"anyOf": [*schema_of("sources")["anyOf"], extended]}
    required = {"encoder": ["backbone"], "data": ["use"], "views": ["use"]}
    del properties["encoder"]["required"]
    return {
        **schema,
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sentemb recipe",
        "properties": {
            **properties,
            "extends": {"type": "string", "description": "a recipe that this one builds on: name or path"},
            "clear": {
                "type": "array",
                "items": {"enum": sorted(properties)},
                "description": "tables of the extended recipe that are dropped",
            },
        },
        "required": [],
        "if": {"not": {"required": ["extends"]}},
        "then": {
            "required": schema["required"],
            "properties": {name: {"required": keys} for name, keys in required.items()},
        },
        "$defs": {name: schema_of(name) for name in _ROOMS},
    }
