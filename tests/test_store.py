"""The store: identities, references, building out of sight, reading, and the labels that people load."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from avvp_pipe.store import (
    Artifact,
    ArtifactNotFoundError,
    Builder,
    Failure,
    Identity,
    Reference,
    Request,
    Store,
    StoreError,
    StoreWriteError,
    artifact_in,
    differences,
    load_labels,
    parse_reference,
)
from avvp_pipe.store.identity import canonical_json
from tests.made import made

IDENTITY = Identity("calibrate", 1, {"mode": "per-class"}, {"features": "0123456789ab"})
PLACE = Reference("thresholds", "mine")


def build(
    store: Store, fill: Callable[[Builder], object], identity: Identity = IDENTITY, place: Reference = PLACE
) -> Artifact:
    return made(store, place, identity, fill, shard_rows=4)


def numbers(builder: Builder) -> None:
    builder.put("audio", np.arange(3.0))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_key_of_an_identity_changes_only_on_purpose() -> None:
    assert IDENTITY.key == "d021029d4f95"


@given(
    st.dictionaries(
        st.text(), st.one_of(st.integers(), st.booleans(), st.text(), st.floats(allow_nan=False, allow_infinity=False))
    )
)
def test_the_order_of_parameters_does_not_change_the_key(params: dict[str, Any]) -> None:
    backwards = dict(reversed(list(params.items())))
    assert Identity("s", 1, params, {}).key == Identity("s", 1, backwards, {}).key


def test_a_key_survives_being_written_as_json_and_read_again() -> None:
    params = {"rate": 0.1, "on": True, "name": "é", "none": None}
    again = json.loads(canonical_json(params))
    assert Identity("s", 1, params, {}).key == Identity("s", 1, again, {}).key


def test_not_a_number_is_no_parameter() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        _ = Identity("s", 1, {"x": float("nan")}, {}).key


def test_differences_name_parameter_old_and_new_value() -> None:
    other = Identity("calibrate", 2, {"mode": "class-agnostic"}, {"features": "0123456789ab"}, {"a.csv": "ff"})
    assert differences(IDENTITY, other) == (
        "stage version: 1 -> 2",
        'parameter mode: "per-class" -> "class-agnostic"',
        "source a.csv: none -> ff",
    )


@pytest.mark.parametrize(
    "text", ["", "labels", "labels/", "labels/a@", "nothing/a", "labels/../a", "labels/.hidden", "/labels/a"]
)
def test_what_is_no_reference_is_refused_with_the_kinds_there_are(text: str) -> None:
    with pytest.raises(StoreError, match=r"not an artifact reference.*dataset, media, features"):
        parse_reference(text)


def test_a_reference_of_another_kind_is_refused() -> None:
    with pytest.raises(StoreError, match="one of kind labels is wanted"):
        parse_reference("features/a", kind="labels")


def test_an_artifact_opens_with_plain_zarr_and_holds_what_was_written(tmp_path: Path) -> None:
    made = build(Store(tmp_path), numbers)
    group = zarr.open_group(made.path, mode="r")
    assert np.array_equal(np.asarray(group["audio"]), [0.0, 1.0, 2.0])
    assert group.metadata.zarr_format == 3
    assert made.path == tmp_path / "thresholds" / "mine" / IDENTITY.key
    assert made.identity == IDENTITY


def test_a_build_that_fails_leaves_nothing_to_be_seen(tmp_path: Path) -> None:
    def fail(builder: Builder) -> None:
        numbers(builder)
        raise RuntimeError("the stage broke")

    with pytest.raises(RuntimeError, match="the stage broke"):
        build(Store(tmp_path), fail)
    assert list(Store(tmp_path).artifacts()) == []


def write_rows(builder: Builder, *, stop_after: int | None = None) -> list[int]:
    builder.declare("x", (10, 3), "float32", fill=float("nan"))
    builder.declare("on", (10,), "bool")
    written: list[int] = []
    for rows in list(builder.pending()):
        if stop_after is not None and len(written) == stop_after:
            raise RuntimeError("stopped")
        count = rows.stop - rows.start
        values = np.arange(rows.start, rows.stop, dtype=np.float32)
        failures = [Failure(f"clip{rows.start}", "corrupt", "broken")]
        arrays = {"x": np.repeat(values[:, None], 3, 1), "on": np.ones(count, bool)}
        builder.write(rows, arrays, failures=failures)
        written.append(rows.start)
    return written


def test_a_stopped_build_goes_on_at_the_first_unwritten_shard_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    whole = build(Store(tmp_path / "whole"), write_rows)
    store, second = Store(tmp_path / "stopped"), []
    with pytest.raises(RuntimeError, match="stopped"):
        build(store, partial(write_rows, stop_after=1))
    resumed = build(store, lambda builder: second.extend(write_rows(builder)))
    assert second == [4, 8]
    assert files_of(resumed.path) == files_of(whole.path)
    assert [failure["video_id"] for failure in resumed.provenance["failures"]] == ["clip0", "clip4", "clip8"]


def test_a_journal_line_that_a_kill_cut_in_two_is_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError):
        build(store, partial(write_rows, stop_after=2))
    journal = tmp_path / "thresholds" / "mine" / f".{IDENTITY.key}.partial" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-5])
    written: list[int] = []
    made = build(store, lambda builder: written.extend(write_rows(builder)))
    assert written == [4, 8]
    assert made.array("x")[:, 0].tolist() == list(range(10))


def test_a_stage_that_forgets_a_shard_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="3 of its shards unwritten"):
        build(Store(tmp_path), lambda builder: builder.declare("x", (10, 3), "float32"))


def test_objects_are_never_stored(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Python objects"):
        build(Store(tmp_path), lambda builder: builder.put("x", np.array([{}], dtype=object)))


def test_a_chunk_that_is_missing_is_an_error_and_never_so_many_fill_values(tmp_path: Path) -> None:
    folder = build(Store(tmp_path), write_rows).path
    next(path for path in (folder / "x" / "c").rglob("*") if path.is_file()).unlink()
    with pytest.raises(StoreError, match=r"x/c/.* is missing: the artifact was removed, or it is damaged"):
        artifact_in(folder).array("x")


def _hold(store: Path, ready: Path) -> None:
    def wait(builder: Builder) -> None:
        ready.touch()
        time.sleep(60)

    build(Store(store), wait)


def test_a_killed_builder_holds_no_lock(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path / "store", ready))
    process.start()
    while not ready.exists():
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert build(Store(tmp_path / "store"), numbers).array("audio").tolist() == [0.0, 1.0, 2.0]


def test_a_name_means_what_was_last_asked_for_and_a_version_what_it_says(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = build(store, numbers)
    other = Identity("calibrate", 1, {"mode": "class-agnostic"}, {"features": "0123456789ab"})
    second = build(store, numbers, other)
    assert store.get("thresholds/mine").key == second.key
    store.ask(PLACE, Request("calibrate", {}, {}, first.key))
    assert store.get("thresholds/mine").key == first.key
    assert store.get(f"thresholds/mine@{second.key[:5]}").key == second.key


def test_an_artifact_that_is_not_there_is_reported_with_those_that_are(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = build(store, numbers)
    with pytest.raises(ArtifactNotFoundError, match=f"no artifact thresholds/yours.*thresholds/mine@{made.key}"):
        store.get("thresholds/yours")
    with pytest.raises(ArtifactNotFoundError, match="none of this kind"):
        store.get("labels/mine")


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StoreWriteError, match="cannot write"):
        build(Store(blocked), numbers)


def test_metadata_that_is_no_json_is_refused_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="not readable JSON"):
        _ = artifact_in(tmp_path).attrs


CLASSES = ["Bell", "Drum"]


def labels_of_two_clips(builder: Builder) -> None:
    builder.put("video_ids", ["abcdefghijk_0_10", "-bcdefghijk_0_10"])
    builder.put("splits", ["train", "train"])
    builder.put("weak", np.array([[True, False], [True, True]]))
    builder.put("lengths", np.array([3, 2], np.int32))
    builder.put("status", np.ones(2, np.uint8))
    for modality, value in (("audio", 0.75), ("visual", 0.25)):
        builder.put(f"{modality}_hard", np.full((2, 3, 2), modality == "audio"))
        builder.put(f"{modality}_soft", np.full((2, 3, 2), value, np.float32))
        builder.put(f"{modality}_thresholds", np.array([-np.inf, 0.5], np.float32))
    builder.describe(classes=CLASSES)


@pytest.fixture
def labels_folder(tmp_path: Path) -> Path:
    return build(Store(tmp_path), labels_of_two_clips, place=Reference("labels", "mine")).path


def test_labels_load_by_folder_and_by_reference(labels_folder: Path) -> None:
    by_folder = load_labels(labels_folder)
    by_reference = load_labels("labels/mine", store=labels_folder.parents[2])
    assert by_folder.video_ids == by_reference.video_ids == ("abcdefghijk_0_10", "-bcdefghijk_0_10")
    assert by_folder.classes == ("Bell", "Drum")
    assert by_folder.audio_hard.dtype == bool
    assert by_folder.audio_soft.shape == (2, 3, 2)
    assert by_folder.audio_thresholds[0] == -np.inf
    assert by_folder.provenance["stage"] == "calibrate"


def test_one_clip_is_found_by_its_id_and_by_its_youtube_id_and_cut_to_its_length(labels_folder: Path) -> None:
    labels = load_labels(labels_folder)
    assert labels["-bcdefghijk"].video_id == "-bcdefghijk_0_10"
    assert labels["-bcdefghijk_0_10"].audio_soft.shape == (2, 2)
    assert "abcdefghijk" in labels
    assert "nobody" not in labels
    with pytest.raises(KeyError, match=r"no clip 'nobody' among 2; ids look like"):
        labels["nobody"]


def test_what_holds_no_labels_is_not_loaded_as_labels(tmp_path: Path) -> None:
    made = build(Store(tmp_path), numbers)
    with pytest.raises(StoreError, match="holds no labels"):
        load_labels(made.path)


def test_labels_load_without_torch(labels_folder: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from avvp_pipe.store import load_labels\n"
        f"load_labels({str(labels_folder)!r}).audio_soft\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_folders_that_lead_to_an_artifact_are_synced_once_it_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avvp_pipe.store import sites

    synced: list[tuple[Path, bool]] = []
    final = tmp_path / PLACE.kind / PLACE.name / IDENTITY.key
    monkeypatch.setattr(sites, "sync", lambda folder: synced.append((folder, (final / "zarr.json").is_file())))
    build(Store(tmp_path), numbers)
    assert synced == [(final.parent, True), (final.parent.parent, True), (tmp_path, True)]


def test_arrays_of_one_artifact_have_the_same_clips_and_failures_have_known_codes(tmp_path: Path) -> None:
    builder = Builder(tmp_path, shard_rows=4)
    builder.declare("visual", (8, 2), "float32")
    with pytest.raises(StoreError, match="'audio' has 9 rows, but the arrays declared before it have 8"):
        builder.declare("audio", (9, 2), "float32")
    with pytest.raises(StoreError, match="unknown codes of failure bad luck"):
        builder.write(slice(0, 4), {"visual": np.ones((4, 2), np.float32)}, failures=[Failure("a", "bad luck", "")])
    with pytest.raises(StoreError, match="`c` is the folder of an array's chunks"):
        builder.put("text/c", np.ones(3))


def test_a_write_that_a_kill_tore_is_no_part_of_the_artifact(tmp_path: Path) -> None:
    def torn(builder: Builder) -> None:
        builder.put("audio", np.arange(3.0))
        (tmp_path / PLACE.kind / PLACE.name / f".{IDENTITY.key}.partial/artifact/audio/c/0.abc.partial").touch()

    artifact = build(Store(tmp_path), torn)
    assert not [name for name in artifact.place.names() if "partial" in name]


def test_a_build_that_fails_at_its_end_leaves_nothing_that_cannot_be_used_again(tmp_path: Path) -> None:
    def fill(builder: Builder) -> None:
        builder.put("x", np.ones(3))
        builder.describe(a=np.nan)

    store = Store(tmp_path)
    with pytest.raises(StoreError, match="JSON cannot hold"):
        build(store, fill)
    assert store.leftovers() == ()
