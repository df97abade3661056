"""CoLeaF as a whole: what it reads, that it learns, that it resumes, and its record."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avvp_pipe.stages.blocks.training import Fitted, Grouped, Optimiser, StepSchedule, fit
from avvp_pipe.stages.parsers.coleaf import METHOD, CoLeaF, CoLeafNetwork, Switches, terms
from avvp_pipe.stages.parsers.coleaf_anchor import Anchor, CmpaeHead
from avvp_pipe.stages.parsers.han import predict
from avvp_pipe.stages.parsers.recipes import PUBLISHED, settled_recipe
from avvp_pipe.stages.parsers.records import Batch, Moment, Outputs
from tests.coleaf_world import CLASSES, GROUPS, MODALITIES, SEGMENTS, batch, coleaf, network, numbers, streams

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
