import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from avvp_pipe.stages.blocks.losses import segment_loss, video_loss
from avvp_pipe.stages.blocks.training import Fitted, Grouped, Optimiser, StepSchedule, fit
from avvp_pipe.stages.parsers import coleaf_losses as losses
from avvp_pipe.stages.parsers.coleaf import METHOD, CoLeaF, CoLeafNetwork, Switches, terms
from avvp_pipe.stages.parsers.coleaf_anchor import Anchor, CmpaeHead, without_other
from avvp_pipe.stages.parsers.coleaf_labels import modality_labels
from avvp_pipe.stages.parsers.coleaf_reference import Modality, Reference
from avvp_pipe.stages.parsers.han import Han, Network, predict
from avvp_pipe.stages.parsers.recipes import PUBLISHED, settled_recipe
from avvp_pipe.stages.parsers.records import Batch, Moment, Outputs

MODALITIES: tuple[Modality, Modality] = ("audio", "visual")
GROUPS = ("reference_audio", "reference_visual", "anchor")
CLASSES, SEGMENTS = 3, 4
SIZES: dict[str, Any] = {
    "classes": CLASSES,
    "width": 8,
    "heads": 1,
    "ffn": 12,
    "dropout": 0.0,
    "head_dropout": 0.0,
    "audio_width": 5,
    "visual_width": 6,
    "motion_width": 4,
}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(**changes: Any) -> CoLeafNetwork:
    return CoLeafNetwork(**(SIZES | changes))


def coleaf(**changes: Any) -> CoLeaF:
    """In training mode, without any dropout, with layer norms that treat features unalike and sure references."""
    torch.manual_seed(0)
    model = CoLeaF(network(**changes))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.LayerNorm):
            module.weight.data.uniform_(0.5, 1.5)
    for reference in (model.reference_audio, model.reference_visual):
        reference.classifier.weight.data *= 5
    return model.train()


def streams(clips: int = 4, frames: int = 2, seed: int = 0) -> dict[str, Tensor]:
    return {
        "audio": numbers(clips, SEGMENTS, 5, seed=seed),
        "visual": numbers(clips, frames * SEGMENTS, 6, seed=seed + 1),
        "motion": numbers(clips, SEGMENTS, 4, seed=seed + 2),
    }


