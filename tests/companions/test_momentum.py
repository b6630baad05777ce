"""The momentum encoder and its queue."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tiny_module import TinyModule, batch_of, build_of, services_of

from sentemb.companions import PARTS
from sentemb.companions.momentum import Momentum
from sentemb.errors import RecipeError
from sentemb.maths.table import add_candidates, extra_rows, in_batch_table
from sentemb.types import Batch


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


# ------------------------------------------------------------------------------------------- keys of the batch
def pairs_of(anchors: list[list[int]], positives: list[list[int]], ids: list[int], texts: tuple[list[int], list[int]]):
    """A batch of two views."""
    views, tokens = {}, {}
    for name, rows, text in zip(("anchor", "positive"), (anchors, positives), texts, strict=True):
        one = batch_of(rows, ids)
        views[name] = replace(one.views["anchor"], text=torch.tensor(text))
        tokens[name] = one.tokens["anchor"]
    return replace(batch_of(anchors, ids), views=views, tokens=tokens)


def observed(companion: Momentum, batch: Batch) -> Batch:
    ids = {name: rows.ids for name, rows in batch.views.items()}
    outputs = {f"momentum/{key}": rows for key, rows in companion.observe(batch.tokens, ids).items()}
    return replace(batch, outputs=outputs)


def test_keys_of_the_step_come_from_the_average_without_dropout():
    module = TinyModule(seed=3)
    companion = bound(module, keys=True)
    batch = pairs_of([[5, 6], [7, 8]], [[9, 10], [11, 12]], [0, 1], ([1, 2], [3, 4]))
    with torch.no_grad():
        module.head.weight.mul_(2.0)  # the average has not followed yet
    found = companion.observe(batch.tokens, {})
    for name in ("anchor", "positive"):
        wanted = companion.encoder.project(companion.encoder(batch.tokens[name]).pooled)
        assert torch.equal(found[name], wanted)
        assert not found[name].requires_grad


def test_twins_are_encoded_once():
    companion = bound(TinyModule(), keys=True)
    batch = pairs_of([[5, 6], [7, 8]], [[5, 6], [7, 8]], [0, 1], ([1, 2], [1, 2]))
    calls = []
    companion.encoder.register_forward_hook(lambda *_: calls.append(1))
    found = companion.observe(batch.tokens, {})
    assert found["anchor"] is found["positive"]
    assert len(calls) == 1


def test_the_steps_keys_go_into_the_queue_as_they_are():
    module = TinyModule(seed=3)
    companion = bound(module, keys=True, of="positive", queue_size=3, momentum=0.5)
    batch = observed(companion, pairs_of([[5], [7]], [[9], [11]], [4, 6], ([1, 2], [3, 5])))
    with torch.no_grad():
        module.head.weight.mul_(2.0)
    companion.after_step(batch, module, services_of([]))
    assert torch.equal(companion.embedding[:2], batch.outputs["momentum/positive"])
    assert companion.ids.tolist() == [4, 6, -1]
    assert companion.text.tolist() == [3, 5, -1]


def test_the_queue_holds_positives_where_asked():
    module = TinyModule(seed=3)
    companion = bound(module, of="positive", queue_size=2, momentum=0.0)
    batch = pairs_of([[5], [7]], [[9], [11]], [4, 6], ([1, 2], [3, 5]))
    companion.after_step(batch, module, services_of([]))
    frozen = copy.deepcopy(module).eval()
    torch.testing.assert_close(companion.embedding, frozen.project(frozen(batch.tokens["positive"]).pooled).detach())
    assert companion.text.tolist() == [3, 5]


def test_similarity_knows_the_batch_and_the_queue_by_text():
    companion = bound(TinyModule(seed=3), keys=True, of="positive", queue_size=4)
    old = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    companion._put(old, torch.tensor([20, 21, 22]), torch.tensor([50, 51, 50]))  # the text 50 twice
    batch = observed(companion, pairs_of([[5], [7]], [[9], [11]], [0, 1], ([1, 2], [3, 51])))
    table = in_batch_table(batch.views["anchor"], batch.views["positive"])
    columns = torch.tensor([50, 51, 77, -1])
    table = add_candidates(table, extra_rows(torch.zeros(4, 4), table.candidate, text=columns))
    cosine, is_known = companion.similarity(table, batch)
    assert is_known.tolist() == [[True, True, True, True, False, False]] * 2
    keys = {name: batch.outputs[f"momentum/{name}"] for name in ("anchor", "positive")}
    for i in range(2):
        # the newest key of a text counts, and the batch is newer than the queue
        wanted = [keys["positive"][0], keys["positive"][1], old[2], keys["positive"][1]]
        for j, candidate in enumerate(wanted):
            expected = torch.cosine_similarity(keys["anchor"][i], candidate, dim=0)
            torch.testing.assert_close(cosine[i, j], expected)


def test_an_overwritten_queue_still_gives_the_newest_key():
    companion = bound(TinyModule(), keys=True, queue_size=3)
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    for i, text in enumerate([7, 8, 9, 7, 9]):  # slots now hold 7 (new), 9 (new), 9 (old)
        companion._put(rows[i : i + 1], torch.tensor([i]), torch.tensor([text]))
    batch = observed(companion, pairs_of([[5]], [[6]], [0], ([1], [2])))
    table = in_batch_table(batch.views["anchor"], batch.views["positive"])
    table = add_candidates(table, extra_rows(torch.zeros(2, 4), table.candidate, text=torch.tensor([7, 9])))
    cosine, _ = companion.similarity(table, batch)
    for column, row in ((1, rows[3]), (2, rows[4])):
        torch.testing.assert_close(
            cosine[0, column], torch.cosine_similarity(batch.outputs["momentum/anchor"][0], row, dim=0)
        )


def test_keys_that_were_not_made_are_told():
    with pytest.raises(RecipeError, match="momentum: makes no keys of the batch; set keys = true"):
        Momentum().keys_of("anchor", {})


@pytest.mark.parametrize("bad", [{"of": "negative_1"}, {"momentum": 1.0}, {"momentum": -0.1}, {"queue_size": 0}])
def test_refuses_values_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Momentum(**bad)
