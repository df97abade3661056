"""The whole path: the demo, its artifacts, what it recomputes and why, and labels loaded from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from avvp_pipe.stages.generators import GENERATORS
from avvp_pipe.store import Store, load_labels

METRICS = ("A", "V", "AV", "Type", "Event", "Ao", "Vo", "Typeo", "Evento")
KINDS = ("dataset", "media", "features", "generator", "thresholds", "labels", "parser", "scores")


def files_of(store: Path, reference: str) -> dict[str, bytes]:
    folder = Store(store).get(reference).path
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def states(document: Any) -> dict[str, str]:
    return {one["artifact"].partition("@")[0]: one["state"] for one in document["artifacts"]}


def test_the_demo_scores_the_labels_of_every_method_and_all_parsers_on_both_labelled_splits(
    finished_demo: Any,
) -> None:
    rows = finished_demo.document["scores"]
    assert {(row["what"], row["method"]) for row in rows} == {
        *(("labels", method) for method in GENERATORS),
        ("parser", "uwav-clip-clap, weak labels"),
        ("parser", "uwav-clip-clap, hard uwav"),
        ("parser", "uwav-clip-clap, soft uwav"),
        ("parser", "uwav-clip-clap, soft uwav, re-weighting"),
        ("parser", "uwav-clip-clap, soft uwav, mixup"),
        ("parser", "uwav-clip-clap, soft uwav, re-weighting, mixup"),
        ("parser", "ear, soft uwav, re-weighting, mixup"),
        ("parser", "coleaf, soft uwav"),
    }
    assert {row["split"] for row in rows} == {"val", "test"}
    for row in rows:
        for level in ("segment", "event"):
            assert set(row[level]) == set(METRICS)
            assert all(0 <= value <= 100 for value in row[level].values())


def test_every_artifact_opens_with_plain_zarr_and_tells_where_it_comes_from(finished_demo: Any) -> None:
    artifacts = list(Store(finished_demo.store).artifacts())
    assert {artifact.kind for artifact in artifacts} == set(KINDS)
    for artifact in artifacts:
        group = zarr.open_group(artifact.path, mode="r")
        assert group.attrs["provenance"]["stage"]  # type: ignore[index,call-overload]
        assert artifact.identity.key == artifact.key
        assert artifact.provenance["failures"] == []
        for name in artifact.array_names():
            assert artifact.lazy(name).shape is not None


def test_status_says_all_is_cached_after_the_demo(finished_demo: Any, avvp: Callable[..., Any]) -> None:
    ran = avvp("status", "--store", finished_demo.store, "--json")
    assert ran.code == 0
    assert {step["state"] for step in ran.document["steps"]} == {"cached"}


def test_a_second_demo_recomputes_nothing(demo_copy: Any, avvp: Callable[..., Any]) -> None:
    ran = avvp("demo", "--out", demo_copy.out, "--size", "tiny", "--json", "--quiet")
    assert set(states(ran.document).values()) == {"cached"}
    assert ran.document["scores"] == demo_copy.document["scores"]


def test_status_says_so_where_a_stage_is_none_of_this_program(demo_copy: Any, avvp: Callable[..., Any]) -> None:
    asked = demo_copy.store / "labels/uwav/.request.json"
    asked.write_text(asked.read_text().replace('"pseudolabel"', '"distil"'))
    ran = avvp("status", "--store", demo_copy.store, "--json")
    assert (ran.code, "labels/uwav was asked for from the stage 'distil'" in ran.document["error"]) == (2, True)


def test_one_changed_parameter_recomputes_its_stage_and_what_reads_it_and_status_says_why(
    demo_copy: Any, avvp: Callable[..., Any]
) -> None:
    demo = (
        "demo",
        "--out",
        demo_copy.out,
        "--size",
        "tiny",
        "--json",
        "--quiet",
        "--set",
        "calibrate.mode=class-agnostic",
    )
    planned = {step["artifact"].partition("@")[0]: step for step in avvp(*demo, "--dry-run").document["steps"]}
    assert planned["thresholds/valor"]["state"] == "stale"
    assert planned["thresholds/valor"]["reasons"] == ['parameter mode: "per-class" -> "class-agnostic"']
    assert any("because thresholds/valor" in line for line in planned["labels/valor"]["reasons"])
    ran = avvp(*demo)
    built = {name for name, state in states(ran.document).items() if state == "built"}
    assert {name for name, step in planned.items() if step["state"] == "stale"} >= built
    assert {"thresholds/valor", "thresholds/uwav", "labels/valor", "labels/uwav", "parser/hard"} <= built
    assert not {name for name in built if name.split("/")[0] in ("dataset", "media", "features", "generator")}
    assert "labels/video-labels" not in built
    assert "parser/weak" not in built


def test_status_tells_which_parameter_of_which_step_made_labels_stale(demo_copy: Any, avvp: Callable[..., Any]) -> None:
    inputs = ("--dataset", "target", "--features", "target")
    store = ("--store", demo_copy.store)
    assert avvp("calibrate", *inputs, *store, "--name", "valor", "--mode", "class-agnostic", "--quiet").code == 0
    ran = avvp("status", *store, "--json")
    assert ran.code == 1
    steps = {step["artifact"].partition("@")[0]: step for step in ran.document["steps"]}
    assert steps["thresholds/valor"]["state"] == "cached"
    assert steps["labels/valor"]["state"] == "stale"
    because = 'because thresholds/valor: parameter mode: "per-class" -> "class-agnostic"'
    assert any(because in line for line in steps["labels/valor"]["reasons"])
    assert steps["scores/labels-valor"]["state"] == "stale"
    assert steps["labels/uwav"]["state"] == "cached"


def test_speed_and_places_do_not_change_a_key(demo_copy: Any, avvp: Callable[..., Any]) -> None:
    ran = avvp(
        "extract", "--media", "target", "--dataset", "target", "--name", "target", "--store", demo_copy.store,
        "--batch-size", "7", "--device", "cpu", "--json",
        "--visual-teacher", "tiny-clip", "--audio-teacher", "tiny-clap",
    )  # fmt: skip
    assert ran.document["state"] == "cached"


def test_the_demos_labels_load_as_the_readme_says(finished_demo: Any) -> None:
    labels = load_labels("labels/uwav", store=finished_demo.store)
    clips, classes = len(labels.video_ids), len(labels.classes)
    assert labels.audio_hard.shape == labels.visual_soft.shape == (clips, 10, classes)
    assert labels.audio_soft.dtype == np.float32
    assert labels.audio_thresholds.shape == (classes,)
    assert not (labels.audio_hard & ~labels.weak[:, None]).any()
    finite = np.isfinite(labels.audio_thresholds)
    assert ((labels.audio_soft > 0.5) == labels.audio_hard)[:, :, finite].all()
    one = labels[labels.video_ids[0][:11]]
    assert one.video_id == labels.video_ids[0]
    assert one.audio_hard.shape == (10, classes)


def test_the_same_step_run_twice_gives_the_same_bytes(
    finished_demo: Any, demo_copy: Any, avvp: Callable[..., Any]
) -> None:
    again = ("--store", demo_copy.store, "--force", "--json", "--quiet", "--name")
    target = ("--dataset", "target", "--features", "target")
    teachers = ("--visual-teacher", "tiny-clip", "--audio-teacher", "tiny-clap")
    steps = {
        "features/target": ("extract", "--media", "target", "--dataset", "target", *teachers, *again, "target"),
        "thresholds/uwav": ("calibrate", "--method", "uwav", *target, "--generator", "pretrain", *again, "uwav"),
    }
    for reference, step in steps.items():
        ran = avvp(*step)
        assert (ran.document["state"], ran.document["reasons"]) == ("built", ["forced"])
        assert files_of(demo_copy.store, reference) == files_of(finished_demo.store, reference)


def test_evaluate_shows_scores_beside_the_trivial_baselines(demo_copy: Any, avvp: Callable[..., Any]) -> None:
    arguments = ("evaluate", "--dataset", "target", "--predictions", "labels/video-labels", "--store", demo_copy.store)
    shown = avvp(*arguments, "--name", "again").out
    assert "predict nothing" in shown
    assert "test, 6 clips, segment-level F, percent (official)" in shown
    (val, test) = avvp(*arguments, "--name", "again", "--json").document["scores"]
    assert (val["split"], test["split"]) == ("val", "test")
    assert test["of"] == test["video_labels"]
    pooled = avvp(*arguments, "--pooling", "micro", "--name", "pooled", "--json").document["scores"]
    assert pooled[1]["of"]["segment"]["A"] != test["of"]["segment"]["A"]
