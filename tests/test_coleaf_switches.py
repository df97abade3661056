"""What CoLeaF's groups learn from, and that every switch changes it."""

from typing import Any

import pytest
import torch

from avvp_pipe.stages.blocks.losses import segment_loss
from avvp_pipe.stages.parsers.coleaf import Switches, terms
from avvp_pipe.stages.parsers.records import Batch
from tests.coleaf_world import GROUPS, SEGMENTS, all_terms, batch, coleaf, gradients, moment


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