def batch(targets: bool = False, clips: int = 4) -> Batch:
    weak = numbers(clips, CLASSES, seed=9) > 0
    weak[0] = True
    labels = {
        name: (numbers(clips, SEGMENTS, CLASSES, seed=seed) > 0).float() for seed, name in ((3, "audio"), (4, "visual"))
    }
    lengths = torch.tensor([SEGMENTS, 2, 3, SEGMENTS] * (clips // 4))
    return Batch(streams(clips), weak, lengths, labels if targets else {})


def moment(epoch: int, number: int = 0, batches: int = 5) -> Moment:
    return Moment(epoch, 10, number / batches, (epoch - 1) * batches + number)


def all_terms(model: CoLeaF, when: Moment, given: Batch | None = None, **switches: Any) -> dict[str, dict[str, Tensor]]:
    """Without any step in between."""
    torch.manual_seed(1)
    return {name: dict(found) for name, found in terms(model, given or batch(), when, Switches(**switches))}


def gradients(model: CoLeaF, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the sum of a group's terms; zeros where none reaches."""
    named = dict(model.named_parameters())
    total = torch.stack(tuple(found.values())).sum()
    values = torch.autograd.grad(total, tuple(named.values()), allow_unused=True, retain_graph=True)
    return {
        name: torch.zeros_like(parameter) if value is None else value
        for (name, parameter), value in zip(named.items(), values, strict=True)
    }


# The network


def test_the_three_groups_hold_every_parameter_once_and_references_come_first() -> None:
    model = coleaf()
    groups = model.parameter_groups()
    assert tuple(groups) == GROUPS
    held = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


def test_released_sizes_are_the_defaults() -> None:
    with torch.device("meta"):
        model = CoLeaF(CoLeafNetwork())

    def linear(source: int, target: int) -> int:
        return source * target + target

    attention, ffn, norms = linear(512, 3 * 512) + linear(512, 512), 2 * linear(512, 512), 4 * 512
    visual = linear(2048, 512) + linear(512, 512) + linear(1024, 512)
    reference = attention + ffn + norms + 2 * linear(512, 25) + 25 * 512
    head = 2 * linear(512, 25) + linear(512, 50) + 3 * linear(512, 512) + linear(512, 25)
    sizes = (
        linear(128, 512) + reference,
        visual + reference,
        linear(128, 512) + visual + 2 * attention + ffn + norms + head,
    )
    found = tuple(sum(each.numel() for each in group) for group in model.parameter_groups().values())
    assert found == sizes


@pytest.mark.parametrize("anchor", ["cmpae", "han"])
def test_only_the_anchor_is_needed_to_parse(anchor: str) -> None:
    model = coleaf(anchor=anchor).eval()
    before = model(streams())
    for name in ("reference_audio", "reference_visual"):
        setattr(model, name, None)
    for value, expected in zip(model(streams()), before, strict=True):
        assert torch.equal(value, expected)


@pytest.mark.parametrize("anchor", ["cmpae", "han"])
@pytest.mark.parametrize("frames", [1, 2])
def test_a_padded_clip_is_parsed_as_it_is_alone_whatever_the_padding_holds(anchor: str, frames: int) -> None:
    model, lengths = coleaf(anchor=anchor).eval(), [4, 2, 3]
    given = streams(3, frames)
    for stream in given.values():
        stream[1, stream.shape[1] // 2 :] = torch.nan
    with torch.no_grad():
        together = model(given, torch.tensor(lengths))
        references = [model.reference(each)(given, torch.tensor(lengths)) for each in MODALITIES]
        for clip, length in enumerate(lengths):
            alone = {name: each[clip : clip + 1, : length * each.shape[1] // 4] for name, each in given.items()}
            pairs = list(zip(together, model(alone), strict=True))
            for reference, modality in zip(references, MODALITIES, strict=True):
                pairs += zip(reference, model.reference(modality)(alone), strict=True)
            for found, expected in pairs:
                assert found.isfinite().all()
                own = found[clip : clip + 1]
                own = own if own.ndim == 2 else own[:, :length]
                torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)


def test_without_motion_features_come_as_they_are() -> None:
    model = coleaf(motion_width=0).eval()
    given = {name: stream for name, stream in streams().items() if name != "motion"}
    assert model(given).visual_logits.shape == (4, SEGMENTS, CLASSES)
    assert network(motion_width=0).widths() == {"audio": 5, "visual": 6}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"motion": None}, "CoLeaF reads audio, visual, motion"),
        ({"audio": (4, 4, 6)}, "audio wants 4 clips of 4 seconds and width 5"),
        ({"visual": (4, 6, 6)}, "a multiple of that many"),
        ({"motion": (4, 8, 4)}, "motion wants"),
        ({"motion": (3, 4, 4)}, "motion wants 4 clips"),
    ],
)
def test_streams_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    given = streams()
    for name, shape in change.items():
        del given[name]
        if shape is not None:
            given[name] = numbers(*shape)
    with pytest.raises(ValueError, match=message):
        coleaf()(given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anchor": "uwav"}, "no anchor 'uwav'; there are cmpae, han"),
        ({"classes": 0}, "at least 1"),
        ({"cross_share": 1.5}, r"shares in \[0, 1\]"),
        ({"head_dropout": 1.0}, r"dropout is in \[0, 1\)"),
    ],
)
def test_a_network_that_cannot_be_built_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**changes)


# The reference


def tokens_gradient(reference: Reference) -> float:
    """The largest that reaches a class token from its own class."""
    said = reference(streams()).class_probs
    (gradient,) = torch.autograd.grad(said[:, 0].sum(), reference.class_tokens)
    return float(gradient.abs().max())


