"""Who could be a positive or a negative of whom, and how biased the plain choice is (DebCSE)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from sentemb.companions.frozen_encoder import Corpus, FrozenEncoder
from sentemb.maths.propensity import Candidates, Logistic, fit_logistic
from sentemb.maths.surface import ngram_bits, surface_of_pairs, surface_table
from sentemb.parts import Count
from sentemb.types import Build, Cosine, Examples, Services

# pairs that the propensity models are fitted on: two numbers need no more
_FITTED_PAIRS = 200_000


class Propensity(FrozenEncoder):
    """Candidates of every sentence, their semantic and surface similarity, and two fitted propensity models:

        sem_ij = cosine of a frozen reference encoder, centred on the corpus
        sur_ij = |A_i ∩ A_j| / max(|A_i|, |A_j|),  A = character trigrams
        e⁺(sur)     = P(sem ≥ θ⁺ | sur)            over candidates: nearest and random ones
        e⁻(1 - sur) = P(pair is random | 1 - sur)  over the same

    Both are logistic. e⁺ says how much the plain rule "similar by the reference → positive" prefers look-alikes, e⁻
    how much random in-batch negatives prefer the obviously different. The view ``propensity_positives`` and the edit
    ``propensity`` divide by them. Everything is computed once, before training, and lives on the host: one encoding
    of the data, and an exact neighbour search whose time grows with the square of the number of sentences
    (``data.max_rows`` bounds it); 512 bytes of trigrams and 2 bytes a dimension for each sentence.

    Args:
        model: path, ``package:…`` or hub id of the reference encoder, whose tokenizer must be that of the trained
            one; without it, the checkpoint from which the training starts.
        neighbours: nearest sentences taken as candidates of each.
        random: random sentences taken as candidates of each.
        positive_threshold: θ⁺, cosine from which on a candidate may be a positive. High by default: among thousands
            of sentences an untuned reference's neighbours below it share a topic, not a meaning.
        negative_threshold: θ⁻ ≤ θ⁺, cosine above which a pair is no negative.
    Source: Miao, Du & Zhang 2023, CIKM, "DebCSE: Rethinking unsupervised contrastive sentence embedding learning in
        the debiasing perspective"; inverse propensities: Rosenbaum & Rubin 1983, Biometrika.
    Deviations: no code is public and the abstract fixes only the idea, so surface similarity, both propensity models,
        thresholds and centring are ours; no number of the paper's is claimed.
    """

    corpus: Corpus

    def __init__(
        self, *, model: str | None = None, neighbours: Count = 16, random: Count = 16,
        positive_threshold: Cosine = 0.85, negative_threshold: Cosine = 0.7,
    ) -> None:  # fmt: skip
        super().__init__(model=model)
        if negative_threshold > positive_threshold:
            raise ValueError(
                f"negative_threshold = {negative_threshold} is above positive_threshold = {positive_threshold}; a pair "
                "that may be a positive must not be a negative"
            )
        self.neighbours, self.random = neighbours, random
        self.positive_threshold, self.negative_threshold = positive_threshold, negative_threshold
        self.seed = 0
        self.positive_model = self.negative_model = Logistic(0.0, 0.0)

    def bind(self, build: Build) -> None:
        super().bind(build)
        self.seed = build.seed

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Encode the data set's anchors, find candidates, measure surfaces, fit both models."""
        self.corpus = corpus = self.corpus_of(dataset, "anchor", services, neighbours=self.neighbours)
        u, k = corpus.neighbour.shape
        generator = np.random.default_rng([self.seed, 0xDEB])
        # 1 … u-1 positions further: never the text itself
        other = (np.arange(u)[:, None] + generator.integers(1, u, size=(u, self.random))) % u
        position = np.concatenate([corpus.neighbour, other], axis=1)
        own = np.repeat(np.arange(u), position.shape[1])
        other_sim = corpus.similarity_of_pairs(np.repeat(np.arange(u), self.random), other.ravel())
        sem = np.concatenate([corpus.neighbour_sim, other_sim.reshape(u, -1)], axis=1)
        services.say(f"companion propensity: comparing the surface of {position.size:,} pairs")
        self._bits = ngram_bits(services.decode(dataset.columns["anchor"].take(corpus.row)))
        sur = surface_of_pairs(self._bits, own, position.ravel()).reshape(position.shape)
        is_random = np.broadcast_to(np.arange(position.shape[1]) >= k, position.shape)
        taken = generator.permutation(sem.size)[:_FITTED_PAIRS]
        alike = sur.ravel()[taken].astype(np.float64)
        self.positive_model = fit_logistic(alike, sem.ravel()[taken] >= self.positive_threshold)
        self.negative_model = fit_logistic(1 - alike, is_random.ravel()[taken])
        propensity = self.positive_model.log_propensity(torch.from_numpy(sur)).float().numpy()
        self._candidates = Candidates(corpus.row[position], sem, propensity, np.ones(u, dtype=bool))
        share = (sem >= self.positive_threshold).any(axis=1).mean()
        positive, negative = self.positive_model, self.negative_model
        services.say(
            f"companion propensity: {share:.1%} of the texts have a candidate with cosine of at least "
            f"{self.positive_threshold}; e⁺ = σ({positive.intercept:.2f} {positive.slope:+.2f} sur), "
            f"e⁻ = σ({negative.intercept:.2f} {negative.slope:+.2f} (1 - sur))"
        )

    def checkpoint_state(self) -> dict[str, Tensor]:
        """Which reference it is, and intercept and slope of e⁺ and e⁻ to look at: a resumed run fits them again."""
        models = [[model.intercept, model.slope] for model in (self.positive_model, self.negative_model)]
        return {**super().checkpoint_state(), "models": torch.tensor(models, dtype=torch.float64)}

    def candidates(self, text: NDArray[np.int64]) -> Candidates:
        """Candidates of the texts with these content hashes."""
        position, is_known = self.corpus.positions_of(torch.from_numpy(text))
        at = position.numpy()
        table = self._candidates
        return Candidates(table.row[at], table.sem[at], table.log_propensity[at], is_known.numpy())

    def rows(self, text: NDArray[np.int64]) -> NDArray[np.int64]:
        """A row of the data set for each of these texts, -1 where there is none."""
        position, is_known = self.corpus.positions_of(torch.from_numpy(text))
        return np.where(is_known.numpy(), self.corpus.row[position.numpy()], -1)

    def pairs(
        self, anchor: Int[Tensor, " n"], candidate: Int[Tensor, " m"]
    ) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"], Bool[Tensor, "n m"]]:
        """``sem``, ``sur`` and where they are known, for content hashes on any device."""
        device = anchor.device
        left, left_known = self.corpus.positions_of(anchor)
        right, right_known = self.corpus.positions_of(candidate)
        sem = self.corpus.similarity(left, right, device)
        sur = surface_table(*(torch.from_numpy(self._bits[position.numpy()]).to(device) for position in (left, right)))
        return sem, sur, (left_known[:, None] & right_known[None, :]).to(device)
