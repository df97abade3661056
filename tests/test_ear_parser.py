"""EAR's parser: each block on tensors small enough for paper, each switch by what it does to a gradient."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from avvp_pipe.stages.blocks.attention import attention_mask, valid_mask
from avvp_pipe.stages.blocks.losses import Mixup, mixup_loss, segment_loss, video_loss
from avvp_pipe.stages.blocks.packing import Packing
from avvp_pipe.stages.parsers import parser_method
from avvp_pipe.stages.parsers.ear import METHOD, Ear, EventClassifier, Network, from_co_occurrence
from avvp_pipe.stages.parsers.ear_blocks import (
    AttentionUnit,
    EventDecoder,
    EventRelations,
    Relation,
    UnitFusion,
    box_of,
    fusion_of,
    rows_of,
)
from avvp_pipe.stages.parsers.fitting import switched
from avvp_pipe.stages.stage import ParameterError

SMALL: dict[str, Any] = {
    "classes": 3, "width": 8, "heads": 2, "ffn": 12, "layers": 1, "dropout": 0.0, "event_width": 4,
    "audio_width": 5, "visual_width": 6, "motion_width": 0, "event_heads": 2,
}  # fmt: skip
Streams = dict[str, Tensor]


def network(**switches: Any) -> Network:
    return Network(**(SMALL | switches))


def ear(**switches: Any) -> Ear:
    torch.manual_seed(0)
    return Ear(network(**switches))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def streams(clips: int = 3, seconds: int = 5) -> Streams:
    return {"audio": noise(clips, seconds, 5), "visual": noise(clips, seconds, 6, seed=1)}


def fill(module: nn.Module, **values: Any) -> None:
    """Parameters by name, the others 0."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.as_tensor(values.get(name.replace(".", "_"), 0.0)).expand_as(parameter))


# Eqs. 10-12 on paper.


def plain_unit(**more: Any) -> AttentionUnit:
    """Queries and keys are 0, so that every second counts alike; values and what follows are the identity."""
    unit = AttentionUnit(2, 1, 2, 0.0, **more)
    one, zero = torch.eye(2), torch.zeros(2, 2)
    fill(
        unit,
        attention_in_proj_weight=torch.cat((zero, zero, one)),
        attention_out_proj_weight=one,
        linear1_weight=one,
        linear2_weight=one,
        norm1_weight=1.0,
        norm2_weight=1.0,
    )
    return unit


CONTEXT = torch.tensor([[[1.0, -3.0], [3.0, 1.0]]])
"""Two seconds; their mean is (2, -1)."""


def test_without_residuals_a_unit_is_ffn_of_attention() -> None:
    # The mean of the context is (2, -1); ReLU leaves (2, 0), whatever the query is.
    found = plain_unit(residual=False)(torch.tensor([[[7.0, 5.0], [0.0, 0.0]]]), CONTEXT)
    torch.testing.assert_close(found, torch.tensor([[[2.0, 0.0], [2.0, 0.0]]]))


def test_with_residuals_a_unit_adds_and_normalises_twice() -> None:
    # (0, 5) + (2, -1) = (2, 4) -> LN (-1, 1); ReLU (0, 1) added: (-1, 2) -> LN (-1, 1).
    found = plain_unit()(torch.tensor([[[0.0, 5.0]]]), CONTEXT)
    torch.testing.assert_close(found, torch.tensor([[[-1.0, 1.0]]]), atol=1e-4, rtol=0)


def test_a_pre_norm_unit_normalises_the_query_and_leaves_the_sum() -> None:
    # (0, 5) + (2, -1) = (2, 4); its LN (-1, 1) through ReLU gives (0, 1): (2, 5).
    found = plain_unit(norm="pre")(torch.tensor([[[0.0, 5.0]]]), CONTEXT)
    torch.testing.assert_close(found, torch.tensor([[[2.0, 5.0]]]), atol=1e-4, rtol=0)


def test_a_unit_attends_to_where_query_and_key_agree() -> None:
    unit = plain_unit(residual=False)
    with torch.no_grad():
        unit.attention.in_proj_weight.copy_(torch.cat((torch.eye(2),) * 3))
    query, context = torch.tensor([[[math.sqrt(2.0), 0.0]]]), torch.tensor([[[math.log(3.0), 0.0], [0.0, 4.0]]])
    # Scores query . key / sqrt(2) are log 3 and 0: weights 3/4 and 1/4.
    torch.testing.assert_close(unit(query, context), torch.tensor([[[0.75 * math.log(3), 1.0]]]))


def test_dynamic_streams_look_at_the_other_modalitys_static_stream() -> None:
    fusion = UnitFusion(network(fusion_residual=False)).eval()
    dynamic, static = (noise(2, 4, 8, seed=seed) for seed in (0, 1)), (noise(2, 4, 8, seed=2), noise(2, 4, 8, seed=3))
    heard, seen = dynamic
    audio, visual = fusion((heard, seen), static, None)
    layer: Any = fusion.temporal
    torch.testing.assert_close(audio, fusion.cross["audio"](layer["audio"][0](heard), static[1]))
    torch.testing.assert_close(visual, fusion.cross["visual"](layer["visual"][0](seen), static[0]))


