"""Training a cross-encoder on lists of candidates: ``sentemb rerank train``.

What a run leaves and how it resumes is as in ``sentemb train`` (``training/run_folder.py``); it runs on one device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Lt
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from sentemb.encoder.cross_encoder import CrossEncoder
from sentemb.encoder.digest import fingerprint
from sentemb.encoder.pretrained import load_cross_encoder
from sentemb.errors import Interrupted, NumericError, RecipeError
from sentemb.machine.precision import resolve_precision
from sentemb.machine.resources import keep_freed_memory
from sentemb.parts import Count, Fraction, NonNegative, Part, Positive, Whole, to_table
from sentemb.provenance import provenance
from sentemb.rerank.lists import CandidateList, chosen_candidates, hash_of_lists, read_lists, scored_by
from sentemb.rerank.losses import ListContrast, ListLogits, RerankLoss
from sentemb.stopping import noted
from sentemb.training.callbacks import EndEvent, StepEvent
from sentemb.training.checkpoint import RunState, optimizer_state, restore_optimizer
from sentemb.training.device import generator_states, restore_generators
from sentemb.training.monitor import Monitor
from sentemb.training.optimizers import AdamW, Linear, parameter_groups, rate_factor
from sentemb.training.plan import TrainResult
from sentemb.training.run_folder import RunFolder

SAVE_EVERY_S = 600.0  # between checkpoints, where save_every does not say when


@dataclass(frozen=True, kw_only=True)
class RerankSettings(Part):
    """How a cross-encoder is trained.

    Args:
        loss: what it learns from a list (``sentemb list rerank_losses``).
        group: candidates of a list that a step sees, the positive among them; others are drawn anew in every epoch.
        epochs: passes over the lists.
        max_steps: optimiser steps; ends before ``epochs`` if that comes first.
        batch_size: lists a step.
        max_tokens: of query and text together; by default the model's limit.
        learning_rate: largest rate; it rises in the first steps, then falls in a straight line.
        warmup_fraction: share of the steps in which the rate rises.
        weight_decay: of weights, not of biases and norms.
        max_grad_norm: longer gradients are shortened to it; 0 switches this off.
        precision: auto is bf16 where the processor multiplies it natively, else fp32.
        seed: of every random choice.
        log_every: steps between entries of metrics.jsonl.
        save_every: steps between checkpoints; by default every ten minutes; always at the end.
    """

    loss: RerankLoss = field(default_factory=ListContrast)
    group: Annotated[int, Ge(2)] = 8
    epochs: Count = 1
    max_steps: Count | None = None
    batch_size: Count = 8
    max_tokens: Annotated[int, Ge(8)] | None = None
    learning_rate: Positive = 2e-5
    warmup_fraction: Fraction = 0.1
    weight_decay: NonNegative = 0.01
    max_grad_norm: NonNegative = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: Annotated[Whole, Lt(2**31)] = 42
    log_every: Count = 10
    save_every: Count | None = None


def train_reranker(
    data: str | Path | Iterable[Mapping[str, Any]],
    *,
    backbone: str | Path,
    output: str | Path,
    settings: RerankSettings | None = None,
    teacher: str | Path | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train a cross-encoder; it comes to lie in ``OUTPUT/model``.

    Args:
        data: rows of anchor, positive, negative_1, … (what ``mine`` gives), or a file of them.
        backbone: an encoder or a cross-encoder to start from.
        teacher: a cross-encoder whose scores the ``margin`` loss follows, instead of scores in the data.
        resume: continue the run in ``output`` where there is one; it ends as if it had never stopped.

    Raises:
        DataError: a row that is no list.
        RecipeError: ``output`` holds a run already.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was saved first.
        CheckpointError: the checkpoint is of other lists or settings.
        NumericError: a loss or a weight is not finite.
    """
    settings, folder = settings or RerankSettings(), RunFolder(Path(output))
    if not resume and (any(folder.checkpoints.glob("step-*")) or folder.model.exists()):
        raise RecipeError(f"{folder.path} already holds a run; continue it with --resume, or choose another --output")
    lists = read_lists(data, with_scores=settings.loss.needs_teacher and teacher is None)
    model = CrossEncoder.untrained(backbone, seed=settings.seed, max_tokens=settings.max_tokens)
    if settings.loss.needs_teacher and teacher is not None:
        lists = scored_by(load_cross_encoder(teacher), lists)
    with folder.locked():
        return _Training(model, lists, settings, folder, resume=resume).run()


