"""What a smaller model costs and keeps: a teacher, four of its layers, and static models, side by side.

    SENTEMB_DATA=… python eval/bench/run.py students [--texts 20000] [--steps 300] [--max-tokens 128]
        [--sts STSBenchmark …] [--retrieval mteb/scifact …] [--beside FOLDER]

The teacher reads the first Wikipedia sentences once; both trained students learn from these vectors and from nothing
else (no labels). The static model of `sentemb distill` needs no texts. Scores are those of MTEB's sets; speed is the
processor time of encoding in float32, the least of the rounds, which other work on the machine changes little.
``--beside`` adds any model.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from bench_index_quality import MODEL
from harness import data, machine, markdown_table, write_report

TIMED = 500  # sentences
STS = ["STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R"]


def processor_ms(models: dict[str, str], texts: list[str], rounds: int) -> dict[str, float]:
    """Milliseconds of processor time for a sentence; the models take turns."""
    from sentemb import Encoder

    encoders = {title: Encoder.load(model, precision="fp32") for title, model in models.items()}
    least = dict.fromkeys(models, float("inf"))
    for encoder in encoders.values():
        encoder.encode(texts[:20])
    for _ in range(rounds):
        for title, encoder in encoders.items():
            start = time.process_time()
            encoder.encode(texts)
            least[title] = min(least[title], 1000 * (time.process_time() - start) / len(texts))
    return least


def sentences(skip: int = 0) -> Iterator[str]:
    """Wikipedia sentences."""
    from sentemb.data import iter_texts

    return islice(iter_texts(str(data() / "text" / "wiki1m.txt.zst")), skip, None)


def make(options: argparse.Namespace, scratch: Path) -> dict[str, str]:
    """The models by name: folders or ids."""
    from sentemb import Encoder, Recipe, distil, train
    from sentemb.data.vector_writer import vector_writer

    teacher, texts = Encoder.load(options.teacher), list(islice(sentences(), options.texts))
    lines, vectors = scratch / "texts.txt", scratch / "teacher.parquet"
    lines.write_text("".join(f"{text}\n" for text in texts))
    with vector_writer(vectors)(teacher.width) as write:
        write(texts, teacher.encode(texts, precision="fp32"))
    cut, static = scratch / "cut", scratch / "static"
    Encoder.load(options.teacher, layers=options.layers).save(cut)
    distil(teacher).save(static)
    common = [
        f"data.path={lines}", f'companions=[{{ use = "reference", vectors = "{vectors}" }}]', "train.epochs=1000",
        "train.precision=fp32",
    ]
    four = train(Recipe.load("distilled-4-layer", [
        *common, f"encoder.backbone={options.teacher}", f"encoder.layers={options.layers}", "data.max_tokens=32",
        f"train.max_steps={options.steps}", f"train.learning_rate={options.rate}",
    ]), output=scratch / "four")
    trained = train(Recipe.load("distill-minilm", [
        *common, f"encoder.backbone={static}", f"train.max_steps={options.static_steps}", "data.max_tokens=128",
        f"train.learning_rate={options.static_rate}", "train.batch_size=256",
    ]), output=scratch / "trained")
    names = {
        "teacher": options.teacher, f"{len(options.layers)} layers, taken out": str(cut),
        f"{len(options.layers)} layers, trained": str(four.model_dir), "static": str(static),
        "static, trained": str(trained.model_dir),
    }
    return names | {Path(folder).name: folder for folder in options.beside}


def scores(model: str, options: argparse.Namespace) -> dict[str, float]:
    """Main metrics, ×100, by task; "STS" is the mean of the STS sets."""
    from sentemb import Encoder, evaluate_model
    from sentemb.evaluate import Sts
    from sentemb.evaluate.tasks.retrieval import Retrieval

    encoder = Encoder.load(model, max_tokens=options.max_tokens)
    tasks = [
        Sts(protocol="mteb", sets=tuple(options.sts)),
        *(Retrieval(path=path, baselines=False) for path in options.retrieval),
    ]
    by_task = {result.task: float(result.main) for result in evaluate_model(encoder, tasks, resamples=0).tasks}
    return {"STS": sum(by_task[name] for name in options.sts) / len(options.sts), **by_task}


def main(arguments: list[str]) -> None:
    """Make the students, score and race them, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", default=MODEL)
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 2, 3, 5])
    parser.add_argument("--texts", type=int, default=20_000, help="that the teacher reads")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--static-steps", type=int, default=300)
    parser.add_argument("--static-rate", type=float, default=2e-3)
    parser.add_argument("--max-tokens", type=int, default=128, help="of scored texts")
    parser.add_argument("--sts", nargs="*", default=STS, help="sets")
    parser.add_argument("--retrieval", nargs="*", default=["mteb/scifact"], help="sets")
    parser.add_argument("--beside", nargs="*", default=[], help="further models")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    facts, scored = machine(), {}
    with tempfile.TemporaryDirectory() as name:
        models = make(options, Path(name))
        timed = processor_ms(models, list(islice(sentences(options.texts), TIMED)), options.rounds)
        print(timed, flush=True)
        for title, model in models.items():
            scored[title] = scores(model, options)
            print(title, scored[title], flush=True)
    retrieved = [task for task in scored["teacher"] if task not in ("STS", *options.sts)]
    rows = [
        [title, f"{scored[title]['STS']:.2f}", *(f"{scored[title][task]:.2f}" for task in retrieved),
         f"{timed[title]:.2f}", f"{timed['teacher'] / timed[title]:,.1f}×"]
        for title in models
    ]  # fmt: skip
    retrieval = "retrieval: nDCG@10 × 100; " if retrieved else ""
    text = (f"Teacher {options.teacher}, which read {options.texts:,} Wikipedia sentences; layers {options.layers}; "
            f"{options.steps} steps of 64 sentences at {options.rate:g} (recipe distilled-4-layer), "
            f"{options.static_steps} of 256 at {options.static_rate:g} (recipe distill-minilm on the static model). "
            "One seed, nothing tuned. "
            f"STS: mean of {', '.join(options.sts)} (MTEB's), Spearman × 100; {retrieval}texts cut after "
            f"{options.max_tokens} tokens. Time: of the processor for one of {TIMED} other sentences, float32, "
            f"the least of {options.rounds} rounds.\n\n")
    header = ["", "STS", *retrieved, "ms a sentence", "as fast as the teacher"]
    text += markdown_table(header, rows)
    facts.update(scores=scored, processor_ms=timed, arguments=vars(options))
    write_report("students", "Smaller models of one teacher", text, facts, {})