def test_class_tokens_start_at_zero_and_begin_to_learn_once_the_norm_tells_features_apart() -> None:
    torch.manual_seed(0)
    reference = Reference(network(), "audio")
    assert (reference.class_tokens == 0).all()
    said = reference(streams())
    assert said.class_probs is not None
    torch.testing.assert_close(said.class_probs, torch.full((4, CLASSES), 0.5))
    assert tokens_gradient(reference) < 1e-6
    reference.layer.norm2.weight.data.uniform_(0.5, 1.5)
    assert tokens_gradient(reference) > 1e-3


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_a_reference_weighs_seconds_that_looked_at_each_other_and_at_the_tokens(modality: Any) -> None:
    model = coleaf().eval()
    given = streams()
    reference: Any = model.reference(modality)
    reference.class_tokens.data = numbers(CLASSES, 8, seed=5)
    if modality == "audio":
        seconds = reference.enter.project(given["audio"])
    else:
        means = given["visual"].view(4, SEGMENTS, 2, 6).mean(dim=2)
        seconds = reference.enter.fuse(
            torch.cat((reference.enter.frames(means), reference.enter.motion(given["motion"])), 2)
        )
    # The paper's order: tokens after the seconds.
    everything = torch.cat((seconds, reference.class_tokens.expand(4, -1, -1)), dim=1)
    theirs = nn.TransformerEncoderLayer(8, 1, 12, 0.0, batch_first=True)
    theirs.load_state_dict(reference.layer.state_dict())
    looked = theirs(everything)
    said = reference(given)
    torch.testing.assert_close(said.features, looked[:, :SEGMENTS], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(said.class_probs, looked[:, SEGMENTS:].mean(dim=2).sigmoid(), rtol=1e-5, atol=1e-5)
    for clip, label in ((0, 0), (3, 2)):
        times = [reference.over_time(second)[label].item() for second in said.features[clip]]
        probs = [1 / (1 + math.exp(-reference.classifier(second)[label].item())) for second in said.features[clip]]
        shares = [math.exp(time) / sum(map(math.exp, times)) for time in times]
        expected = sum(share * prob for share, prob in zip(shares, probs, strict=True))
        assert said.video_probs[clip, label].item() == pytest.approx(expected, rel=1e-5)


def test_dropout_precedes_both_classifiers_and_the_visual_weights_over_time_only() -> None:
    model = CoLeaF(network(head_dropout=0.5)).train()
    dropped = {}
    for modality in MODALITIES:
        reference = model.reference(modality)
        for name in ("classifier", "over_time"):

            def remember(_: nn.Module, inputs: tuple[Tensor, ...], key: str = f"{modality} {name}") -> None:
                dropped[key] = bool((inputs[0] == 0).any())

            getattr(reference, name).register_forward_pre_hook(remember)
        reference(streams())
    assert dropped == {
        "audio classifier": True,
        "audio over_time": False,
        "visual classifier": True,
        "visual over_time": True,
    }


def test_without_class_tokens_there_is_nothing_to_say_of_them() -> None:
    model = coleaf(class_tokens=False)
    assert model.reference("audio")(streams()).class_probs is None
    assert not any("class_tokens" in name for name, _ in model.named_parameters())
    for found in all_terms(model, moment(1)).values():
        assert not any(name.startswith("tokens") for name in found)


# The anchor


def test_the_anchor_han_is_han() -> None:
    """HAN's own module with the same weights, both streams reading each other's old state."""
    model = coleaf(anchor="han", layers=2).eval()
    sizes = {name: SIZES[name] for name in SIZES if name != "head_dropout"}
    forms: dict[str, Any] = {"audio_projection": "linear", "visual_fusion": "separate", "order": "symmetric"}
    han = Han(Network(layers=2, **sizes, **forms)).eval()
    ours = {
        "audio_in.project.": "audio_in.",
        "visual_in.frames.": "visual_in.picture.",
        "visual_in.motion.": "visual_in.motion.",
        "visual_in.fuse.": "visual_in.fusion.",
        "layers.": "encoder.layers.",
        "head.": "",
    }
    state = {}
    for name, tensor in model.anchor.state_dict().items():
        old = next(prefix for prefix in ours if name.startswith(prefix))
        state[ours[old] + name.removeprefix(old)] = tensor
    missing, unexpected = han.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("final_norm" in name for name in missing)
    for found, expected in zip(model(streams()), han(streams()), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def hand_made_head() -> CmpaeHead:
    """One feature, one class, all Linear layers the identity, weights over time even."""
    head = CmpaeHead(network(width=1, classes=1)).eval()
    for name, parameter in head.named_parameters():
        parameter.data.fill_(0.0 if name.endswith("bias") or name.startswith("over_time") else 1.0)
    return head


def test_the_head_pools_evidence_for_presence_and_absence_and_asks_the_global_branch() -> None:
    heard, seen = torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[[2.0], [0.0]]])
    projected = torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[[2.0], [-2.0]]])
    outputs, unsure = hand_made_head()(projected, (heard, seen), torch.ones(1, 2, dtype=torch.bool))

    def alpha(logit: float) -> float:
        return math.exp(logit / 0.8) + 1

    def sigmoid(logit: float) -> float:
        return 1 / (1 + math.exp(-logit))

    # Both together: 3, -1, of which the leaky 3, -0.2 join each modality: absence 4, -1.2 and 5, -0.2.
    for logits, present, absent in (
        (outputs.audio_logits, (1, -1), (4, -1.2)),
        (outputs.visual_logits, (2, 0), (5, -0.2)),
    ):
        expected = [math.log(alpha(on) / alpha(off)) for on, off in zip(present, absent, strict=True)]
        assert logits.flatten().tolist() == pytest.approx(expected, rel=1e-5)
    # Over time, the means of the evidences: presence 0 and 1, absence 1.4 and 2.4.
    assert outputs.audio_video_probs.item() == pytest.approx(alpha(0) / (alpha(0) + alpha(1.4)))
    assert outputs.visual_video_probs.item() == pytest.approx(alpha(1) / (alpha(1) + alpha(2.4)))
    assert unsure.audio.item() == pytest.approx(2 / (alpha(0) + alpha(1.4)))
    # Globally, leaky sums 1 + 2 and -0.2 - 0.4.
    assert outputs.video_probs.item() == pytest.approx((sigmoid(3) + sigmoid(-0.6)) / 2)
    assert unsure.video.item() == pytest.approx(1 / alpha((3 - 0.6) / 2))


