"""Pickled checkpoints (``pytorch_model.bin``) as safetensors, which sentemb reads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentemb.encoder.backbone import read_json, refused, whole_folder
from sentemb.encoder.source import locate
from sentemb.errors import ModelError
from sentemb.files import write_json

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_SINGLE, _INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_WORKER = Path(__file__).with_name("unpickle.py")
# what a Python process may need; no token or key of the user's is handed on
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP", "OMP_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What ``convert`` did."""

    files: tuple[str, ...]  # that were written as safetensors, by their old names
    tensors: int = 0
    left_out: tuple[str, ...] = field(default_factory=tuple)  # further pickles, which no model needs


def convert(model: str | Path, output: str | Path, *, revision: str | None = None) -> Converted:
    """Write a copy of a model whose pickled weights are safetensors; no code of the pickles runs.

    A pickle can name any function to be called. It is read by torch's reader for weights alone, which knows tensors and
    plain containers and refuses the rest, in a process of its own that has none of your environment. The copy holds
    every other file of the folder, except further pickles. Names, formats, shapes and bits of all tensors are compared,
    and those of several files with their index.

    Args:
        model: a folder, or a hub id, whose .bin files are then fetched (nothing else of sentemb fetches them).
        output: the folder that is written, whole or not at all.
        revision: branch, tag or commit of a hub repository.

    Raises: ModelError: no pickled weights there, ones that hold more than tensors, or a damaged file.
    """
    source = locate(model, revision=revision, also=("pytorch_model*.bin", "*/pytorch_model*.bin"))
    files = sorted(path for path in source.rglob("*") if path.is_file() and not _is_hidden(path, source))
    weights = {folder: _weights_of(folder) for folder in sorted({file.parent for file in files})}
    weights = {folder: names for folder, names in weights.items() if names}
    if not weights:
        raise ModelError(f"{model}: no {_SINGLE} that lacks its model.safetensors; there is nothing to convert"
                         + (", the model opens as it is" if (source / "model.safetensors").is_file() else ""))
    if Path(output).resolve() == source.resolve():
        raise ModelError(f"{output}: is the model itself; name another folder")
    tensors, left_out = 0, []
    with whole_folder(Path(output)) as folder:
        for file in files:
            into = folder / file.relative_to(source)
            if file.suffix.lower() in PICKLES:
                if file.name not in weights.get(file.parent, {}):
                    left_out.append(str(file.relative_to(source)))
            elif file.name != _INDEX:
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, into)
        for home, names in weights.items():
            into = folder / home.relative_to(source)
            into.mkdir(parents=True, exist_ok=True)
            tensors += _write(home, into, names)
    done = tuple(str((home / name).relative_to(source)) for home, names in weights.items() for name in names)
    return Converted(files=done, tensors=tensors, left_out=tuple(left_out))


def _weights_of(folder: Path) -> dict[str, str]:
    """The pickled files of weights in a folder, and the names they get; none where it has safetensors already."""
    if (folder / "model.safetensors").is_file() or (folder / "model.safetensors.index.json").is_file():
        return {}
    if not (folder / _INDEX).is_file():
        return {_SINGLE: "model.safetensors"} if (folder / _SINGLE).is_file() else {}
    names = sorted(set(_weight_map(folder).values()))
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder / _INDEX}: names {missing[0]}, which is not beside it; fetch the model again")
    return {name: f"{Path(name).stem.replace('pytorch_model', 'model')}.safetensors" for name in names}


def _weight_map(folder: Path) -> dict[str, str]:
    with refused(folder / _INDEX):
        index = read_json(folder / _INDEX)["weight_map"].items()
        return {str(name): str(file) for name, file in index}


def _write(home: Path, into: Path, names: dict[str, str]) -> int:
    """The files of one folder, and their index where they are several; gives the number of tensors."""
    held: dict[str, str] = {}  # tensor -> its new file
    for old, new in names.items():
        tensors = _unpickled(home / old, into / new)
        _compare(home / old, into / new, tensors)
        held |= dict.fromkeys(tensors, new)
    if (home / _INDEX).is_file():
        listed = {name: names[file] for name, file in _weight_map(home).items()}
        if differing := sorted(name for name in listed.keys() | held.keys() if listed.get(name) != held.get(name)):
            raise ModelError(f"{home / _INDEX}: {differing[0]} is not where it says; fetch the model again")
        index = {"metadata": read_json(home / _INDEX).get("metadata", {}), "weight_map": listed}
        write_json(into / "model.safetensors.index.json", index)
    return len(held)


def _unpickled(source: Path, target: Path) -> dict[str, Any]:
    """Names, formats and shapes of a file's tensors, which then lie in ``target``."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-I", str(_WORKER), str(source.resolve()), str(target.resolve())], env=environment,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        said = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise ModelError(f"{source}: the process that reads it failed ({last})") from None
    if "error" in said:
        raise ModelError(f"{source}: was not read, because it is not weights alone or is damaged. torch's reader says: "
                         f"{said['error']}")
    tensors: dict[str, Any] = said["tensors"]
    return tensors


def _compare(source: Path, target: Path, tensors: dict[str, Any]) -> None:
    from safetensors import safe_open

    with refused(target), safe_open(target, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping
    if shapes != {name: shape for name, (_, shape) in tensors.items()}:
        raise ModelError(f"{source}: its tensors and those of {target.name} differ; nothing was written")


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
