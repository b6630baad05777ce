"""Where a model lies: a local folder, a folder inside an installed package, or a repository of the hub."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

from sentemb.errors import ModelError, first_line

PACKAGE = "package:"
_HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
# never a pickle; `*.py` only where remote code was asked for
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.md", "*.jinja"]


def locate(source: str | Path, *, revision: str | None = None, trust_remote_code: bool = False) -> Path:
    """The local folder of ``source``; a hub repository is fetched (or found in the cache when offline).

    Raises:
        ModelError: nothing is there, or the hub cannot be reached.
    """
    text = str(source)
    if text.startswith(PACKAGE):
        return _inside_package(text)
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not ((folder / "config.json").is_file() or (folder / "modules.json").is_file()):
            raise ModelError(f"{folder}: no config.json or modules.json; a model is a folder as Hugging Face or "
                             "sentence-transformers saves it")
        return folder
    if folder.exists():
        raise ModelError(f"{folder} is a file; a model is a folder with config.json and model.safetensors")
    if not _HUB_ID.match(text) or text.startswith((".", "/")):
        raise ModelError(f"{text}: no such folder")
    return _from_hub(text, revision, trust_remote_code)


def _inside_package(source: str) -> Path:
    name, _, inside = source.removeprefix(PACKAGE).partition("/")
    # the package is located, not imported: its code must not run
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        if _is_distribution(name):
            raise ModelError(f"{source}: {name!r} is installed, but holds no Python package of that name; put its "
                             "files (parts of a split archive: joined and unpacked) into a folder, and give that")
        hint = f"; run: pip install {name.replace('_', '-')}" if name.isidentifier() else ""
        raise ModelError(f"{source}: the package {name!r} is not installed{hint}")
    for root in spec.submodule_search_locations:
        folder = Path(root) / inside
        if folder.is_dir() and folder.resolve().is_relative_to(Path(root).resolve()):
            return folder
    raise ModelError(f"{source}: the package {name!r} has no folder {inside!r}")


def _is_distribution(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return True


def _from_hub(name: str, revision: str | None, trust_remote_code: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [*_HUB_FILES, *(["*.py"] if trust_remote_code else [])]
    try:
        # OpenVINO and ONNX exports are not used here and can be larger than the model
        folder = snapshot_download(name, revision=revision, allow_patterns=patterns,
                                   ignore_patterns=["onnx/*", "openvino/*"])
    except Exception as error:
        raise ModelError(
            f"{name}: no such folder here, and the hub gave no model of that name "
            f"({type(error).__name__}: {first_line(error)}); give a local folder, a hub id, or "
            "package:NAME/FOLDER"
        ) from error
    return Path(folder)