def test_each_class_weighs_its_evidence_for_presence_and_for_absence_by_itself() -> None:
    torch.manual_seed(0)
    head, features = (
        CmpaeHead(network(classes=2, head_dropout=0.0)).eval(),
        (numbers(1, 3, 8), numbers(1, 3, 8, seed=1)),
    )
    head.over_time.weight.data *= 10
    outputs, _ = head(features, features, torch.ones(1, 3, dtype=torch.bool))
    evidences = head.evidences(features)
    for m, probs in enumerate((outputs.audio_video_probs, outputs.visual_video_probs)):
        for label in range(2):
            alphas = []
            for presence in range(2):
                # Released order: presence and absence of the first class, then of the second.
                times = [head.over_time(features[m][0, t])[2 * label + presence].item() for t in range(3)]
                shares = [math.exp(time) / sum(map(math.exp, times)) for time in times]
                logit = sum(share * evidences[0, t, m, label, presence].item() for t, share in enumerate(shares))
                alphas.append(math.exp(logit / 0.8) + 1)
            assert probs[0, label].item() == pytest.approx(alphas[0] / sum(alphas), rel=1e-5)


def test_dropout_of_the_anchor_precedes_the_head_for_visual_features_only() -> None:
    torch.manual_seed(0)
    anchor: Any = Anchor(network(head_dropout=0.5)).train()
    dropped: list[Tensor] = []
    anchor.head.presence.register_forward_pre_hook(
        lambda _, inputs: dropped.append((inputs[0] == 0).any(dim=(0, 1, 3)))
    )
    outputs = anchor(streams()).outputs
    assert dropped[0].tolist() == [False, True]
    assert not (outputs.visual_features == 0).any()


def test_the_global_branch_reads_features_from_before_any_attention() -> None:
    model: Any = coleaf()
    before = model(streams())
    model.anchor.layers[0].linear2.weight.data += numbers(8, 12)
    after = model(streams())
    assert torch.equal(before.video_probs, after.video_probs)
    assert not torch.allclose(before.audio_video_probs, after.audio_video_probs)


def test_features_are_four_fifths_with_and_one_fifth_without_the_other_modality() -> None:
    given = streams()
    anchor: Any = coleaf(layers=2).anchor
    audio, visual = anchor.audio_in(given), anchor.visual_in(given, SEGMENTS)
    alone, crossed = (audio, visual), (audio, visual)
    for layer in anchor.layers:
        alone = without_other(layer, alone[0]), without_other(layer, alone[1])
        crossed = layer(*crossed), layer(crossed[1], crossed[0])
    outputs = anchor(given).outputs
    torch.testing.assert_close(outputs.audio_features, 0.8 * crossed[0] + 0.2 * alone[0])
    torch.testing.assert_close(outputs.visual_features, 0.8 * crossed[1] + 0.2 * alone[1])
    torch.testing.assert_close(anchor(given, cross=False).outputs.audio_features, alone[0])


