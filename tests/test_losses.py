import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from avvp_pipe.stages.blocks.losses import (
    ClassBalance,
    Mixup,
    class_balance,
    draw_mixup,
    mixup_loss,
    segment_loss,
    video_loss,
)
from avvp_pipe.stages.blocks.training import seeded


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape: int, seed: int = 0) -> Tensor:
    return (numbers(*shape, seed=seed) > 0).float()


def entropy(probability: float, target: float) -> float:
    return -target * math.log(probability) - (1 - target) * math.log(1 - probability)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def test_video_loss_is_the_mean_entropy_and_finite_for_certain_mistakes() -> None:
    assert video_loss(torch.tensor([[0.9, 0.2]]), torch.tensor([[True, False]])).item() == pytest.approx(
        (entropy(0.9, 1) + entropy(0.2, 0)) / 2
    )
    assert video_loss(torch.tensor([[0.0]]), torch.tensor([[1.0]])).item() == pytest.approx(-math.log(1e-7), rel=1e-3)
    assert video_loss(torch.tensor([[1.0]]), torch.tensor([[0.0]])).item() == pytest.approx(-math.log(1e-7), rel=0.02)


def reference_segment_loss(logits: Tensor, targets: Tensor, weights: Tensor, lengths: list[int]) -> float:
    terms = [
        weights[b, c].item() * entropy(sigmoid(logits[b, t, c].item()), targets[b, t, c].item())
        for b, length in enumerate(lengths)
        for t, c in product(range(length), range(logits.shape[2]))
    ]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("lengths", [[4, 4, 4], [4, 1, 3]])
def test_segment_loss_is_the_weighted_mean_over_real_seconds_and_ignores_padding(lengths: list[int]) -> None:
    logits, targets, weights = numbers(3, 4, 2), numbers(3, 4, 2, seed=1).sigmoid(), numbers(3, 2, seed=2).exp()
    valid = torch.arange(4) < torch.tensor(lengths)[:, None]
    expected = reference_segment_loss(logits, targets, weights, lengths)
    targets[~valid] = float("nan")
    logits[~valid] = float("nan")
    assert segment_loss(logits, targets, weights=weights, valid=valid).item() == pytest.approx(expected, rel=1e-5)


def test_segment_loss_without_weights_and_padding_is_the_plain_mean() -> None:
    logits, hard = numbers(2, 3, 4), labels(2, 3, 4, seed=1)
    plain = segment_loss(logits, hard.bool())
    assert plain.item() == pytest.approx(reference_segment_loss(logits, hard, torch.ones(2, 4), [3, 3]), rel=1e-5)
    assert torch.equal(plain, segment_loss(logits, hard, weights=torch.ones(2, 4)))
    assert torch.equal(plain, segment_loss(logits, hard, valid=torch.ones(2, 3, dtype=torch.bool)))


def reference_balance(hard: Tensor, lengths: list[int], strength: float) -> dict[str, ClassBalance]:
    """Count cells one by one: the shares of UWAV eqs. 17-19 and the release's sums of class frequencies."""
    classes, seconds = hard.shape[2], sum(lengths)
    on = sum(
        hard[n, t, c].item() for n, length in enumerate(lengths) for t, c in product(range(length), range(classes))
    )
    off = seconds * classes - on
    cells = seconds * classes
    return {
        "paper": ClassBalance(strength * off / cells, on / cells),
        "code": ClassBalance(strength * off / seconds, on / seconds),
    }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), lengths=st.lists(st.integers(1, 4), min_size=2, max_size=3))
def test_class_balance_is_that_of_counting_cells(seed: int, lengths: list[int]) -> None:
    hard = labels(len(lengths), 4, 5, seed=seed)
    valid = torch.arange(4) < torch.tensor(lengths)[:, None]
    expected = reference_balance(hard, lengths, strength=0.5)
    code, paper = class_balance(hard, valid=valid), class_balance(hard.bool(), valid=valid, form="paper")
    for found, form in ((code, "code"), (paper, "paper")):
        assert found.positive == pytest.approx(expected[form].positive)
        assert found.negative == pytest.approx(expected[form].negative)
    assert code.positive == pytest.approx(5 * paper.positive)


def test_class_balance_of_llp_is_of_the_documented_order() -> None:
    # Audio of the LLP validation ground truth: frequencies sum to 1.246 over 25 classes; weights 11.9 and 1.25.
    hard = torch.zeros(1, 1000, 25)
    hard[0, :, 0] = 1
    hard[0, :246, 1] = 1
    balance = class_balance(hard)
    assert (balance.positive, balance.negative) == pytest.approx((11.877, 1.246))


