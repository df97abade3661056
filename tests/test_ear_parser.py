"""EAR's parser: what comes out, each switch by what it does to a gradient, the record, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from avvp_pipe.stages.blocks.attention import attention_mask, valid_mask
from avvp_pipe.stages.blocks.losses import Mixup, mixup_loss, segment_loss, video_loss
from avvp_pipe.stages.parsers import parser_method
from avvp_pipe.stages.parsers.ear import METHOD, EventClassifier, Network, from_co_occurrence
from avvp_pipe.stages.parsers.fitting import switched
from avvp_pipe.stages.stage import ParameterError
from tests.ear_world import ear, fill, network, noise, streams

# What comes out.


def test_the_classifier_gives_each_class_the_product_with_its_own_numbers() -> None:
    classifier = EventClassifier(network(classes=2, event_width=2))
    fill(classifier, weight=torch.tensor([[1.0, 2.0], [3.0, 4.0]]), bias=torch.tensor([0.5, -0.5]))
    # 5 + 2 * 6 + 0.5 and 3 * 7 + 4 * 8 - 0.5.
    assert classifier(torch.tensor([5.0, 6.0, 7.0, 8.0])).tolist() == [17.5, 52.5]
    shared = EventClassifier(network(classes=2, event_width=2, classifier="event"))
    fill(shared, weight=torch.tensor([[1.0, 2.0]]), bias=1.0)
    assert shared(torch.tensor([5.0, 6.0, 7.0, 8.0])).tolist() == [18.0, 24.0]


WIDTHS = [({}, 12), ({"classifier": "event"}, 12), ({"classifier": "squeeze"}, 8), ({"relations": "none"}, 8)]


@pytest.mark.parametrize(("switches", "width"), WIDTHS)
def test_logits_are_what_the_classifier_says_of_the_features(switches: dict[str, Any], width: int) -> None:
    model = ear(**switches).eval()
    said = model(streams())
    assert said.audio_features.shape == said.visual_features.shape == (3, 5, width)
    torch.testing.assert_close(said.audio_logits, model.classifier(said.audio_features))
    torch.testing.assert_close(said.visual_logits, model.classifier(said.visual_features))
    assert said.video_probs.shape == said.audio_video_probs.shape == (3, 3)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"relations": "none"},
    {"fusion": "none"},
    {"fusion": "none", "relations": "none"},
    {"fusion": "symmetric"},
    {"fusion": "han"},
    {"static_projection": "shared"},
    {"fusion_residual": False},
    {"norm": "pre"},
    {"aggregate": "concatenate"},
    {"aggregate": "none"},
    {"decode": "queries"},
    {"shared_decoder": False},
    {"relations": "uni-then-multi", "relation_layers": 2},
    {"relations": "uni"},
    {"relations": "multi"},
    {"relations": "attention"},
    {"relation_layers": 1},
    {"kernel": 3},
    {"relation_residual": False},
    {"batch_norm": "events"},
    {"slope": 0.3},
    {"adjacency_noise": 0.3},
    {"classifier": "event"},
    {"classifier": "squeeze"},
    {"audio_projection": "mlp"},
    {"layers": 2},
]


@pytest.mark.parametrize("switches", VARIANTS, ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_a_padded_clip_is_parsed_as_it_is_alone_whatever_the_padding_holds(
    switches: dict[str, Any], training: bool
) -> None:
    lengths = torch.tensor([5, 2, 4])
    clean, dirty = streams(), streams()
    beyond = ~valid_mask(lengths, 5)
    for name in clean:
        clean[name][beyond], dirty[name][beyond] = 0.0, float("nan")
    longer = {name: functional.pad(stream, (0, 0, 0, 3), value=7.0) for name, stream in dirty.items()}
    said = [ear(**switches).train(training)(given, lengths) for given in (clean, dirty, longer)]
    for name, value in said[0]._asdict().items():
        for other in said[1:]:
            found = getattr(other, name)
            assert found.isfinite().all(), name
            rows = valid_mask(lengths, 5)
            pair = (found, value) if value.ndim == 2 else (found[:, :5][rows], value[rows])
            torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-5)
    if not training:
        model = ear(**switches).eval()
        for clip, length in enumerate(lengths.tolist()):
            alone = model({name: stream[clip : clip + 1, :length] for name, stream in clean.items()})
            torch.testing.assert_close(alone.audio_logits[0], said[0].audio_logits[clip, :length])
            torch.testing.assert_close(alone.video_probs[0], said[0].video_probs[clip])


def test_padding_leaves_the_statistics_of_batch_norm_alone() -> None:
    lengths, short = torch.tensor([3, 3]), ear()
    long = ear()
    clips = streams(2, 3)
    short(clips)
    long({name: functional.pad(stream, (0, 0, 0, 4), value=99.0) for name, stream in clips.items()}, lengths)
    pairs = [(name, buffer, dict(long.named_buffers())[name]) for name, buffer in short.named_buffers()]
    assert any(name.endswith("running_var") for name, _, _ in pairs)
    for _, mine, other in pairs:
        torch.testing.assert_close(mine, other)


def test_clips_without_seconds_do_no_harm_in_training_either() -> None:
    for lengths in ([4, 0], [0, 0]):
        model = ear()
        said = model(streams(2, 4), torch.tensor(lengths))
        assert all(value.isfinite().all() for value in said), lengths
        (said.video_probs[0].sum() + said.audio_logits[0].sum()).backward()
        assert all(one.grad.isfinite().all() for one in model.parameters() if one.grad is not None)


# Switches switch.


def gradient(switches: dict[str, Any], shared: dict[str, Tensor]) -> Tensor:
    """Of UWAV's terms by the inputs, with the same weights wherever both forms have them."""
    model = ear(**switches)
    own = model.state_dict()
    common = {name: value for name, value in shared.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(own | common)
    given = {name: stream.requires_grad_() for name, stream in streams().items()}
    said = model(given, torch.tensor([5, 2, 4]))
    weak, targets = torch.rand(3, 3, generator=torch.Generator().manual_seed(2)) > 0.5, noise(3, 5, 3, seed=3).sigmoid()
    valid = valid_mask(torch.tensor([5, 2, 4]), 5)
    mixup = Mixup(0.3, torch.randperm(11, generator=torch.Generator().manual_seed(4)))
    loss = video_loss(said.video_probs, weak)
    for logits, features in ((said.audio_logits, said.audio_features), (said.visual_logits, said.visual_features)):
        loss = loss + segment_loss(logits, targets, valid=valid)
        loss = loss + mixup_loss(features[valid], targets[valid], mixup, model.classifier)
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.cat([given[name].grad.flatten() for name in given if given[name].grad is not None])  # type: ignore[union-attr]


@pytest.mark.parametrize("switches", [one for one in VARIANTS if one and "adjacency_noise" not in one], ids=str)
def test_every_switch_changes_the_gradient(switches: dict[str, Any]) -> None:
    shared = ear().state_dict()
    plain, switched = gradient({}, shared), gradient(switches, shared)
    assert torch.equal(plain, gradient({}, shared))
    assert (plain - switched).abs().max() > 1e-4 * plain.abs().max()


def test_without_fusion_and_relations_each_second_and_modality_goes_its_own_way() -> None:
    model = ear(fusion="none", relations="none").eval()
    given = {name: stream.requires_grad_() for name, stream in streams().items()}
    model(given).audio_logits[:, 2].sum().backward()
    audio, visual = given["audio"].grad, given["visual"].grad
    assert audio is not None
    assert visual is None or not visual.any()
    assert (audio.abs().sum(dim=(0, 2)) > 0).tolist() == [False, False, True, False, False]


def test_every_parameter_learns_whatever_is_switched() -> None:
    for switches in VARIANTS:
        model = ear(**switches)
        said = model(streams(), torch.tensor([5, 2, 4]))
        sum((value * noise(*value.shape, seed=seed)).sum() for seed, value in enumerate(said)).backward()
        idle = [name for name, one in model.named_parameters() if one.grad is None]
        assert [name for name in idle if "final_norm" not in name] == [], switches


def test_attention_masks_and_full_lengths_change_nothing() -> None:
    assert attention_mask(valid_mask(torch.tensor([5, 5, 5]), 5)) is None
    model = ear().eval()
    torch.testing.assert_close(model(streams()), model(streams(), torch.tensor([5, 5, 5])), rtol=0, atol=0)


# Adjacencies of weak labels.


def test_adjacencies_can_start_from_how_often_classes_occur_together() -> None:
    model = ear()
    weak = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]])
    from_co_occurrence(model, weak)
    # Class 0: in 4 clips, with class 1 in 1: (1, 1/4, 0) / 1.25. Class 1: always with 0. Class 2: nowhere.
    wanted = torch.tensor([[0.8, 0.2, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert model.relations is not None
    torch.testing.assert_close(model.relations.audio[0].adjacency.data, wanted)
    torch.testing.assert_close(model.relations.both[2].adjacency.data, wanted.repeat(2, 2) / 2)
    with pytest.raises(ValueError, match=r"wanted weak labels \(N, 3\)"):
        from_co_occurrence(model, weak[:, :2])


# The record, and what is refused.


def test_the_registry_has_ear_with_the_papers_recipe() -> None:
    method = parser_method("ear")
    assert method is METHOD
    assert method.network == Network()
    assert {name: method.recipe[name] for name in ("epochs", "warmup", "train_batch")} == {
        "epochs": 80, "warmup": 10, "train_batch": 64,
    }  # fmt: skip
    assert (method.recipe["learning_rate"], method.recipe["learning_rate_min"]) == (1e-4, 5e-6)
    assert set(method.reads) == set(method.network.widths())


def test_switches_are_set_by_name_and_checked() -> None:
    record, none = switched("fusion=none, relations=uni-then-multi,kernel=3,shared_decoder=false", network(), None)
    assert record == network(fusion="none", relations="uni-then-multi", kernel=3, shared_decoder=False)
    assert none is None
    for text in ("fusion=amdf", "kernel=two", "erm=no"):
        with pytest.raises(ParameterError, match="--switches"):
            switched(text, network(), None)


def test_clip_and_clap_need_no_motion_and_classic_features_do() -> None:
    frames = {"audio": noise(2, 4, 5), "visual": noise(2, 12, 6), "motion": noise(2, 4, 7)}
    classic = ear(motion_width=7).eval()
    means = frames | {"visual": frames["visual"].view(2, 4, 3, 6).mean(dim=2)}
    torch.testing.assert_close(classic(frames), classic(means))
    with pytest.raises(ValueError, match="motion is missing"):
        classic(streams())
    with pytest.raises(ValueError, match="motion came"):
        ear()(frames)
    with pytest.raises(ValueError, match="widths"):
        ear(audio_width=4)(streams())


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"fusion": "amdf"}, "no fusion 'amdf'; there are asymmetric, symmetric, han, none"),
        ({"relations": "erm"}, "there are alternate, uni-then-multi"),
        ({"classifier": "mlp"}, "there are class, event, squeeze"),
        ({"kernel": 2}, "as many before as after"),
        ({"relation_layers": 0}, "at least 1"),
        ({"dropout": 1.0}, r"in \[0, 1\)"),
        ({"heads": 3}, "does not divide"),
        ({"relations": "attention", "event_heads": 3}, "does not divide"),
    ],
)
def test_a_network_that_cannot_be_built_says_why(switches: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ear(**switches)
