"""EAR's blocks, each on tensors small enough for paper."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.packing import Packing
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
from tests.ear_world import fill, network, noise

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
