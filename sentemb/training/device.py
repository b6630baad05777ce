"""Where and how precisely a run computes; how the model is spread over devices; dropout's generators."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sentemb.distributed import devices, rank
from sentemb.encoder import Encoder
from sentemb.errors import RecipeError, needs_extra
from sentemb.machine.precision import find_device, multiplies_bfloat16
from sentemb.machine.resources import keep_freed_memory
from sentemb.training.objective import Objective
from sentemb.training.optimizers import parameter_groups
from sentemb.training.settings import Precision, TrainSettings


def resolve_precision(precision: Precision) -> str:
    """fp32, bf16 or fp16; ``auto`` is bf16 where that is fast."""
    if precision == "fp16" and not torch.cuda.is_available():
        raise RecipeError('train.precision = "fp16" needs a CUDA device; here: fp32, bf16 or auto')
    if precision != "auto":
        return precision
    return "bf16" if multiplies_bfloat16(find_device(None)) else "fp32"


def check_installed(settings: TrainSettings) -> None:
    """Raise ``MissingExtra`` for a package that training will need, before anything is read or written."""
    needs_extra("accelerate", "train")
    for name in settings.trackers:  # accelerate only warns, and trains without
        needs_extra(name, "trackers")


def build_accelerator(settings: TrainSettings, precision: str, *, run_dir: Path, recipe: Mapping[str, Any]) -> Any:
    """accelerate's ``Accelerator`` for this run, with its trackers started."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    # an earlier run of this process left its precision there, and accelerate refuses another one
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=list(settings.trackers) or None,
        project_dir=str(run_dir),
        # buffers change alike on every device: they see the whole batch
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    if settings.trackers:
        flat = {f"{table}.{key}": str(value) for table, entries in recipe.items()
                if isinstance(entries, dict) for key, value in entries.items()}
        accelerator.init_trackers("sentemb", config=flat)
    return accelerator


def prepare(objective: Objective, settings: TrainSettings, accelerator: Any) -> tuple[Any, torch.optim.Optimizer, Any]:
    """What ``Step`` calls, the optimizer, and the optimizer as accelerate wraps it.

    On several devices the objective is wrapped in DDP, unless its backbones are sharded or its batches chunked: then
    ``Step`` averages gradients.
    """
    if settings.shard and devices() > 1:
        shard(objective)
    optimizer = settings.optimizer.build(
        parameter_groups(
            objective, learning_rate=settings.learning_rate, head_learning_rate=settings.head_learning_rate,
            weight_decay=settings.weight_decay,
        )
    )
    if devices() > 1 and (settings.shard or settings.chunk_size):
        model = accelerator.prepare_model(objective, evaluation_mode=True)  # autocast, no DDP
        return model, optimizer, accelerator.prepare_optimizer(optimizer)
    with warnings.catch_warnings():
        # newer torch prefers another name, which older torch does not know
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        model, wrapped = accelerator.prepare(objective, optimizer)
    return model, optimizer, wrapped


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """The states of this process's generators."""
    states = {"cpu": torch.random.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_generators(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set this process's generators."""
    torch.random.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def shard(objective: Objective) -> None:
    """Deal the weights of every encoder's backbone (the trained one's, a momentum copy's, …) to the devices.

    Each backbone is a root of its own, so it gathers its weights whenever it is called, by whichever part. Everything
    else (heads, terms, a detector) is small beside it and stays unsharded; ``Step`` averages its gradients.
    """
    from torch.distributed.fsdp import fully_shard

    from sentemb.encoder.module import EncoderModule

    for module in [module for module in objective.modules() if isinstance(module, EncoderModule)]:
        for layers in [part for part in module.backbone.modules() if isinstance(part, nn.ModuleList)]:
            for layer in layers:
                fully_shard(layer)
        # a root would stay whole after a forward without backward (a momentum copy's)
        fully_shard(module.backbone, reshard_after_forward=True)


def is_sharded(tensor: Tensor) -> bool:
    """Whether a device holds only its part."""
    return hasattr(tensor, "full_tensor")


def unsharded(tensor: Tensor) -> Tensor:
    """All of a tensor; every device must call it for a sharded one."""
    gathered: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return gathered


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This device's part of a tensor, dealt as ``like`` is."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)  # type: ignore[attr-defined]


class UnshardedEncoder:
    """The trained encoder with all its weights, for evaluating and saving it on the first device.

    That is the encoder itself, or (``is_sharded``) a copy on the first device, made before its weights are dealt.
    """

    def __init__(self, encoder: Encoder, *, is_sharded: bool) -> None:
        self.encoder, self.is_sharded = encoder, is_sharded
        self._copy = copy.deepcopy(encoder) if is_sharded and rank() == 0 else None

    def read(self) -> Encoder:
        """The encoder with its present weights; every device must call it, and only the first may use the result."""
        if self.is_sharded:
            state = {key: unsharded(value) for key, value in self.encoder.module.state_dict().items()}
            if self._copy is not None:
                self._copy.module.load_state_dict(state)
        return self._copy or self.encoder
