import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avvp_pipe.stages.parsers.coleaf_labels import denoised, modality_labels, noise_ratios, noise_share
from avvp_pipe.stages.parsers.coleaf_losses import (
    Form,
    asymmetric_loss,
    confident_targets,
    contrastive_loss,
    cooccurrence_loss,
    event_weights,
    evidence,
    evidence_logits,
    global_uncertainty,
    mutual_loss,
    self_labels,
)
from avvp_pipe.stages.parsers.records import Moment

Golden = dict[str, Tensor]
FORMS: tuple[Form, Form] = ("code", "paper")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def golden(real_data: Path) -> Golden:
    """CoLeaF commit a36a153, torch 2.11 on CPU."""
    with np.load(real_data / "golden" / "coleaf_losses.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def golden_mutual(golden: Golden, odd: bool) -> Tensor:
    audio, visual = ((golden[f"mutual_{m}_prob"], golden[f"mutual_{m}_unc"]) for m in ("audio", "visual"))
    return mutual_loss(
        golden["mutual_target"],
        golden["mutual_global_prob"],
        (audio[0], visual[0]),
        (audio[1], visual[1]),
        golden["mutual_global_unc"],
        odd=odd,
    )


@pytest.mark.real_data
def test_every_loss_is_that_of_the_released_code(golden: Golden) -> None:
    heard, seen = event_weights(golden["reference_audio"], golden["reference_visual"])
    probability, uncertainty = evidence(golden["evidence_logits"])
    found = {
        "asymmetric_loss": asymmetric_loss(golden["probs"], golden["targets"]),
        "asymmetric_loss_hard": asymmetric_loss(golden["probs"], golden["hard_targets"]),
        "cooccurrence_loss": cooccurrence_loss(golden["student"], golden["teacher"]),
        "contrastive_loss": contrastive_loss(golden["query"], golden["key"]),
        "contrastive_loss_weighted": contrastive_loss(golden["query"], golden["key"], golden["weights"]),
        "event_weight_audio": heard,
        "event_weight_visual": seen,
        "evidence_prob": probability,
        "evidence_uncertainty": uncertainty,
        "mutual_loss_batch_0": golden_mutual(golden, odd=False),
        "mutual_loss_batch_1": golden_mutual(golden, odd=True),
    }
    inputs = ("probs", "targets", "hard_targets", "student", "teacher", "query", "key", "weights", "evidence_logits")
    outputs = {name for name in golden if name not in inputs and not name.startswith("reference_")}
    assert found.keys() == {name for name in outputs if not name.startswith("mutual_") or "loss" in name}
    for name, value in found.items():
        torch.testing.assert_close(value, golden[name], rtol=0, atol=1e-5, msg=name)
    torch.testing.assert_close(evidence_logits(golden["evidence_logits"]).sigmoid(), golden["evidence_prob"])


def test_asymmetric_loss_sums_what_is_still_wrong_and_spares_small_probabilities_of_absent_classes() -> None:
    probabilities = torch.tensor([[0.8, 0.3], [0.04, 0.5]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.95]])
    # Wrong by 0.2, by 1 - 0.75, not at all, and by 1 - 0.95 * 0.5 - 0.05 * 0.55.
    mixed = 0.95 * math.log(0.5) + 0.05 * math.log(0.55)
    expected = -0.2 * math.log(0.8) - 0.25 * math.log(0.75) - 0.4975 * mixed
    loss = asymmetric_loss(probabilities, targets)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, probabilities)
    # The focus is taken as it is: 0.2 / 0.8 and 0.25 / 0.75.
    assert gradient[0].tolist() == pytest.approx([-0.25, 1 / 3], rel=1e-5)
    assert gradient[1, 0].item() == 0
    assert gradient[1, 1].item() == pytest.approx(-0.4975 * (0.95 / 0.5 - 0.05 / 0.55), rel=1e-5)


def test_exponents_of_the_asymmetric_loss_belong_to_present_and_to_absent_classes() -> None:
    present, absent = torch.tensor([[0.5]]), torch.tensor([[0.55]])
    for gammas, on, off in (((0.0, 1.0), 1.0, 0.5), ((2.0, 0.0), 0.25, 1.0)):
        assert asymmetric_loss(present, torch.ones(1, 1), gammas=gammas).item() == pytest.approx(on * math.log(2))
        assert asymmetric_loss(absent, torch.zeros(1, 1), gammas=gammas).item() == pytest.approx(off * math.log(2))


SCORES = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 1.0, 0.0], [2.0, 2.0, 0.0]]])
"""Of each second of the query with each of the key, which is their product where the query is the identity."""


