"""The ``[train]`` table of a recipe. Names are those of ``transformers.TrainingArguments`` where one exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Lt
from pydantic import AfterValidator

from sentemb.data.grouped import Grouped
from sentemb.data.orders import BatchOrder, NoDuplicates
from sentemb.parts import Count, Fraction, NonNegative, Part, Positive, Whole
from sentemb.training.callbacks import Callback
from sentemb.training.optimizers import AdamW, Linear, Optimizer, Schedule

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Part):
    """How the objective is optimised. Every default is SimCSE's (Gao et al. 2021, appendix A) unless said.

    Args:
        epochs: passes over the data.
        max_steps: optimiser steps; ends before ``epochs`` if that comes first.
        batch_size: examples contrasted with one another, over all devices together.
        gradient_accumulation: batches per optimiser step; they do not see each other.
        chunk_size: texts encoded at a time (GradCache): memory no longer grows with batch_size; same gradients.
        batches: which rows make a batch (``sentemb list batches``).
        learning_rate: of the backbone.
        head_learning_rate: of heads, terms and companions; by default learning_rate.
        weight_decay: of weights, not of biases and norms.
        optimizer: how weights move (``sentemb list optimizers``).
        max_grad_norm: longer gradients are shortened to it; 0 switches this off.
        schedule: the learning rate after the warm-up (``sentemb list schedules``).
        warmup_fraction: share of the steps in which the learning rate rises.
        precision: auto is bf16 where the processor multiplies it natively, else fp32.
        seed: of every random choice.
        compile: torch.compile the backbone: pays on GPUs and long runs.
        gradient_checkpointing: recompute activations: less memory, about 30 % slower.
        shard: deal the backbone's weights to the devices (FSDP2) instead of copying them.
        device_timeout_s: a device that does not answer for so long ends the run.
        nested_dims: also train these leading dimensions as embeddings (Matryoshka); the full width always counts.
        eval_every: steps between evaluations on ``[[dev]]``; the best model is kept.
        patience: stop after this many evaluations without a better score.
        log_every: steps between entries of metrics.jsonl.
        save_every: steps between checkpoints; by default eval_every, else every ten minutes; always at the end.
        keep_checkpoints: how many of the newest checkpoints stay.
        on_nan: what a loss or a gradient that is not finite does: stop the run, or skip the step.
        trackers: where losses are sent besides: tensorboard, wandb, mlflow.
        callbacks: what is called while training (``sentemb list callbacks``).
    """

    epochs: Count = 1
    max_steps: Count | None = None
    batch_size: Count = 64
    gradient_accumulation: Count = 1
    chunk_size: Count | None = None
    batches: BatchOrder = field(default_factory=NoDuplicates)

    learning_rate: Positive = 3e-5
    head_learning_rate: Positive | None = None
    weight_decay: NonNegative = 0.0
    optimizer: Optimizer = field(default_factory=AdamW)
    max_grad_norm: NonNegative = 1.0
    schedule: Schedule = field(default_factory=Linear)
    warmup_fraction: Fraction = 0.0

    precision: Precision = "auto"
    seed: Annotated[Whole, Lt(2**31)] = 42
    compile: bool = False
    gradient_checkpointing: bool = False
    shard: bool = False
    device_timeout_s: Count = 1800
    nested_dims: Annotated[Sequence[Count], AfterValidator(tuple)] = ()

    eval_every: Count | None = None
    patience: Count | None = None
    log_every: Count = 10
    save_every: Count | None = None
    keep_checkpoints: Count = 2
    on_nan: Literal["stop", "skip"] = "stop"
    trackers: Annotated[Sequence[Tracker], AfterValidator(tuple)] = ()
    callbacks: Annotated[Sequence[Callback], AfterValidator(tuple)] = ()

    def __post_init__(self) -> None:
        if self.patience is not None and self.eval_every is None:
            raise ValueError("patience needs eval_every")
        if isinstance(self.batches, Grouped) and self.batches.groups > self.batch_size:
            raise ValueError(f"batches: groups = {self.batches.groups} is above batch_size = {self.batch_size}")