def test_weights_follow_the_weak_label_not_the_pseudo_label() -> None:
    weights = ClassBalance(positive=7.0, negative=1.0).weights(torch.tensor([[1, 0], [0, 1]]))
    assert weights.tolist() == [[7.0, 1.0], [1.0, 7.0]]


def test_class_balance_without_labelled_seconds_is_refused() -> None:
    with pytest.raises(ValueError, match="needs labelled seconds"):
        class_balance(torch.zeros(2, 3, 4), valid=torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="there are code, paper"):
        class_balance(torch.ones(1, 1, 1), form="both")  # type: ignore[arg-type]


def reference_mixup(features: Tensor, targets: Tensor, mixup: Mixup, classifier: nn.Linear) -> float:
    """The paper's form, one segment and class at a time: the label itself is blended."""
    terms = []
    for i, j in enumerate(mixup.permutation.tolist()):
        blended = mixup.share * features[i] + (1 - mixup.share) * features[j]
        target = mixup.share * targets[i] + (1 - mixup.share) * targets[j]
        for c in range(targets.shape[1]):
            logit = (classifier.weight[c] @ blended + classifier.bias[c]).item()
            terms.append(entropy(sigmoid(logit), target[c].item()))
    return sum(terms) / len(terms)


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1), order=st.permutations(range(6)))
def test_mixup_loss_equals_the_entropy_of_blended_labels(share: float, order: list[int]) -> None:
    torch.manual_seed(0)
    classifier, mixup = nn.Linear(4, 3), Mixup(share, torch.tensor(order))
    features, targets = numbers(6, 4), numbers(6, 3, seed=1).sigmoid()
    found = mixup_loss(features, targets, mixup, classifier).item()
    assert found == pytest.approx(reference_mixup(features, targets, mixup, classifier), rel=1e-4)


def test_mixup_teaches_the_classifier_and_what_made_the_features() -> None:
    classifier, features = nn.Linear(4, 3), numbers(6, 4).requires_grad_()
    loss = mixup_loss(features, labels(6, 3), Mixup(0.7, torch.arange(5, -1, -1)), classifier)
    torch.autograd.backward(loss)
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    assert classifier.weight.grad is not None
    assert classifier.weight.grad.abs().sum() > 0


def test_mixup_of_other_numbers_of_segments_is_refused() -> None:
    with pytest.raises(ValueError, match="mixup of 6 segments"):
        mixup_loss(numbers(6, 4), labels(6, 3), Mixup(0.5, torch.arange(5)), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="mixup of 6 segments"):
        mixup_loss(numbers(6, 4), labels(5, 3), Mixup(0.5, torch.arange(6)), nn.Linear(4, 3))


def test_draws_of_mixup_repeat_under_a_seed_and_follow_the_beta_distribution() -> None:
    with seeded(1, 2):
        draws = [draw_mixup(5) for _ in range(2000)]
    with seeded(1, 2):
        again = draw_mixup(5)
    assert again.share == draws[0].share
    assert torch.equal(again.permutation, draws[0].permutation)
    assert all(sorted(draw.permutation.tolist()) == [0, 1, 2, 3, 4] for draw in draws)
    shares = np.array([draw.share for draw in draws])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 1.7 + 1)), rel=0.1)


def test_each_switch_of_the_objective_changes_the_gradient() -> None:
    torch.manual_seed(0)
    classifier, features, weak = nn.Linear(4, 3), numbers(2, 3, 4), torch.tensor([[1, 0, 1], [0, 1, 0]])
    soft = numbers(2, 3, 3, seed=1).sigmoid() * weak[:, None]
    weights = class_balance((soft > 0.5).float()).weights(weak)
    mixup = Mixup(0.7, torch.arange(5, -1, -1))
    logits = classifier(features)
    losses = {
        "hard": segment_loss(logits, soft > 0.5),
        "soft": segment_loss(logits, soft),
        "reweighted": segment_loss(logits, soft, weights=weights),
        "mixed": segment_loss(logits, soft) + mixup_loss(features.flatten(0, 1), soft.flatten(0, 1), mixup, classifier),
    }
    gradients = [torch.autograd.grad(loss, classifier.weight, retain_graph=True)[0] for loss in losses.values()]
    for i, j in product(range(4), range(4)):
        assert i == j or (gradients[i] - gradients[j]).abs().max() > 1e-3
