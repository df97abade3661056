"""Methods side by side: the official scores, their spread over seeds, and how sure a difference is."""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avvp_pipe.pipeline.compare import compare_methods, grouped
from avvp_pipe.stages.blocks.event_counts import Counts
from avvp_pipe.stages.blocks.paired_bootstrap import clip_draws, paired_difference, resampled_scores
from avvp_pipe.stages.metrics import METRICS, Pooling, label_counts, scores_of
from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import Artifact, Store, StoreError
from tests.conftest import build_small

CLASSES = ["Bell", "Drum", "Flute"]
CLIPS = 12
POOLINGS: tuple[Pooling, ...] = ("official", "micro", "class-macro")


def counts_of(seed: int, clips: int = CLIPS) -> Mapping[str, Mapping[str, Counts]]:
    random = np.random.default_rng(seed)
    labels = [random.random((clips, 5, 3)) < share for share in (0.3, 0.2, 0.3, 0.2)]
    labels[0][0] = labels[1][0] = labels[2][0] = labels[3][0] = False  # a clip where nothing is, and nothing is called
    return label_counts(labels[0], labels[1], labels[2], labels[3], None)


def drawn_slowly(counts: Mapping[str, Counts], draw: Any, pooling: Pooling) -> dict[str, float]:
    """One draw: every clip copied as often as it was drawn, then the protocol as for any clips."""
    rows = [clip for clip, times in enumerate(draw) for _ in range(times)]
    taken = {
        name: Counts(one.true_positives[rows], one.false_positives[rows], one.false_negatives[rows])
        for name, one in counts.items()
    }
    return scores_of({"segment": taken}, pooling)["segment"]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("level", ["segment", "event"])
def test_scores_of_draws_are_those_of_clips_copied_one_by_one(pooling: Pooling, level: str) -> None:
    counts = counts_of(0)[level]
    draws = clip_draws(CLIPS, 300, seed=1)
    found = resampled_scores(counts, draws, pooling)
    assert set(METRICS) <= set(found)
    for place in (*range(20), 255, 256, 299):
        slow = drawn_slowly(counts, draws[place], pooling)
        for metric in METRICS:
            assert found[metric][place] == pytest.approx(slow[metric], abs=1e-9)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_clip_once_gives_the_scores_themselves(pooling: Pooling) -> None:
    counts = counts_of(3)
    once = np.ones((1, CLIPS), np.int64)
    for level, scores in scores_of(counts, pooling).items():
        found = resampled_scores(counts[level], once, pooling)
        assert {metric: found[metric][0] for metric in METRICS} == pytest.approx(scores)


def test_draws_are_of_as_many_clips_and_come_from_the_seed() -> None:
    draws = clip_draws(7, 50, seed=4)
    assert draws.shape == (50, 7)
    assert (draws.sum(axis=1) == 7).all()
    assert (draws == clip_draws(7, 50, seed=4)).all()
    assert (draws != clip_draws(7, 50, seed=5)).any()


def test_an_interval_and_p_by_hand() -> None:
    ours, theirs = np.arange(1.0, 1000.0), np.full(999, 20.5)  # 20 of 999 draws are on the other side
    found = paired_difference(ours, theirs, difference=400.0)
    assert found.p == pytest.approx(2 * 21 / 1000)
    assert [found.difference, found.low, found.high] == pytest.approx([400.0, 5.45, 953.55])
    mirrored = paired_difference(theirs, ours, difference=-400.0)
    assert [mirrored.p, mirrored.low, mirrored.high] == pytest.approx([found.p, -found.high, -found.low])


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_a_method_does_not_differ_from_itself(seed: int) -> None:
    drawn = resampled_scores(counts_of(seed)["segment"], clip_draws(CLIPS, 100, seed=seed))
    found = paired_difference(drawn["Type"], drawn["Type"], difference=0.0)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_p_is_uniform_where_two_methods_are_alike() -> None:
    values = []
    for trial in range(200):
        random = np.random.default_rng(trial)
        scores = random.normal(50, 10, (2, 60))
        draws = clip_draws(60, 300, seed=trial)
        drawn = draws @ scores.T / 60
        values.append(paired_difference(drawn[:, 0], drawn[:, 1], difference=0.0).p)
    assert 0.02 <= np.mean(np.array(values) < 0.1) <= 0.2
    assert 0.35 <= np.mean(np.array(values) < 0.5) <= 0.65


def test_pairing_sees_what_two_separate_intervals_do_not() -> None:
    easy = np.random.default_rng(0).normal(50, 25, 200)
    draws = clip_draws(200, 1000, seed=0)
    first, second = draws @ (easy + 2) / 200, draws @ easy / 200
    assert paired_difference(first, second, difference=2.0).p < 0.01
    assert np.percentile(first, 2.5) < np.percentile(second, 97.5)


