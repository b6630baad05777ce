"""Mining hard negatives: ours against sentence_transformers.util.mine_hard_negatives, same vectors, same rules.

    SENTEMB_DATA=… python eval/bench/run.py mine [--rows 50000] [--negatives 5] [--rounds 2]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_index import SEED, base_vectors, vectors_and_queries
from harness import Contender, Lane, Work, lanes_table, machine, race, ratio, write_report


class _Given:
    """An encoder that gives vectors made before, so that only mining is timed."""

    def __init__(self, table: dict[str, int], vectors: Any) -> None:
        self._table, self._vectors = table, vectors
        import torch

        self.device = torch.device("cpu")
        self.similarity_fn_name = "cosine"

    def encode(self, texts: Any, **_: Any) -> Any:
        return self._vectors[[self._table[text] for text in texts]]

    encode_query = encode_document = encode

    def get_embedding_dimension(self) -> int:
        return int(self._vectors.shape[1])

    get_sentence_embedding_dimension = get_embedding_dimension

    def similarity(self, first: Any, second: Any) -> Any:
        import torch

        return torch.as_tensor(first) @ torch.as_tensor(second).T

    def similarity_pairwise(self, first: Any, second: Any) -> Any:
        import torch

        return (torch.as_tensor(first) * torch.as_tensor(second)).sum(dim=1)


def _mining(base: str, rows: int) -> tuple[list[str], list[str], Any]:
    vectors, _ = vectors_and_queries(base, 2 * rows, 100)
    generator = np.random.default_rng(SEED)
    anchors = np.array(vectors[:rows])
    near = anchors + 0.8 * generator.normal(size=anchors.shape).astype(np.float32) / np.sqrt(anchors.shape[1])
    both = np.concatenate([anchors, near / np.linalg.norm(near, axis=1, keepdims=True)]).astype(np.float32)
    return [f"anchor {i}" for i in range(rows)], [f"passage {i}" for i in range(rows)], both


def mine_ours(base: str, rows: int, negatives: int, margin: float, range_max: int) -> Work:
    """Our miner over given vectors, to arrays of negatives for every anchor and the texts of the triplets."""
    from sentemb.mining.miner import Miner, MiningOptions
    from sentemb.mining.rules import AbsoluteMargin
    from sentemb.mining.texts import read_texts

    anchors, positives, both = _mining(base, rows)

    def work() -> dict[str, Any]:
        texts = read_texts({"anchor": a, "positive": p} for a, p in zip(anchors, positives, strict=True))
        options = MiningOptions(negatives=negatives, rules=[AbsoluteMargin(margin=margin)], candidates=range_max)
        miner = Miner(texts, both[:rows], both[rows:], options)
        table = {}
        for block in miner.mine():
            for anchor, row in zip(block.anchors.tolist(), block.negatives.tolist(), strict=True):
                table[anchor] = [texts.corpus[number] for number in row]
        return {"triplets": sum(map(len, table.values())), "array": _sorted(table, rows, negatives)}

    return work


def mine_theirs(base: str, rows: int, negatives: int, margin: float, range_max: int, use_faiss: bool) -> Work:
    """sentence_transformers.util.mine_hard_negatives over the same vectors and rules."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    anchors, positives, both = _mining(base, rows)
    model: Any = _Given({text: i for i, text in enumerate([*anchors, *positives])}, both)
    data = Dataset.from_dict({"anchor": anchors, "positive": positives})

    def work() -> dict[str, Any]:
        mined = mine_hard_negatives(
            data, model, num_negatives=negatives, absolute_margin=margin, range_max=range_max, output_format="n-tuple",
            use_faiss=use_faiss, verbose=False,
        )
        columns = [mined[f"negative_{i}"] for i in range(1, negatives + 1)]
        table = {name: list(row) for name, *row in zip(mined["anchor"], *columns, strict=True)}
        order = {text: i for i, text in enumerate(anchors)}
        numbered = {order[name]: row for name, row in table.items()}
        return {"triplets": len(table) * negatives, "array": _sorted(numbered, rows, negatives)}

    return work


def _sorted(table: dict[int, list[str]], rows: int, negatives: int) -> Any:
    """Each anchor's negatives by number, ascending (equal scores may come in another order); -1 where it has none."""
    rows_of_negatives = np.full((rows, negatives), -1)
    for anchor, texts in table.items():
        rows_of_negatives[anchor] = sorted(int(text.split()[-1]) for text in texts)
    return rows_of_negatives


def main(arguments: list[str]) -> None:
    """Race, compare the negatives, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--negatives", type=int, default=5)
    parser.add_argument("--margin", type=float, default=0.05)
    parser.add_argument("--range-max", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--base-texts", type=int, default=20_000)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sentemb-bench-index")
    options = parser.parse_args(arguments)
    facts = machine()
    base = base_vectors(options.base_texts, options.cache)
    common = {"base": base, "rows": options.rows, "negatives": options.negatives, "margin": options.margin,
              "range_max": options.range_max}
    contenders = [
        Contender("sentemb", __file__, "mine_ours", common),
        Contender("sentence-transformers", __file__, "mine_theirs", {**common, "use_faiss": False}),
        Contender("sentence-transformers, FAISS", __file__, "mine_theirs", {**common, "use_faiss": True}),
    ]
    lanes = race(contenders, rounds=options.rounds, warmups=0)
    ours = lanes["sentemb"]

    def cells(lane: Lane) -> list[object]:
        same = int((np.load(lane.facts["array"]) == np.load(ours.facts["array"])).all(axis=1).sum())
        return [f"{lane.median_s:.1f}", ratio(lane, ours), f"{lane.peak_mib:.0f}", f"{lane.facts['triplets']:,}",
                f"{same:,}"]

    text = (f"{options.rows:,} anchors against {options.rows:,} passages, {options.negatives} negatives, absolute "
            f"margin {options.margin}, window {options.range_max}; "
            "vectors are given to both, so only mining is timed.\n\n")
    text += lanes_table(["", "seconds", "ours is faster", "peak MiB", "negatives", "anchors with the same ones"],
                        lanes, cells)
    write_report("mine", "Mining hard negatives", text, facts, {"mine": lanes})