class _Training:
    """One run: the model, its optimizer, where it stands."""

    def __init__(
        self, model: CrossEncoder, lists: list[CandidateList], settings: RerankSettings, folder: RunFolder, *,
        resume: bool,
    ) -> None:
        self.model, self.lists, self.settings, self.folder = model, lists, settings, folder
        facts = json.dumps([to_table(settings), bytes(fingerprint(model.model).numpy()).hex(), model.max_tokens])
        state = RunState(
            recipe_hash=sha256(facts.encode()).hexdigest(), data_hash=hash_of_lists(lists), devices=1
        )
        checkpoint = None
        if resume:
            checkpoint, state = folder.open_checkpoint(state)
        self.state, self.sizes = state, np.array([len(one.candidates) for one in lists], dtype=np.int64)
        self.first = np.cumsum([0, *self.sizes[:-1]])  # of every list's pairs among all
        self.tokens = model.tokenise([pair for one in lists for pair in one.pairs])
        self.teacher = None
        if settings.loss.needs_teacher:
            self.teacher = torch.tensor([score for one in lists for score in one.scores or ()], device=model.device)
        self.steps_an_epoch = -(-len(lists) // settings.batch_size)
        self.total_steps = min(settings.epochs * self.steps_an_epoch, settings.max_steps or 2**62)
        self.optimizer = AdamW().build(parameter_groups(
            model.model, learning_rate=settings.learning_rate, head_learning_rate=None,
            weight_decay=settings.weight_decay,
        ))
        factor = rate_factor(Linear(), warmup_fraction=settings.warmup_fraction, total_steps=self.total_steps)
        self.schedule = LambdaLR(self.optimizer, factor)
        torch.manual_seed(settings.seed)
        if checkpoint is not None:
            self._restore(checkpoint)
        self.dtype = resolve_precision(settings.precision, model.device)

    def run(self) -> TrainResult:
        """To the end, or until interrupted."""
        finished = self.folder.read_result(self.state)
        if finished is not None:
            return finished
        if self.model.device.type == "cpu":
            keep_freed_memory()
        start = json.dumps(asdict(provenance()) | {"settings": to_table(self.settings), "lists": len(self.lists),
                                                   "backbone": self.model.source}, indent=2)
        self.folder.write_start({"run.json": start + "\n"})
        self.model.model.train()
        saved, loss = time.monotonic(), float("nan")
        with ExitStack() as stack:
            request = stack.enter_context(noted())
            monitor = stack.enter_context(Monitor(
                self.folder.path, total_steps=self.total_steps, first_step=self.state.step,
                log_every=self.settings.log_every,
            ))
            for rows, candidates in self._batches():
                before = time.monotonic()
                step_loss = self._step(rows, candidates)
                self.state.step += 1
                self.state.examples += int((candidates >= 0).sum())
                self.state.seconds += time.monotonic() - before
                loss = float(step_loss)
                monitor.on_step(StepEvent(
                    step=self.state.step, total_steps=self.total_steps, losses={"loss": step_loss},
                    learning_rate=float(self.schedule.get_last_lr()[0]),
                ))
                every = self.settings.save_every
                is_due = self.state.step % every == 0 if every else time.monotonic() - saved > SAVE_EVERY_S
                if request.signal or (is_due and self.state.step < self.total_steps):
                    path, saved = self._save(), time.monotonic()
                if request.signal:
                    raise Interrupted(f"stopped by {request.signal} at step {self.state.step} of {self.total_steps}; "
                                      f"saved {path}. To continue, run the same command with --resume")
            self._check_finite()
            self._save()
            self.model.model.eval()
            self.model.save(self.folder.model)
            monitor.on_end(EndEvent(step=self.state.step, model_dir=self.folder.model, stopped=None))
        return self.folder.write_result(self.state, {"loss": loss}, {"pairs": self.state.examples})

    def _batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Lists of every step from where the run stands, and which candidates of theirs it sees."""
        settings, step = self.settings, self.state.step
        while step < self.total_steps:
            epoch, within = divmod(step, self.steps_an_epoch)
            generator = np.random.default_rng([settings.seed, epoch])
            order = generator.permutation(len(self.lists))
            candidates = chosen_candidates(self.sizes, settings.group, generator)
            for number in range(within, min(self.steps_an_epoch, within + self.total_steps - step)):
                rows = order[number * settings.batch_size : (number + 1) * settings.batch_size]
                yield rows, candidates[rows]
                step += 1

    def _step(self, rows: NDArray[np.int64], candidates: NDArray[np.int64]) -> Tensor:
        with torch.autocast(self.model.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            is_there, pairs = candidates >= 0, self.first[rows][:, None] + candidates
            logits = _spread(self.model.logits(self.tokens.take(pairs[is_there])).float(), is_there)
            teacher = None if self.teacher is None else _spread(self.teacher[pairs[is_there]], is_there)
            there = torch.from_numpy(is_there).to(logits.device)
            loss = self.settings.loss(ListLogits(logits=logits, is_there=there, teacher=teacher))
        if not bool(loss.isfinite()):
            raise NumericError(f"step {self.state.step + 1}: the loss {type(self.settings.loss).__name__} is "
                               f"{float(loss)}; its first query is {self.lists[rows[0]].query[:60]!r}. Lower "
                               "learning_rate, or use precision fp32")
        loss.backward()
        if self.settings.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.model.model.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _save(self) -> Path:
        moments, groups = optimizer_state(self.optimizer)
        files = {"model": dict(self.model.model.state_dict()), "optimizer": moments,
                 "generators": generator_states(self.model.device)}
        numbers = {"state": asdict(self.state), "optimizer": groups, "schedule": self.schedule.state_dict()}
        return self.folder.save_checkpoint(self.state.step, files, numbers, keep=2)

    def _restore(self, checkpoint: Path) -> None:
        numbers: dict[str, Any] = json.loads((checkpoint / "state.json").read_text())
        self.model.model.load_state_dict(load_file(checkpoint / "model.safetensors"))
        restore_optimizer(self.optimizer, load_file(checkpoint / "optimizer.safetensors"), numbers["optimizer"])
        self.schedule.load_state_dict(numbers["schedule"])
        restore_generators(load_file(checkpoint / "generators.safetensors"), self.model.device)

    def _check_finite(self) -> None:
        if not all(bool(weight.isfinite().all()) for weight in self.model.model.parameters()):
            raise NumericError(f"step {self.state.step}: the weights are not finite, so no model is written. Lower "
                               "learning_rate, or use precision fp32, and start the run again")


def _spread(values: Tensor, is_there: NDArray[np.bool_]) -> Tensor:
    """Values of the candidates that are there as a rectangle, 0 elsewhere."""
    spread = values.new_zeros(is_there.shape)
    return spread.masked_scatter(torch.from_numpy(is_there).to(values.device), values)