def test_paper_contrast_sets_the_same_second_against_the_others_only() -> None:
    identity = torch.eye(3)[None]
    # 1 - log(e^2 + e^3), 1 - log 2, 0 - log(2 e^2)
    logs = [1 - math.log(math.exp(2) + math.exp(3)), 1 - math.log(2), -2 - math.log(2)]
    loss = contrastive_loss(identity, SCORES.mT, form="paper", temperature=1.0)
    assert loss.item() == pytest.approx(-sum(logs) / 3, rel=1e-5)
    weighted = contrastive_loss(identity, SCORES.mT, torch.tensor([0.25]), form="paper", temperature=1.0)
    assert weighted.item() == pytest.approx(-sum(logs) / 12, rel=1e-5)
    pair = torch.eye(2)[None]
    assert contrastive_loss(pair, pair, form="paper").item() == pytest.approx(-5, rel=1e-5)  # -(1 - 0) / 0.2


def test_code_contrast_counts_the_positive_and_smooths_labels() -> None:
    pair = torch.eye(2)[None]
    share = math.e / (math.e + 1)
    expected = -math.log(0.9 * share + 0.1 * (1 - share))
    assert contrastive_loss(pair, pair, temperature=1.0).item() == pytest.approx(expected, rel=1e-5)
    plain = contrastive_loss(pair, pair, temperature=1.0, smoothing=0.0)
    assert plain.item() == pytest.approx(-math.log(share), rel=1e-5)


def reference_contrast(query: Tensor, key: Tensor, weights: Tensor, lengths: list[int], form: str) -> float:
    clips = []
    for clip, length in enumerate(lengths):
        seconds = []
        for t in range(length):
            scores = [math.exp(float(query[clip, t] @ key[clip, n]) / 0.2) for n in range(length)]
            if form == "paper":
                value = math.log(scores[t] / sum(s for n, s in enumerate(scores) if n != t))
            else:
                labels = [0.9 if n == t else 0.1 / (length - 1) for n in range(length)]
                value = math.log(sum(q * s / sum(scores) for q, s in zip(labels, scores, strict=True)))
            seconds.append(-float(weights[clip]) * value)
        clips.append(sum(seconds) / length)
    return sum(clips) / len(clips)


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("lengths", [[4, 4, 4], [4, 2, 3]])
def test_contrast_is_the_mean_over_clips_of_the_mean_over_real_seconds(form: Any, lengths: list[int]) -> None:
    query, key, weights = numbers(3, 4, 2) / 4, numbers(3, 4, 2, seed=1) / 4, torch.tensor([0.5, 1.0, 0.0])
    valid = torch.arange(4) < torch.tensor(lengths)[:, None]
    expected = reference_contrast(query, key, weights, lengths, form)
    assert contrastive_loss(query, key, weights, valid=valid, form=form).item() == pytest.approx(expected, rel=1e-5)
    spread = contrastive_loss(query, key, weights[:, None].expand(3, 4), valid=valid, form=form)
    assert spread.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_who_asks_matters_and_gradients_reach_both_but_no_padding(form: Any) -> None:
    query, key = numbers(2, 4, 3).requires_grad_(), numbers(2, 4, 3, seed=1).requires_grad_()
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    loss = contrastive_loss(query, key, valid=valid, form=form)
    assert abs(loss.item() - contrastive_loss(key, query, valid=valid, form=form).item()) > 1e-3
    for gradient in torch.autograd.grad(loss, (query, key)):
        assert (gradient[valid].abs().sum(dim=1) > 0).all()
        assert (gradient[~valid] == 0).all()


@pytest.mark.parametrize(("form", "expected"), [("code", -math.log(0.9)), ("paper", 0.0)])
def test_a_clip_of_one_second_teaches_nothing(form: Any, expected: float) -> None:
    query = numbers(1, 3, 2).requires_grad_()
    loss = contrastive_loss(query, numbers(1, 3, 2, seed=1), valid=torch.tensor([[True, False, False]]), form=form)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert (torch.autograd.grad(loss, query)[0] == 0).all()


def test_contrast_of_opposites_is_large_and_finite() -> None:
    query, key = torch.tensor([[[100.0], [-100.0]]], requires_grad=True), torch.tensor([[[-100.0], [100.0]]])
    for form in FORMS:
        loss = contrastive_loss(query, key, form=form, smoothing=0.0)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, query)[0].isfinite().all()


def test_event_weights_are_the_shares_of_what_only_one_modality_has() -> None:
    audio = torch.tensor([[0.9, 0.9, 0.9, 0.1], [0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1]])
    visual = torch.tensor([[0.9, 0.1, 0.1, 0.9], [0.9, 0.9, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1]])
    heard, seen = event_weights(audio, visual)
    assert heard.tolist() == pytest.approx([2 / 3, 0, 0])
    assert seen.tolist() == pytest.approx([1 / 2, 0, 1])


