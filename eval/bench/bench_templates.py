"""Sentence embeddings of a masked-language model without any training: poolings, and the vector at a template's mask.

    SENTEMB_DATA=…/data python eval/bench/run.py templates --backbone FOLDER

The seven STS sets and STSBenchmark's dev set (SimCSE protocol, Spearman of cosine × 100). From the mask's vector
of a text, λ times another vector is subtracted: that of the empty template, its tokens at the same positions
(PromptBERT), or that of the text in another template (the vector form of contrastive prompting). λ is chosen on the dev
set alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from harness import machine, markdown_table, write_report

from sentemb import Encoder
from sentemb.data.templates import Template
from sentemb.encoder.encode import EmptyTemplate
from sentemb.evaluate import Sts, evaluate_model
from sentemb.evaluate.tasks.sts import SEVEN

TEMPLATES = ('This sentence of "{text}" means {mask}.', "{text} It was {mask} .")
OTHER = 'The irrelevant information of this sentence : "{text}" means {mask}.'
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
COLUMNS = (*SEVEN, "average", "dev")
Vectors = np.ndarray


class Remembering:
    """Raw vectors of texts by one function, each text once."""

    def __init__(self, encode: Callable[[list[str]], Vectors]) -> None:
        self._encode, self._known = encode, dict[str, Vectors]()

    def encode(self, texts: list[str]) -> Vectors:
        """(texts, d)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(new, self._encode(new), strict=True) if new else ())
        return np.stack([self._known[text] for text in texts])


class Difference:
    """Vectors less a share of other vectors of the same texts."""

    def __init__(self, own: Remembering, other: Remembering, share: float) -> None:
        self.own, self.other, self.share = own, other, share

    def encode(self, texts: list[str]) -> Vectors:
        """(texts, d)."""
        return self.own.encode(texts) - self.share * self.other.encode(texts)


def score(model: Remembering | Difference, *, is_dev: bool) -> dict[str, float]:
    """Every set's score by name."""
    task = Sts(protocol="simcse", split="dev" if is_dev else "test")
    results = evaluate_model(model, [task], resamples=0)
    scores = {entry.task: entry.main for entry in results.tasks}
    return {"dev": statistics.fmean(scores.values())} if is_dev else scores


def scored(own: Remembering, other: Remembering | None = None) -> dict[str, float]:
    """The scores of vectors as they are, or less the share of others that is best on dev; every share's dev score."""
    made = {0.0: own} if other is None else {share: Difference(own, other, share) for share in SHARES}
    on_dev = {share: score(model, is_dev=True)["dev"] for share, model in made.items()}
    best = max(on_dev, key=lambda share: on_dev[share])
    scores = score(made[best], is_dev=False)
    dev = {f"dev at {share:g}": value for share, value in on_dev.items()}
    return {**scores, "average": statistics.fmean(scores.values()), "dev": on_dev[best], "share": best, **dev}


def main(arguments: list[str]) -> None:
    """Score everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="a masked-language model that was not tuned for sentences")
    parser.add_argument("--precision", default="fp32", help="of encoding; empty templates are always in fp32")
    parser.add_argument("--templates", nargs="+", default=TEMPLATES)
    options, facts = parser.parse_args(arguments), machine()
    load, rows = partial(Encoder.load, options.backbone, precision=options.precision), dict[str, dict[str, float]]()

    def add(name: str, scores: dict[str, float]) -> None:
        rows[name] = scores
        sys.stderr.write(f"{name}: {scores['average']:.2f}, dev {scores['dev']:.2f}, λ {scores['share']:g}\n")

    encoder = load(pooling="mask")

    def in_template(prompt: str) -> Remembering:
        return Remembering(lambda texts: encoder.encode(texts, prompt=prompt))

    def empty(prompt: str) -> Remembering:
        template = Template.read(prompt)
        vectors = EmptyTemplate(encoder.module, encoder.tokeniser.frame(template), encoder.vocabulary, 1.0)
        return Remembering(lambda texts: vectors(encoder.tokeniser(texts, template)).detach().numpy())

    other = in_template(OTHER)
    for template in options.templates:
        own = in_template(template)
        add(f"mask of `{template}`", scored(own))
        add("the same − λ · empty template", scored(own, empty(template)))
        add("the same − λ · other template", scored(own, other))
    for pooling in ("mean", "cls"):
        add(f"{pooling}, no template", scored(Remembering(load(pooling=pooling).encode)))
    table = []
    for name, scores in rows.items():
        share = f"{scores['share']:g}" if "dev at 1" in scores else "–"
        table.append([name, *(f"{scores[column]:.2f}" for column in COLUMNS), share])
    shares = ", ".join(f"{share:g}" for share in SHARES)
    text = (f"STS without training, SimCSE protocol, Spearman of cosine × 100, {options.precision}; dev is that of "
            f"STSBenchmark, on which λ was chosen among {shares}. The other template: `{OTHER}`\n\n"
            + markdown_table(["", *COLUMNS, "λ"], table))
    write_report("templates", "Templates without training", text, {**facts, "scores": rows}, {})


if __name__ == "__main__":
    main(sys.argv[1:])
