"""The momentum encoder and its queue."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_module import TinyModule, batch_of, build_of, services_of

from sentemb.companions import PARTS
from sentemb.companions.momentum import Momentum


def bound(module: TinyModule, **options: float) -> Momentum:
    companion = Momentum(**options)
    companion.bind(build_of(module))
    return companion


def test_is_a_part():
    assert PARTS["momentum"] is Momentum
    assert Momentum.needs == {"tokens"}


def test_starts_as_the_encoder_with_an_empty_queue():
    module = TinyModule()
    companion = bound(module, queue_size=6)
    for mine, theirs in zip(companion.encoder.state_dict().values(), module.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine.data_ptr() != theirs.data_ptr()
    assert not companion.is_filled.any()
    assert companion.ids.tolist() == companion.text.tolist() == [-1] * 6
    assert not any(parameter.requires_grad for parameter in companion.parameters())
    assert companion.embedding.shape == (6, 4)


def test_follows_the_average_by_the_formula():
    module = TinyModule(seed=1)
    companion = bound(module, momentum=0.9)
    expected = [parameter.detach().clone() for parameter in module.parameters()]
    for step in range(3):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(step + 1.0)
        companion.after_step(batch_of([[5, 6], [7]], [0, 1]), module, services_of([]))
        expected = [0.9 * old + 0.1 * new.detach() for old, new in zip(expected, module.parameters(), strict=True)]
    for mine, wanted in zip(companion.encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, wanted)


def test_running_statistics_are_copied():
    module = TinyModule()
    companion = bound(module)
    module.train()(batch_of([[5], [9]], [0, 1]).tokens["anchor"])
    module.norm(torch.randn(8, 4))
    companion.after_step(batch_of([[5], [6]], [0, 1]), module, services_of([]))
    assert torch.equal(companion.encoder.norm.running_mean, module.norm.running_mean)
    assert companion.encoder.norm.num_batches_tracked == module.norm.num_batches_tracked == 1


def test_keys_come_from_the_average_without_dropout_and_with_heads():
    module = TinyModule(seed=2)
    companion = bound(module, momentum=0.5, queue_size=4)
    companion.train()
    assert not companion.encoder.training
    batch = batch_of([[5, 6, 7], [8]], [3, 4])
    companion.after_step(batch, module, services_of([]))
    frozen = copy.deepcopy(companion.encoder).eval()
    wanted = frozen.project(frozen(batch.tokens["anchor"]).pooled)
    torch.testing.assert_close(companion.embedding[:2], wanted.detach())
    assert companion.ids.tolist() == [3, 4, -1, -1]
    assert companion.text.tolist() == [1003, 1004, -1, -1]
    assert companion.is_filled.tolist() == [True, True, False, False]


def test_first_in_first_out():
    module = TinyModule()
    companion = bound(module, queue_size=5)
    for first in (0, 3, 6):
        companion.after_step(batch_of([[5], [6], [7]], [first, first + 1, first + 2]), module, services_of([]))
    assert companion.is_filled.all()
    assert sorted(companion.ids.tolist()) == [4, 5, 6, 7, 8]
    companion.after_step(batch_of([[5]] * 7, range(20, 27)), module, services_of([]))  # a batch longer than the queue
    assert sorted(companion.ids.tolist()) == [22, 23, 24, 25, 26]
    companion.after_step(batch_of([[5]], [30]), module, services_of([]))
    assert sorted(companion.ids.tolist()) == [23, 24, 25, 26, 30]


def test_checkpoint_restores_every_bit():
    module = TinyModule()
    companion = bound(module, queue_size=5)
    companion.after_step(batch_of([[5], [6, 7]], [0, 1]), module, services_of([]))
    state = {name: tensor.clone() for name, tensor in companion.checkpoint_state().items()}
    fresh = bound(TinyModule(seed=9), queue_size=5)
    fresh.load_checkpoint_state(state)
    with torch.no_grad():
        module.head.weight.mul_(1.1)
    for one in (companion, fresh):
        one.after_step(batch_of([[8], [9], [5], [6]], [2, 3, 4, 5]), module, services_of([]))
    for name, tensor in companion.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name


def test_nothing_changes_outside_after_step():
    companion = bound(TinyModule())
    before = {name: tensor.clone() for name, tensor in companion.state_dict().items()}
    assert companion.observe(batch_of([[5]], [0]).tokens, {"anchor": torch.tensor([0])}) == {}
    assert all(torch.equal(tensor, before[name]) for name, tensor in companion.state_dict().items())


@pytest.mark.parametrize("bad", [{"momentum": 1.0}, {"momentum": -0.1}, {"queue_size": 0}])
def test_refuses_values_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Momentum(**bad)