def test_a_modality_alone_does_not_depend_on_the_other() -> None:
    for form in ("cmpae", "han"):
        anchor = coleaf(anchor=form).anchor
        one, other = streams(), streams(seed=20) | {"audio": streams()["audio"]}
        for cross in (False, True):
            first, second = (anchor(each, cross=cross).outputs.audio_features for each in (one, other))
            assert torch.allclose(first, second) is not cross


def test_at_test_seven_tenths_are_said_by_mixed_features_and_the_rest_by_those_alone() -> None:
    anchor, given = coleaf().anchor, streams()
    mixed, alone = anchor(given).outputs, anchor(given, cross=False).outputs
    tested = anchor.eval()(given).outputs
    for name in ("audio_video_probs", "visual_video_probs"):
        expected = 0.7 * getattr(mixed, name) + 0.3 * getattr(alone, name)
        torch.testing.assert_close(getattr(tested, name), expected)
    for name in ("audio_logits", "visual_logits"):
        expected = 0.7 * getattr(mixed, name).sigmoid() + 0.3 * getattr(alone, name).sigmoid()
        torch.testing.assert_close(getattr(tested, name).sigmoid(), expected)


@pytest.mark.parametrize(("change", "training"), [({"cross_share": 0.5}, True), ({"test_share": 0.5}, False)])
def test_the_shares_of_the_anchor_are_switches(change: dict[str, Any], training: bool) -> None:
    one, other = (coleaf(**each).anchor.train(training)(streams()).outputs for each in ({}, change))
    assert not torch.allclose(one.audio_logits, other.audio_logits)


def test_frames_pass_the_released_elu_before_their_mean() -> None:
    given = streams()
    anchor: Any = coleaf().anchor
    frames = functional.elu(anchor.visual_in.frames[0](given["visual"])).view(4, SEGMENTS, 2, 8).mean(dim=2)
    motion = functional.elu(anchor.visual_in.motion[0](given["motion"]))
    expected = functional.elu(anchor.visual_in.fuse[0](torch.cat((frames, motion), dim=2)))
    torch.testing.assert_close(anchor.visual_in(given, SEGMENTS), expected)


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


MANY = batch(clips=64)
"""So many that some probability lies between any two thresholds that matter."""


def said(model: CoLeaF) -> tuple[Outputs, dict[Modality, Any]]:
    given = MANY
    with torch.no_grad():
        references = {each: model.reference(each)(given.streams, given.lengths) for each in MODALITIES}
        return model.anchor(given.streams, given.lengths).outputs, references


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


def unit(features: Tensor) -> Tensor:
    return features / (features**2).sum(dim=-1, keepdim=True).sqrt()


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


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("anchor", ["cmpae", "han"])
def test_each_group_teaches_itself_and_no_other(form: str, anchor: str) -> None:
    model = coleaf(anchor=anchor)
    for group, found in all_terms(model, moment(4), form=form).items():
        reached = {name.split(".")[0] for name, value in gradients(model, found).items() if value.abs().sum() > 0}
        assert reached == {group}


def test_every_weight_of_a_group_is_taught() -> None:
    model = coleaf()
    for group, found in all_terms(model, moment(2)).items():
        for name, value in gradients(model, found).items():
            # Nothing in a softmax depends on what is added to all its scores.
            if name.startswith(group + ".") and not name.endswith(("over_time.bias", "in_proj_bias")):
                assert value.abs().max() > 0, name


@pytest.mark.parametrize(
    ("epoch", "switches", "groups"),
    [
        (4, {"form": "paper"}, GROUPS),
        (2, {"contrastive": "plain"}, ("anchor",)),
        (2, {"contrastive": "off"}, ("anchor",)),
        (2, {"cooccurrence": False}, ("anchor",)),
        (4, {"self_distillation": False}, ("reference_audio", "reference_visual")),
        (2, {"audio_noise": "1 1 1"}, ("reference_audio", "anchor")),
        (2, {"visual_noise": "1 1 1"}, ("reference_visual", "anchor")),
    ],
)
def test_each_switch_changes_the_gradients_of_its_groups_and_no_others(
    epoch: int, switches: dict[str, Any], groups: tuple[str, ...]
) -> None:
    model = coleaf()
    plain, switched = all_terms(model, moment(epoch)), all_terms(model, moment(epoch), **switches)
    for group in GROUPS:
        one, other = gradients(model, plain[group]), gradients(model, switched[group])
        changed = max((one[name] - other[name]).abs().max().item() for name in one)
        assert (changed > 1e-7) is (group in groups), group


