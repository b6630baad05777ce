"""Where a model lies: a local folder, a folder inside an installed package, or a repository of the hub."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from sentemb.errors import ModelError, first_line

PACKAGE = "package:"
_HUB_ID = re.compile(r"^\w[\w.-]*(/[\w.-]+)?$")
# never a pickle; `*.py` only where remote code was asked for
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.md", "*.jinja"]


def locate(
    source: str | Path, *, revision: str | None = None, trust_remote_code: bool = False, also: Sequence[str] = ()
) -> Path:
    """The local folder of ``source``; a hub repository is fetched (or found in the cache when offline), with the files
    ``also`` of it."""
    text = str(source)
    if text.startswith(PACKAGE):
        return _inside_package(text)
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", "modules.json", "adapter_config.json")):
            raise ModelError(f"{folder}: no config.json or modules.json; a model is a folder as Hugging Face or "
                             "sentence-transformers saves it, or an adapter's as peft does (adapter_config.json)")
        if (folder / "export.json").is_file():
            raise ModelError(f"{folder}: a graph that sentemb export wrote; sentemb eval scores it, and its README.md "
                             "shows how to run it. For everything else give the model that it was made of")
        return folder
    if folder.exists():
        raise ModelError(f"{folder} is a file; a model is a folder with config.json and model.safetensors")
    if not _HUB_ID.match(text):
        raise ModelError(f"{text}: no such folder")
    from huggingface_hub import snapshot_download

    patterns = [*_HUB_FILES, *(["*.py"] if trust_remote_code else []), *also]
    try:
        # OpenVINO and ONNX exports are not used here and can be larger than the model
        return Path(snapshot_download(text, revision=revision, allow_patterns=patterns,
                                      ignore_patterns=["onnx/*", "openvino/*"]))
    except Exception as error:
        raise ModelError(
            f"{text}: no such folder here, and the hub gave no model of that name ({type(error).__name__}: "
            f"{first_line(error)}); give a local folder, a hub id, or package:NAME/FOLDER"
        ) from error


def public_name(source: str) -> str:
    """What a card may call a source: a hub id or a package's folder as it is, of a local folder its own name."""
    is_local = Path(source).expanduser().exists() or not (_HUB_ID.match(source) or source.startswith(PACKAGE))
    return Path(source).absolute().name if is_local else source


def served_name(source: str) -> str:
    """What a server calls a model or an index: a hub id or a package's folder, or the last part of a path."""
    return public_name(source).removeprefix(PACKAGE)


def _inside_package(source: str) -> Path:
    name, _, inside = source.removeprefix(PACKAGE).partition("/")
    # the package is located, not imported: its code must not run
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{source}: {name!r} is not installed, or holds no Python package of that name; run: pip "
                         f"install {name.replace('_', '-')}, or give the folder of the model")
    for root in spec.submodule_search_locations:
        folder = Path(root) / inside
        if folder.is_dir() and folder.resolve().is_relative_to(Path(root).resolve()):
            return folder
    raise ModelError(f"{source}: the package {name!r} has no folder {inside!r}")
