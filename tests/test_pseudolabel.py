"""Stage `pseudolabel`: labels shard by shard, the same however they are cut, killed or gone on with."""

from __future__ import annotations

import dataclasses
import gc
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages import pseudolabel
from avvp_pipe.stages.blocks.thresholds import class_minimum, soft_labels
from avvp_pipe.stages.generators import GENERATORS, Evidence, LabelGenerator, Labeller, Logits
from avvp_pipe.stages.stage import ParameterError, Silent
from avvp_pipe.store import Artifact, Builder, Identity, Reference, Store
from tests.label_world import CLASSES, Bench, World, stored, stored_generator, world
from tests.made import made
from tests.small_world import files_of

INF = np.inf
OPEN = np.array([-INF, 5.0, -INF, 8.0], np.float32)
LABELS = {"dataset": "mine", "features": "mine", "thresholds": "fit"}


def cut_at(store: Store, audio: Any, visual: Any, *, method: str = "valor", name: str = "fit") -> Artifact:
    """Thresholds by hand."""

    def fill(out: Builder) -> None:
        for modality, cuts in (("audio", audio), ("visual", visual)):
            out.put(modality, np.asarray(cuts, np.float32))
            out.put(f"{modality}_f1", np.zeros(len(CLASSES)))
        out.describe(classes=list(CLASSES), method=method, weak_filter="both", prompts="valor")

    values = [str(value) for value in (*audio, *visual)]
    return made(store, Reference("thresholds", name), Identity("calibrate", 2, {"cuts": values}, {}), fill)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, world(41, training=17, failed=(5, 20)))


def shards_of(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "pseudolabel", dataclasses.replace(STAGES["pseudolabel"], shard_rows=rows))


# Shards


