"""Whole recipes against losses that were derived again from the equations: values and gradients, in float64.

Everything right of the cache boundary takes part: heads, table, edits, terms, weights, companions' states over several
steps. The pooled rows are random, because a random backbone finds all texts alike.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rederived
import rederived_objectives
import torch
from driven import Driven, assert_slopes, random_pooled
from rederived import Rows
from transformers import BertConfig, BertForMaskedLM

from sentemb import Encoder, Recipe
from sentemb.recipe.load import read_tree
from sentemb.recipe.train import build
from sentemb.training.objective import EncodedViews
from sentemb.training.run import Run

Open = Callable[..., Driven]


@pytest.fixture
def drive(tiny_bert: Path, texts: Mapping[str, Path], tmp_path: Path) -> Open:
    def opened(name: str, *changes: str, data: str = "lines", backbone: Path = tiny_bert) -> Driven:
        overrides = [f"encoder.backbone={backbone}", f"data.path={texts[data]}", "train.precision=fp32", *changes]
        tree, path = read_tree(name, overrides)
        tree.pop("dev", None)
        for setting in ("eval_every", "patience"):
            tree["train"].pop(setting, None)
        plan = build(Recipe.from_tree({"name": name, **tree}, str(path)), tmp_path)
        plan.objective.to(torch.float64)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in plan.encoder.module.heads.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        return Driven(Run(plan))

    return opened


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sentences and triplets, few tokens each."""
    folder = tmp_path_factory.mktemp("second-reader")
    draw = np.random.default_rng(8)
    words = "the a man dog cat runs eats plays music red blue green house city".split()
    sentences = [" ".join(draw.choice(words, size=draw.integers(1, 5))) + f" {i}" for i in range(60)]
    lines, triplets = folder / "lines.txt", folder / "triplets.tsv"
    lines.write_text("\n".join(sentences[:44]) + "\n")
    rows = ["\t".join(sentences[3 * i : 3 * i + 3]) for i in range(12)]
    triplets.write_text("anchor\tpositive\tnegative_1\n" + "\n".join(rows) + "\n")
    return {"lines": lines, "triplets": triplets}


# ------------------------------------------------------------------------------------------------------------- DCLR
@pytest.mark.parametrize(("name", "loss"), [
    ("dclr-bert-base", rederived.dclr_cells), ("dclr-minilm", rederived.dclr_softmax),
])
def test_dclr(drive: Open, tiny_bert: Path, texts: Mapping[str, Path], name: str, loss: Any) -> None:
    rows = [0, 1, 2, 3, 4]
    chosen = [texts["lines"].read_text().splitlines()[row] for row in rows]
    judged = Encoder.load(tiny_bert).encode(chosen).astype(np.float64)
    threshold = widest_gap([s for i, row in enumerate(rederived.cosines(judged, judged)) for s in row[:i]])
    removed = rederived.too_similar(judged, judged, threshold)
    assert 0 < sum(map(sum, removed)) < 20
    changes = [
        f"companions.0.model={tiny_bert}", f"edits.0.threshold={threshold}", "edits.1.count=4", "train.batch_size=5",
    ]
    run = drive(name, *changes)
    pooled = random_pooled(2, len(rows), 1)
    inputs = run.inputs(rows)
    losses, (gradient,) = run.finish(inputs, pooled)

    anchors, positives = run.mlp(pooled[0]), run.mlp(pooled[1])
    start, noise = (points(one, inputs, pooled) for one in (drive(name, *changes, "edits.1.steps=0"), run))
    relative_step = run.run.plan.recipe["edits"][1].get("step_size", 0.1)
    ascent = {
        "temperature": 0.05, "rounds": 4, "step": relative_step * float(np.linalg.norm(anchors, axis=1).mean()),
    }
    np.testing.assert_allclose(noise, rederived.dclr_noise(anchors, None, start, **ascent), atol=1e-7 * ascent["step"])
    if name == "dclr-bert-base":  # the release climbs another loss; with its step size either moves next to nothing
        released = rederived.dclr_noise(anchors, positives, start, **ascent)
        assert min(rederived.cosine(*pair) for pair in zip(noise, released, strict=True)) > 1 - 1e-7

    def whole(pooled: Rows) -> float:
        value: float = loss(run.mlp(pooled[0]), run.mlp(pooled[1]), noise, removed, 0.05)
        return value

    assert losses.total.item() == pytest.approx(whole(pooled), rel=1e-9)
    assert_slopes(whole, pooled, gradient)


