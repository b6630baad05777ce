"""Checkpoints of a run: whole or absent, verified, rotated; only safetensors and JSON.

    RUN/checkpoints/step-00000250/
        objective.safetensors    parameters and buffers of encoder, heads and terms
        companions.safetensors   what companions want kept
        optimizer.safetensors    moments; its numbers are in state.json
        generators-<rank>.safetensors
        state.json               step, best score so far, schedule, hashes of recipe and data
        SHA256.json              of every file above; a folder that does not match it is damaged
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sentemb.errors import CheckpointError
from sentemb.files import atomic_file, atomic_folder, sha256_of
from sentemb.training.device import sharded_like, unsharded
from sentemb.training.objective import Objective
from sentemb.types import Examples

FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands."""

    recipe_hash: str
    data_hash: str  # of the tokenised data
    devices: int
    step: int = 0  # optimiser steps done
    examples: int = 0  # in those steps
    seconds: float = 0.0  # that they took, over all the starts of the run
    skipped: int = 0  # steps left out because their loss was not finite
    best_score: float | None = None
    best_step: int | None = None
    evaluated_step: int | None = None  # of the last evaluation
    evaluations_since_best: int = 0
    stopped: str | None = None  # why it ended before its last step
    format: int = FORMAT


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a checkpoint holds beside the run's state, gathered from all devices where it is sharded."""

    tensors: Mapping[str, Mapping[str, Tensor]]  # by file: objective, companions, optimizer
    numbers: Mapping[str, Any]  # of optimizer and schedule


def take_snapshot(objective: Objective, optimizer: torch.optim.Optimizer, schedule: Any) -> Snapshot:
    """Collect the state; every device must call it."""
    moments, numbers = _flatten_optimizer(optimizer.state_dict())
    return Snapshot(
        tensors={
            "objective": objective_state(objective), "companions": companion_state(objective), "optimizer": moments,
        },
        numbers={"optimizer": numbers, "schedule": _plain(schedule.state_dict())},
    )


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}"


def save_checkpoint(
    folder: Path, snapshot: Snapshot, *, state: RunState, generators: Mapping[int, Mapping[str, Tensor]]
) -> None:
    """Write ``step-…`` under ``folder``.

    Raises:
        OSError, SafetensorError: it could not be written; what lay there before is untouched.
    """
    for left in folder.glob(".step-*.tmp"):  # by a process that was killed while it wrote
        shutil.rmtree(left, ignore_errors=True)
    with atomic_folder(checkpoint_path(folder, state.step)) as temporary:
        for name, tensors in snapshot.tensors.items():
            _save(tensors, temporary / f"{name}.safetensors")
        for rank, rank_state in generators.items():
            _save(dict(rank_state), temporary / f"generators-{rank}.safetensors")
        (temporary / "state.json").write_text(json.dumps({"state": asdict(state), **snapshot.numbers}, indent=1))
        sums = {entry.name: sha256_of(entry) for entry in sorted(temporary.iterdir())}
        (temporary / "SHA256.json").write_text(json.dumps(sums, indent=1))


def read_state(path: Path, *, recipe_hash: str, data_hash: str) -> RunState:
    """The state of a verified checkpoint; nothing is restored yet.

    Raises:
        CheckpointError: it was saved by another recipe or on other data.
    """
    state = RunState(**json.loads((path / "state.json").read_text())["state"])
    if state.recipe_hash != recipe_hash:
        raise CheckpointError(
            f"{path}: was saved by another recipe (hash {state.recipe_hash[:12]}, this one is {recipe_hash[:12]}); "
            "resume with the same recipe and --set values, or choose another --output"
        )
    if state.data_hash != data_hash:
        raise CheckpointError(
            f"{path}: was saved on other data (hash {state.data_hash[:12]}, these are {data_hash[:12]}): the file "
            "changed, or the tokenizer; resume with the data of the start, or choose another --output"
        )
    return state


