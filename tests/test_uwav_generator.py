from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.attention import Attention, EncoderLayer
from avvp_pipe.stages.blocks.weights import load_arrays, state_arrays
from avvp_pipe.stages.generators import Logits, temporal
from avvp_pipe.stages.generators.uwav import (
    Network,
    TemporalGenerator,
    audio_visual_loss,
    audio_visual_probability,
    from_released,
)
from avvp_pipe.store import Store
from tests.label_world import AUDIO_WIDTH, VISUAL_WIDTH, World, stored_generator, world

CLASSES, AUDIO, VISUAL = 3, 6, 8


def small(**switches: Any) -> Network:
    sizes: dict[str, Any] = {"width": 8, "heads": 2, "ffn": 12, "layers": 2, "dropout": 0.0}
    return Network(**(sizes | {"audio_width": AUDIO, "visual_width": VISUAL} | switches))


def generator(**switches: Any) -> TemporalGenerator:
    torch.manual_seed(0)
    return TemporalGenerator(small(**switches)).eval()


def batch(*lengths: int, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    return {
        "audio": torch.randn(*shape, AUDIO, generator=draw),
        "visual": torch.randn(*shape, VISUAL, generator=draw),
        "text_audio": torch.randn(CLASSES, AUDIO, generator=draw),
        "text_visual": torch.randn(CLASSES, VISUAL, generator=draw),
        "lengths": torch.tensor(lengths),
    }


def logits_of(model: TemporalGenerator, clips: dict[str, Tensor]) -> Tensor:
    """(2, B, T, C), without gradients."""
    with torch.no_grad():
        return torch.stack(model(**clips))


@pytest.mark.real_data
def test_logits_and_loss_are_those_of_the_released_generator(real_data: Path) -> None:
    # UWAV commit 15c9a8d in eval mode with random weights, torch 2.11 on CPU.
    with np.load(real_data / "golden" / "uwav_generator.npz") as file:
        golden = {name: file[name] for name in file.files}
    released = {name.removeprefix("weights/"): golden[name] for name in golden if name.startswith("weights/")}
    tensors = {name: torch.from_numpy(value) for name, value in golden.items() if "/" not in name}
    width, heads, ffn, layers = (int(golden[name]) for name in ("hidden", "heads", "ffn", "layers"))
    model = TemporalGenerator(Network(width=width, heads=heads, ffn=ffn, layers=layers)).eval()
    load_arrays(model, from_released(released))

    names = ("audio", "visual", "text_audio", "text_visual", "lengths")
    logits = logits_of(model, {name: tensors[name] for name in names})
    expected = torch.stack((tensors["audio_logits"], tensors["visual_logits"]))
    assert expected.std() > 1
    for clip, length in enumerate(golden["lengths"]):
        torch.testing.assert_close(logits[:, clip, :length], expected[:, clip, :length], rtol=0, atol=1e-5)
    loss = audio_visual_loss(logits[0], logits[1], tensors["av_labels"], tensors["lengths"])
    torch.testing.assert_close(loss, tensors["loss"], rtol=0, atol=1e-5)


def test_released_size_has_the_released_number_of_parameters() -> None:
    with torch.device("meta"):
        model = TemporalGenerator(Network())
    assert sum(parameter.numel() for parameter in model.parameters()) == 92_985_856


@pytest.mark.parametrize("positions", ["none", "sinusoidal"])
@pytest.mark.parametrize("attend", ["video", "segment"])
def test_a_padded_clip_gets_the_logits_it_gets_alone_whatever_the_padding_holds(positions: str, attend: str) -> None:
    model = generator(positions=positions, attend=attend)
    clips = batch(5, 2, 4)
    clips["audio"][1, 2:] = float("nan")
    clips["visual"][2, 4:] = float("inf")
    together = logits_of(model, clips)
    assert together.isfinite().all()
    for clip, length in enumerate(clips["lengths"].tolist()):
        alone = {name: value[clip : clip + 1, :length] for name, value in clips.items() if name in ("audio", "visual")}
        alone |= {name: clips[name] for name in ("text_audio", "text_visual")}
        alone["lengths"] = torch.tensor([length])
        torch.testing.assert_close(together[:, clip, :length], logits_of(model, alone)[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("projections", [True, False])
def test_logits_of_a_class_are_the_same_whether_few_or_many_classes_are_asked_for(projections: bool) -> None:
    model, clips = generator(projections=projections), batch(5, 3)
    names = ("text_audio", "text_visual")
    many = clips | {name: torch.cat([clips[name], torch.randn(40, clips[name].shape[1])]) for name in names}
    torch.testing.assert_close(logits_of(model, many)[..., :CLASSES], logits_of(model, clips), rtol=1e-5, atol=1e-6)


def test_a_clip_without_seconds_does_no_harm() -> None:
    clips = batch(3, 1)
    clips["lengths"][1] = 0
    assert logits_of(generator(), clips).isfinite().all()


def test_without_positions_shuffled_seconds_give_shuffled_logits_and_with_positions_they_do_not() -> None:
    clips, order = batch(6), torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = clips | {name: clips[name][:, order] for name in ("audio", "visual")}
    unordered, ordered = generator(), generator(positions="sinusoidal")
    torch.testing.assert_close(logits_of(unordered, shuffled), logits_of(unordered, clips)[:, :, order])
    assert (logits_of(ordered, shuffled) - logits_of(ordered, clips)[:, :, order]).abs().max() > 0.01


def test_a_second_sees_the_others_only_when_it_attends_to_the_video() -> None:
    clips = batch(4)
    changed = clips | {"audio": clips["audio"].clone(), "visual": clips["visual"].clone()}
    changed["audio"][0, 2] += 1
    changed["visual"][0, 2] += 1
    for attend, expected in (("video", [True] * 4), ("segment", [False, False, True, False])):
        model = generator(attend=attend)
        moved = (logits_of(model, changed) - logits_of(model, clips)).abs().amax(dim=(0, 1, 3)) > 1e-4
        assert moved.tolist() == expected


def test_audio_logits_do_not_depend_on_visual_features() -> None:
    clips = batch(4)
    blind = clips | {"visual": torch.zeros_like(clips["visual"])}
    before, after = logits_of(generator(), clips), logits_of(generator(), blind)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_scales_multiply_the_logits_by_the_log_scale_its_exponential_or_nothing() -> None:
    clips = batch(4)
    plain, log, exp = (logits_of(generator(scales=scales), clips) for scales in ("none", "log", "exp"))
    scale = torch.tensor([3.2912, 4.6052])[:, None, None, None]
    torch.testing.assert_close(log, plain * scale)
    torch.testing.assert_close(exp, plain * scale.exp())


def test_the_papers_form_compares_the_transformers_output_with_text_directly() -> None:
    model, clips = generator(projections=False, scales="none"), batch(4)
    stream = clips["audio"]
    with torch.no_grad():
        for layer in model.audio.layers:
            stream = layer(stream)
        audio, _ = model(**clips)
    torch.testing.assert_close(audio, stream @ clips["text_audio"].T)
    assert not [name for name in model.state_dict() if "enter" in name or "leave" in name]


def test_layers_start_alike_unless_asked_otherwise() -> None:
    for identical in (True, False):
        layers = generator(identical_layers=identical).audio.layers
        pairs = zip(layers[0].parameters(), layers[1].parameters(), strict=True)
        assert all(torch.equal(first, second) for first, second in pairs) is identical


def test_every_parameter_learns() -> None:
    model, clips = generator(identical_layers=False).train(), batch(5, 3)
    labels = torch.rand(2, 5, CLASSES, generator=torch.Generator().manual_seed(1)) > 0.5
    audio, visual = model(**clips)
    torch.autograd.backward(audio_visual_loss(audio, visual, labels, clips["lengths"]))
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def reference_loss(audio: Tensor, visual: Tensor, labels: Tensor, lengths: Tensor, weight: float) -> float:
    """Methods as the release computes them: probabilities first, one cell at a time."""
    total, cells = 0.0, 0
    probabilities = (audio.double().sigmoid() * visual.double().sigmoid()).numpy()
    for clip, length in enumerate(lengths.tolist()):
        for second in range(length):
            for index in range(labels.shape[2]):
                present = bool(labels[clip, :length, index].any())
                p = probabilities[clip, second, index]
                entropy = -np.log(p if labels[clip, second, index] else 1 - p)
                total += (weight if present else 1.0) * entropy
                cells += 1
    return total / cells


@pytest.mark.parametrize("weight", [1.0, 5.0])
def test_loss_is_the_weighted_mean_over_real_seconds_and_ignores_padding(weight: float) -> None:
    draw = torch.Generator().manual_seed(0)
    audio, visual = (3 * torch.randn(3, 6, 4, generator=draw) for _ in range(2))
    labels, lengths = torch.rand(3, 6, 4, generator=draw) > 0.8, torch.tensor([6, 2, 4])
    labels[1, 5, 3] = True  # In the padding, so class 3 does not occur in the clip.
    labels[1, :2, 3] = False
    expected = reference_loss(audio, visual, labels, lengths, weight)
    audio[1, 2:] = float("nan")
    audio.requires_grad_()
    loss = audio_visual_loss(audio, visual, labels, lengths, present_weight=weight)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    torch.autograd.backward(loss)
    assert audio.grad is not None
    assert audio.grad.isfinite().all()
    assert not audio.grad[1, 2:].any()


def test_loss_and_gradient_stay_finite_where_probabilities_saturate() -> None:
    # A label that is off although both probabilities round to 1, and one that is on although both round to 0.
    logits = torch.tensor([[[200.0, -200.0]]], requires_grad=True)
    loss = audio_visual_loss(logits, logits, torch.tensor([[[0, 1]]]), torch.tensor([1]), present_weight=1.0)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx((200 - np.log(2) + 400) / 2)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[[0.5, -1.0]]]))