def test_at_the_threshold_an_event_is_there_in_the_code_and_not_in_the_paper() -> None:
    half, none = torch.tensor([[0.5]]), torch.tensor([[0.0]])
    assert event_weights(half, none)[0].item() == 1
    assert event_weights(half, none, form="paper")[0].item() == 0
    assert self_labels(half, torch.ones(1, 1)).item() == 1
    assert self_labels(half, torch.ones(1, 1), form="paper").item() == 0


def test_self_labels_are_the_label_in_the_code_and_one_in_the_paper_where_the_anchor_is_sure() -> None:
    probabilities, labels = torch.tensor([[0.7, 0.55, 0.7]], requires_grad=True), torch.tensor([[0.95, 0.95, 0.05]])
    found = self_labels(probabilities, labels, threshold=0.6)
    torch.testing.assert_close(found, torch.tensor([[0.95, 0.0, 0.05]]))
    assert not found.requires_grad
    assert self_labels(probabilities, labels, threshold=0.6, form="paper").tolist() == [[1, 0, 1]]


def test_cooccurrence_compares_products_of_all_pairs() -> None:
    student, teacher = torch.tensor([[0.5, 1.0]], requires_grad=True), torch.tensor([[1.0, 1.0]])
    # Pairs of the student: 0.25, 0.5, 0.5, 1; apart by 0.75, 0.5, 0.5, 0.
    squares = 0.75**2 + 2 * 0.5**2
    paper = cooccurrence_loss(student, teacher, form="paper")
    assert paper.item() == pytest.approx(squares / 4)
    assert cooccurrence_loss(student, teacher).item() == pytest.approx(squares / 2)
    # d/ds_0 of (s_0^2 - 1)^2 + 2 (s_0 s_1 - 1)^2, and d/ds_1 of 2 (s_0 s_1 - 1)^2 + (s_1^2 - 1)^2
    (gradient,) = torch.autograd.grad(paper, student)
    assert gradient[0].tolist() == pytest.approx([(4 * 0.5 * -0.75 + 4 * -0.5) / 4, 4 * 0.5 * -0.5 / 4])


def test_a_batch_of_the_same_clips_costs_the_paper_nothing_more_and_the_code_its_square() -> None:
    student, teacher = numbers(1, 3).sigmoid(), numbers(1, 3, seed=1).sigmoid()
    for form, factor in (("paper", 1), ("code", 9)):
        one = cooccurrence_loss(student, teacher, form=form).item()  # type: ignore[arg-type]
        three = cooccurrence_loss(student.repeat(3, 1), teacher.repeat(3, 1), form=form).item()  # type: ignore[arg-type]
        assert three == pytest.approx(factor * one, rel=1e-5)


def test_an_unsure_teacher_and_an_absent_label_leave_the_student_alone() -> None:
    student = torch.full((1, 4), 0.4, requires_grad=True)
    teacher, labels = torch.tensor([[0.8, 0.5, 0.1, 0.9]]), torch.tensor([[1.0, 1.0, 0.95, 0.0]])
    found = confident_targets(student, teacher, labels, high=0.8, low=0.1)
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.4, 0.95 * 0.1 + 0.05 * 0.4, 0.4]]))
    assert not found.requires_grad


def test_evidence_for_both_gives_a_probability_and_how_unsure_it_is() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.8 * math.log(3), 0.0], [99.0, 10.0]])
    probability, uncertainty = evidence(logits)
    assert probability[:2].tolist() == pytest.approx([1 / 2, 4 / 6])
    assert uncertainty[:2].tolist() == pytest.approx([1 / 2, 2 / 6])
    assert probability[2].item() == 0.5  # clamped at 10
    torch.testing.assert_close(evidence_logits(logits).sigmoid(), probability)
    assert global_uncertainty(torch.zeros(1, 2)).tolist() == [0.5]
    assert global_uncertainty(torch.tensor([[0.8 * math.log(3), 0.0]])).item() == pytest.approx(2 / (4 + 2))


def small_mutual(target: float, *, odd: bool, uncertainty: float = 0.95) -> tuple[float, list[float]]:
    values = [torch.tensor([[value]], requires_grad=True) for value in (0.4, 0.8, 0.6, 0.2, 0.4)]
    video, *others = values
    unsure = torch.tensor([uncertainty])
    loss = mutual_loss(torch.tensor([[target]]), video, (others[0], others[1]), (others[2], others[3]), unsure, odd=odd)
    found = torch.autograd.grad(loss, values, allow_unused=True)
    return loss.item(), [0.0 if each is None else each.item() for each in found]