@pytest.mark.parametrize("rows", [1, 4, 16])
def test_labels_do_not_depend_on_how_the_clips_are_cut_into_shards(
    bench: Bench, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_at(bench.store, OPEN, OPEN[::-1])
    whole = bench.label(name="whole")
    shards_of(rows, monkeypatch)
    cut = bench.label(name="cut")
    for name in whole.array_names():
        if whole.facts(name).dtype != "string":
            np.testing.assert_array_equal(cut.array(name), whole.array(name))


class StoppedError(Exception):
    pass


class StopAfter(Silent):
    """A Progress that stops the run after some shards."""

    def __init__(self, shards: int) -> None:
        self.shards = shards

    def track(self, items: Any, *, total: int, label: str, done: int = 0) -> Any:
        for place, item in enumerate(items):
            if place == self.shards:
                raise StoppedError
            yield item


@pytest.mark.parametrize("method", ["valor", "uwav"])
@pytest.mark.parametrize("stop", [1, 6])
def test_a_run_that_stopped_goes_on_at_a_shard_and_ends_with_the_same_bytes(
    bench: Bench, method: str, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards_of(4, monkeypatch)
    generator = {"generator": "generator/uwav"} if method == "uwav" else {}
    stored_generator(bench.store, "uwav")
    cut_at(bench.store, OPEN, OPEN, method=method)
    whole = bench.label(method, name="whole")
    step = Step("pseudolabel", "resumed", {"method": method}, {**LABELS, **generator})
    with pytest.raises(StoppedError):
        run_step(bench.store, step, progress=StopAfter(stop))
    written: list[int] = []
    write = Builder.write

    def noted(self: Builder, rows: slice, arrays: Any, **more: Any) -> None:
        written.append(rows.start)
        write(self, rows, arrays, **more)

    monkeypatch.setattr(Builder, "write", noted)
    resumed = run_step(bench.store, step, progress=Silent()).artifact
    assert written == list(range(4 * stop, 41, 4))
    ours, theirs = (files_of(one.path) for one in (resumed, whole))
    assert {name for name in ours if ours[name] != theirs[name]} <= {"zarr.json"}
    assert ours.keys() == theirs.keys()


def test_without_open_thresholds_clips_are_looked_at_once_and_only_so_many_at_a_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def watched(generators: Any, fitted: Any) -> Labeller:
        labels = GENERATORS["valor"].labeller(generators, fitted)

        def logits(evidence: Evidence) -> Logits:
            sizes.append(len(evidence.weak))
            return labels(evidence)

        return logits

    shards_of(8, monkeypatch)
    method: LabelGenerator = dataclasses.replace(GENERATORS["valor"], labeller=watched)
    monkeypatch.setattr(pseudolabel, "label_generator", lambda name: method)
    cut_at(bench.store, [0.0] * 4, [0.0] * 4)
    bench.label()
    assert sizes == [8, 8, 8, 8, 8, 1]


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards_of(32, monkeypatch)

    def most_bytes(folder: Path, clips: int) -> int:
        bench = Bench(folder, world(clips, segments=40, training=1))
        cut_at(bench.store, [0.0] * 4, [0.0] * 4)
        gc.collect()
        tracemalloc.start()
        bench.label()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    most_bytes(tmp_path / "first", 32)  # what is imported and compiled once does not count
    few, many = most_bytes(tmp_path / "few", 64), most_bytes(tmp_path / "many", 1024)
    # The features of 1,024 clips take 3.3 MB, their logits and labels 2.9 MB; 1/32 of that is held at a time.
    assert many < few + 2_000_000


# Thresholds of -inf


def training_floor(one: World) -> dict[str, Any]:
    rows = one.rows(np.flatnonzero((np.array(one.splits) == "train") & (one.status == 1)))
    logits = GENERATORS["valor"].labeller({}, {})(rows.evidence)
    return {modality: class_minimum(values, lengths=rows.lengths) for modality, values in logits._asdict().items()}


@pytest.mark.parametrize("known_bytes", [0, 2**20])
def test_an_open_threshold_is_the_lowest_logit_of_the_training_clips_less_one(
    bench: Bench, known_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pseudolabel, "KNOWN_BYTES", known_bytes)
    cut_at(bench.store, OPEN, [0.0] * 4)
    labels = bench.label()
    floors = training_floor(bench.world)
    valid = (np.arange(6) < bench.world.lengths[:, None]) & (bench.world.status == 1)[:, None]
    for modality, cuts in (("audio", OPEN), ("visual", np.zeros(4, np.float32))):
        logits = np.nan_to_num(labels.array(f"{modality}_logits"))
        wanted = soft_labels(logits, cuts, bench.world.weak, floor=floors[modality])
        np.testing.assert_array_equal(labels.array(f"{modality}_soft"), np.where(valid[:, :, None], wanted, 0))
    soft, hard = labels.array("audio_soft"), labels.array("audio_hard")
    assert (soft[:, :, 0][hard[:, :, 0]] >= np.float32(1 / (1 + np.exp(-0.5)))).all()
    assert (hard[:, :, 0] == (bench.world.weak[:, None, 0] & valid)).all()


def test_an_open_threshold_without_training_clips_says_what_to_do(bench: Bench) -> None:
    cut_at(bench.store, OPEN, OPEN)
    with pytest.raises(ParameterError, match=r"lowest logits of split 'dev', .*--floor-split.*--floor-batch"):
        bench.label(floor_split="dev")
    labels = bench.label(floor_split="dev", floor_batch=10)
    logits, soft = labels.array("audio_logits"), labels.array("audio_soft")
    one = bench.world
    there = (np.arange(6) < one.lengths[:, None]) & (one.status == 1)[:, None]
    for start in range(0, 41, 10):
        rows = slice(start, start + 10)
        batch = np.where(there[rows], logits[rows, :, 0], INF)
        shown = there[rows] & one.weak[rows, None, 0]
        wanted = 1 / (1 + np.exp(-(batch[shown] - batch.min() + 1) / 2))
        np.testing.assert_allclose(soft[rows, :, 0][shown], wanted, rtol=1e-5)


# Soft labels


def test_ears_equation_to_the_letter_keeps_soft_labels_near_one_half(bench: Bench) -> None:
    cut_at(bench.store, OPEN, [0.0, 1.0, INF, 2.0])
    labels = bench.label(soft="literal")
    logits, soft = labels.array("audio_logits").astype(np.float64), labels.array("audio_soft")
    shown = np.isfinite(logits) & bench.world.weak[:, None]
    called = 1 / (1 + np.exp(-logits)) - 1 / (1 + np.exp(-OPEN.astype(np.float64)))
    np.testing.assert_allclose(soft[shown], (1 / (1 + np.exp(-called)))[shown], atol=1e-6)
    assert (soft[shown] > 0.26).all()
    assert (soft[shown] < 0.74).all()
    assert labels.described["temperature"] is None


def test_video_labels_are_certain(bench: Bench) -> None:
    labels = bench.label("video-labels", thresholds=None)
    np.testing.assert_array_equal(labels.array("visual_soft"), labels.array("visual_hard").astype(np.float32))
    assert labels.described["soft"] == "certain"


def test_clips_of_another_dataset_or_length_are_refused(bench: Bench) -> None:
    cut_at(bench.store, OPEN, OPEN)
    other = world(41, training=17, seed=1)
    stored(bench.store, dataclasses.replace(other, video_ids=bench.world.video_ids), name="other")
    inputs = {**LABELS, "dataset": "other"}
    with pytest.raises(ValueError, match="give clips other lengths"):
        run_step(bench.store, Step("pseudolabel", "x", {"method": "valor"}, inputs), progress=Silent())
    stored(bench.store, world(41, training=17, segments=7), name="longer")
    with pytest.raises(ValueError, match="cover different clips"):
        run_step(
            bench.store,
            Step("pseudolabel", "x", {"method": "valor"}, {**LABELS, "dataset": "longer"}),
            progress=Silent(),
        )
