"""Several models trained from one checkpoint become one, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sentemb.encoder.encoder import Encoder
from sentemb.encoder.source import public_name
from sentemb.errors import ModelError


@torch.no_grad()
def merge(models: Sequence[str | Path], *, base: str | Path | None = None, power: float = 1.0) -> Encoder:
    """One model of several: the mean of their weights, or, with ``base``, a fusion by how far each tensor moved.

        without base:  θ = 1/n Σ_c θ_c
        with base:     θ = θ_0 + Σ_c w_c (θ_c - θ_0),  w_c = ‖θ_c - θ_0‖^p / Σ_c' ‖θ_c' - θ_0‖^p,  tensor by tensor

    The models must be trained from one checkpoint, or their average means nothing. The merged model has tokenizer,
    prompts and limits of the first. ``merge(["a", "b"], base="x").save("c")`` writes it.

    Args:
        models: two or more folders, hub ids or ``package:NAME/FOLDER``.
        base: θ_0, the checkpoint from which all of them were trained.
        power: p; 0 gives all models equal weights, more follows the model that changed a tensor most.

    Raises:
        ModelError: fewer than two models, a negative power, or models whose tokenizer, pooling, heads or weights'
            shapes differ.

    Source: fusion by how far each parameter moved: CoDiEmb's abstract.
    Deviations: CoDiEmb's code has no fusion; the formula is ours.
    """
    if len(models) < 2:
        raise ModelError(f"merging needs two models or more; found {len(models)}")
    if power < 0:
        raise ModelError(f"power = {power:g}: must be at least 0")
    first, *others = (_opened(model) for model in models)
    start = None if base is None else _opened(base)
    for other in [*others, start]:
        if other is not None:
            _refuse_differing(first, other)
    states = [_state(encoder) for encoder in (first, *others)]
    origin = None if start is None else _state(start)
    first.module.load_state_dict({
        name: _merged([state[name] for state in states], None if origin is None else origin[name], power)
        for name in states[0]
    })
    how = "the mean of their weights" if base is None else f"fused by their changes from `{public_name(str(base))}`"
    names = ", ".join(f"`{public_name(str(model))}`" for model in models)
    first.origin = f"One model of {names}, without training: {how}" + (f" (power {power:g})." if base else ".")
    return first


def _merged(values: Sequence[Tensor], origin: Tensor | None, power: float) -> Tensor:
    """One tensor of all models; in float64, so that equal ones stay what they are."""
    if not values[0].is_floating_point():
        return values[0]
    centre = values[0].double() if origin is None else origin.double()
    changes = [value.double() - centre for value in values]
    sizes = torch.stack([change.norm() for change in changes])
    if origin is None or power == 0 or not bool(sizes.any()):
        weights = torch.full_like(sizes, 1 / len(values))
    else:
        weights = (sizes / sizes.max()) ** power
        weights = weights / weights.sum()
    total = sum((weight * change for weight, change in zip(weights, changes, strict=True)), torch.zeros_like(centre))
    return (centre + total).to(values[0].dtype)


def _opened(model: str | Path) -> Encoder:
    encoder = Encoder.load(model, device="cpu")
    if encoder.eight_bits is not None:
        raise ModelError(f"{model}: is in eight bits; merge the model that it was made of")
    return encoder


def _state(encoder: Encoder) -> Mapping[str, Tensor]:
    return {name: value.detach().cpu() for name, value in encoder.module.state_dict().items()}


def _behind(encoder: Encoder) -> list[str]:
    """What stands behind the backbone, in words that are equal for equal forms."""
    module = encoder.module
    return [repr(module.pooling), str(module.pools_prompt), *map(repr, module.kept_heads)]


def _refuse_differing(first: Encoder, other: Encoder) -> None:
    """Refuse models that cannot come from one checkpoint."""

    def refuse(what: str) -> ModelError:
        return ModelError(
            f"{other.source}: {what} {first.source}'s; only models trained from one checkpoint can be merged"
        )

    if first.tokeniser.fingerprint() != other.tokeniser.fingerprint():
        raise refuse("its tokenizer differs from")
    if _behind(first) != _behind(other):
        raise refuse("its pooling or heads differ from")
    mine, theirs = ({name: tuple(value.shape) for name, value in _state(one).items()} for one in (first, other))
    differing = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if differing:
        name = differing[0]
        found, wanted = theirs.get(name, "absent"), mine.get(name, "absent")
        raise refuse(f"its weight {name} is {found}, {wanted} in")