def widest_gap(values: Sequence[float]) -> float:
    """The middle of the widest gap between the values (a precomputed reference is rounded to half precision)."""
    ordered = sorted(values)
    return max((high - low, (high + low) / 2) for low, high in pairwise(ordered))[1]


def points(run: Driven, inputs: Any, pooled: Rows) -> Rows:
    """The appended columns' rows."""
    rows = EncodedViews(pooled=torch.from_numpy(pooled.swapaxes(0, 1).copy()), separate={})
    table, _ = run.run.plan.objective.table(rows, inputs)
    embedding: Rows = table.candidate.embedding[pooled.shape[1] :].detach().numpy()
    return embedding


# -------------------------------------------------------------------------------------------------------- ClusterNS
@pytest.mark.parametrize(("name", "rate", "inner", "outer", "weight"), [
    ("clusterns-bert-base", 1e-3, 0.0, 0.3, 1e-3), ("clusterns-minilm", 0.2, 0.1, 0.4, 2.0),
])
def test_clusterns(drive: Open, name: str, rate: float, inner: float, outer: float, weight: float) -> None:
    count, n = 3, 7
    run = drive(
        name, f"companions.0.count={count}", f"companions.0.rate={rate}", f"terms.1.inner={inner}",
        f"terms.1.outer={outer}", f"terms.1.weight={weight}", f"train.batch_size={n}",
    )
    centroids: Rows | None = None
    for step in range(5):
        pooled = random_pooled(2, n, step, common=3.0 if step == 0 else 0.0)
        losses, (gradient,) = run.finish(run.inputs(range(n), step), pooled)
        anchors, positives = run.mlp(pooled[0]), run.mlp(pooled[1])
        assert (rederived.mean_cosine(anchors, positives) > 0.4) == (step == 0)

        def whole(pooled: Rows, centroids: Rows | None = centroids, held: Rows = anchors) -> float:
            anchors, positives = run.mlp(pooled[0]), run.mlp(pooled[1])
            if centroids is None:
                return rederived.simcse(anchors, positives, 0.05)
            negatives = rederived.clusterns_negatives(held, centroids)
            band = rederived.clusterns_band(anchors, positives, centroids, inner, outer)
            mates = sum(
                rederived.by_similarity(a, centroids)[0] == rederived.by_similarity(b, centroids)[0]
                for i, a in enumerate(held) for j, b in enumerate(held) if i != j
            )
            constant = inner * (n * n - mates) / n**2  # of the pairs outside the band, which sentemb leaves out
            return rederived.clusterns_contrast(anchors, positives, negatives, 0.05) + weight * (band - constant)

        assert losses.total.item() == pytest.approx(whole(pooled), rel=1e-9)
        assert_slopes(whole, pooled, gradient)
        run.after_step(losses)
        state = next(value for value in run.state("clusters").values() if value.shape == (count, 32))
        if step == 0:
            continue
        if centroids is None:
            first = int(np.abs(anchors - state[0]).max(axis=1).argmin())
            centroids = rederived.first_centroids(anchors, positives, count, first)
        else:
            centroids = rederived.moved_centroids(centroids, anchors, rate)
        np.testing.assert_allclose(state, centroids, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------------ miCSE
@pytest.fixture(scope="session")
def deep_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_bert`` with BERT-base's twelve layers."""
    folder = tmp_path_factory.mktemp("deep") / "bert"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 12}
    with torch.random.fork_rng():
        BertForMaskedLM(BertConfig(**config)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("name", "layers"), [("micse-bert-base", (7, 11)), ("micse-minilm", (4, 6))])
