"""SimCSE training: ours against sentence-transformers' trainer, same model, data, batch and precision.

    SENTEMB_DATA=… python eval/bench/run.py train [--steps 30] [--batch 64] [--rounds 3] [--precisions fp32 bf16]

Both start from the same checkpoint with CLS pooling and a tanh layer, see the same sentences in their own shuffled
order, batch 64, at most 32 tokens, temperature 0.05, AdamW, linear decay, clipping at 1. One round is one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from harness import Contender, Lane, Work, data, lanes_table, machine, race, ratio, write_report

LEARNING_RATE = 5e-5


def sentemb(lines: str, backbone: str, precision: str, steps: int, batch: int) -> Work:
    """Ours: the recipe simcse-unsup-minilm."""
    from sentemb import Recipe, train

    recipe = Recipe.load("simcse-unsup-minilm", [
        f"encoder.backbone={backbone}", f"data.path={lines}", f"train.max_steps={steps}", f"train.batch_size={batch}",
        f"train.precision={precision}", f"train.learning_rate={LEARNING_RATE}", "train.log_every=1",
    ])

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            result = train(recipe, output=Path(folder) / "run")
            metrics = (result.run_dir / "metrics.jsonl").read_text().splitlines()
            losses = [json.loads(line)["loss/info_nce"] for line in metrics]
        return {"losses": losses, "loop_s": result.seconds}

    return work


def sentence_transformers(lines: str, backbone: str, precision: str, steps: int, batch: int) -> Work:
    """The peer's trainer with MultipleNegativesRankingLoss (scale 20) on (sentence, sentence)."""
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
        models,
    )
    from transformers import TrainerCallback

    texts = Path(lines).read_text(encoding="utf-8").splitlines()
    dataset = Dataset.from_dict({"anchor": texts, "positive": texts})

    class Losses(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.values: list[float] = []

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                self.values.append(float(logs["loss"]))

    def work() -> dict[str, Any]:
        import time

        torch.manual_seed(42)
        transformer = models.Transformer(backbone, max_seq_length=32, model_args={"dtype": torch.float32})
        width = transformer.get_word_embedding_dimension()
        model = SentenceTransformer(
            modules=[transformer, models.Pooling(width, pooling_mode="cls"), models.Dense(width, width)], device="cpu"
        )
        logged = Losses()
        with tempfile.TemporaryDirectory() as folder:
            arguments = SentenceTransformerTrainingArguments(
                output_dir=folder, max_steps=steps, per_device_train_batch_size=batch, learning_rate=LEARNING_RATE,
                bf16=precision == "bf16", use_cpu=True, save_strategy="no", logging_steps=1, report_to=[],
                lr_scheduler_type="linear", warmup_steps=0, max_grad_norm=1.0, disable_tqdm=True,
            )
            trainer = SentenceTransformerTrainer(
                model=model, args=arguments, train_dataset=dataset, callbacks=[logged],
                loss=losses.MultipleNegativesRankingLoss(model, scale=20.0),
            )
            start = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - start
        return {"losses": logged.values, "loop_s": seconds}

    return work


def main(arguments: list[str]) -> None:
    """Race, compare the losses, report."""
    parser = argparse.ArgumentParser(prog="train", description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--backbone", default=str(data().parent / "models" / "minilm-mlm"))
    options, facts = parser.parse_args(arguments), machine()
    from sentemb.data import iter_texts

    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in islice(iter_texts(data() / "text" / "wiki1m.txt.zst"), 20_000))
        file.flush()
        common = {"lines": file.name, "backbone": options.backbone, "steps": options.steps, "batch": options.batch}
        timed: dict[str, dict[str, Lane]] = {}
        for precision in options.precisions:
            timed[precision] = race(
                [Contender(name, __file__, name, {**common, "precision": precision})
                 for name in ("sentemb", "sentence_transformers")],
                rounds=options.rounds, warmups=0,
            )
    write_report("train", "SimCSE training", report(timed, steps=options.steps, batch=options.batch), facts, timed)


def report(by_precision: dict[str, dict[str, Lane]], *, steps: int, batch: int) -> str:
    """The races as Markdown."""
    races = {f"{name} {precision}": lane for precision, lanes in by_precision.items() for name, lane in lanes.items()}

    def cells(lane: Lane) -> list[object]:
        peer = next(lanes["sentence_transformers"] for lanes in by_precision.values() if lane in lanes.values())
        step, of_peer = (one.facts["loop_s"] / steps for one in (lane, peer))
        ratios = [ratio(peer, lane), f"{of_peer / step:.2f}×"] if lane.name == "sentemb" else ["", ""]
        return [f"{lane.median_s:.1f}", f"{step:.2f}", f"{batch / step:.1f}",
                f"{statistics.fmean(lane.facts['losses'][-5:]):.4f}", f"{lane.peak_mib:.0f}", *ratios]

    header = ["contender", "seconds a run", "a step", "examples/s in steps", "loss, last 5 steps", "peak MiB",
              "the peer's run over ours", "its step over ours"]
    return (
        f"{steps} steps of batch {batch}, at most 32 tokens. A run is everything from the checkpoint on disk to the "
        "end of training; ours includes the token ids of 20,000 texts, checkpoint and export. Steps are timed in the "
        "last round.\n\n" + lanes_table(header, races, cells)
    )