def test_audio_visual_probability_is_the_product_of_both() -> None:
    assert audio_visual_probability(torch.tensor(0.0), torch.tensor(0.0)).item() == 0.25


def test_attention_starts_and_works_as_torchs_own() -> None:
    torch.manual_seed(3)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    torch.manual_seed(3)
    ours = Attention(8, 2, dropout=0.0)
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    query, context, mask = torch.randn(2, 5, 8), torch.randn(2, 7, 8), torch.rand(2, 1, 5, 7) > 0.3
    mask[..., 0] = True
    refused = ~mask.expand(2, 2, 5, 7).flatten(0, 1)
    expected, _ = theirs(query, context, context, attn_mask=refused, need_weights=False)
    torch.testing.assert_close(ours(query, context, mask), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_16_bits_gathers_what_it_gathers_in_32_but_for_rounding(masked: bool) -> None:
    torch.manual_seed(0)
    attention, stream = Attention(32, 4, dropout=0.0), torch.randn(5, 7, 32)
    mask = (torch.rand(5, 1, 7, 7) > 0.5) | torch.eye(7, dtype=torch.bool) if masked else None
    with torch.no_grad():
        exact = attention.over_itself(stream, mask)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = attention.over_itself(stream, mask)
        crossed = attention(stream, stream, mask)
    assert rounded.dtype == torch.bfloat16
    assert not torch.equal(rounded.float(), exact)
    for found in (rounded, crossed):
        torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.02 * float(exact.abs().max()))


