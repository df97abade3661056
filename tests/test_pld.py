"""PLD: labels at which a parser stumbles are flipped, and where settings can flip nothing, that is told."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from numpy.typing import NDArray

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.names import default_name
from avvp_pipe.pipeline.runner import Outcome, Step, run_step
from avvp_pipe.stages.generators.pld import cannot_flip, flipped, mirrored
from avvp_pipe.store import Artifact, Store, StoreError, load_labels
from tests.made import CLASSES, made_labels
from tests.trees import Told

NOTHING: Mapping[str, Any] = MappingProxyType({})


def of_clip(hard: list[int], sure: list[float], *, smallest: int, factor: float, **more: Any) -> list[int]:
    """The flips of one clip and one class of its weak label."""
    labels, probabilities = np.array(hard, bool)[None, :, None], np.array(sure)[None, :, None]
    lengths = np.array([len(hard)])
    found = flipped(labels, probabilities, np.array([[True]]), lengths, smallest=smallest, factor=factor, **more)
    return [int(flip) for flip in found[0, :, 0]]


def reference(
    hard: NDArray[Any], sure: NDArray[Any], weak: NDArray[Any], lengths: NDArray[Any], smallest: int, factor: float
) -> NDArray[np.bool_]:
    """One clip and class at a time."""
    flips = np.zeros(hard.shape, bool)
    for clip, index in zip(*np.nonzero(weak), strict=True):
        losses = []
        for second in range(lengths[clip]):
            p = sure[clip, second, index]
            if hard[clip, second, index]:
                losses.append(min(-math.log(p), 100) if p > 0 else 100.0)
            else:
                losses.append(min(-math.log1p(-p), 100) if p < 1 else 100.0)
        fewest = sorted(losses)[:smallest]
        for second, loss in enumerate(losses):
            flips[clip, second, index] = sum(fewest) > 0 and loss > factor * sum(fewest) / len(fewest)
    return flips


# The rule.


def test_a_label_flips_whose_loss_is_above_factor_times_the_mean_of_the_smallest() -> None:
    # Losses: -ln of 0.9, 0.9, 0.8, 0.9 and 0.05, that is 0.105, 0.105, 0.223, 0.105 and 2.996.
    hard, sure = [1, 1, 0, 1, 1], [0.9, 0.9, 0.2, 0.9, 0.05]
    assert of_clip(hard, sure, smallest=4, factor=6) == [0, 0, 0, 0, 1]  # 6 * 0.1348 = 0.809
    assert of_clip(hard, sure, smallest=4, factor=22) == [0, 0, 0, 0, 1]  # 22 * 0.1348 = 2.966
    assert of_clip(hard, sure, smallest=4, factor=23) == [0, 0, 0, 0, 0]  # 3.10
    assert of_clip(hard, sure, smallest=5, factor=4) == [0, 0, 0, 0, 1]  # 4 * 0.7070 = 2.828
    assert of_clip(hard, sure, smallest=5, factor=6) == [0, 0, 0, 0, 0]
    assert of_clip(hard, sure, smallest=3, factor=2) == [0, 0, 1, 0, 1]  # 2 * 0.1054 = 0.211


def test_labels_flip_both_ways() -> None:
    assert of_clip([0, 0, 1, 1], [0.1, 0.99, 0.9, 0.01], smallest=2, factor=6) == [0, 1, 0, 1]


def test_where_the_usual_loss_is_0_nothing_flips() -> None:
    assert of_clip([1, 1, 1, 1, 1], [1.0, 1.0, 1.0, 1.0, 0.3], smallest=4, factor=6) == [0] * 5
    assert of_clip([1, 1, 1, 1, 1], [1.0, 1.0, 1.0, 0.999, 0.3], smallest=4, factor=6) == [0, 0, 0, 0, 1]


def test_losses_end_at_100_so_that_certain_parsers_can_be_compared_with() -> None:
    assert of_clip([1, 1, 0], [0.0, 0.0, 1.0], smallest=3, factor=0.5) == [1, 1, 1]
    assert of_clip([1, 1, 0], [0.0, 0.0, 1.0], smallest=3, factor=1) == [0, 0, 0]


def test_a_clip_of_one_second_never_flips_by_factors_from_1_on() -> None:
    assert of_clip([1], [0.001], smallest=4, factor=6) == [0]
    assert of_clip([1], [0.001], smallest=4, factor=0.9) == [1]


def test_outside_the_weak_label_and_in_padding_nothing_flips() -> None:
    hard, sure = np.ones((2, 4, 2), bool), np.full((2, 4, 2), 0.9)
    sure[:, 3] = 1e-9
    weak, lengths = np.array([[True, False], [True, True]]), np.array([4, 3])
    found = flipped(hard, sure, weak, lengths, smallest=2, factor=6)
    assert np.argwhere(found).tolist() == [[0, 3, 0]]


def test_only_disagreeing_leaves_labels_that_the_parser_shares() -> None:
    hard, sure = [1, 1, 1, 0, 1, 0], [0.9999, 0.9999, 0.8, 0.2, 0.3, 0.7]
    assert of_clip(hard, sure, smallest=2, factor=6) == [0, 0, 1, 1, 1, 1]
    assert of_clip(hard, sure, smallest=2, factor=6, only_disagreeing=True) == [0, 0, 0, 0, 1, 1]


PROBABILITIES = st.floats(0, 1, width=32) | st.sampled_from([0.0, 1.0, 0.5, 2.0**-100])


@st.composite
def parsed(draw: Any) -> tuple[Any, ...]:
    """hard, probabilities, weak and lengths of some clips."""
    shape = (draw(st.integers(0, 3)), draw(st.integers(1, 10)), draw(st.integers(1, 3)))
    lengths = draw(arrays_of.arrays(np.int64, shape[:1], elements=st.integers(0, shape[1])))
    weak = draw(arrays_of.arrays(bool, (shape[0], shape[2])))
    return (
        draw(arrays_of.arrays(bool, shape)),
        draw(arrays_of.arrays(np.float32, shape, elements=PROBABILITIES)),
        weak,
        lengths,
    )


@settings(deadline=None, max_examples=150)
@given(clips=parsed(), smallest=st.integers(1, 12), factor=st.floats(0.1, 20))
def test_flips_are_what_loops_over_clips_and_classes_say(clips: tuple[Any, ...], smallest: int, factor: float) -> None:
    hard, sure, weak, lengths = clips
    found = flipped(*clips, smallest=smallest, factor=factor)
    # At the edge the two ways to round may differ: what holds by one part in a million more and less must be the same.
    least, most = (
        reference(hard, sure.astype(float), weak, lengths, smallest, factor * f) for f in (1 + 1e-6, 1 - 1e-6)
    )
    assert (least <= found).all()
    assert (found <= most).all()


@settings(deadline=None, max_examples=300)
@given(clips=parsed())
def test_valors_audio_settings_flip_nothing_in_ten_seconds_whatever_the_parser_says(clips: tuple[Any, ...]) -> None:
    assert not flipped(*clips, smallest=10, factor=10).any()
    assert cannot_flip(clips[3], smallest=10, factor=10).all()


def test_rounding_flips_nothing_where_nothing_can_flip() -> None:
    # One loss and zeros: 7 times a seventh of it may be rounded to less than it is.
    sure = np.ones((2000, 7, 1))
    sure[:, 3, 0] = np.linspace(0.001, 0.999, 2000)
    losses = -np.log(sure[:, 3, 0])
    assert (losses > 7 * (losses / 7)).any()
    hard, weak, lengths = np.ones(sure.shape, bool), np.ones((2000, 1), bool), np.full(2000, 7)
    assert not flipped(hard, sure, weak, lengths, smallest=7, factor=7).any()


@settings(deadline=None)
@given(seconds=st.integers(1, 30), smallest=st.integers(1, 40), factor=st.floats(0.01, 40))
def test_clips_that_cannot_flip_are_those_in_which_no_losses_would(seconds: int, smallest: int, factor: float) -> None:
    # The hardest case there is: one loss as high as can be, the others as good as none.
    sure = [1 - 1e-12] * (seconds - 1) + [0.0]
    found = of_clip([1] * seconds, sure, smallest=smallest, factor=factor)
    idle = bool(cannot_flip(np.array([seconds]), smallest=smallest, factor=factor)[0])
    assert any(found) is not idle or math.isclose(factor, seconds)


@given(
    soft=arrays_of.arrays(np.float32, (20,), elements=st.floats(0, 1, width=32)),
)
def test_flipped_soft_labels_are_1_minus_themselves_and_on_the_side_of_the_hard_ones(soft: NDArray[np.float32]) -> None:
    before = soft > 0.5
    after = mirrored(soft, ~before)
    np.testing.assert_allclose(after, 1 - soft, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(after > 0.5, ~before)
    edge = np.array([0.5, np.nextafter(np.float32(0.5), np.float32(0))], np.float32)
    assert mirrored(edge, np.array([True, True])).min() > 0.5
    # Soft labels that were cut elsewhere than at one half: a new hard label still has them on its side.
    assert (mirrored(soft, before) > 0.5).tolist() == before.tolist()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"smallest": 0}, "smallest is at least 1"),
        ({"factor": float("nan")}, "factor at least 0"),
        ({"weak": np.ones((1, 2), bool)}, r"weak.shape = \(1, 2\)"),
        ({"lengths": np.array([3, 3])}, r"lengths.shape = \(2,\)"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(wrong: dict[str, Any], message: str) -> None:
    cells: dict[str, Any] = {"hard": np.ones((1, 3, 1), bool), "probabilities": np.ones((1, 3, 1))}
    right = cells | {"weak": np.ones((1, 1), bool), "lengths": np.array([3]), "smallest": 2, "factor": 6.0}
    with pytest.raises(ValueError, match=message):
        flipped(**(right | wrong))


# The stage.


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def labels(store: Store) -> Artifact:
    return made_labels(store)


MakeParser = Callable[..., Artifact]


@pytest.fixture
def parser(store: Store, labels: Artifact, make_artifact: Callable[..., Artifact]) -> MakeParser:
    """Makes `parser/NAME`, trained on the labels: mostly sure of them, sometimes sure of the contrary."""

    def make(name: str = "mine", *, trained_on: Artifact | None = labels, **other: Any) -> Artifact:
        rng = np.random.default_rng(1)
        same = ("video_ids", "splits")
        arrays: dict[str, Any] = {one: labels.strings(one) for one in same}
        arrays |= {one: labels.array(one) for one in ("weak", "lengths", "status")}
        for modality in ("audio", "visual"):
            hard = labels.array(f"{modality}_hard")
            right = np.where(rng.random(hard.shape) < 0.1, 0.02, rng.uniform(0.85, 0.999, hard.shape))
            arrays[f"{modality}_probs"] = np.where(hard, right, 1 - right).astype(np.float32)
            arrays[f"{modality}_hard"] = arrays[f"{modality}_probs"] > 0.5
        arrays["video_probs"] = np.ones(arrays["weak"].shape, np.float32)
        classes = other.pop("classes", CLASSES)
        inputs = {"labels": trained_on} if trained_on else {}
        return make_artifact(store, f"parser/{name}", inputs=inputs, arrays=arrays | other, classes=classes)

    return make


def denoise(store: Store, told: Told | None = None, **params: Any) -> Outcome:
    step = Step("denoise", "clean", params, {"labels": "mine", "parser": "mine"})
    return run_step(store, step, progress=told or Told())


def test_labels_come_out_flipped_by_the_rule_and_soft_ones_with_them(
    store: Store, labels: Artifact, parser: MakeParser
) -> None:
    parses, made = parser(), denoise(store, audio_smallest=5, audio_factor=8).artifact
    opened = load_labels("labels/clean", store=store.root)
    assert opened.classes == tuple(CLASSES)
    assert opened.video_ids == labels.strings("video_ids")
    for modality, smallest, factor in (("audio", 5, 8), ("visual", 4, 6)):
        hard, soft = labels.array(f"{modality}_hard"), labels.array(f"{modality}_soft")
        flips = reference(
            hard, parses.array(f"{modality}_probs").astype(float), labels.array("weak"), labels.array("lengths"),
            smallest, factor,
        )  # fmt: skip
        assert flips.sum() > 5
        np.testing.assert_array_equal(getattr(opened, f"{modality}_hard"), hard ^ flips)
        np.testing.assert_allclose(getattr(opened, f"{modality}_soft"), np.where(flips, 1 - soft, soft), atol=1e-7)
        counts = made.attrs["flipped"][modality]
        assert counts["by_class"] == dict(zip(CLASSES, flips.sum(axis=(0, 1)).tolist(), strict=True))
        assert counts["cells"] == flips.sum() == counts["to_on"] + counts["to_off"]
        assert counts["to_on"] == (flips & ~hard).sum()
        assert counts["against_parser"] == (flips & (parses.array(f"{modality}_hard") == hard)).sum()
    assert made.attrs["method"] == "made + pld"
    assert not [name for name in made.array_names() if name.endswith(("_logits", "_thresholds"))]


def test_valors_settings_leave_audio_as_it_is_and_say_so(store: Store, labels: Artifact, parser: MakeParser) -> None:
    parser()
    told = Told()
    made = denoise(store, told).artifact
    for which in ("hard", "soft"):
        np.testing.assert_array_equal(made.array(f"audio_{which}"), labels.array(f"audio_{which}"))
        assert (made.array(f"visual_{which}") != labels.array(f"visual_{which}")).any()
    assert made.attrs["flipped"]["audio"]["clips_that_cannot_change"] == 20
    assert "audio: these settings cannot change a label of any clip: in up to 10 seconds, 10 times" in told.text
    assert "visual: these settings" not in told.text
    assert "audio: 0 labels flipped" in told.text
    assert f"visual: {made.attrs['flipped']['visual']['cells']} labels flipped" in told.text


def test_settings_that_can_change_long_clips_only_are_told_with_how_many(store: Store, parser: MakeParser) -> None:
    parser()
    told = Told()
    denoise(store, told, modalities="visual", visual_smallest=9, visual_factor=8)
    assert "visual: these settings cannot change a label of 4 of 20 clips: in up to 8 seconds" in told.text
    assert "audio" not in told.text


def test_where_labels_come_from_and_where_they_could_be_is_carried_on(store: Store, parser: MakeParser) -> None:
    parser()
    assert not {"origin", "weak_filter"} & {*denoise(store).artifact.attrs}
    parser(trained_on=made_labels(store, origin="simulation", weak_filter="audio"))
    carried = denoise(store).artifact.attrs
    assert (carried["origin"], carried["weak_filter"]) == ("simulation", "audio")


def test_one_modality_alone_leaves_the_other_as_it_is(store: Store, labels: Artifact, parser: MakeParser) -> None:
    parser()
    made = denoise(store, modalities="audio", audio_smallest=4, audio_factor=6).artifact
    np.testing.assert_array_equal(made.array("visual_hard"), labels.array("visual_hard"))
    np.testing.assert_array_equal(made.array("visual_soft"), labels.array("visual_soft"))
    assert list(made.attrs["flipped"]) == ["audio"]
    assert made.attrs["flipped"]["audio"]["cells"] > 0


def test_flips_against_the_parsers_own_opinion_are_told_and_can_be_left_out(store: Store, parser: MakeParser) -> None:
    parser()
    told = Told()
    counts = denoise(store, told, visual_factor=2.0).artifact.attrs["flipped"]["visual"]
    assert counts["cells"] > counts["against_parser"] > 0
    assert f"{counts['against_parser']} of them although the parser agreed" in told.text
    fewer = denoise(store, visual_factor=2.0, only_disagreeing=True).artifact.attrs["flipped"]["visual"]
    assert fewer["against_parser"] == 0
    assert fewer["cells"] == counts["cells"] - counts["against_parser"]


def test_clips_that_the_parser_could_not_parse_keep_their_labels(
    store: Store, labels: Artifact, parser: MakeParser
) -> None:
    status = np.ones(20, np.uint8)
    status[3:] = 2
    parser(status=status)
    told = Told()
    made = denoise(store, told).artifact
    assert (made.array("visual_hard")[:3] != labels.array("visual_hard")[:3]).any()
    np.testing.assert_array_equal(made.array("visual_hard")[3:], labels.array("visual_hard")[3:])
    np.testing.assert_array_equal(made.array("status"), labels.array("status"))
    assert "17 clips that parser/mine@" in told.text


def test_a_parser_that_was_trained_on_something_else_is_told(store: Store, parser: MakeParser) -> None:
    made_labels(store, name="others", seed=5)
    parser(trained_on=store.get("labels/others"))
    told = Told()
    denoise(store, told)
    assert "parser/mine@" in told.text
    assert "was trained on labels/others@" in told.text


def test_a_parser_trained_on_these_labels_gets_no_remark(store: Store, parser: MakeParser) -> None:
    parser()
    told = Told()
    denoise(store, told)
    assert "trained on" not in told.text


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"video_ids": [f"v{row}" for row in range(20)]}, "labels/mine@.* and parser/mine@.* cover different clips"),
        ({"classes": ["Drum", "Bell", "Flute"]}, "'Bell' where it has 'Drum'.*trained on these labels"),
        ({"classes": [*CLASSES, "Horn"]}, r"\(3, it has 4\)"),
        ({"lengths": np.full(20, 9, np.int32)}, "clip0000000_0_10 has 10 seconds in labels/mine.* but 9 in parser"),
        ({"visual_probs": np.ones((20, 11, 3), np.float32)}, r"parser/mine@\w+ parses \(20, 11, 3\)"),
    ],
)
def test_a_parser_of_other_clips_seconds_or_classes_is_refused(
    store: Store, parser: MakeParser, other: dict[str, Any], message: str
) -> None:
    parser(**other)
    with pytest.raises(StoreError, match=message):
        denoise(store)
    assert store.find(dataclasses.replace(store.get("labels/mine").reference, name="clean", version=None)) is None


class StoppedError(Exception):
    pass


class Stops(Told):
    """Ends the run as a kill would, after so many shards."""

    def track(self, items: Any, **shown: Any) -> Iterator[Any]:
        for count, item in enumerate(super().track(items, **shown)):
            if count == 3:
                raise StoppedError
            yield item


def test_a_killed_run_goes_on_to_the_same_labels_and_counts(
    store: Store, parser: MakeParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STAGES, "denoise", dataclasses.replace(STAGES["denoise"], shard_rows=4))
    parser()
    whole = denoise(store).artifact
    wanted = {name: whole.rows(name, slice(None)) for name in whole.array_names()}, whole.attrs["flipped"]
    step = Step("denoise", "again", NOTHING, {"labels": "mine", "parser": "mine"})
    with pytest.raises(StoppedError):
        run_step(store, step, progress=Stops())
    begun = next(Path(store.root, "labels/again").glob(".*.partial"))
    shard = "audio_hard/c/0/0/0"
    (written,) = [path.stat().st_mtime_ns for path in begun.rglob(shard)]
    made = run_step(store, step, progress=Told()).artifact
    assert begun.name == f".{made.key}.partial"
    assert (made.path / shard).stat().st_mtime_ns == written, "what was written is left as it is"
    assert made.attrs["flipped"] == wanted[1]
    for name, array in wanted[0].items():
        np.testing.assert_array_equal(made.rows(name, slice(None)), array, err_msg=name)


def test_the_command_names_what_it_makes_after_the_labels_and_not_like_them(
    store: Store, parser: MakeParser, avvp: Callable[..., Any]
) -> None:
    parser()
    ran = avvp("denoise", "--labels", "labels/mine", "--parser", "parser/mine", "--store", store.root, "--json")
    assert ran.code == 0, ran.err
    assert store.get("labels/mine-pld").attrs["method"] == "made + pld"
    inputs = {"labels": "labels/llp-uwav", "parser": "parser/llp"}
    assert default_name(STAGES["denoise"], {"method": "pld"}, inputs) == "llp-uwav-pld"
