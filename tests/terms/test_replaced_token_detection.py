"""replaced_token_detection with a real detector on a tiny random checkpoint."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sentemb.companions.companion import Companion
from sentemb.companions.detector import Detection, Detector
from sentemb.errors import RecipeError
from sentemb.terms.replaced_token_detection import ReplacedTokenDetection
from sentemb.types import Rows, Tokens, Vocabulary

PAD, CLS, SEP, MASK = 0, 2, 3, 4


@pytest.fixture
def detector(tiny_bert, build_for):
    part = Detector(generator=str(tiny_bert))
    part.bind(
        build_for(str(tiny_bert), 32, Vocabulary(size=200, pad=PAD, mask=MASK, special=frozenset({PAD, CLS, SEP})))
    )
    return part.eval()


@pytest.fixture
def copies():
    first = Tokens(
        input_ids=torch.tensor([[CLS, 10, MASK, 12, SEP], [CLS, MASK, SEP, PAD, PAD]]),
        attention_mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        targets=torch.tensor([[-100, -100, 11, -100, -100], [-100, 20, -100, -100, -100]]),
    )
    second = Tokens(
        input_ids=torch.tensor([[CLS, MASK, 11, 12, SEP], [CLS, 25, SEP, PAD, PAD]]),
        attention_mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        targets=torch.tensor([[-100, 10, -100, -100, -100], [-100, 20, -100, -100, -100]]),
    )
    return {"anchor.masked": first, "positive.masked": second}


def embeddings(seed, dtype=torch.float32):
    return torch.randn(4, 32, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def batch(batch_of, detector, copies):
    """Two local rows (1 and 2) of a batch of four over devices."""

    def make(anchor, positive, part=detector, tokens=copies):
        ids = torch.arange(4)
        views = {
            "anchor": Rows(embedding=anchor, ids=ids, text=ids),
            "positive": Rows(embedding=positive, ids=ids, text=ids),
        }
        return batch_of(2, views=views, local=slice(1, 3), tokens=tokens, companions={"detector": part})

    return make


def test_equals_the_loop(table_of, batch, detector, copies):
    anchor, positive = embeddings(1), embeddings(2)
    share = ReplacedTokenDetection()(table_of(torch.eye(4)), batch(anchor, positive))
    total, count = 0.0, 0
    for name, embedding in (("anchor", anchor), ("positive", positive)):
        detection = detector.detect([copies[f"{name}.masked"]], [embedding[1:3]])
        for row, length in enumerate((5, 3)):
            for place in range(1, length - 1):  # neither [CLS] nor [SEP]
                kept, replaced = detection.logits[row, place].tolist()
                truth = replaced if detection.replaced[row, place] else kept
                total -= truth - math.log(math.exp(kept) + math.exp(replaced))
                count += 1
    assert count == share.count.item() == 8
    assert share.total.item() == pytest.approx(total, rel=1e-5)


class Fixed(Detector):
    """A detector whose answer is given: the term's own arithmetic, by hand."""

    def __init__(self, detection):
        super().__init__(generator="none")
        self.answer = detection

    def detect(self, masked, sentences):
        return self.answer


def test_hand_worked_two_by_two(table_of, batch):
    # -log softmax: kept 2 vs 0 and true "kept": 0.126928; 0 vs 1 and true "kept": 1.313262; the third is not counted
    detection = Detection(
        torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 3.0], [0.0, 0.0]]]),
        torch.tensor([[False, False], [True, False]]),
        torch.tensor([[True, True], [True, False]]),
    )
    share = ReplacedTokenDetection()(table_of(torch.eye(4)), batch(embeddings(1), embeddings(2), Fixed(detection)))
    assert share.count.item() == 3
    assert share.total.item() == pytest.approx(0.126928 + 1.313262 + 0.048587, abs=1e-5)


def test_order_of_rows_does_not_matter(table_of, batch, copies):
    anchor, positive = embeddings(1), embeddings(2)
    term, table = ReplacedTokenDetection(), table_of(torch.eye(4))
    before = term(table, batch(anchor, positive))
    swap = [0, 2, 1, 3]
    swapped = {
        name: Tokens(
            input_ids=tokens.input_ids.flip(0),
            attention_mask=tokens.attention_mask.flip(0),
            targets=tokens.targets.flip(0),
        )
        for name, tokens in copies.items()
    }
    after = term(table, batch(anchor[swap], positive[swap], tokens=swapped))
    assert after.total.item() == pytest.approx(before.total.item(), rel=1e-5)
    assert after.count == before.count