def test_encoder_layer_is_torchs_post_norm_layer() -> None:
    theirs = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    ours = EncoderLayer(8, 2, 12, dropout=0.0)
    ours.load_state_dict(theirs.state_dict())
    stream = torch.randn(3, 5, 8)
    torch.testing.assert_close(ours(stream), theirs(stream), rtol=1e-5, atol=1e-6)


def test_dropout_acts_in_training_only() -> None:
    model, clips = generator(dropout=0.5), batch(5)
    calm = [logits_of(model, clips) for _ in range(2)]
    model.train()
    restless = [logits_of(model, clips) for _ in range(2)]
    assert torch.equal(*calm)
    assert not torch.equal(*restless)


def test_weights_survive_the_way_through_arrays() -> None:
    first, second, clips = generator(), TemporalGenerator(small()).eval(), batch(4)
    arrays = state_arrays(first)
    before = logits_of(first, clips)
    for parameter in first.parameters():
        parameter.data.zero_()  # Arrays are copies.
    for array in arrays.values():
        array.flags.writeable = False  # As a store may give them.
    load_arrays(second, arrays)
    assert torch.equal(logits_of(second, clips), before)


def test_weights_that_do_not_fit_are_refused_by_name_and_change_nothing() -> None:
    model = generator()
    arrays, kept = state_arrays(model), state_arrays(model)
    name = "audio.enter.0.weight"
    wrong = {
        "audio.enter.0.weight missing": {other: value for other, value in arrays.items() if other != name},
        "extra unexpected": arrays | {"extra": np.zeros(1)},
        "shape": {other: np.zeros_like(value) for other, value in arrays.items()} | {name: np.zeros((1, 1))},
        "not finite": arrays | {name: np.full_like(arrays[name], np.nan)},
    }
    for message, state in wrong.items():
        with pytest.raises(ValueError, match=message):
            load_arrays(model, state)
    assert all(np.array_equal(value, kept[name]) for name, value in state_arrays(model).items())