def stored(store: Store, *, joint: bool = False, failed: int | None = None) -> dict[str, Artifact]:
    """A dataset; labels that are right, that are half right in two seeds, and that are empty."""
    random = np.random.default_rng(0)
    truth = {name: random.random((CLIPS, 5, 3)) < 0.4 for name in ("audio", "visual")}
    splits = ["val"] * 4 + ["test"] * 8
    rows: dict[str, Any] = {"video_ids": [f"c{row}" for row in range(CLIPS)], "splits": splits}
    rows |= {"weak": np.ones((CLIPS, 3), bool), "lengths": np.full(CLIPS, 5, np.int32)}
    dense = np.full(CLIPS, 2 if joint else 1, np.uint8)
    both = truth["audio"] & truth["visual"]
    dataset = build_small(store, "dataset/mine", arrays={**rows, **truth, "audio_visual": both, "dense": dense},
                          classes=CLASSES)  # fmt: skip
    status = np.ones(CLIPS, np.uint8)
    made = {"dataset": dataset}

    def add(name: str, kind: str, noise: float, seed: int, **inputs: Artifact) -> None:
        flips = np.random.default_rng(seed).random((2, CLIPS, 5, 3)) < noise
        own = status.copy()
        if failed is not None and name == "right":
            own[failed] = 2
        arrays = {
            **rows,
            "status": own,
            "audio_hard": truth["audio"] ^ flips[0],
            "visual_hard": truth["visual"] ^ flips[1],
        }
        made[name] = build_small(store, f"{kind}/{name}", params={"k": seed}, inputs={"dataset": dataset, **inputs},
                                 arrays=arrays, classes=CLASSES, method=name)  # fmt: skip

    add("right", "labels", 0.0, 1)
    add("half-seed1", "parser", 0.3, 2)
    add("half-seed2", "parser", 0.2, 3)
    add("other", "labels", 0.2, 4)
    inputs = {"predictions": made["right"], "dataset": dataset}
    made["scores"] = build_small(store, "scores/right", inputs=inputs, arrays={"x": np.zeros(1)})
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = Store(tmp_path_factory.mktemp("compared"))
    stored(root)
    return root


NAMES = ("labels/right", "parser/half-seed1", "parser/half-seed2", "labels/other")


def test_means_and_spread_are_those_of_the_runs_scores(store: Store) -> None:
    found = compare_methods(store, grouped(NAMES, ()), resamples=100)
    assert [(one.name, len(one.references)) for one in found.methods] == [
        ("labels/right", 1), ("parser/half", 2), ("labels/other", 1),
    ]  # fmt: skip
    assert (found.clips, found.split, found.against, found.left_out) == (8, "test", "labels/right", 0)
    assert set(found.methods[0].scores["segment"].values()) == {(100.0,)}
    half, truth = found.methods[1], store.get("dataset/mine")
    rows = slice(4, 12)
    for run, name in enumerate(("half-seed1", "half-seed2")):
        one = store.get(f"parser/{name}")
        heard, seen = one.array("audio_hard")[rows], one.array("visual_hard")[rows]
        counts = label_counts(heard, seen, truth.array("audio")[rows], truth.array("visual")[rows], None)
        for level, scores in scores_of(counts).items():
            for metric in found.metrics:
                assert half.scores[level][metric][run] == pytest.approx(scores[metric])
    first, second = half.scores["event"]["Type"]
    assert half.mean("event", "Type") == pytest.approx((first + second) / 2)
    assert half.deviation("event", "Type") == pytest.approx(abs(first - second) / 2**0.5)
    assert found.methods[0].deviation("event", "Type") is None


def test_differences_are_of_means_and_lie_in_their_intervals(store: Store) -> None:
    found = compare_methods(store, grouped(NAMES, ()), resamples=500, against="labels/other")
    assert {one.method for one in found.differences} == {"labels/right", "parser/half"}
    assert len(found.differences) == 2 * 2 * 5
    for one in found.differences:
        by_name = {method.name: method for method in found.methods}
        means = [by_name[name].mean(one.level, one.metric) for name in (one.method, "labels/other")]
        assert one.found.difference == pytest.approx(means[0] - means[1])
        assert one.found.low <= one.found.difference <= one.found.high
        if one.method == "labels/right":
            assert (one.found.low > 0, one.found.p < 0.05) == (True, True)


