"""What identifies a model in a report: name, commit, digest, the recipe it was trained with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from sentemb.types import Similarity


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What a results file keeps of the model that was scored."""

    name: str
    source: str = ""
    revision: str | None = None  # commit of a hub repository
    digest: str | None = None  # SHA-256 over what decides an embedding
    recipe: str | None = None  # SHA-256, without the seed, of the resolved recipe beside a model that sentemb trained
    recipe_seed: int | None = None
    backend: str = "callable"
    precision: str | None = None
    max_tokens: int | None = None
    width: int | None = None
    similarity: Similarity = "cosine"


def short_name(source: str) -> str:
    """The name that a report gives a model: a folder's own, with its run's where it is called model, best or final."""
    source = source.removeprefix("package:")
    path = Path(source)
    if path.is_dir() and path.name in ("model", "best", "final"):  # runs/simcse/model
        return f"{path.resolve().parent.name}/{path.name}"
    return source.rstrip("/").rsplit("/", 1)[-1] if path.is_dir() else source


def revision_of(source: str, revision: str | None, *, trust_remote_code: bool) -> str | None:
    """The commit of a hub repository; None for folders."""
    if Path(source).is_dir() or source.startswith("package:"):
        return None
    from sentemb.encoder.source import locate

    folder = locate(source, revision=revision, trust_remote_code=trust_remote_code)  # the cache's snapshots/<commit>
    return folder.name if folder.parent.name == "snapshots" else revision


def recipe_beside(model: Path) -> tuple[str | None, int | None]:
    """SHA-256 (of all but the seed) and seed of the resolved recipe in a model's folder or in its run's."""
    import tomllib

    for folder in (model, model.parent):
        path = folder / "recipe.toml"
        if path.is_file():
            try:
                tree = tomllib.loads(path.read_text(encoding="utf-8"))
            except (UnicodeDecodeError, tomllib.TOMLDecodeError):
                continue
            train = dict(tree.get("train", {}))
            seed = train.pop("seed", None)
            # without the seed, so that several seeds of one recipe are known as such
            content = json.dumps({**tree, "train": train}, sort_keys=True, default=str)
            return hashlib.sha256(content.encode()).hexdigest(), seed
    return None, None