def test_the_symmetric_form_looks_at_the_dynamic_stream_and_the_ablation_at_nothing() -> None:
    pair, static = (noise(2, 4, 8), noise(2, 4, 8, seed=1)), (noise(2, 4, 8, seed=2), noise(2, 4, 8, seed=3))
    fusion = UnitFusion(network(fusion="symmetric")).eval()
    layer: Any = fusion.temporal
    heard, seen = layer["audio"][0](pair[0]), layer["visual"][0](pair[1])
    torch.testing.assert_close(fusion(pair, static, None)[0], fusion.cross["audio"](heard, seen))
    assert fusion_of(network(fusion="none"))(pair, static, None) is pair


# Eqs. 13-14 on paper.


def test_each_modality_takes_in_the_other_and_a_linear_decodes_every_class() -> None:
    decoder = EventDecoder(network(classes=2, width=2, heads=1, event_width=1))
    zero, one = torch.zeros(2, 2), torch.eye(2)
    fill(
        decoder,
        attention_in_proj_weight=torch.cat((zero, zero, one)),
        attention_out_proj_weight=one,
        norm_weight=1.0,
        decoders_0_out_weight=one,
        decoders_0_out_bias=torch.tensor([10.0, 20.0]),
    )
    heard, seen = torch.tensor([[[0.0, 5.0], [9.0, 0.0]]]), CONTEXT
    # Audio: (0, 5) + (2, -1) = (2, 4) -> LN (-1, 1); (9, 0) + (2, -1) = (11, -1) -> (1, -1).
    # Vision: + the mean of audio (4.5, 2.5): (5.5, -0.5) -> (1, -1); (7.5, 3.5) -> (1, -1).
    audio, visual = decoder(heard, seen)
    torch.testing.assert_close(audio[..., 0], torch.tensor([[[9.0, 21.0], [11.0, 19.0]]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(visual[..., 0], torch.tensor([[[11.0, 19.0], [11.0, 19.0]]]), atol=1e-4, rtol=0)


def test_concatenation_projects_both_streams_for_each_modality() -> None:
    decoder = EventDecoder(network(classes=1, width=1, heads=1, event_width=1, aggregate="concatenate"))
    fill(
        decoder,
        joined_0_weight=torch.tensor([[1.0, 10.0]]),
        joined_1_weight=torch.tensor([[2.0, 0.0]]),
        decoders_0_out_weight=1.0,
    )
    audio, visual = decoder(torch.tensor([[[3.0]]]), torch.tensor([[[4.0]]]))
    assert (audio.item(), visual.item()) == (43.0, 6.0)


def test_queries_ask_both_vectors_of_their_own_second_only() -> None:
    decoder = EventDecoder(network(decode="queries", aggregate="none"))
    heard, seen = noise(1, 4, 8), noise(1, 4, 8, seed=1)
    before = decoder(heard, seen)[0]
    assert before.shape == (1, 4, 3, 4)
    seen[:, 2] += 1
    changed = (decoder(heard, seen)[0] - before).abs().sum(dim=(0, 2, 3)) > 1e-6
    assert changed.tolist() == [False, False, True, False]


def test_a_decoder_of_its_own_for_each_modality_only_when_asked() -> None:
    for shared, alike in ((True, True), (False, False)):
        decoder = EventDecoder(network(aggregate="none", shared_decoder=shared))
        audio, visual = decoder(noise(1, 2, 8), noise(1, 2, 8))
        assert torch.equal(audio, visual) is alike


# Eq. 15 on paper.


def plain_relation(matrix: list[list[float]], **switches: Any) -> Relation:
    """The convolution doubles; statistics of batch norm are 0 and 1."""
    relation = Relation(2, network(classes=2, event_width=1, slope=0.1, **switches)).eval()
    fill(relation, adjacency=torch.tensor(matrix), norm_weight=1.0)
    with torch.no_grad():
        relation.conv.weight[:, :, relation.conv.kernel_size[0] // 2] = 2.0
    return relation


def relate(relation: nn.Module, events: Tensor, valid: Tensor) -> Tensor:
    """(B, T, events, E) -> the same shape."""
    packing = Packing(valid.flatten().nonzero()[:, 0], *valid.shape)
    return box_of(relation(rows_of(events, packing), packing), packing)


def everywhere(events: Tensor) -> Tensor:
    return torch.ones(events.shape[:2], dtype=torch.bool)


EVENTS = torch.tensor([[[[3.0], [1.0]]]])
"""One second, two events of one number."""


def test_a_relation_is_leaky_relu_of_batch_norm_of_adjacency_times_convolution() -> None:
    # Doubled: (6, 2). A: 6 - 4 = 2 and 2 * 0.5 - 6 = -5 -> -0.5 after LeakyReLU. The residual adds (3, 1).
    matrix = [[1.0, -2.0], [-1.0, 0.5]]
    bare = relate(plain_relation(matrix, relation_residual=False), EVENTS, everywhere(EVENTS))
    torch.testing.assert_close(bare[0, 0, :, 0], torch.tensor([2.0, -0.5]), atol=1e-4, rtol=0)
    whole = relate(plain_relation(matrix), EVENTS, everywhere(EVENTS))
    torch.testing.assert_close(whole[0, 0, :, 0], torch.tensor([5.0, 0.5]), atol=1e-4, rtol=0)


def test_in_training_batch_norm_takes_mean_and_spread_of_real_seconds_only() -> None:
    relation = plain_relation([[1.0, 0.0], [0.0, 1.0]], relation_residual=False).train()
    events = torch.tensor([[[[0.0], [1.0]], [[2.0], [3.0]], [[50.0], [70.0]]]])
    valid = torch.tensor([[True, True, False]])
    # Doubled: 0, 2, 4, 6: mean 3, variance 5; then (-3, -1, 1, 3) / sqrt 5, the negative ones a tenth of it.
    expected = torch.tensor([[-0.3, -0.1], [1.0, 3.0], [0.0, 0.0]]) / math.sqrt(5)
    torch.testing.assert_close(relate(relation, events, valid)[0, :, :, 0], expected, atol=1e-4, rtol=0)
    assert relation.norm.running_mean is not None
    assert relation.norm.running_mean.item() == pytest.approx(0.1 * 3)
    by_event = plain_relation([[1.0, 0.0], [0.0, 1.0]], relation_residual=False, batch_norm="events").train()
    # Of each event by itself: 0, 4 and 2, 6 are both -1, 1.
    expected = torch.tensor([[-0.1, -0.1], [1.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(relate(by_event, events, valid)[0, :, :, 0], expected, atol=1e-4, rtol=0)


def test_a_wider_convolution_sees_neighbouring_seconds_but_no_padding() -> None:
    relation = plain_relation([[1.0, 0.0], [0.0, 1.0]], kernel=3, relation_residual=False)
    with torch.no_grad():
        relation.conv.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
    events = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1).expand(1, 4, 2, 1)
    found = relate(relation, events, torch.tensor([[True, True, True, False]]))
    expected = torch.tensor([210.0, 321.0, 32.0, 0.0])[:, None].expand(4, 2)
    torch.testing.assert_close(found[0, :, :, 0], expected, atol=1e-2, rtol=0)


def test_adjacencies_start_near_the_identity_and_are_trained() -> None:
    relation = Relation(6, network())
    assert 0 < (relation.adjacency - torch.eye(6)).abs().max() < 0.1
    assert relation.adjacency.requires_grad
    assert torch.equal(Relation(6, network(adjacency_noise=0.0)).adjacency, torch.eye(6))


ORDERS = {
    "alternate": ["uni0", "multi0", "uni1", "multi1"],
    "uni-then-multi": ["uni0", "uni1", "multi0", "multi1"],
    "uni": ["uni0", "uni1"],
    "multi": ["multi0", "multi1"],
}


@pytest.mark.parametrize("form", ORDERS)
def test_relations_within_and_across_modalities_follow_in_the_order_asked_for(form: Any) -> None:
    relations = EventRelations(network(relations=form, relation_layers=2)).eval()
    heard, seen = noise(2, 3, 3, 4), noise(2, 3, 3, 4, seed=1)
    valid, found = everywhere(heard), relations(heard, seen, everywhere(heard))
    for step in ORDERS[form]:
        at = int(step[-1])
        if step.startswith("uni"):
            heard, seen = relate(relations.audio[at], heard, valid), relate(relations.visual[at], seen, valid)
        else:
            heard, seen = relate(relations.both[at], torch.cat((heard, seen), dim=2), valid).chunk(2, dim=2)
    torch.testing.assert_close(found, (heard, seen))
    sizes = [len(relation.adjacency) for relation in (*relations.audio, *relations.visual, *relations.both)]
    uni, multi = ("uni0" in ORDERS[form]), ("multi0" in ORDERS[form])
    assert sizes == [3, 3] * 2 * uni + [6, 6] * multi


def test_self_attention_instead_runs_over_the_events_of_one_second() -> None:
    relations = EventRelations(network(relations="attention", relation_layers=2)).eval()
    heard, seen = noise(1, 4, 3, 4), noise(1, 4, 3, 4, seed=1)
    before = relations(heard, seen, everywhere(heard))
    events = torch.cat((heard, seen), dim=2)[0, 1:2]
    for layer in relations.layers:
        events = layer(events)
    torch.testing.assert_close(torch.cat(before, dim=2)[0, 1:2], events)
    seen[:, 1, 0] += 1
    after = relations(heard, seen, everywhere(heard))
    assert ((after[0] - before[0]).abs().sum(dim=(0, 2, 3)) > 1e-6).tolist() == [False, True, False, False]


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
