"""The parts of objectives, against what comes out on paper."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.losses import (
    ClassBalance,
    distillation_loss,
    draw_mixup,
    labels_of_clips,
    mixup_loss,
    segment_loss,
    smoothed,
    video_loss,
    with_background,
)
from avvp_pipe.stages.blocks.training import seeded
from avvp_pipe.stages.parsers.objectives import SharedObjective, shared_terms
from avvp_pipe.stages.parsers.records import Batch, Outputs

LENGTHS = torch.tensor([2, 1])
VALID = torch.tensor([[True, True], [True, False]])


def outputs(columns: int = 2) -> Outputs:
    """Of two clips, of two seconds and of one; what is beyond is NaN in no output but large."""
    draw = torch.Generator().manual_seed(0)
    probs = [torch.rand(2, columns, generator=draw) for _ in range(3)]
    logits = [torch.randn(2, 2, columns, generator=draw) for _ in range(2)]
    features = [torch.randn(2, 2, 3, generator=draw) for _ in range(2)]
    return Outputs(*probs, *logits, *features)


def batch(**targets: Tensor) -> Batch:
    draw = torch.Generator().manual_seed(1)
    given = targets or {name: torch.rand(2, 2, 2, generator=draw) for name in ("audio", "visual")}
    return Batch({}, torch.tensor([[True, False], [True, True]]), LENGTHS, given)


def model(columns: int = 2) -> nn.Module:
    with seeded(2):
        return nn.ModuleDict({"classifier": nn.Linear(3, columns)})


def classified(columns: int = 2) -> Any:
    return SimpleNamespace(classifier=model(columns)["classifier"])  # type: ignore[index]


def test_a_video_term_is_the_mean_cross_entropy_of_clips_and_classes() -> None:
    probabilities, weak = torch.tensor([[0.5, 0.8], [1.2, 0.0]]), torch.tensor([[True, False], [True, False]])
    parts = [-math.log(0.5), -math.log(0.2), -math.log(1 - 1e-7), -math.log(1 - 1e-7)]
    assert video_loss(probabilities, weak).item() == pytest.approx(sum(parts) / 4, rel=1e-5)
    assert video_loss(torch.tensor([[math.nan, 0.5]]), weak[:1]).isnan(), "the training loop tells where"


def test_hans_guided_loss_smooths_what_is_seen_and_not_what_is_heard() -> None:
    said, given = outputs(), batch()
    terms = shared_terms(model(), said, given, SharedObjective(video="guided", segment="none"))
    assert set(terms) == {"video", "audio_video", "visual_video"}
    weak = given.weak.float()
    assert smoothed(weak, 1.0).tolist() == weak.tolist()
    assert smoothed(weak, 0.9)[0].tolist() == pytest.approx([0.95, 0.05])
    assert torch.equal(terms["audio_video"], video_loss(said.audio_video_probs, weak))
    assert torch.equal(terms["visual_video"], video_loss(said.visual_video_probs, 0.9 * weak + 0.05))
    wider = SharedObjective(video="guided", segment="none", audio_smoothing=0.5)
    changed = shared_terms(model(), said, given, wider)["audio_video"]
    assert changed.item() == pytest.approx(video_loss(said.audio_video_probs, 0.5 * weak + 0.25).item())


def test_global_labels_are_the_highest_of_real_seconds() -> None:
    targets = torch.tensor([[[0.1, 0.9], [0.4, 0.2]], [[0.3, 0.0], [1.0, 1.0]]])
    assert labels_of_clips(targets, VALID).tolist() == [pytest.approx([0.4, 0.9]), pytest.approx([0.3, 0.0])]
    said, given = outputs(), batch(audio=targets, visual=targets)
    terms = shared_terms(model(), said, given, SharedObjective(video="none", segment="global"))
    assert terms["segment_audio"] == video_loss(said.audio_video_probs, labels_of_clips(targets, VALID))
    assert terms["segment_visual"] == video_loss(said.visual_video_probs, labels_of_clips(targets, VALID))


def test_distillation_is_the_divergence_from_the_teacher_in_real_seconds() -> None:
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]], [[1.0, 1.0], [99.0, -99.0]]])
    teacher = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.5, 0.5]]])
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert distillation_loss(logits, teacher, VALID).item() == pytest.approx((first + math.log(2) + 0) / 3)


def test_background_is_on_where_no_class_is() -> None:
    targets = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.3, 0.6], [0.0, 0.0]]])
    wanted = [[[1, 0, 0], [0, 0, 1]], [[0.3, 0.6, 0.4], [0, 0, 1]]]
    torch.testing.assert_close(with_background(targets), torch.tensor(wanted))


def test_with_a_column_for_background_video_terms_leave_it_out_and_seconds_do_not() -> None:
    said, given = outputs(columns=3), batch()
    objective = SharedObjective(background=True, mixup=True)
    with seeded(5):
        terms = shared_terms(classified(3), said, given, objective)
    assert torch.equal(terms["video"], video_loss(said.video_probs[:, :2], given.weak))
    targets = with_background(given.targets["audio"])
    assert torch.equal(terms["segment_audio"], segment_loss(said.audio_logits, targets, valid=VALID))
    with seeded(5):
        draw = draw_mixup(3)
        mixed = mixup_loss(said.audio_features[VALID], targets[VALID], draw, classified(3).classifier)
    assert torch.equal(terms["mixup_audio"], mixed)


def test_mixup_can_take_other_labels_than_seconds_do() -> None:
    said, soft = outputs(), batch().targets
    hard = {f"{name}_mixed": (array > 0.5).float() for name, array in soft.items()}
    with seeded(5):
        both = shared_terms(classified(), said, batch(**soft, **hard), SharedObjective(mixup=True))
    with seeded(5):
        alone = shared_terms(classified(), said, batch(**soft), SharedObjective(mixup=True))
    assert torch.equal(both["segment_audio"], alone["segment_audio"])
    assert both["mixup_audio"] != alone["mixup_audio"]
    with seeded(5):
        wanted = mixup_loss(
            said.audio_features[VALID], hard["audio_mixed"][VALID], draw_mixup(3), classified().classifier
        )
    assert torch.equal(both["mixup_audio"], wanted)


def test_re_weighting_multiplies_named_and_other_classes() -> None:
    said, given = outputs(), batch()
    balance = {name: ClassBalance(3.0, 0.5) for name in ("audio", "visual")}
    found = shared_terms(model(), said, given, SharedObjective(balance=balance))["segment_visual"]
    entropy = nn.functional.binary_cross_entropy_with_logits(
        said.visual_logits, given.targets["visual"], reduction="none"
    )
    weighted = entropy * torch.where(given.weak, 3.0, 0.5)[:, None]
    assert found.item() == pytest.approx(weighted[VALID].mean().item())


def test_the_asymmetric_loss_can_stand_for_the_cross_entropy_of_clips() -> None:
    said, given = outputs(), batch()
    found = shared_terms(model(), said, given, SharedObjective(video_loss="asymmetric", segment="none"))["video"]
    total = 0.0
    for probability, on in zip(said.video_probs.flatten().tolist(), given.weak.flatten().tolist(), strict=True):
        absent = min(1 - probability + 0.05, 1)
        right = probability if on else absent
        total -= (1 - right) * math.log(right)
    assert found.item() == pytest.approx(total, rel=1e-5)


def test_mixup_of_a_parser_without_one_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match="mixup needs a parser with one classifier, and Identity has none"):
        shared_terms(nn.Identity(), outputs(), batch(), SharedObjective(mixup=True))


@pytest.mark.parametrize("background", [False, True])
def test_the_mean_logit_of_all_seconds_and_both_modalities_against_weak_labels(background: bool) -> None:
    """VALOR's baseline on AVE, eq. 11; a clip without any class is background."""
    said = outputs(2 + background)
    weak = torch.tensor([[True, False], [False, False]])
    labels = [[1, 0, 0], [0, 0, 1]]
    given = Batch({}, weak, LENGTHS, {})
    parts = []
    for clip, length in enumerate(LENGTHS.tolist()):
        for column in range(2 + background):
            logits = [
                one[clip, second, column].item()
                for one in (said.audio_logits, said.visual_logits)
                for second in range(length)
            ]
            probability = 1 / (1 + math.exp(-sum(logits) / len(logits)))
            parts.append(-math.log(probability if labels[clip][column] else 1 - probability))
    found = shared_terms(model(2), said, given, SharedObjective(video="mean", background=background))
    assert set(found) == {"video"}
    assert found["video"].item() == pytest.approx(sum(parts) / len(parts), rel=1e-5)
