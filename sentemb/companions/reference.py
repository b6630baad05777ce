"""A frozen encoder that says how alike two texts are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import AfterValidator
from torch import Tensor, nn

from sentemb.companions.companion import are_twins
from sentemb.companions.frozen_encoder import FrozenEncoder
from sentemb.data.vector_files import open_npy, read_parquet, vectors_of_texts
from sentemb.encoder.digest import bytes_of, fingerprint
from sentemb.errors import DataError, RecipeError
from sentemb.maths.principal import principal_axes
from sentemb.maths.similarity import at_least_float32
from sentemb.parts import Count
from sentemb.types import UNKNOWN, Build, Examples, Rows, SentenceModule, Services, Tokens, Vectors


class Reference(FrozenEncoder):
    """A second encoder, never trained, in evaluation mode:

        r(x) = f_ref(x) / ‖f_ref(x)‖

    Either it encodes the token ids of a step's views (``outputs["NAME/anchor"]``, ``outputs["NAME/positive"]``), or it
    knows the texts of the data: with ``precompute`` it encodes every distinct text once before training, with
    ``vectors`` they come from a file. Knowing the texts pays from the second epoch on, covers queued and mined texts,
    and lets the model have any tokenizer: it may be a larger model, or one of another kind. Differs from ``momentum``
    in never following the trained encoder.

    Args:
        model: path, ``package:…`` or hub id of the frozen encoder; without it, the checkpoint from which the training
            starts. Unless ``precompute`` is true, its tokenizer must be that of the trained encoder.
        precompute: encode the texts of the data before training, each whole and with the model's default prompt; costs
            2 bytes a dimension and distinct text, and the model stays in memory (``vectors`` spares it).
        vectors: a file of ``sentemb encode`` in place of a model: parquet holds every text of the data with its vector,
            .npy has a vector for each row of one column (name it in ``columns`` where the data have several).
        columns: whose texts it knows; by default all.
        width: leave this many dimensions to the known vectors: those that keep their inner products best.
    Returns:
        ``observe``: unit embeddings (b, width) of the anchors and positives, where it does not know the texts.
    Raises:
        DataError: (when prepared) a text has no vector, a file has another number of rows than the data, a vector is
            not finite, a column is missing, ``width`` is not below the vectors' own.
    Source: Zhou et al. 2022, ACL, "Debiased contrastive learning of unsupervised sentence representations" (DCLR),
        section 4.2 (the complementary model).
    Deviations: the paper's complementary model is a trained SimCSE; here it is what ``model`` names. Vectors from a
        file, and fewer dimensions, are ours.
    """

    def __init__(
        self, *, model: str | None = None, precompute: bool = False, vectors: str | None = None,
        columns: Annotated[Sequence[str], AfterValidator(tuple)] = (), width: Count | None = None,
    ) -> None:
        super().__init__(model=model)
        if vectors is not None and (model is not None or precompute):
            raise ValueError("vectors come from a file: leave out model and precompute")
        self.vectors, self.columns, self.kept_width = vectors, tuple(columns), width
        self.knows_texts = precompute or vectors is not None
        if not self.knows_texts and (columns or width):
            raise ValueError("columns and width are of known texts: set precompute = true, or give vectors")
        if vectors is not None and not vectors.endswith((".parquet", ".npy")):
            raise ValueError(f'vectors = "{vectors}" must be a .parquet or .npy file')
        self.needs = frozenset({"texts" if self.knows_texts else "tokens"})
        self.model_bytes = 0 if vectors is not None else 4
        self.register_buffer("hashes", torch.empty(0, dtype=torch.int64), persistent=False)  # ascending
        self.register_buffer("table", torch.empty(0, 0, dtype=torch.float16), persistent=False)
        self.hashes: Tensor
        self.table: Tensor
        self.dimensions: int

    @property
    def files(self) -> tuple[str, ...]:
        """The vectors, where they come from a file."""
        return () if self.vectors is None else (self.vectors,)

    def faults(self, recipe: Mapping[str, Any]) -> list[str]:
        """Outputs of other examples, where a step observes none."""
        if self.rolled and self.knows_texts:
            return ["rolled = true moves what is observed in a step, and this companion knows its texts before"]
        return []

    def bind(self, build: Build) -> None:
        """Load the encoder, or see how wide the file's vectors are."""
        if self.vectors is not None:
            own = _width_of(self.vectors, self._where)
        else:
            encoder: SentenceModule = build.load_encoder(self.model or build.backbone, by_text=self.knows_texts)
            assert isinstance(encoder, nn.Module)
            self.encoder, own = encoder.eval().requires_grad_(False), encoder.exported_width
            self._fingerprint = fingerprint(encoder)
        if self.kept_width is not None and self.kept_width >= own:
            raise RecipeError(f"{self._where}: width = {self.kept_width} must be below the vectors' own, {own}")
        self.dimensions = self.kept_width or own

    def prepare(self, dataset: Examples, services: Services) -> None:
        """Find the vectors of the data's texts."""
        if not self.knows_texts:
            return
        columns = self.columns or tuple(dataset.texts)
        absent = [name for name in columns if name not in dataset.texts]
        if absent:
            raise DataError(f"{self._where}: columns = {list(columns)}: the data have no {', '.join(absent)}; they "
                            f"have {', '.join(dataset.texts)}")
        hashes = np.concatenate([dataset.columns[name].text for name in columns])
        known, first = np.unique(hashes, return_index=True)  # every distinct text, by ascending hash
        known, first = known[known != UNKNOWN], first[known != UNKNOWN]
        texts = list(chain.from_iterable(dataset.texts[name] for name in columns))
        device = self.hashes.device
        if self.vectors is None:
            services.say(f"{self.name}: encoding {len(known):,} distinct texts")
            vectors = services.embed(self.encoder, [texts[row] for row in first])
        elif self.vectors.endswith(".parquet"):
            vectors = vectors_of_texts(self.vectors, [texts[row] for row in first])
        else:
            vectors = self._rows_of_file(columns, len(dataset))[first]
        vectors = self._checked(vectors)
        if self.kept_width is not None:
            vectors = vectors @ principal_axes(vectors, self.kept_width, centred=False)
        self.hashes = torch.from_numpy(known).to(device)
        self.table = F.normalize(torch.from_numpy(vectors), dim=1).half().to(device)
        if self.vectors is not None:
            self._fingerprint = _fingerprint_of(self.table)

    def _rows_of_file(self, columns: Sequence[str], rows: int) -> Vectors:
        array = open_npy(self.vectors or "", f"{self._where}: vectors = ")
        if len(columns) != 1:
            raise DataError(f"{self._where}: vectors = {self.vectors} has a vector for each row of one column; say "
                            f'which with columns = ["{columns[0]}"], or give a parquet file, which has the texts')
        if len(array) != rows:
            raise DataError(f"{self._where}: vectors = {self.vectors} has {len(array):,} rows, the data have {rows:,}; "
                            "encode the column that the recipe trains on, whole")
        return np.asarray(array, dtype=np.float32)

    def _checked(self, vectors: Vectors) -> Vectors:
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        wrong = np.flatnonzero(~(np.isfinite(length[:, 0]) & (length[:, 0] > 0)))
        if len(wrong):
            raise DataError(f"{self._where}: {len(wrong):,} of {len(vectors):,} vectors are zero, or not finite; a "
                            "reference needs a direction for every text")
        result: Vectors = vectors / length
        return result

    @property
    def _where(self) -> str:
        return f"companions: {self.name}"

    @torch.no_grad()
    def observe(self, tokens: Mapping[str, Tokens], views: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Unit embeddings of this device's anchors and positives; equal inputs are encoded once."""
        if self.knows_texts:
            return {}
        first = self._embed(tokens["anchor"])
        return {"anchor": first, "positive": first if are_twins(tokens) else self._embed(tokens["positive"])}

    def similarity(
        self, anchor: Rows, candidate: Rows, outputs: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "n m"], Bool[Tensor, "n m"]]:
        """Reference cosine of every anchor with every candidate, and where it is known.

        With known texts: where both are among them. Otherwise for the in-batch candidates only.
        """
        if self.knows_texts:
            left, left_known = self.lookup(anchor.text)
            right, right_known = self.lookup(candidate.text)
            return left @ right.T, left_known[:, None] & right_known[None, :]
        left, right = (outputs[f"{self.name}/{view}"].float() for view in ("anchor", "positive"))
        n, m = len(anchor), len(candidate)
        known = torch.arange(m, device=left.device) < n
        return F.pad(left @ right.T, (0, m - n)), known.expand(n, m)

    def embeddings(
        self, view: str, rows: Rows, outputs: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "n d"], Bool[Tensor, " n"]]:
        """Its unit embeddings of a view's rows, and which are known: all, unless it knows texts.

        Raises:
            RecipeError: it does not know the texts, and the view is neither anchor nor positive.
        """
        if self.knows_texts:
            return self.lookup(rows.text)
        encoded = outputs.get(f"{self.name}/{view}")
        if encoded is None:
            raise RecipeError(f"companion {self.name}: encodes anchors and positives, not {view}; set precompute = "
                              "true")
        return at_least_float32(encoded), torch.ones(len(encoded), dtype=torch.bool, device=encoded.device)

    def lookup(self, text: Int[Tensor, " k"]) -> tuple[Float[Tensor, "k d"], Bool[Tensor, " k"]]:
        """Embeddings by content hash of the texts that it knows, and which of them are there."""
        if not len(self.hashes):
            raise RecipeError(f"companion {self.name}: nothing was precomputed; set precompute = true")
        position = torch.searchsorted(self.hashes, text).clamp(max=len(self.hashes) - 1)
        return self.table[position].float(), self.hashes[position] == text

    def _embed(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        return F.normalize(self.encoder.project(self.encoder(tokens).pooled, exported=True).float(), dim=-1)


def _width_of(path: str, where: str) -> int:
    """The width of a file's vectors; DataError where it has none."""
    if path.endswith(".npy"):
        return int(open_npy(path, f"{where}: vectors = ").shape[1])
    first = next(read_parquet(path), None)
    if first is None:
        raise DataError(f"{where}: vectors = {path}: no rows")
    return int(first[1].shape[1])


def _fingerprint_of(table: Tensor) -> Tensor:
    return torch.frombuffer(bytearray(hashlib.sha256(bytes_of(table)).digest()), dtype=torch.uint8)