def test_micse(drive: Open, deep_bert: Path, name: str, layers: tuple[int, int]) -> None:
    """Over all cells of the text's own tokens, which is said under Deviations."""
    rows = [0, 1, 2, 3]
    run = drive(name, "train.batch_size=4", backbone=deep_bert)
    weight = run.run.plan.recipe["terms"][1]["weight"]
    inputs = run.inputs(rows)
    real = inputs.tokens["anchor"].attention_mask.numpy() > 0
    assert not real.all()
    pooled = random_pooled(2, len(rows), 5)
    draw = np.random.default_rng(9)
    maps: dict[str, list[Rows]] = {}
    for view in ("anchor", "positive"):
        shape = (12, len(rows), 4, real.shape[1], real.shape[1])
        powers = np.exp(draw.normal(size=shape)) * real[None, :, None, None, :]
        dropped = (draw.random(shape) > 0.1) / 0.9
        maps[view] = list(powers / powers.sum(axis=-1, keepdims=True) * dropped)
    losses, (gradient, *of_maps) = run.finish(inputs, pooled, maps)
    held = tuple(maps[view][slice(*layers)] for view in ("anchor", "positive"))

    def agreement(both: Rows) -> float:
        return weight * rederived.micse_agreement(list(both[0]), list(both[1]), held=held, real=real)

    def contrast(pooled: Rows) -> float:
        return rederived.simcse(run.mlp(pooled[0]), run.mlp(pooled[1]), 0.05)

    both = np.array(held)
    assert losses.total.item() == pytest.approx(contrast(pooled) + agreement(both), rel=1e-9)
    assert_slopes(contrast, pooled, gradient)
    slopes = np.array(of_maps).reshape(2, 12, *both.shape[2:])
    assert slopes.any(axis=(0, 2, 3, 4, 5)).nonzero()[0].tolist() == list(range(*layers))
    # relative moves, so that no cell turns negative: the derivative by the logarithms
    assert_slopes(lambda logs: agreement(both * np.exp(logs)), 0 * both, slopes[:, slice(*layers)] * both)


# ------------------------------------------------------------------------------------------------------ WhitenedCSE
@pytest.mark.parametrize("name", ["whitenedcse-bert-base", "whitenedcse-minilm"])
def test_whitenedcse(drive: Open, name: str) -> None:
    n, size, eps = 40, 4, 1e-5
    run = drive(name, f"encoder.heads.0.groups={32 // size}", f"train.batch_size={n}")
    pooled = random_pooled(3, n, 6)
    losses, (gradient,) = run.finish(run.inputs(range(n)), pooled)
    groups = []
    for view, shown in zip(pooled, losses.batch.views.values(), strict=True):
        head = run.run.plan.encoder.module.heads[-1].state_dict()
        weight, bias = (value.numpy() for _, value in sorted(head.items(), reverse=True))
        out = np.linalg.solve(weight, (np.arctanh(shown.embedding.numpy()) - bias).T).T
        mixing = np.linalg.lstsq(view - view.mean(axis=0), out, rcond=None)[0]
        found = {tuple(np.flatnonzero(np.abs(column) > 1e-7)) for column in mixing.T}
        assert sorted(i for group in found for i in group) == list(range(32))
        assert {len(group) for group in found} == {size}
        groups.append(sorted(found))
    assert groups[0] != groups[1] != groups[2] != groups[0]

    def whole(now: Rows) -> float:
        white = [rederived.whitened(v, g, eps, held=h) for v, g, h in zip(now, groups, pooled, strict=True)]
        return rederived.whitenedcse([run.mlp(view) for view in white], 0.05)

    assert losses.total.item() == pytest.approx(whole(pooled), rel=1e-9)
    assert_slopes(whole, pooled, gradient)


