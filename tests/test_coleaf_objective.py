"""Which terms CoLeaF minimises when, and how much each weighs."""

import pytest
import torch

from avvp_pipe.stages.blocks.losses import video_loss
from avvp_pipe.stages.parsers import coleaf_losses as losses
from avvp_pipe.stages.parsers.coleaf_labels import modality_labels
from tests.coleaf_world import GROUPS, MANY, MODALITIES, SEGMENTS, all_terms, coleaf, moment, said, unit

# What is minimised


CODE_TERMS: dict[int, dict[str, set[str]]] = {
    1: {
        "reference_audio": {"reference_audio", "tokens_audio"},
        "reference_visual": {"reference_visual", "tokens_visual"},
        "anchor": {"audio", "visual", "video", "nce", "mutual"},
    }
}
CODE_TERMS[2] = CODE_TERMS[1] | {
    "anchor": CODE_TERMS[1]["anchor"]
    | {f"{part}_{modality}" for part in ("contrastive", "cooccurrence") for modality in ("audio", "visual")}
}
CODE_TERMS[3] = CODE_TERMS[2]
CODE_TERMS[4] = CODE_TERMS[2] | {
    "reference_audio": {"reference_audio", "tokens_audio", "self_audio"},
    "reference_visual": {"reference_visual", "self_visual"},
}


@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_terms_of_the_released_code_come_with_the_epochs(epoch: int) -> None:
    found = all_terms(coleaf(), moment(epoch))
    assert {group: set(each) for group, each in found.items()} == CODE_TERMS[epoch]
    assert tuple(found) == GROUPS


def test_the_paper_has_all_its_terms_from_the_first_epoch() -> None:
    together = {f"{part}_{m}" for part in ("contrastive", "cooccurrence") for m in ("audio", "visual")}
    for anchor, own in (("han", {"video"}), ("cmpae", {"audio", "visual", "video", "nce", "mutual"})):
        found = all_terms(coleaf(anchor=anchor), moment(1), form="paper")
        assert {group: set(each) for group, each in found.items()} == {
            "reference_audio": {"reference_audio", "tokens_audio", "self_audio"},
            "reference_visual": {"reference_visual", "tokens_visual", "self_visual"},
            "anchor": own | together,
        }


@pytest.mark.parametrize("epoch", [3, 4])
def test_released_weights_of_the_references(epoch: int) -> None:
    model, given = coleaf(), MANY
    outputs, references = said(model)
    labels = dict(zip(("audio", "visual"), modality_labels(given.weak), strict=True))
    found = all_terms(model, moment(epoch), given)
    weights = {
        ("audio", 3): (1.0, 1.2, 0.0, 0.5),
        ("visual", 3): (1.0, 1.0, 0.0, 0.6),
        ("audio", 4): (0.5, 0.001, 0.5, 0.5),
        ("visual", 4): (0.5, 0.0, 0.5, 0.6),
    }
    for modality in ("audio", "visual"):
        video, tokens, own, threshold = weights[modality, epoch]
        reference = references[modality]
        guide = (getattr(outputs, f"{modality}_video_probs") >= threshold) * labels[modality]
        expected = {
            f"reference_{modality}": video * losses.asymmetric_loss(reference.video_probs, labels[modality]),
            f"tokens_{modality}": tokens * losses.asymmetric_loss(reference.class_probs, labels[modality]),
            f"self_{modality}": own * losses.asymmetric_loss(reference.video_probs, guide),
        }
        for name, value in found[f"reference_{modality}"].items():
            torch.testing.assert_close(value.detach(), expected[name])


def test_released_weights_of_the_anchor() -> None:
    model, given = coleaf(), MANY
    outputs, references = said(model)
    labels = dict(zip(("audio", "visual"), modality_labels(given.weak), strict=True))
    valid = torch.arange(SEGMENTS) < given.lengths[:, None]
    events = losses.event_weights(references["audio"].video_probs, references["visual"].video_probs)
    expected = {
        "audio": 2.0 * video_loss(outputs.audio_video_probs, labels["audio"]),
        "visual": 1.0 * video_loss(outputs.visual_video_probs, labels["visual"]),
        "video": 2.0 * video_loss(outputs.video_probs, given.weak),
        "nce": losses.contrastive_loss(unit(outputs.audio_features), unit(outputs.visual_features), valid=valid),
    }
    scales, sure = (0.009, 1.0), ((0.8, 0.1), (0.6, 0.4))
    for modality, weight, scale, (high, low) in zip(MODALITIES, events, scales, sure, strict=True):
        reference, own = references[modality], getattr(outputs, f"{modality}_video_probs")
        features = unit(getattr(outputs, f"{modality}_features"))
        contrast = losses.contrastive_loss(unit(reference.features), features, weight, valid=valid)
        targets = losses.confident_targets(own, reference.video_probs, labels[modality], high=high, low=low)
        expected[f"contrastive_{modality}"] = scale * contrast
        expected[f"cooccurrence_{modality}"] = 1e-4 * losses.cooccurrence_loss(own, targets)
    found = all_terms(model, moment(2), given)["anchor"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach(), value, msg=name)


def test_the_paper_adds_its_terms_as_they_are() -> None:
    model, given = coleaf(anchor="han"), MANY
    outputs, references = said(model)
    labels, valid = given.weak.float(), torch.arange(SEGMENTS) < given.lengths[:, None]
    heard, seen = (references[each].video_probs for each in ("audio", "visual"))
    events = losses.event_weights(heard, seen, form="paper")
    found = {
        name: value
        for group in all_terms(model, moment(1), given, form="paper").values()
        for name, value in group.items()
    }
    expected = {"video": video_loss(outputs.video_probs, given.weak)}
    for modality, weight in zip(MODALITIES, events, strict=True):
        reference, own = references[modality], getattr(outputs, f"{modality}_video_probs")
        features = unit(getattr(outputs, f"{modality}_features"))
        expected |= {
            f"reference_{modality}": video_loss(reference.video_probs, labels),
            f"tokens_{modality}": video_loss(reference.class_probs, labels),
            f"self_{modality}": video_loss(reference.video_probs, own > 0.5),
            f"contrastive_{modality}": losses.contrastive_loss(
                features, unit(reference.features), weight, valid=valid, form="paper"
            ),
            f"cooccurrence_{modality}": losses.cooccurrence_loss(own, reference.video_probs, form="paper"),
        }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach(), value, msg=name)
