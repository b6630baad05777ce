"""What a smaller model costs and keeps: a teacher, four of its layers, and static models, side by side.

    SENTEMB_DATA=… python eval/bench/run.py students [--texts 20000] [--steps 300] [--max-tokens 128]
        [--sts STSBenchmark …] [--beside FOLDER]

The teacher reads the first Wikipedia sentences once; both trained students learn from these vectors and from nothing
else (no labels). The static model of `sentemb distill` needs no texts. Scores are MTEB's STS sets and SciFact's test
queries; speeds are texts a second of one process, contenders in turn. ``--beside`` adds any model.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench_index_quality import MODEL
from harness import Contender, data, machine, markdown_table, race, ratio, write_report

RACED = 1000  # sentences
STS = ["STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R"]


def encode(model: str, skip: int) -> Any:
    """A contender: sentences to vectors, in float32."""
    from sentemb import Encoder

    encoder, texts = Encoder.load(model, precision="fp32"), list(islice(sentences(skip), RACED))
    return lambda: {"texts": len(encoder.encode(texts))}


def sentences(skip: int = 0) -> Iterator[str]:
    """Wikipedia sentences."""
    from sentemb.data import iter_texts

    return islice(iter_texts(str(data() / "text" / "wiki1m.txt.zst")), skip, None)


def make(asked: argparse.Namespace, place: Path) -> dict[str, str]:
    """The models by name: folders or ids."""
    from sentemb import Encoder, Recipe, distil, train
    from sentemb.data.vector_files import write_parquet

    teacher, texts = Encoder.load(asked.teacher), list(islice(sentences(), asked.texts))
    lines, vectors = place / "texts.txt", place / "teacher.parquet"
    lines.write_text("".join(f"{text}\n" for text in texts))
    with write_parquet(vectors, teacher.width) as write:
        write(texts, teacher.encode(texts, precision="fp32"))
    cut, static = place / "cut", place / "static"
    Encoder.load(asked.teacher, layers=asked.layers).save(cut)
    distil(teacher).save(static)
    common = [
        f"data.path={lines}", f'companions=[{{ use = "reference", vectors = "{vectors}" }}]', "train.epochs=1000",
        "train.precision=fp32",
    ]
    four = train(Recipe.load("distilled-4-layer", [
        *common, f"encoder.backbone={asked.teacher}", f"encoder.layers={asked.layers}", "data.max_tokens=32",
        f"train.max_steps={asked.steps}", f"train.learning_rate={asked.rate}",
    ]), output=place / "four")
    trained = train(Recipe.load("distill-minilm", [
        *common, f"encoder.backbone={static}", f"train.max_steps={asked.static_steps}", "data.max_tokens=128",
        f"train.learning_rate={asked.static_rate}", "train.batch_size=256",
    ]), output=place / "trained")
    names = {
        "teacher": asked.teacher, f"{len(asked.layers)} layers, taken out": str(cut),
        f"{len(asked.layers)} layers, trained": str(four.model_dir), "static": str(static),
        "static, trained": str(trained.model_dir),
    }
    return names | {Path(folder).name: folder for folder in asked.beside}


def scores(model: str, asked: argparse.Namespace) -> dict[str, float]:
    """Main metrics, ×100: the mean of the STS sets, and SciFact."""
    from sentemb import Encoder, evaluate_model
    from sentemb.evaluate import Sts
    from sentemb.evaluate.tasks.retrieval import Retrieval

    encoder = Encoder.load(model, max_tokens=asked.max_tokens)
    tasks = [Sts(protocol="mteb", sets=tuple(asked.sts)), Retrieval(path="mteb/scifact", baselines=False)]
    results = evaluate_model(encoder, tasks, resamples=0).tasks
    *sts, scifact = [result.main for result in results]
    return {"STS": sum(sts) / len(sts), "SciFact": scifact, **{result.name: result.main for result in results}}


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
    parser.add_argument("--beside", nargs="*", default=[], help="further models")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(arguments)
    facts, found = machine(), {}
    with tempfile.TemporaryDirectory() as name:
        models = make(asked, Path(name))
        lanes = race(
            [Contender(title, __file__, "encode", {"model": model, "skip": asked.texts})
             for title, model in models.items()],
            rounds=asked.rounds,
        )
        for title, model in models.items():
            found[title] = scores(model, asked)
            print(title, found[title], flush=True)
    first = lanes["teacher"]
    rows = [
        [title, f"{found[title]['STS']:.2f}", f"{found[title]['SciFact']:.2f}",
         f"{RACED / lanes[title].median_s:,.0f}", str(ratio(first, lanes[title]))]
        for title in models
    ]  # fmt: skip
    text = (f"Teacher {asked.teacher}, which read {asked.texts:,} Wikipedia sentences; layers {asked.layers}; "
            f"{asked.steps} steps of 64 sentences at {asked.rate:g} (recipe distilled-4-layer), {asked.static_steps} "
            f"of 256 at {asked.static_rate:g} (recipe distill-minilm on the static model). One seed, nothing tuned. "
            f"STS: mean of {', '.join(asked.sts)} (MTEB's), Spearman × 100; SciFact: nDCG@10 × 100; texts cut after "
            f"{asked.max_tokens} tokens. Speed: {RACED:,} other sentences in float32; how many times as fast as the "
            "teacher in the same round: median (least–most).\n\n")
    text += markdown_table(["", "STS", "SciFact", "texts/s", "× teacher"], rows)
    facts.update(scores=found, arguments=vars(asked))
    write_report("students", "Smaller models of one teacher", text, facts, {"encode": lanes})