@pytest.mark.parametrize(
    ("change", "group"), [({"class_tokens": False}, "reference_audio"), ({"cross_share": 0.5}, "anchor")]
)
def test_each_switch_of_the_network_changes_the_gradients_of_the_weights_that_remain(
    change: dict[str, Any], group: str
) -> None:
    one, other = coleaf(), coleaf(**change)
    shared = other.state_dict().keys()
    other.load_state_dict({name: tensor for name, tensor in one.state_dict().items() if name in shared})
    # The term that both have and that the switch reaches through the network alone.
    term = "audio" if group == "anchor" else group
    before, after = (gradients(model, {term: all_terms(model, moment(1))[group][term]}) for model in (one, other))
    assert max((before[name] - after[name]).abs().max().item() for name in after) > 1e-4


def test_the_noise_warm_up_is_a_switch_that_counts_in_the_first_epoch() -> None:
    model = coleaf()
    ratios: dict[str, Any] = {"visual_noise": "1 1 1"}
    late = moment(1, 4)
    plain, code, linear = (
        all_terms(model, late, **each)["reference_visual"]["reference_visual"].item()
        for each in (dict[str, Any](), ratios, ratios | {"noise_warmup": "linear"})
    )
    assert code == plain
    assert linear != pytest.approx(plain)


def test_labels_of_seconds_are_learnt_by_the_anchor_where_there_are_any() -> None:
    model, given = coleaf(), batch(targets=True)
    found = all_terms(model, moment(2), given, segment_weight=0.5)
    outputs = model.anchor(given.streams, given.lengths).outputs
    valid = torch.arange(SEGMENTS) < given.lengths[:, None]
    for modality in ("audio", "visual"):
        logits = getattr(outputs, f"{modality}_logits")
        expected = 0.5 * segment_loss(logits, given.targets[modality], valid=valid)
        torch.testing.assert_close(found["anchor"][f"segment_{modality}"], expected)
    without = all_terms(model, moment(2))
    assert found["anchor"].keys() - without["anchor"].keys() == {"segment_audio", "segment_visual"}
    assert found["reference_audio"].keys() == without["reference_audio"].keys()


def test_the_anchor_learns_from_references_that_have_made_their_step() -> None:
    """The generator is asked for a group only when the groups before it are through."""
    model, given = coleaf(), batch()
    before = all_terms(model, moment(2), given)["anchor"]
    asked = terms(model, given, moment(2), Switches())
    next(asked)
    next(asked)
    for parameter in model.reference_visual.parameters():
        parameter.data += 0.3
    _, after = next(asked)
    assert after["contrastive_visual"].item() != pytest.approx(before["contrastive_visual"].item())
    fresh = all_terms(model, moment(2), given)["anchor"]
    for name in after:
        torch.testing.assert_close(after[name], fresh[name])
    assert next(asked, None) is None


def test_global_branch_and_modalities_teach_each_other_by_turns_within_each_epoch() -> None:
    model = coleaf()
    # Five batches an epoch: the turns start anew with each of them.
    found = {
        (epoch, number): all_terms(model, moment(epoch, number))["anchor"]["mutual"].item()
        for epoch in (1, 2)
        for number in range(5)
    }
    even, odd = found[1, 0], found[1, 1]
    assert even != pytest.approx(odd)
    for (_, number), value in found.items():
        assert value == pytest.approx(odd if number % 2 else even)


