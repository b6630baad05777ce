"""A static model from any encoder: what that makes of every token of its vocabulary, alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from sentemb.data.tokens import column_of
from sentemb.encoder.encoder import Encoder
from sentemb.encoder.layout import Layout
from sentemb.encoder.loading import Loaded
from sentemb.encoder.module import EncoderModule
from sentemb.encoder.poolings import make_pooling
from sentemb.encoder.prompting import Prompting
from sentemb.encoder.runners.choose import weights_state
from sentemb.encoder.source import public_name
from sentemb.encoder.static import StaticTable, static_tokeniser
from sentemb.encoder.tokeniser import Tokeniser
from sentemb.errors import ModelError
from sentemb.maths.principal import principal_axes
from sentemb.progress import Progress
from sentemb.types import TokenColumn

_MAX_TOKENS = 1_000_000  # a mean is cheap: texts are read whole
_UNUSED = re.compile(r"\[unused\d+\]")


def lone_tokens(tokeniser: Tokeniser) -> TokenColumn:
    """Every token that can stand in a text, by ascending number, between the special tokens that surround a text;
    ``text`` holds the numbers.

    Raises: ModelError where there is no `tokenizers` backend.
    """
    from tokenizers import Tokenizer

    if tokeniser.backend_json is None:
        raise ModelError("the model's tokenizer has no `tokenizers` backend (tokenizer.json); a static model needs one")
    fast = Tokenizer.from_str(tokeniser.backend_json)
    fast.no_truncation()
    whole, bare = fast.encode("a").ids, fast.encode("a", add_special_tokens=False).ids
    first = next(start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
    before, after = whole[:first], whole[first + len(bare) :]
    names = {number: fast.id_to_token(number) for number in range(fast.get_vocab_size())}
    special = tokeniser.vocabulary.special
    tokens = [number for number, name in names.items()
              if name is not None and number not in special and not _UNUSED.fullmatch(name)]
    column = column_of([[*before, number, *after] for number in tokens])
    return replace(column, text=np.array(tokens, dtype=np.int64))


def inverse_frequencies(count: int, sif: float) -> NDArray[np.float32]:
    """``sif / (sif + p)`` for ``count`` tokens from the most frequent one on, whose shares p follow Zipf's law:
    p_r ∝ 1 / (r + 1), r = 1, 2, …"""
    share = 1 / np.arange(2, count + 2)
    weights: NDArray[np.float32] = (sif / (sif + share / share.sum())).astype(np.float32)
    return weights


def distil(
    encoder: Encoder, *, width: int | None = 256, sif: float | None = 1e-4, progress: bool | Progress | None = None
) -> Encoder:
    """A static model (a vector for each token, a text is their mean) of what an encoder makes of every token of its
    vocabulary alone: far faster, and less able. Saved, it opens in model2vec and sentence-transformers too.

    Unknown tokens are left out of a text; special and unused ones have no vector.

    Args:
        width: principal components of the tokens' vectors that are kept; None: the vectors as they are.
        sif: a of a token's weight a / (a + p), p being its share by Zipf's law if tokens are numbered from the most
            frequent on, as WordPiece and many others are; None: no weights.
        progress: as in ``Encoder.encode``.
    Raises:
        ModelError: the tokenizer has no `tokenizers` backend, a static model, or a setting out of its range.
    Source: Tulkens & van Dongen 2024, model2vec (its ``distill``: PCA, then SIF weights by Zipf's law); SIF: Arora,
        Liang & Ma 2017, ICLR.
    Deviations: vectors of the model's own pooling and heads, where model2vec has the mean of the last layer; tokens
        keep their numbers, so that special and unused ones take rows of zeros.
    """
    tokeniser = encoder.tokeniser
    if isinstance(encoder.module.backbone, StaticTable):
        raise ModelError(f"{encoder.source}: is a static model already")
    if (width is not None and width < 1) or (sif is not None and not 0 < sif < 1):
        raise ModelError(f"width = {width}, sif = {sif}; allowed: a width of at least 1, a sif between 0 and 1, or "
                         "None")
    column = lone_tokens(tokeniser)
    vectors = encoder.encode(column, normalise=False, progress=progress)
    if width is not None:
        axes = principal_axes(vectors, min(width, vectors.shape[1]), centred=True)
        vectors = (vectors - vectors.mean(axis=0)) @ axes
    if sif is not None:
        vectors = vectors * inverse_frequencies(len(vectors), sif)[:, None]
    student = static_tokeniser(json.loads(str(tokeniser.backend_json)), _MAX_TOKENS, drops_unknown=True)
    table = np.zeros((student.vocabulary.size, vectors.shape[1]), dtype=np.float32)
    table[column.text] = vectors
    module = EncoderModule(StaticTable(torch.from_numpy(table), drops_unknown=True), make_pooling("mean")).eval()
    loaded = Loaded(
        layout=Layout(backbone=encoder.folder, is_static=True, is_normalised=True), module=module, tokeniser=student,
        state=weights_state(module),
    )
    made = Encoder(loaded, source=encoder.source, precision="fp32", prompting=Prompting(), eight_bits=None)
    made.origin = (
        f"A static model: every token has one vector, what `{public_name(encoder.source)}` makes of it alone "
        f"({vectors.shape[1]} {'numbers' if width is None else 'principal components'}, sif {sif or 'none'}), and a "
        "text is their mean. After Tulkens & van Dongen 2024, model2vec."
    )
    return made
