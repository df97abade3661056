"""The evaluator equals the plain loops, the released evaluators, and hand-computed cases."""

from __future__ import annotations

import doctest
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from avvp_pipe.stages import metrics
from avvp_pipe.stages.blocks import checks, event_counts
from avvp_pipe.stages.metrics import LEVELS, METRICS, Pooling, avvp_scores, class_scores, clip_scores

Labels = NDArray[np.bool_]

World = tuple[Labels, Labels, Labels, Labels, NDArray[np.int64]]


def _reference() -> Any:
    path = Path(__file__).with_name("reference_metrics.py")
    spec = importlib.util.spec_from_file_location("reference_metrics", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = _reference()


def timeline(picture: str) -> Labels:
    """One class of one clip, a character a second: '.##.' -> (1, 4, 1)."""
    return np.array([mark == "#" for mark in picture]).reshape(1, -1, 1)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Predicted audio and visual labels of a few clips, the true ones, and the clips' lengths."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 4)))
    pred_audio, pred_visual, true_audio, true_visual = (draw(arrays(bool, shape)) for _ in range(4))
    lengths = draw(arrays(np.int64, shape[0], elements=st.integers(1, shape[1])))
    return pred_audio, pred_visual, true_audio, true_visual, lengths


# The protocol


@given(worlds())
def test_the_official_scores_equal_those_of_the_plain_loops(world: World) -> None:
    ours, plain = avvp_scores(*world), reference.official_scores(*world)
    for level in LEVELS:
        assert ours[level] == pytest.approx(plain[level], abs=1e-9)


def test_every_pair_of_seven_second_time_lines_is_counted_as_the_plain_loops_count_it() -> None:
    lines = ((np.arange(128)[:, None] >> np.arange(7)) & 1).astype(bool)
    predicted, true = (grid.ravel() for grid in np.meshgrid(np.arange(128), np.arange(128)))
    counts = event_counts.event_counts(lines[predicted].T[None], lines[true].T[None])
    spelled = lines.tolist()
    plain = [
        reference.event_counts(spelled[p], spelled[t]) for p, t in zip(predicted.tolist(), true.tolist(), strict=True)
    ]
    ours = np.stack([counts.true_positives, counts.false_positives, counts.false_negatives], axis=-1)
    np.testing.assert_array_equal(ours[0], plain)


@pytest.mark.parametrize(
    ("predicted", "true", "score"),
    [
        ("####....", "##......", 100.0),  # half of the union is enough
        ("#####...", "##......", 0.0),  # two of five is not
        ("##.##...", "#####...", 0.0),  # two separate halves never reach it
        ("###.#...", "#####...", 200 / 3),  # found by the long piece; the short one is false
        ("........", "........", 100.0),  # nothing there, nothing said
        ("#.......", "........", 0.0),
    ],
)
def test_an_event_is_found_at_an_overlap_of_half(predicted: str, true: str, score: float) -> None:
    nothing = timeline("." * 8)
    scores = avvp_scores(timeline(predicted), nothing, timeline(true), nothing)
    assert scores["event"]["A"] == pytest.approx(score)


def test_a_false_class_takes_its_share_of_the_clip() -> None:
    true = np.zeros((1, 10, 25), dtype=bool)
    true[0, :5, 0] = True
    predicted = true.copy()
    predicted[0, 0, 7] = True
    assert avvp_scores(predicted, true, true, true)["segment"]["A"] == pytest.approx(50.0)


def test_type_averages_and_event_pools() -> None:
    # Heard: 2 of 4 seconds found.  Seen: 4 of 4.  Together 6 of 8; both at once 2 of 4.
    whole, half = timeline("####"), timeline("##..")
    scores = avvp_scores(half, whole, whole, whole)["segment"]
    assert scores["A"] == pytest.approx(100 * 4 / 6)
    assert scores["V"] == pytest.approx(100.0)
    assert scores["AV"] == pytest.approx(100 * 4 / 6)
    assert scores["Type"] == pytest.approx((100 * 4 / 6 * 2 + 100) / 3)
    assert scores["Event"] == pytest.approx(100 * 12 / 14)
    assert scores["Ao"] == 100.0
    assert scores["Vo"] == 0.0


@given(worlds())
def test_truth_itself_scores_100_in_everything(world: World) -> None:
    heard, seen, _, _, lengths = world
    poolings: tuple[Pooling, ...] = ("official", "micro", "class-macro")
    for pooling in poolings:
        scores = avvp_scores(heard, seen, heard, seen, lengths, pooling=pooling)
        assert all(value == pytest.approx(100) for level in LEVELS for value in scores[level].values())


@given(worlds(), st.integers(0, 2**32 - 1))
def test_segments_beyond_a_clips_length_never_count(world: World, seed: int) -> None:
    pred_audio, pred_visual, true_audio, true_visual, lengths = world
    padding = (np.arange(pred_audio.shape[1]) >= lengths[:, None])[:, :, None]
    random = np.random.default_rng(seed)

    def noisy(labels: Labels) -> Labels:
        return labels | (padding & (random.random(labels.shape) < 0.5))

    scores = avvp_scores(noisy(pred_audio), noisy(pred_visual), noisy(true_audio), noisy(true_visual), lengths)
    assert scores == avvp_scores(*world)


@given(worlds(), st.randoms())
def test_the_order_of_classes_does_not_matter(world: World, random: Any) -> None:
    heard, seen, truly_heard, truly_seen, lengths = world
    order = list(range(heard.shape[2]))
    random.shuffle(order)
    shuffled = avvp_scores(
        heard[..., order], seen[..., order], truly_heard[..., order], truly_seen[..., order], lengths
    )
    for level in LEVELS:
        assert shuffled[level] == pytest.approx(avvp_scores(*world)[level])


@given(worlds())
def test_clip_scores_average_to_the_official_ones(world: World) -> None:
    official, by_clip = avvp_scores(*world), clip_scores(*world)
    for level in LEVELS:
        assert list(by_clip[level]) == list(METRICS) == list(official[level])
        for metric, values in by_clip[level].items():
            assert values.shape == (len(world[0]),)
            assert values.mean() == pytest.approx(official[level][metric])


@given(worlds())
def test_class_scores_average_to_class_macro_where_a_class_occurs(world: World) -> None:
    macro = avvp_scores(*world, pooling="class-macro")
    by_class = class_scores(*world)
    for level in LEVELS:
        for metric in ("A", "V", "AV", "Event", "Ao", "Vo", "Evento"):
            known = by_class[level][metric][~np.isnan(by_class[level][metric])]
            assert macro[level][metric] == pytest.approx(known.mean() if known.size else 100.0)


def test_micro_pooling_counts_every_second_alike() -> None:
    # One clip with nine of nine seconds found, one with none of one: 9 found, 1 missed, 1 false.
    true, predicted = np.zeros((2, 10, 1), dtype=bool), np.zeros((2, 10, 1), dtype=bool)
    true[0, :9] = predicted[0, :9] = true[1, 0] = predicted[1, 5] = True
    assert avvp_scores(predicted, true, true, true)["segment"]["A"] == pytest.approx(50.0)
    assert avvp_scores(predicted, true, true, true, pooling="micro")["segment"]["A"] == pytest.approx(90.0)


# Known figures


def test_golden_scores_of_the_released_evaluator_agree(real_data: Path) -> None:
    golden = np.load(real_data / "golden" / "metrics.npz")
    scores = avvp_scores(*(golden[k] for k in ("pred_audio", "pred_visual", "true_audio", "true_visual")))
    for level in LEVELS:
        ours = [scores[level][metric] for metric in ("A", "V", "Event", "AV")]
        np.testing.assert_allclose(ours, golden[f"{level}_A_V_Event_AV"], rtol=0, atol=1e-9)


# What is refused


def test_integers_of_0_and_1_are_labels_too() -> None:
    labels = timeline("##..").astype(np.uint8)
    assert avvp_scores(labels, labels, labels, labels)["segment"]["A"] == 100.0


@pytest.mark.parametrize("labels", [np.full((1, 4, 1), 0.5), np.ones((1, 4, 1)), np.full((1, 4, 1), 2)])
def test_soft_labels_are_refused(labels: NDArray[Any]) -> None:
    hard = timeline("####")
    with pytest.raises(ValueError, match="true_visual must hold booleans"):
        avvp_scores(hard, hard, hard, labels)


def test_arrays_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="must share one shape"):
        avvp_scores(timeline("##"), timeline("##"), timeline("##"), timeline("###"))
    flat = np.zeros((4, 2), dtype=bool)
    with pytest.raises(ValueError, match="must share one shape"):
        avvp_scores(flat, flat, flat, flat)


def test_an_unknown_pooling_is_refused_and_the_known_are_named() -> None:
    line = timeline("##")
    with pytest.raises(ValueError, match="there are official, micro, class-macro"):
        avvp_scores(line, line, line, line, pooling="macro")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3], "must lie in 0..2"),
        ([-1], "must lie in 0..2"),
        ([1.0], "one integer for each"),
        ([1, 1], "one integer for each"),
        ([0], "clip 0 has length 0"),
    ],
)
def test_lengths_that_cannot_be_are_refused(lengths: list[float], message: str) -> None:
    line = timeline("##")
    with pytest.raises(ValueError, match=message):
        avvp_scores(line, line, line, line, lengths)


def test_no_clips_are_no_score() -> None:
    none = np.zeros((0, 10, 25), dtype=bool)
    with pytest.raises(ValueError, match="no clip to score"):
        avvp_scores(none, none, none, none)


# The module


def test_scoring_needs_numpy_alone() -> None:
    code = "import sys, avvp_pipe.stages.metrics; print({'torch', 'zarr'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("module", [metrics, checks, event_counts])
def test_the_examples_in_the_documentation_run(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
