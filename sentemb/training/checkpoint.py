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

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sentemb.distributed import all_objects, rank
from sentemb.errors import CheckpointError, first_line
from sentemb.files import atomic_file, atomic_folder, sha256_of
from sentemb.training.device import generator_states, sharded_like, unsharded
from sentemb.training.objective import Objective
from sentemb.types import Examples

FORMAT = 2
_IDS = 2**22  # hashed at a time


@dataclass(kw_only=True)
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
    chunk_size: int | None = None  # texts at a time since memory did not suffice; None: as the recipe says
    stopped: str | None = None  # why it ended before its last step
    format: int = FORMAT


def collect(
    state: RunState, objective: Objective, optimizer: torch.optim.Optimizer, schedule: Any, device: torch.device
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """A run's tensors by file, whole where they are sharded, and its numbers; every device must call it."""
    moments, groups = optimizer_state(optimizer)
    files = {"objective": objective_state(objective), "companions": companion_state(objective), "optimizer": moments}
    files |= {f"generators-{number}": drawn for number, drawn in enumerate(all_objects(generator_states(device)))}
    return files, {"state": asdict(state), "optimizer": groups, "schedule": schedule.state_dict()}


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's moments as ``parameter.name`` → tensor, whole where they are sharded, and its numbers."""
    saved = optimizer.state_dict()
    moments = {
        f"{index}.{key}": unsharded(value) if isinstance(value, Tensor) else torch.tensor(value)
        for index, entries in saved["state"].items()
        for key, value in entries.items()
        if value is not None
    }
    return moments, {"param_groups": saved["param_groups"]}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    """Restore what ``optimizer_state`` gave."""
    moments: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        moments.setdefault(int(index), {})[name] = sharded_like(tensor, like) if tensor.shape == like.shape else tensor
    optimizer.load_state_dict({"state": moments, **numbers})


def save_checkpoint(path: Path, files: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]) -> None:
    """Write what ``collect`` gave; what lay there before is untouched by an ``OSError`` or ``SafetensorError``."""
    for left in path.parent.glob(".step-*.tmp"):  # by a process that was killed while it wrote
        shutil.rmtree(left, ignore_errors=True)
    with atomic_folder(path) as temporary:
        for name, tensors in files.items():
            _save(tensors, temporary / f"{name}.safetensors")
        (temporary / "state.json").write_text(json.dumps(numbers, indent=1, default=Tensor.item))
        sums = {entry.name: sha256_of(entry) for entry in sorted(temporary.iterdir())}
        (temporary / "SHA256.json").write_text(json.dumps(sums, indent=1))


def load_checkpoint(
    path: Path, *, objective: Objective, optimizer: torch.optim.Optimizer, schedule: Any
) -> dict[str, Tensor] | None:
    """Restore everything from a verified checkpoint; returns this device's generators, if it had any then."""
    content = json.loads((path / "state.json").read_text())
    weights, current = load_file(path / "objective.safetensors"), objective.state_dict()
    differing = {key for key in current if not key.startswith("companions.")} ^ set(weights)
    if differing:
        raise CheckpointError(
            f"{path}: holds other parameters than this recipe builds (e.g. {', '.join(sorted(differing)[:3])}); "
            "resume with the recipe that started the run"
        )
    matching = {key: sharded_like(tensor, current[key]) for key, tensor in weights.items()}
    for key in objective.load_state_dict(matching, strict=False).unexpected_keys:
        if not torch.equal(matching[key], current[key].cpu()):  # the scales of weights in four bits, which stand still
            raise CheckpointError(f"{path}: was made with another base model ({key} differs); give that one")
    saved = load_file(path / "companions.safetensors")
    for name, companion in objective.named_companions.items():
        current = companion.state_dict()
        own = {key.removeprefix(f"{name}/"): value for key, value in saved.items() if key.startswith(f"{name}/")}
        companion.load_checkpoint_state(
            {key: sharded_like(value, current.get(key, value)) for key, value in own.items()}
        )
    restore_optimizer(optimizer, load_file(path / "optimizer.safetensors"), content["optimizer"])
    schedule.load_state_dict(content["schedule"])
    drawn = path / f"generators-{rank()}.safetensors"
    return load_file(drawn) if drawn.is_file() else None


def hash_of_data(examples: Examples) -> str:
    """Hex SHA-256 of tokenised data: of every token, label and number, in order."""
    digest = hashlib.sha256()
    for name, column in examples.columns.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(column.offsets).data)
        for start in range(0, len(column.flat), _IDS):  # mapped ids may be more than fit into memory
            digest.update(np.ascontiguousarray(column.flat[start : start + _IDS], dtype=np.int32).data)
    for name, part in examples.sources.items():
        digest.update(f"{name} {len(part)}".encode())
    numbers = (examples.label, examples.score, examples.margin, examples.weight, examples.levels)
    for values in (*numbers, *examples.negative_scores.values(), *examples.grades.values()):
        digest.update(b"" if values is None else values.tobytes())
    return digest.hexdigest()


def fault_of(path: Path) -> str | None:
    """Why a checkpoint cannot be used, or None."""
    try:
        for name, expected in json.loads((path / "SHA256.json").read_text()).items():
            if sha256_of(path / name) != expected:
                return f"{name} does not match its checksum"
        version = json.loads((path / "state.json").read_text())["state"]["format"]
    except (OSError, ValueError, KeyError) as error:
        return f"a file is missing or not readable ({first_line(error)})"
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