def test_gradcheck_with_respect_to_the_embeddings(table_of, batch, detector):
    detector.double()

    def loss(anchor, positive):
        share = ReplacedTokenDetection()(table_of(torch.eye(4)), batch(anchor, positive))
        return share.total / share.count

    inputs = (embeddings(1, torch.float64).requires_grad_(), embeddings(2, torch.float64).requires_grad_())
    # BERT's additive attention mask is made in the model's own precision, so float64 holds throughout
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


def test_only_this_devices_rows_get_a_gradient_from_it(table_of, batch):
    anchor, positive = embeddings(1).requires_grad_(), embeddings(2).requires_grad_()
    ReplacedTokenDetection()(table_of(torch.eye(4)), batch(anchor, positive)).total.backward()
    for gradient in (anchor.grad, positive.grad):
        assert (gradient[1:3].abs().sum(dim=1) > 0).all()
        assert (gradient[[0, 3]] == 0).all()


def test_the_shares_of_two_devices_sum_to_the_whole(table_of, batch, copies):
    anchor, positive = embeddings(1), embeddings(2)
    term, table = ReplacedTokenDetection(), table_of(torch.eye(4))
    whole = term(table, batch(anchor, positive))
    shares = []
    for row in (0, 1):
        mine = {
            name: Tokens(**{key: rows[row : row + 1] for key, rows in vars(tokens).items() if rows is not None})
            for name, tokens in copies.items()
        }
        shares.append(term(table, replace(batch(anchor, positive, tokens=mine), local=slice(1 + row, 2 + row))))
    assert sum(share.count.item() for share in shares) == whole.count.item()
    assert sum(share.total.item() for share in shares) == pytest.approx(whole.total.item(), rel=1e-5)


def test_a_batch_of_special_tokens_counts_nothing(table_of, batch, detector):
    empty = Tokens(
        input_ids=torch.tensor([[CLS, SEP]] * 2),
        attention_mask=torch.ones(2, 2, dtype=torch.long),
        targets=torch.full((2, 2), -100),
    )
    anchor = embeddings(1).requires_grad_()
    tokens = {"anchor.masked": empty, "positive.masked": empty}
    share = ReplacedTokenDetection()(table_of(torch.eye(4)), batch(anchor, embeddings(2), tokens=tokens))
    share.total.backward()
    assert share.count.item() == 0
    assert share.total.item() == 0
    assert (anchor.grad == 0).all()
    # connected all the same: every device's parameters take part in DistributedDataParallel's reduction
    assert detector.head.weight.grad is not None


def test_bfloat16_logits_are_scored_in_float32(table_of, batch, detector):
    anchor, positive = embeddings(1), embeddings(2)
    exact = ReplacedTokenDetection()(table_of(torch.eye(4)), batch(anchor, positive))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = ReplacedTokenDetection()(table_of(torch.eye(4)), batch(anchor, positive))
    assert half.total.dtype == torch.float32
    # labels may flip where two words score alike; the mean over 8 tokens stays near
    assert half.total.item() == pytest.approx(exact.total.item(), rel=0.2)


def test_one_view_alone(table_of, batch):
    term = ReplacedTokenDetection(of=["anchor"])
    assert term.needs == {"tokens", "companion:detector", "view:anchor", "view:anchor.masked"}
    assert term(table_of(torch.eye(4)), batch(embeddings(1), embeddings(2))).count.item() == 4


def test_another_companion_of_that_name_is_refused(table_of, batch):
    wrong = batch(embeddings(1), embeddings(2))
    wrong = replace(wrong, companions={"detector": Companion()})
    with pytest.raises(RecipeError, match="replaced_token_detection"):
        ReplacedTokenDetection()(table_of(torch.eye(4)), wrong)


@pytest.mark.parametrize("of", [[], ["anchor", "anchor"]])
def test_views_must_differ(of):
    with pytest.raises(ValueError, match="of = "):
        ReplacedTokenDetection(of=of)