def load_checkpoint(
    path: Path, *, objective: Objective, optimizer: torch.optim.Optimizer, schedule: Any
) -> dict[int, dict[str, Tensor]]:
    """Restore everything from a verified checkpoint; returns each device's generators."""
    content = json.loads((path / "state.json").read_text())
    _restore(objective, load_file(path / "objective.safetensors"), path)
    saved: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(path / "companions.safetensors").items():
        name, _, part = key.partition("/")
        saved.setdefault(name, {})[part] = tensor
    for name, companion in objective.named_companions.items():
        current = companion.state_dict()
        companion.load_checkpoint_state(
            {key: sharded_like(tensor, current.get(key, tensor)) for key, tensor in saved.get(name, {}).items()}
        )
    optimizer.load_state_dict(
        _unflatten_optimizer(load_file(path / "optimizer.safetensors"), content["optimizer"], optimizer)
    )
    schedule.load_state_dict(content["schedule"])
    return {int(file.stem.partition("-")[2]): load_file(file) for file in sorted(path.glob("generators-*.safetensors"))}


def hash_of_data(examples: Examples) -> str:
    """Hex SHA-256 of tokenised data: of every token, label and score, in order."""
    digest = hashlib.sha256()
    for name, column in examples.columns.items():
        digest.update(name.encode())
        digest.update(column.offsets.tobytes())
        digest.update(column.flat.tobytes())
    for values in (examples.label, examples.score):
        digest.update(b"" if values is None else values.tobytes())
    return digest.hexdigest()


def fault_of(path: Path) -> str | None:
    """Why a checkpoint cannot be used, or None."""
    try:
        sums = json.loads((path / "SHA256.json").read_text())
    except (OSError, ValueError):
        return "SHA256.json is missing or not readable"
    for name, expected in sums.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if sha256_of(file) != expected:
            return f"{name} does not match its checksum"
    try:
        version = json.loads((path / "state.json").read_text())["state"]["format"]
    except (OSError, ValueError, KeyError):
        return "state.json is not readable"
    if version != FORMAT:
        return f"format {version}; this sentemb reads {FORMAT}: resume with the sentemb that wrote it"
    return None


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest usable checkpoint and a warning for every newer one that is damaged."""
    warnings: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        fault = fault_of(path)
        if fault is None:
            return path, warnings
        warnings.append(f"{path}: {fault}; falling back to the checkpoint before it")
    return None, warnings


def rotate(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints."""
    for path in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def objective_state(objective: Objective) -> dict[str, Tensor]:
    """Parameters and buffers outside the companions; every device must call it where they are sharded."""
    state = objective.state_dict()
    return {key: unsharded(value) for key, value in state.items() if not key.startswith("companions.")}


def companion_state(objective: Objective) -> dict[str, Tensor]:
    """``companion/key`` → tensor; every device must call it where they are sharded."""
    return {
        f"{name}/{key}": unsharded(value)
        for name, companion in objective.named_companions.items()
        for key, value in companion.checkpoint_state().items()
    }


def _restore(objective: Objective, tensors: Mapping[str, Tensor], path: Path) -> None:
    current = objective.state_dict()
    differing = {key for key in current if not key.startswith("companions.")} ^ set(tensors)
    if differing:
        raise CheckpointError(
            f"{path}: holds other parameters than this recipe builds (e.g. {', '.join(sorted(differing)[:3])}); "
            "resume with the recipe that started the run"
        )
    matching = {key: sharded_like(tensor, current[key]) for key, tensor in tensors.items()}
    objective.load_state_dict(matching, strict=False)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors atomically."""
    with atomic_file(path) as temporary:
        _save(tensors, temporary)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Tied tensors are written once under each name (safetensors refuses shared memory)."""
    storages: set[int] = set()
    separate: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        separate[key] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    save_file(separate, path)


def _flatten_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {
        f"{index}.{key}": unsharded(value) if isinstance(value, Tensor) else torch.tensor(value)
        for index, entries in state["state"].items()
        for key, value in entries.items()
        if value is not None
    }
    groups = [{key: _plain(value) for key, value in group.items()} for group in state["param_groups"]]
    return tensors, {"param_groups": groups}


def _unflatten_optimizer(
    tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        has_its_shape = tensor.shape == parameter.shape
        state.setdefault(int(index), {})[name] = sharded_like(tensor, parameter) if has_its_shape else tensor
    groups = [
        {key: tuple(value) if isinstance(value, list) and key != "params" else value for key, value in group.items()}
        for group in numbers["param_groups"]
    ]
    return {"state": state, "param_groups": groups}


def _plain(value: Any) -> Any:
    """What JSON can hold of schedule and group numbers."""
    if isinstance(value, Tensor):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items() if not callable(entry)}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value if not callable(entry)]
    return value