def test_the_batch_that_is_padded_says_what_its_clips_say() -> None:
    """Losses that are means: the mean of a padded batch is that of its clips one by one."""
    model, given = coleaf(), batch()
    together = all_terms(model, moment(2), given)["anchor"]
    alone = []
    for clip in range(4):
        length = int(given.lengths[clip])
        cut = {name: each[clip : clip + 1, : length * each.shape[1] // 4] for name, each in given.streams.items()}
        one = Batch(cut, given.weak[clip : clip + 1], given.lengths[clip : clip + 1])
        alone.append(all_terms(model, moment(2), one)["anchor"])
    for name in ("audio", "video", "nce", "mutual", "contrastive_audio", "contrastive_visual"):
        mean = sum(each[name] for each in alone) / 4
        torch.testing.assert_close(together[name], mean, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"form": "released"}, "there are code, paper"),
        ({"contrastive": "on"}, "there are event, plain, off"),
        ({"noise_warmup": "none"}, "there are code, linear"),
        ({"form": "paper", "audio_noise": "0 0 0"}, "does not denoise"),
    ],
)
def test_switches_that_do_not_exist_are_refused(switches: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Switches(**switches)


def taught(form: str, anchor: str) -> Iterator[float]:
    """Anchor's video loss over some steps of the released optimisers, with the released dropout."""
    torch.manual_seed(0)
    model, given = CoLeaF(network(anchor=anchor, dropout=0.1, head_dropout=0.5)).train(), batch()
    adams = {name: torch.optim.Adam(each, lr=5e-3) for name, each in model.parameter_groups().items()}
    for step in range(40):
        when = Moment(1 + step // 8, 5, step % 8 / 8, step)
        for group, found in terms(model, given, when, Switches(form=form)):  # type: ignore[arg-type]
            adams[group].zero_grad()
            torch.stack(tuple(found.values())).sum().backward()  # type: ignore[no-untyped-call]
            adams[group].step()
        yield found["video"].item()


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("anchor", ["cmpae", "han"])
def test_the_anchor_learns_the_labels_of_a_batch_in_either_form(form: str, anchor: str) -> None:
    first, *_, last = taught(form, anchor)
    assert last < 0.7 * first


def fitted(checkpoint: Path | None = None, killed_after: int | None = None) -> Fitted:
    """Four epochs of two batches with the released optimisers and dropout."""
    torch.manual_seed(0)
    model, given = CoLeaF(network(dropout=0.1, head_dropout=0.5)), batch(clips=8)

    def of_rows(rows: Tensor, when: Any) -> Iterator[tuple[str, Any]]:
        some = {name: stream[rows] for name, stream in given.streams.items()}
        return terms(model, Batch(some, given.weak[rows], given.lengths[rows]), when, Switches())

    def kill(record: dict[str, float]) -> None:
        if record["epoch"] == killed_after:
            raise KeyboardInterrupt

    return fit(
        model,
        Grouped(of_rows, model.parameter_groups()),
        clips=8,
        batch_size=4,
        schedule=StepSchedule(epochs=4, peak=5e-3, every=2, factor=0.25),
        optimiser=Optimiser(form="adam", weight_decay=0.0, clip_norm=None),
        seed=1,
        checkpoint=checkpoint,
        progress=kill,
    )


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_killed_and_resumed_all_three_networks_end_as_if_nothing_had_happened(
    tmp_path: Path, killed_after: int
) -> None:
    whole, file = fitted(), tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fitted(file, killed_after)
    resumed = fitted(file)
    assert all(torch.equal(resumed.last[name], tensor) for name, tensor in whole.last.items())
    assert resumed.history == whole.history
    assert {"self_audio", "contrastive_visual", "mutual"} <= whole.history[3].keys()


def test_the_record_has_the_released_gates_and_recipe() -> None:
    def decided(heard: float, seen: float, second: float) -> tuple[bool, bool]:
        none, *clips = (torch.tensor([[value]], dtype=torch.float64) for value in (0.0, heard, seen))
        logits = torch.tensor([[[second]]], dtype=torch.float64).logit()
        outputs = Outputs(none, clips[0], clips[1], logits, logits, logits, logits)
        audio, visual = predict(outputs, **dataclasses.asdict(METHOD.gate))
        return bool(audio.item()), bool(visual.item())

    assert decided(0.52, 0.519, 0.251) == (True, False)
    assert decided(0.519, 0.52, 0.251) == (False, True)
    assert decided(0.9, 0.9, 0.249) == (False, False)
    assert METHOD.recipe.keys() <= PUBLISHED.keys()
    assert settled_recipe(METHOD, dict.fromkeys(PUBLISHED), labelled=False)["learning_rate"] == 5e-4
    assert isinstance(METHOD.build(network()), CoLeaF)
    assert METHOD.objective is terms
    assert isinstance(METHOD.switches, Switches)
    assert isinstance(Anchor(METHOD.network).head, CmpaeHead)
