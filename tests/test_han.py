from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.attention import HanEncoder, HanLayer, stack
from avvp_pipe.stages.blocks.losses import Mixup, class_balance, mixup_loss, segment_loss, video_loss
from avvp_pipe.stages.blocks.pooling import attentive_pooling
from avvp_pipe.stages.blocks.thresholds import class_minimum, soft_labels
from avvp_pipe.stages.blocks.weights import load_arrays
from avvp_pipe.stages.parsers.han import METHOD, Gate, Han, Network, Outputs, predict
from avvp_pipe.stages.parsers.uwav import from_released

Golden = dict[str, Tensor]
STREAMS = ("audio", "visual", "motion")


def han(**switches: Any) -> Han:
    sizes: dict[str, Any] = {"classes": 3, "width": 8, "heads": 2, "ffn": 12, "layers": 2, "dropout": 0.0}
    inputs = {"audio_width": 5, "visual_width": 6, "motion_width": 0}
    torch.manual_seed(0)
    return Han(Network(**(sizes | inputs | switches))).eval()


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parse(model: Han, *streams: Tensor, lengths: Tensor | None = None) -> Outputs:
    """Audio, visual and, of parsers that read it, motion."""
    names = STREAMS[: len(streams)]
    out: Outputs = model(dict(zip(names, streams, strict=True)), lengths)
    return out


