"""CoLeaF's references and anchor, against what comes out on paper."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from avvp_pipe.stages.parsers.coleaf import CoLeaF
from avvp_pipe.stages.parsers.coleaf_anchor import Anchor, CmpaeHead, without_other
from avvp_pipe.stages.parsers.coleaf_reference import Reference
from avvp_pipe.stages.parsers.han import Han, Network
from tests.coleaf_world import (
    CLASSES,
    MODALITIES,
    SEGMENTS,
    SIZES,
    all_terms,
    coleaf,
    moment,
    network,
    numbers,
    streams,
)

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