def test_scores_stand_for_what_they_are_of_and_groups_have_names(store: Store) -> None:
    methods = grouped(["scores/right"], ["ours=parser/half-seed1,labels/other"])
    found = compare_methods(store, methods, resamples=100)
    assert [(one.name, one.references) for one in found.methods] == [
        ("scores/right", ("scores/right",)), ("ours", ("parser/half-seed1", "labels/other")),
    ]  # fmt: skip
    assert found.methods[0].mean("segment", "A") == 100


def test_clips_that_failed_in_one_count_in_none(tmp_path: Path) -> None:
    stored(Store(tmp_path), failed=6)
    found = compare_methods(Store(tmp_path), grouped(["labels/other", "labels/right"], ()), resamples=100)
    assert (found.clips, found.left_out) == (7, 1)


def test_of_jointly_labelled_clips_av_alone_is_compared(tmp_path: Path) -> None:
    stored(Store(tmp_path), joint=True)
    found = compare_methods(Store(tmp_path), grouped(NAMES, ()), resamples=100)
    assert found.metrics == ("AV",)
    assert found.methods[0].scores["segment"] == {"AV": (100.0,)}
    assert {one.metric for one in found.differences} == {"AV"}


def test_what_cannot_be_compared_is_refused_with_what_to_do(store: Store, tmp_path: Path) -> None:
    for names, groups, told in (
        (["labels/right"], [], "one method only"),
        (["labels/right", "labels/right"], [], "given twice"),
        (["labels/right"], ["x"], "not NAME=REFERENCE"),
        (["labels/right"], ["labels/right=labels/other"], "two methods are called"),
    ):
        with pytest.raises(ParameterError, match=told):
            compare_methods(store, grouped(names, groups))
    two = grouped(["labels/right", "labels/other"], ())
    with pytest.raises(ParameterError, match=r"no clips in the split 'train'.*it has them in test, val"):
        compare_methods(store, two, split="train")
    with pytest.raises(ParameterError, match="'x' is none of the methods"):
        compare_methods(store, two, against="x")
    with pytest.raises(StoreError, match="cannot be scored"):
        compare_methods(store, grouped(["labels/right", "dataset/mine"], ()))
    build_small(
        store, "labels/alien", arrays={"video_ids": ["z"], "audio_hard": np.zeros((1, 5, 3), bool)}, classes=CLASSES
    )
    with pytest.raises(StoreError, match="different clips"):
        compare_methods(store, grouped(["labels/right", "labels/alien"], ()))


LINE = ("compare", *NAMES, "--resamples", "200")


def test_the_table_fits_80_columns(avvp: Callable[..., Any], store: Store) -> None:
    ran = avvp(*LINE, "--store", store.root)
    assert ran.code == 0, ran.err
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "parser/half (2 runs)" in ran.out
    assert "points above labels/right" in ran.out


def test_json_csv_and_latex_say_the_same(avvp: Callable[..., Any], store: Store) -> None:
    document = avvp(*LINE, "--store", store.root, "--json").document
    rows = list(csv.DictReader(io.StringIO(avvp(*LINE, "--store", store.root, "--csv").out)))
    assert len(rows) == 3 * 2 * 5
    by_name = {one["name"]: one for one in document["methods"]}
    apart = {(one["method"], one["level"], one["metric"]): one for one in document["differences"]}
    for row in rows:
        said = by_name[row["method"]][row["level"]][row["metric"]]
        assert float(row["mean"]) == said["mean"]
        assert (row["deviation"] == "") == (said["deviation"] is None)
        other = apart.get((row["method"], row["level"], row["metric"]))
        assert (row["p"] == "") == (other is None) == (row["method"] == document["against"])
        assert other is None or float(row["low"]) == other["low"]
    latex = avvp(*LINE, "--store", store.root, "--latex").out.splitlines()
    assert len(latex) == 1 + 3
    assert all(line.count("&") == 10 for line in latex)
    assert all(line.endswith(r" \\") for line in latex[1:])
    assert r"labels/right & \textbf{100.0} & \textbf{100.0}" in latex[1]
    mean, deviation = (by_name["parser/half"]["segment"]["A"][name] for name in ("mean", "deviation"))
    assert rf"{mean:.1f} $\pm$ {deviation:.1f}" in latex[2]


def test_names_cannot_break_latex(avvp: Callable[..., Any], store: Store) -> None:
    ran = avvp("compare", "labels/right", "--group", r"a_b & 50% \x$=labels/other", "--latex", "--store", store.root)
    assert r"a\_b \& 50\% \textbackslash{}x\$ & " in ran.out


def test_it_is_the_same_twice(avvp: Callable[..., Any], store: Store) -> None:
    assert avvp(*LINE, "--store", store.root, "--json").out == avvp(*LINE, "--store", store.root, "--json").out
