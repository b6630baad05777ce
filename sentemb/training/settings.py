"""The ``[train]`` table of a recipe. Names are those of ``transformers.TrainingArguments`` where one exists."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class TrainSettings(BaseModel):
    """How the objective is optimised. Every default is SimCSE's (Gao et al. 2021, appendix A) unless said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Count = 1
    max_steps: Count | None = Field(None, description="optimiser steps; ends before `epochs` if that comes first")
    batch_size: Count = Field(64, description="examples contrasted with one another, over all devices together")
    gradient_accumulation: Count = Field(1, description="batches per optimiser step; they do not see each other")
    chunk_size: Count | None = Field(
        None, description="texts encoded at a time (GradCache): memory no longer grows with batch_size; same gradients"
    )
    chunk_tokens: Count | None = Field(None, description="as chunk_size, in tokens with padding; both may be given")
    kept_graphs_mib: Annotated[float, Field(ge=0)] = Field(
        0.0, description="memory for chunks that need no second forward pass: faster where there is some to spare"
    )
    no_duplicates: bool = Field(True, description="no text recurs within a batch: it would be a false negative")

    learning_rate: Positive = 3e-5
    head_learning_rate: Positive | None = Field(None, description="of heads, terms, companions; default learning_rate")
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    adam_betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    adam_epsilon: Positive = 1e-8
    max_grad_norm: Annotated[float, Field(ge=0)] = Field(1.0, description="0 switches clipping off")
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_fraction: Fraction = 0.0

    precision: Precision = Field("auto", description="auto: bf16 where the processor multiplies it natively, else fp32")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    deterministic: bool = Field(False, description="deterministic kernels on GPUs too; CPUs always are")
    compile: bool = Field(False, description="torch.compile the backbone: pays on GPUs and long runs")
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, ~30 % slower")
    shard: bool = Field(False, description="deal the backbone's weights to the devices (FSDP2) instead of copying them")
    device_timeout_s: Count = Field(1800, description="a device that does not answer for so long ends the run")
    nested_dims: tuple[Count, ...] = Field(
        (), description="also train these leading dimensions as embeddings (Matryoshka); the full width always counts"
    )

    eval_every: Count | None = Field(None, description="steps between dev evaluations; the best model is kept")
    patience: Count | None = Field(None, description="stop after this many dev evaluations without a better score")
    log_every: Count = 10
    save_every: Count | None = Field(
        None, description="steps between checkpoints; default: eval_every, else every ten minutes; always at the end"
    )
    keep_checkpoints: Count = 2
    on_nan: Literal["stop", "skip"] = "stop"
    trackers: tuple[Tracker, ...] = ()

    @property
    def is_chunked(self) -> bool:
        """Whether batches are encoded in chunks (GradCache)."""
        return self.chunk_size is not None or self.chunk_tokens is not None

    @model_validator(mode="after")
    def _coherent(self) -> TrainSettings:
        if self.patience is not None and self.eval_every is None:
            raise ValueError("patience needs eval_every")
        if self.kept_graphs_mib and not self.is_chunked:
            raise ValueError("kept_graphs_mib needs chunk_size or chunk_tokens")
        if self.kept_graphs_mib and self.shard:
            # every device gathers weights at the same time, so none may skip a forward pass that others need
            raise ValueError("kept_graphs_mib and shard exclude each other")
        return self