def test_files_of_another_network_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"fc_prob\.weight unexpected, .*proj_a.* missing"):
        from_released({"fc_prob.weight": 0})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scales": "ln"}, "no scales 'ln'; there are log, exp, none"),
        ({"attend": "clip"}, "there are video, segment"),
        ({"positions": "learned"}, "there are none, sinusoidal"),
        ({"heads": 3}, "does not divide"),
        ({"layers": 0}, "at least 1"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
    ],
)
def test_a_network_that_cannot_be_built_says_why(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generator(**wrong)


def test_features_of_another_width_are_refused() -> None:
    clips = batch(4)
    with pytest.raises(ValueError, match="build the generator with the widths of the features"):
        generator()(**(clips | {"audio": clips["visual"]}))


# --- at work: `temporal.labeller`


def labelled(store: Store, one: World, *, widths: tuple[int, int] = (AUDIO_WIDTH, VISUAL_WIDTH)) -> Logits:
    generator = stored_generator(store, "uwav", widths=widths)
    return temporal.labeller({"generator": generator}, {})(one.evidence)


def assert_alike(found: Logits, expected: Logits) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_clips_logits_are_those_it_has_alone_whatever_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, one = Store(tmp_path), world(21)
    together = labelled(store, one)
    alone = [labelled(store, one.rows([row])) for row in range(21)]
    assert_alike(together, Logits(*(np.concatenate(each) for each in zip(*alone, strict=True))))
    monkeypatch.setattr(temporal, "CLIPS_AT_ONCE", 4)
    assert_alike(labelled(store, one), together)
    order = np.random.default_rng(0).permutation(21)
    assert_alike(labelled(store, one.rows(order)), Logits(*(each[order] for each in together)))
    longer = labelled(store, one.padded(3))
    assert all(np.isnan(each[:, -3:]).all() for each in longer)
    assert_alike(Logits(*(each[:, :-3] for each in longer)), together)


def test_logits_are_missing_just_where_features_are(tmp_path: Path) -> None:
    one = world(12, failed=(2, 7))
    found = one.evidence.features
    for logits, features in zip(labelled(Store(tmp_path), one), (found.audio, found.visual), strict=True):
        assert np.array_equal(np.isnan(logits).all(axis=2), np.isnan(features[:, :, 0]))
        assert np.isnan(logits[[2, 7]]).all()
        assert np.isfinite(logits[~np.isnan(features[:, :, 0])]).all()


def test_no_clip_gives_no_logits_and_one_second_is_enough(tmp_path: Path) -> None:
    one = world(3, segments=1)
    assert labelled(Store(tmp_path), one).audio.shape == (3, 1, len(one.classes))
    assert labelled(Store(tmp_path), one.rows(slice(0, 0))).visual.shape == (0, 1, len(one.classes))


def test_a_generator_for_features_of_another_width_is_refused_by_name(tmp_path: Path) -> None:
    message = r"generator/uwav.* was trained on audio features of 9 numbers and visual ones of 12, but the segments"
    with pytest.raises(ValueError, match=message):
        labelled(Store(tmp_path), world(3), widths=(9, VISUAL_WIDTH))
