"""Every benchmark by name: `python eval/bench/run.py encode --rounds 3`, or `all` with each one's defaults.

Results go to eval/results/NAME.md and .json, or to the folder SENTEMB_BENCH_RESULTS. SENTEMB_DATA must name the folder
with the real data.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

# name -> what it races; each is a sibling module bench_NAME.py with main(arguments)
BENCHMARKS = {
    "encode": "texts to vectors: ours, sentence-transformers (torch, ONNX, OpenVINO), plain HF, fastembed, infinity",
    "start": "start-up of commands, collecting a million results: ours, sentence-transformers",
    "busy": "encoding and training while other processes keep all cores busy: ours, sentence-transformers",
    "train": "SimCSE training: ours, sentence-transformers' trainer",
    "eval": "STS and retrieval: ours, mteb on a SentenceTransformer",
    "index": "search index: ours, bare FAISS, hnswlib",
    "index_large": "ten million vectors built and searched under a limit of memory: ours, FAISS's codes alone",
    "index_quality": "nDCG@10 and recall@10 of every kind of index on SciFact and NFCorpus",
    "mined": "training with mined negatives against in-batch ones, SciFact train to test",
    "expansion": "pseudo-relevance feedback on NFCorpus: by words, by vectors, by both",
    "fields": "title and text as weighted fields against one joined text, NFCorpus and SciFact",
    "judge": "whether scores of mined negatives predict the gain of training on them; goes on where it stopped",
    "few_labels": "Banking77 with 1 to 16 examples an intent: every classifier, and fine-tuning as SetFit does",
    "students": "a teacher, four of its layers and static models: scores and speed",
    "rerank": "rerankers by supervised fine-tuning and by contrast, SciFact train to test",
    "templates": "STS of an untuned masked-language model: poolings against the mask of a template",
    "objectives": "every objective's share of a training step, beside plain InfoNCE",
    "memory": "peak memory of training steps, in chunks (GradCache) or not; --billion and --forecast: of large models",
    "mine": "hard-negative mining: ours, sentence-transformers",
    "serve": "embeddings over HTTP, sixteen clients with many texts or one: beside encode",
    "soak": "ten minutes of mixed load on a server: lost or wrong answers, memory",
    "large": "how a run starts on training data larger than memory: time and memory of every stage, by row",
    "mixture": "one model for search and similarity: single tasks, mixed rows, batches in turn, merged models",
    "domain": "a new domain without labels: titles, chunks, a knock-out, and what labels bring",
    "continual": "a new task with and without replay of other texts: what is learned, what is forgotten",
    "data": "reading, and batches without duplicate texts: ours, sentence-transformers, datasets",
}


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    names = sys.argv[1:2]
    if not names or (names[0] not in BENCHMARKS and names[0] != "all"):
        lines = "\n".join(f"  {name:<8} {what}" for name, what in BENCHMARKS.items())
        sys.exit(f"usage: python eval/bench/run.py NAME|all [options]\n{lines}")
    for name in BENCHMARKS if names[0] == "all" else names:
        importlib.import_module(f"bench_{name}").main(sys.argv[2:] if names[0] != "all" else [])


if __name__ == "__main__":
    main()