def test_in_turn_the_global_branch_learns_from_the_modalities_and_they_from_it() -> None:
    # Present: the higher modality (0.8, unsure by 0.2) counts. Video 0.4.
    loss, (video, heard, seen, *_) = small_mutual(1.0, odd=True)
    assert loss == pytest.approx(0.95 * 0.8 * 0.16)
    assert (video, heard, seen) == pytest.approx((0.95 * 0.8 * 2 * -0.4, 0, 0))
    loss, (video, heard, seen, *_) = small_mutual(1.0, odd=False)
    assert loss == pytest.approx(0.05 * 0.8 * 0.16)
    assert (video, heard, seen) == pytest.approx((0, 0.05 * 0.8 * 2 * 0.4, 0))
    # Absent: the mean of both (0.7, unsure by 0.3).
    loss, (video, heard, seen, *unsure) = small_mutual(0.0, odd=False)
    assert loss == pytest.approx(0.05 * 0.7 * 0.09, rel=1e-5)
    assert (video, heard, seen) == pytest.approx((0, *[0.05 * 0.7 * 2 * 0.3 / 2] * 2), rel=1e-5)
    assert unsure == pytest.approx([-0.05 * 0.09 / 2] * 2, rel=1e-5)


def test_the_global_branch_is_never_taken_as_surer_than_a_tenth() -> None:
    assert small_mutual(1.0, odd=True, uncertainty=0.3)[0] == pytest.approx(0.9 * 0.8 * 0.16)


def test_audio_labels_are_not_smoothed_and_visual_ones_are() -> None:
    audio, visual = modality_labels(torch.tensor([[True, False]]))
    assert audio.tolist() == [[1, 0]]
    assert visual[0].tolist() == pytest.approx([0.95, 0.05])


def reference_denoised(labels: Tensor, own: Tensor, other: Tensor, ratios: Tensor) -> Tensor:
    found = labels.clone()
    for c in range(labels.shape[1]):
        named = [b for b in range(len(labels)) if labels[b, c] > 0.5]
        count = int(float(ratios[c]) * len(named))
        worst = sorted(named, key=lambda b: -float(own[b, c]))[:count]
        best = sorted(named, key=lambda b: float(other[b, c]))[:count]
        for b in set(worst) & set(best):
            found[b, c] = 0
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_denoising_takes_labels_that_fit_worst_here_and_best_there(seed: int, ratios: list[float]) -> None:
    weak = numbers(12, 3, seed=seed) > -0.5
    labels = modality_labels(weak)
    probabilities = numbers(12, 3, seed=seed + 1).sigmoid(), numbers(12, 3, seed=seed + 2).sigmoid()
    heard, seen = (
        torch.nn.functional.binary_cross_entropy(p, t, reduction="none")
        for p, t in zip(probabilities, labels, strict=True)
    )
    shares = torch.tensor(ratios[:3], dtype=torch.float64), torch.tensor(ratios[3:], dtype=torch.float64)
    audio, visual = denoised(labels, probabilities, shares)
    assert torch.equal(audio, reference_denoised(labels[0], heard, seen, shares[0]))
    assert torch.equal(visual, reference_denoised(labels[1], seen, heard, shares[1]))
    assert torch.equal(denoised(labels, probabilities, (None, shares[1]))[0], labels[0])


def test_with_a_full_ratio_every_label_goes_and_with_none_stays() -> None:
    labels = modality_labels(torch.tensor([[True], [True], [False]]))
    probabilities = torch.tensor([[0.9], [0.2], [0.1]]), torch.tensor([[0.3], [0.8], [0.6]])
    for ratio, expected in ((1.0, [0, 0, 0.05]), (0.0, [0.95, 0.95, 0.05]), (0.5, [0, 0.95, 0.05])):
        found = denoised(labels, probabilities, (None, torch.tensor([ratio])))[1]
        assert found.flatten().tolist() == pytest.approx(expected)


def moment(epoch: int, progress: float) -> Moment:
    return Moment(epoch, 10, progress, round(10 * (epoch - 1 + progress)))


def test_the_release_denoises_nothing_in_its_first_epoch_and_fully_after() -> None:
    times = [moment(epoch, progress) for epoch, progress in product((1, 2), (0.0, 0.45, 0.9))]
    assert [noise_share(each) for each in times] == [0, 0, 0, 1, 1, 1]
    assert [noise_share(each, "linear") for each in times] == pytest.approx([0, 0.5, 1, 1, 1, 1])


@pytest.mark.parametrize("text", ["0.1", "0.1 0.2 0.3", "0.1 none", "0.1 1.5"])
def test_noise_ratios_are_one_a_class_in_zero_to_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"2 numbers in \[0, 1\]"):
        noise_ratios(text, 2)
    assert noise_ratios("  ", 2) is None


def test_an_unknown_form_names_the_known() -> None:
    for loss in (contrastive_loss, cooccurrence_loss):
        with pytest.raises(ValueError, match="there are code, paper"):
            loss(numbers(1, 2, 2), numbers(1, 2, 2), form="released")  # type: ignore[arg-type]
