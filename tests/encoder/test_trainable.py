"""The lean training forward gives what the Hugging Face backbones give, with gradients, and knows where it cannot."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from backbones import ARCHITECTURES, backbone, module_of
from torch import nn

from sentemb.encoder.module import EncoderModule
from sentemb.encoder.runners.families import FAMILIES, Unsupported
from sentemb.encoder.runners.trainable import Masks, TrainableEncoder
from sentemb.machine import rates as product
from sentemb.machine.rates import Rates
from sentemb.types import Tokens

KINDS = sorted(set(FAMILIES) - {"mpnet"})


def batch(lengths: list[int], seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return Tokens(
        input_ids=torch.randint(3, 99, mask.shape, generator=generator) * mask + (1 - mask), attention_mask=mask
    )


BATCHES = [batch([3, 5, 1]), batch([9, 9], 1), batch([12, 20, 7, 19], 2)]


def train_module(model: nn.Module, pooling: str = "mean") -> EncoderModule:
    return module_of(model, pooling).train()


def still(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.fixture(params=["blas", "onednn"])
def library(request, monkeypatch):
    fast = 200.0 if request.param == "onednn" else 0.0
    monkeypatch.setattr(product, "rates", lambda: Rates(blas_float32=100.0, onednn_float32=fast, bfloat16=50.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hidden_states_and_gradients(kind: str, dtype: torch.dtype, library: None) -> None:
    model = still(backbone(kind)).to(dtype).train()
    run = TrainableEncoder(model)
    assert run.is_usable(BATCHES)
    results = []
    for forward in (run, lambda batches: [
        model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state for tokens in batches
    ]):
        states = [state * tokens.attention_mask[:, :, None]
                  for state, tokens in zip(forward(BATCHES), BATCHES, strict=True)]
        model.zero_grad()
        sum((state * torch.linspace(-1, 1, state.numel()).view_as(state)).sum() for state in states).backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        results.append((states, gradients))
    (ours, our_gradients), (plain, plain_gradients) = results
    tolerance = 1e-11 if dtype == torch.float64 else 2e-4
    for one, other in zip(ours, plain, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()
    assert our_gradients.keys() == plain_gradients.keys()
    for name, other in plain_gradients.items():
        # a key's bias shifts all logits of a row alike: its gradient is rounding around zero
        size = max(float(other.abs().max()), 1.0)
        assert (our_gradients[name] - other).abs().max() <= tolerance * size, name


@pytest.mark.parametrize("kind", KINDS)
def test_first_states_are_those_of_the_whole_pass(kind: str, library: None) -> None:
    model = still(backbone(kind)).double().train()
    run = TrainableEncoder(model)
    assert run.is_usable(BATCHES)
    results = []
    for states in (torch.cat(run.first_states(BATCHES)), torch.cat([state[:, 0] for state in run(BATCHES)])):
        model.zero_grad()
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in model.parameters()]
        results.append([states, *gradients])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_padding_on_the_left() -> None:
    model = still(backbone("bert")).train()
    run, right = TrainableEncoder(model), batch([4, 7, 2])
    tokens = Tokens(input_ids=right.input_ids.flip(1), attention_mask=right.attention_mask.flip(1))
    assert run.is_usable([tokens])
    plain = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    seen = tokens.attention_mask[:, :, None]
    torch.testing.assert_close(run([tokens])[0], plain * seen, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(run.first_states([tokens])[0], plain[[0, 1, 2], [3, 0, 5]], rtol=1e-4, atol=2e-5)


def test_a_batch_drops_the_same_whatever_it_is_forwarded_with() -> None:
    model = backbone("bert").train()
    run, (first, second, _) = TrainableEncoder(model), BATCHES
    assert run.is_usable(BATCHES)
    for forward in (run, run.first_states):
        torch.manual_seed(5)
        apart = [forward([tokens])[0] for tokens in (first, second)]
        torch.manual_seed(5)
        for one, other in zip(apart, forward([first, second]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_dropout_has_the_right_mean_and_is_replayed(kind: str) -> None:
    model = backbone(kind).train()
    run = TrainableEncoder(model)
    assert run.is_usable(BATCHES)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = run(BATCHES)
    second = run(BATCHES)
    torch.set_rng_state(state)
    again = run(BATCHES)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0], second[0])
    model.eval()
    before = torch.get_rng_state()
    assert torch.equal(run(BATCHES)[0], run(BATCHES)[0])
    assert torch.equal(before, torch.get_rng_state())  # nothing is drawn where nothing is dropped


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_masks(probability: float) -> None:
    dropout = nn.Dropout(probability)
    torch.manual_seed(1)
    masks = Masks()
    mask = masks.draw(dropout, (1000, 301), torch.float32)
    other = masks.draw(dropout, (1000, 301), torch.float32)
    assert mask is not None
    assert other is not None
    share = float((mask == 0).double().mean())
    spread = (probability * (1 - probability) / mask.numel()) ** 0.5
    assert abs(share - probability) < 5 * spread
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - probability)], rel=1e-4)
    # neighbours, rows and draws are independent
    dropped = (mask == 0).double() - share
    for left, right in ((dropped[:, 1:], dropped[:, :-1]), (dropped[1:], dropped[:-1]),
                        (dropped, (other == 0).double() - share)):
        assert abs(float((left * right).mean())) < 5 * probability * (1 - probability) / left.numel() ** 0.5


def test_masks_at_the_ends() -> None:
    masks = Masks()
    assert masks.draw(None, (3,), torch.float32) is None
    assert masks.draw(nn.Dropout(0.0), (3,), torch.float32) is None
    assert masks.draw(nn.Dropout(0.1).eval(), (3,), torch.float32) is None
    whole = masks.draw(nn.Dropout(1.0), (3,), torch.bfloat16)
    assert whole is not None
    assert whole.tolist() == [0, 0, 0]
    assert whole.dtype == torch.bfloat16


def test_expected_output_is_that_of_plain_dropout() -> None:
    """Means over many draws agree with the plain forward's: a dropout left out or doubled would show."""
    model = backbone("bert").train()
    for parameter in model.parameters():
        parameter.data *= 0.3
    run, tokens = TrainableEncoder(model), BATCHES[1]
    assert run.is_usable(BATCHES)
    torch.manual_seed(3)
    with torch.no_grad():
        draws = [torch.stack([forward() for _ in range(600)]) for forward in (
            lambda: run([tokens])[0][:, 0],
            lambda: model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state[:, 0],
        )]
    (ours, plain), (our_spread, plain_spread) = (
        [found.mean(0) for found in draws], [found.std(0) for found in draws])
    error = (our_spread**2 + plain_spread**2).sqrt() / 600**0.5
    assert ((ours - plain).abs() / error).max() < 5
    assert np.median((our_spread / plain_spread).numpy()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_module_takes_it_in_training_only(pooling: str) -> None:
    module = train_module(still(backbone("bert")), pooling)
    lean, plain = module.together(BATCHES), [module.eval()(tokens) for tokens in BATCHES]
    module.train()
    alone = module(BATCHES[2], hidden=True)
    assert module._trainable is not None
    for one, other in zip(lean, plain, strict=True):
        torch.testing.assert_close(one.pooled, other.pooled, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(alone.pooled, plain[2].pooled, rtol=1e-4, atol=2e-5)
    assert alone.hidden is not None


def hooked(model: nn.Module) -> None:
    model.encoder.layer[0].register_forward_hook(lambda *_: None)  # type: ignore[operator,union-attr,index]


def checkpointed(model: nn.Module) -> None:
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()  # type: ignore[operator]


def replaced(model: nn.Module) -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model.encoder.layer[0].output.dense = Doubled(48, 32)  # type: ignore[operator,union-attr,index]


def adapted(model: nn.Module) -> None:
    """An adapter that does nothing yet, so no comparison would show it."""

    class Adapted(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base, self.weight, self.bias = base, base.weight, base.bias
            self.down = nn.Linear(32, 2)
            self.up = nn.Linear(2, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) + self.up(self.down(x))

    attention = model.encoder.layer[1].attention.self  # type: ignore[operator,union-attr,index]
    attention.query = Adapted(attention.query)


def enlarged(model: nn.Module) -> None:
    model.encoder.layer[0].extra = nn.Linear(32, 32)  # type: ignore[operator,union-attr,index]


def compiled(model: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch warns of its own functions
        model.compile()


@pytest.mark.parametrize("change", [hooked, checkpointed, replaced, adapted, enlarged, compiled])
def test_what_calling_the_modules_would_do_is_not_left_out(change) -> None:
    model = backbone("bert")
    run = TrainableEncoder(model)
    assert run.is_usable(BATCHES)
    change(model)
    assert not run.is_usable(BATCHES)
    assert not TrainableEncoder(model).is_usable(BATCHES)


@pytest.mark.parametrize("kind", sorted(set(ARCHITECTURES) - set(KINDS)))
def test_other_families_are_left_to_the_plain_forward(kind: str) -> None:
    model = still(backbone(kind))
    with pytest.raises(Unsupported):
        TrainableEncoder(model)
    assert train_module(model).together(BATCHES)[0].pooled.shape == (3, 32)


def test_a_form_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    module = train_module(still(backbone("bert")))
    wrong = TrainableEncoder._embed
    monkeypatch.setattr(TrainableEncoder, "_embed", lambda *arguments: wrong(*arguments) * 1.01)
    with pytest.warns(UserWarning, match="differs from the plain one"):
        found = module.together(BATCHES)
    torch.testing.assert_close(found[0].pooled, module.eval()(BATCHES[0]).pooled)