# ------------------------------------------------------------------------------------------------- SogCLR, iSogCLR
@pytest.mark.parametrize(("name", "rate", "rho", "is_clipped"), [
    ("sogclr-minilm", 0.0, 0.4, False), ("isogclr-minilm", 0.03, 0.4, False), ("isogclr-minilm", 0.4, 1.2, True),
])
def test_sogclr(drive: Open, name: str, rate: float, rho: float, is_clipped: bool) -> None:
    """Four batches in which examples come back; the state is float32."""
    n, low, high = 5, 0.05, 0.3 if is_clipped else 1.0
    louder = [f"companions.0.{setting}" for setting in (f"rate={rate}", f"rho={rho}", f"tau_max={high}")]
    changes = louder if is_clipped else []
    run = drive(name, f"train.batch_size={n}", *changes, data="triplets")
    u: dict[int, float] = {}
    velocity: dict[int, float] = dict.fromkeys(range(12), 0.0)
    tau: dict[int, float] = dict.fromkeys(range(12), 0.1)
    limits: set[float] = set()

    def rows(pooled: Rows) -> tuple[Rows, Rows]:
        anchors, *columns = (run.mlp(view) for view in pooled)
        return anchors, np.concatenate(columns)

    for step, ids in enumerate([[0, 1, 2, 3, 4], [3, 4, 5, 6, 7], [0, 4, 5, 2, 8], [4, 0, 8, 7, 1]]):
        inputs = run.inputs(ids, step)
        assert inputs.use.embedded == ("anchor", "positive", "negative_1")
        pooled = random_pooled(3, n, step, spread=(0.7, 2.0, 0.2, 2.0)[step] if is_clipped else 0.7)
        losses, (gradient,) = run.finish(inputs, pooled)
        sim, taus = rederived.cosines(*rows(pooled)), [tau[i] for i in ids]
        for place, i in enumerate(ids):
            mean = rederived_objectives.mean_exponential(sim[place], place, taus[place])
            u[i] = rederived_objectives.counted(u.get(i), mean, gamma=0.8)
        now = [u[i] for i in ids]

        def whole(
            moved: Rows, taus: list[float] = taus, now: list[float] = now, held: tuple[Rows, Rows] = rows(pooled)
        ) -> float:
            return rederived_objectives.sogclr_surrogate(*rows(moved), taus, now, held=held)

        # the value: τ log of the sum that u stands for
        value = np.mean([t * np.log((2 * n - 1) * one) for t, one in zip(taus, now, strict=True)])
        assert losses.total.item() == pytest.approx(value, rel=1e-5, abs=1e-6)
        assert_slopes(whole, pooled, gradient, rel=1e-4, absolute=1e-5)
        run.after_step(losses)
        for place, i in enumerate(ids):
            tau[i], velocity[i] = rederived_objectives.moved_temperature(
                sim[place], place, taus[place], u[i], velocity[i], rho=rho, rate=rate, beta=0.5, low=low, high=high,
                limit=3.0,
            )
            limits |= {tau[i]} & {low, high}
        state = run.state("per_example")
        for key, expected in (("tau", tau), ("speed", velocity), ("log_u", {i: np.log(u[i]) for i in u})):
            np.testing.assert_allclose(state[key][ids], [expected[i] for i in ids], rtol=1e-4, atol=1e-6, err_msg=key)
    assert limits == ({low, high} if is_clipped else set())


# ------------------------------------------------------------------------------------------------------------- MACL
def test_macl(drive: Open) -> None:
    n = 6
    run = drive("macl-minilm", f"train.batch_size={n}")
    pooled = random_pooled(2, n, 7)
    _, (gradient,) = run.finish(run.inputs(range(n)), pooled)
    held = (run.mlp(pooled[0]), run.mlp(pooled[1]))

    def whole(pooled: Rows) -> float:
        return rederived_objectives.macl(run.mlp(pooled[0]), run.mlp(pooled[1]), 0.05, 0.5, 0.9, held=held)

    assert_slopes(whole, pooled, gradient)