@pytest.fixture(scope="module")
def golden(real_data: Path) -> Golden:
    """UWAV commit 15c9a8d in eval mode with random weights, torch 2.11 on CPU."""
    with np.load(real_data / "golden" / "uwav_han.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def released(golden: Golden) -> tuple[Han, Outputs]:
    width, heads, ffn, layers = (int(golden[name]) for name in ("hidden", "heads", "ffn", "layers"))
    network = Network(
        classes=5,
        width=width,
        heads=heads,
        ffn=ffn,
        layers=layers,
        audio_width=golden["audio"].shape[2],
        visual_width=golden["visual_2d"].shape[2],
        motion_width=8,
    )
    model = Han(network).eval()
    weights = {name.removeprefix("weights/"): golden[name] for name in golden if name.startswith("weights/")}
    load_arrays(model, from_released(weights))
    with torch.no_grad():
        return model, parse(model, golden["audio"], golden["visual_2d"], golden["visual_3d"])


def golden_soft(golden: Golden, modality: str) -> Tensor:
    """As released, a threshold of -inf is the lowest logit of the class in the batch, minus 1."""
    logits = golden[f"teacher_logits_{modality}"].numpy()
    thresholds, weak = golden[f"thresholds_{modality}"].numpy(), golden["weak"].bool().numpy()
    return torch.from_numpy(soft_labels(logits, thresholds, weak, floor=class_minimum(logits)))


@pytest.mark.real_data
def test_all_seven_outputs_are_those_of_the_released_parser(golden: Golden, released: tuple[Han, Outputs]) -> None:
    for name, value in released[1]._asdict().items():
        torch.testing.assert_close(value, golden[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.real_data
@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_every_loss_is_that_of_the_released_parser(
    golden: Golden, released: tuple[Han, Outputs], modality: str
) -> None:
    model, outputs = released
    logits, blended = (getattr(outputs, f"{modality}_{what}") for what in ("logits", "features"))
    hard, soft, short = golden[f"hard_{modality}"], golden_soft(golden, modality), modality[0]
    weights = class_balance(hard, strength=float(golden["W"])).weights(golden["weak"])
    mixup = Mixup(golden[f"mixup_lambda_{short}"].item(), golden[f"mixup_permutation_{short}"])
    with torch.no_grad():
        found = {
            "loss_video": video_loss(outputs.video_probs, golden["weak"]),
            f"loss_segment_{short}_hard": segment_loss(logits, hard),
            f"loss_segment_{short}_soft": segment_loss(logits, soft),
            f"loss_segment_{short}_soft_reweighted": segment_loss(logits, soft, weights=weights),
            f"loss_mixup_{short}": mixup_loss(blended.flatten(0, 1), soft.flatten(0, 1), mixup, model.classifier),
        }
    for name, value in found.items():
        assert value.item() == pytest.approx(golden[name].item(), abs=1e-5), name


def test_released_size_has_the_released_number_of_parameters() -> None:
    with torch.device("meta"):
        model = Han(Network())
    assert sum(parameter.numel() for parameter in model.parameters()) == 23_023_691


def test_as_first_published_it_has_the_weights_that_the_release_runs() -> None:
    with torch.device("meta"):
        sizes = {name: one.numel() for name, one in Han(METHOD.network).named_parameters()}
    # 4.57 of the release's 9.31 million; the final norms are among its parameters and never act.
    assert sum(size for name, size in sizes.items() if "final_norm" not in name) == 4_569_675
    assert (METHOD.network.layers, METHOD.network.heads, METHOD.network.ffn) == (1, 1, 512)
    assert METHOD.network.order == "symmetric"
    assert (METHOD.gate.gate, METHOD.gate.strict) == ("global", False)


def reference_layer(layer: HanLayer, stream: Tensor, other: Tensor) -> Tensor:
    """The formulas of HAN, with torch's own attention."""

    def attend(ours: nn.Module, query: Tensor, context: Tensor) -> Tensor:
        theirs = nn.MultiheadAttention(8, 2, batch_first=True)
        theirs.load_state_dict(ours.state_dict())
        out: Tensor = theirs(query, context, context, need_weights=False)[0]
        return out

    def feed_forward(x: Tensor) -> Tensor:
        out: Tensor = layer.linear2(torch.relu(layer.linear1(x)))
        return out

    if layer.pre:
        query = layer.norm1(stream)
        summed: Tensor = stream + attend(layer.cm_attn, query, other) + attend(layer.self_attn, query, query)
        return summed + feed_forward(layer.norm2(summed))
    summed = layer.norm1(stream + attend(layer.cm_attn, stream, other) + attend(layer.self_attn, stream, stream))
    out: Tensor = layer.norm2(summed + feed_forward(summed))
    return out


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_layer_adds_what_it_sees_in_itself_and_in_the_other_stream(norm: Any) -> None:
    layer = HanLayer(8, 2, 12, 0.0, norm=norm)
    stream, other = features(2, 4, 8), features(2, 4, 8, seed=1)
    torch.testing.assert_close(layer(stream, other), reference_layer(layer, stream, other), rtol=1e-5, atol=1e-6)


def encoder(**switches: Any) -> HanEncoder:
    torch.manual_seed(0)
    return HanEncoder(stack(lambda: HanLayer(8, 2, 12, 0.0), 2, identical=False), **switches)


def test_streams_are_updated_in_the_order_asked_for() -> None:
    audio, visual = features(2, 4, 8), features(2, 4, 8, seed=1)
    heard, seen = audio, visual
    old_heard, old_seen = audio, visual
    for layer in encoder().layers:
        heard = layer(heard, seen)
        seen = layer(seen, heard)
        old_heard, old_seen = layer(old_heard, old_seen), layer(old_seen, old_heard)
    torch.testing.assert_close(encoder()(audio, visual), (heard, seen))
    torch.testing.assert_close(encoder(order="symmetric")(audio, visual), (old_heard, old_seen))
    assert (heard - old_heard).abs().max() > 1e-3


def test_only_the_symmetric_order_treats_both_streams_alike() -> None:
    audio, visual = features(2, 4, 8), features(2, 4, 8, seed=1)
    for order, alike in (("symmetric", True), ("sequential", False)):
        model = encoder(order=order)
        swapped = model(visual, audio)[::-1]
        assert all(map(torch.equal, model(audio, visual), swapped)) is alike


def test_with_legacy_stacking_only_the_last_layer_counts() -> None:
    audio, visual = features(2, 4, 8), features(2, 4, 8, seed=1)
    model = encoder(order="symmetric", stacking="legacy")
    last = model.layers[1]
    torch.testing.assert_close(model(audio, visual), (last(audio, visual), last(visual, audio)))


def test_final_norms_exist_always_and_act_in_pre_norm_only() -> None:
    clips = features(2, 4, 5), features(2, 4, 6)
    for norm, acts in (("pre", True), ("post", False)):
        model = han(norm=norm)
        before = parse(model, *clips)
        model.encoder.final_norm_a.bias.data += 1
        assert torch.equal(before.audio_features, parse(model, *clips).audio_features) is not acts


def test_each_switch_changes_what_comes_out() -> None:
    clips = features(2, 4, 5), features(2, 4, 6)
    plain = parse(han(), *clips)
    for switch in ({"norm": "pre"}, {"order": "symmetric"}, {"stacking": "legacy"}, {"identical_layers": False}):
        assert (parse(han(**switch), *clips).visual_logits - plain.visual_logits).abs().max() > 1e-4, switch


def test_classic_input_averages_the_frames_of_a_second_and_sets_motion_beside_them() -> None:
    model = han(motion_width=4)
    audio, frames, motion = features(2, 4, 5), features(2, 12, 6), features(2, 4, 4)
    means = torch.stack([frames[:, 3 * second : 3 * second + 3].mean(dim=1) for second in range(4)], dim=1)
    seen = model.visual_in.fusion(torch.cat((means, motion), dim=2))
    _, expected = model.encoder(model.audio_in(audio), seen)
    for visual in (frames, means):
        torch.testing.assert_close(parse(model, audio, visual, motion).visual_features, expected)


def test_as_first_published_each_frame_has_its_linear_layer_before_the_mean() -> None:
    model = han(motion_width=4, visual_fusion="separate", audio_projection="linear")
    audio, frames, motion = features(2, 4, 5), features(2, 12, 6), features(2, 4, 4)
    inputs = model.visual_in
    pictures = inputs.picture(frames).view(2, 4, 3, 8).mean(dim=2)
    seen = inputs.fusion(torch.cat((pictures, inputs.motion(motion)), dim=2))
    heard, expected = model.encoder(model.audio_in(audio), seen)
    found = parse(model, audio, frames, motion)
    torch.testing.assert_close(found.visual_features, expected)
    torch.testing.assert_close(found.audio_features, heard)
    assert isinstance(model.audio_in, nn.Linear)


@pytest.mark.parametrize("motion", [0, 4])
@pytest.mark.parametrize("fusion", ["joint", "separate"])
def test_a_padded_clip_is_parsed_as_it_is_alone_whatever_the_padding_holds(motion: int, fusion: str) -> None:
    if fusion == "separate" and not motion:
        return
    model, lengths = han(motion_width=motion, visual_fusion=fusion), [5, 2, 4]
    clips = [features(3, 5, 5), features(3, 10 if motion else 5, 6)]
    clips += [features(3, 5, motion)] if motion else []
    for each in clips:
        each[1, 2 * each.shape[1] // 5 :] = float("nan")
    with torch.no_grad():
        together = parse(model, *clips, lengths=torch.tensor(lengths))
        for clip, length in enumerate(lengths):
            alone = parse(model, *(each[clip : clip + 1, : length * each.shape[1] // 5] for each in clips))
            for name, value in alone._asdict().items():
                found = getattr(together, name)[clip : clip + 1]
                assert found.isfinite().all(), name
                found = found if found.ndim == 2 else found[:, :length]
                torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)


def test_lengths_of_full_clips_and_clips_without_seconds_do_no_harm() -> None:
    model, clips = han(), (features(2, 4, 5), features(2, 4, 6))
    with torch.no_grad():
        plain, full = parse(model, *clips), parse(model, *clips, lengths=torch.tensor([4, 4]))
        empty = parse(model, *clips, lengths=torch.tensor([4, 0]))
    assert all(torch.equal(*pair) for pair in zip(plain, full, strict=True))
    assert all(value.isfinite().all() for value in empty)


def test_shuffled_seconds_give_shuffled_logits_and_the_same_clip() -> None:
    model, order = han(), torch.tensor([2, 0, 3, 1])
    audio, visual = features(2, 4, 5), features(2, 4, 6)
    plain, shuffled = parse(model, audio, visual), parse(model, audio[:, order], visual[:, order])
    torch.testing.assert_close(shuffled.audio_logits, plain.audio_logits[:, order])
    torch.testing.assert_close(shuffled.video_probs, plain.video_probs)


def reference_pooling(p: Tensor, time: Tensor, modality: Tensor, lengths: list[int]) -> list[Tensor]:
    """One clip, class, second and modality at a time."""
    clips, _, _, classes = p.shape
    video, single = torch.zeros(clips, classes), torch.zeros(clips, 2, classes)
    for b in range(clips):
        for c in range(classes):
            for t in range(lengths[b]):
                for m in range(2):
                    over_time = time[b, t, m, c].exp() / sum(time[b, s, m, c].exp() for s in range(lengths[b]))
                    over_both = modality[b, t, m, c].exp() / sum(modality[b, t, k, c].exp() for k in range(2))
                    single[b, m, c] += over_time * p[b, t, m, c]
                    video[b, c] += over_time * over_both * p[b, t, m, c]
    return [video, single[:, 0], single[:, 1]]


def test_pooling_weighs_seconds_and_modalities_as_the_loops_do() -> None:
    p, time, modality = (features(2, 4, 2, 3, seed=seed) for seed in range(3))
    for lengths in ([4, 4], [2, 3]):
        valid = torch.arange(4) < torch.tensor(lengths)[:, None]
        found = attentive_pooling(p.sigmoid(), time, modality, valid)
        torch.testing.assert_close(list(found), reference_pooling(p.sigmoid(), time, modality, lengths))
    torch.testing.assert_close(
        attentive_pooling(p.sigmoid(), time, modality, torch.ones(2, 4, dtype=torch.bool)),
        attentive_pooling(p.sigmoid(), time, modality),
    )


def outputs(video: float, audio_clip: float, visual_clip: float, audio: float, visual: float) -> Outputs:
    """One clip, one second, one class, from probabilities."""
    clip, heard, seen = (torch.tensor([[p]]) for p in (video, audio_clip, visual_clip))
    logits = (torch.tensor([[[p]]]).logit() for p in (audio, visual))
    return Outputs(clip, heard, seen, next(logits), next(logits), torch.empty(0), torch.empty(0))


@pytest.mark.parametrize(
    ("said", "gate", "heard", "seen"),
    [
        (outputs(0.9, 0.1, 0.9, 0.8, 0.8), "global", True, True),
        (outputs(0.9, 0.1, 0.9, 0.8, 0.2), "global", True, False),
        (outputs(0.2, 0.9, 0.9, 0.8, 0.8), "global", False, False),
        (outputs(0.2, 0.9, 0.1, 0.8, 0.8), "modality", True, False),
        (outputs(0.2, 0.1, 0.1, 0.8, 0.2), "none", True, False),
    ],
)
def test_a_class_is_on_where_its_second_and_its_clip_pass(said: Outputs, gate: Gate, heard: bool, seen: bool) -> None:
    assert [each.item() for each in predict(said, gate=gate)] == [heard, seen]


def test_equality_passes_only_when_not_strict() -> None:
    for said in (outputs(0.5, 1, 1, 0.9, 0.9), outputs(0.9, 1, 1, 0.5, 0.5)):
        assert [each.item() for each in predict(said)] == [False, False]
        assert [each.item() for each in predict(said, strict=False)] == [True, True]


def test_thresholds_of_clip_and_second_are_apart() -> None:
    said = outputs(0.6, 1, 1, 0.3, 0.2)
    assert [each.item() for each in predict(said, gate_threshold=0.52, threshold=0.25)] == [True, False]
    assert not any(predict(said, gate_threshold=0.7, threshold=0.1))


@pytest.mark.parametrize(
    ("switches", "shapes", "message"),
    [
        ({"motion_width": 4}, [(1, 4, 5), (1, 8, 6)], "reads audio, visual, motion, but motion is missing"),
        ({}, [(1, 4, 5), (1, 4, 6), (1, 4, 4)], "reads audio, visual, but motion came"),
        ({"audio_stream": "audio_map"}, [(1, 4, 5), (1, 4, 6)], "audio_map is missing, audio came"),
        ({"motion_width": 4}, [(1, 4, 5), (1, 9, 6), (1, 4, 4)], "multiple of as many frames, but visual has 9 rows"),
        ({"motion_width": 4}, [(1, 4, 5), (1, 4, 6), (1, 8, 4)], "motion has 8 rows for 4 seconds"),
        ({}, [(1, 4, 6), (1, 4, 6)], r"of widths \{'audio': 5\}, but got \{'audio': 6\}"),
        ({}, [(1, 4, 5), (1, 3, 6)], "visual has 3 rows for 4 seconds"),
        ({}, [(1, 4, 5), (2, 4, 6)], "of the same clips"),
        ({}, [(1, 4, 5), (4, 6)], r"\(clips, rows, width\)"),
        ({}, [(1, 0, 5), (1, 4, 6)], "visual has 4 rows for 0 seconds"),
    ],
)
def test_features_that_do_not_fit_are_refused(
    switches: dict[str, Any], shapes: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parse(han(**switches), *(features(*shape) for shape in shapes))


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"norm": "none"}, "no norm 'none'; there are post, pre"),
        ({"order": "visual"}, "there are sequential, symmetric"),
        ({"stacking": "broken"}, "there are chained, legacy"),
        ({"audio_stream": "map"}, "there are audio, audio_map"),
        ({"audio_projection": "none"}, "there are mlp, linear"),
        ({"visual_fusion": "late"}, "there are joint, separate"),
        ({"visual_fusion": "separate"}, "motion_width is 0; take 'joint'"),
        ({"motion_width": -1}, "motion_width at least 0"),
        ({"heads": 3}, "does not divide"),
        ({"classes": 0}, "at least 1"),
    ],
)
def test_a_network_that_cannot_be_built_says_why(switches: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        han(**switches)


def test_an_unknown_gate_names_the_known() -> None:
    with pytest.raises(ValueError, match="there are global, modality, none"):
        predict(outputs(1, 1, 1, 0.5, 0.5), gate="video")  # type: ignore[arg-type]


def test_a_released_file_that_lacks_weights_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"nothing unexpected, fc_a\.layers\.1\., .* and 1 more missing"):
        from_released({"fc_prob.weight": 0, "fc_fusion.layers.0.bias": 0, "fc_a.layers.0.bias": 0})
