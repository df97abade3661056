"""`verify` finds what is wrong with an artifact's record, values and inputs. Flipped bytes: test_released.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.store import Artifact, Builder, Identity, Reference, Store
from avvp_pipe.store.integrity import METADATA, sealed
from avvp_pipe.store.verify import verify
from tests.made import CLASSES, made, made_labels

Change = Callable[[dict[str, Any]], object]


def features(store: Store, *, name: str = "mine", seed: int = 0, **changes: Any) -> Artifact:
    """Four clips of 3, 3, 3 and 2 seconds, of which the second failed; `changes` replace arrays, or leave one out."""
    visual = np.random.default_rng(seed).standard_normal((4, 3, 2)).astype(np.float32)
    visual[1], visual[3, 2] = np.nan, np.nan
    arrays: dict[str, Any] = {
        "video_ids": ["a", "b", "c", "d"],
        "splits": ["train"] * 4,
        "weak": np.ones((4, 3), bool),
        "lengths": np.array([3, 3, 3, 2], np.int32),
        "status": np.array([1, 2, 1, 1], np.uint8),
        "visual": visual,
        "text_visual/uwav": np.ones((3, 2), np.float32),
    }

    def fill(builder: Builder) -> None:
        builder.describe(classes=CLASSES)
        for array, data in {**arrays, **changes}.items():
            builder.put(array, data)

    failure = {"video_id": "b", "code": "missing-file", "message": "gone"}
    return made(store, Reference("features", name), Identity("extract", 1, {}, {}), fill, failures=[failure])


def findings(artifact: Artifact, store: Store | None = None) -> str:
    return "\n".join(f"{one.where}: {one.message}" for one in verify(artifact, store).findings)


def resealed(artifact: Artifact, change: Change) -> Artifact:
    """The artifact with other attributes, as somebody would write it who knows how digests are made."""
    attributes = json.loads(artifact.metadata)["attributes"]
    nodes = attributes.pop("integrity")["nodes"]
    change(attributes)
    (artifact.path / METADATA).write_bytes(sealed(attributes, nodes))
    return Artifact(artifact.place, artifact.reference)


def with_nan(shape: tuple[int, ...], *where: int) -> Any:
    array = np.ones(shape, np.float32)
    array[where] = np.nan
    return array


def test_what_failed_and_what_lies_beyond_a_clips_end_may_be_nan(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert findings(features(store), store) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visual": with_nan((4, 3, 2), 0, 2)}, "visual: holds NaN or infinity where there is a segment"),
        ({"motion": with_nan((4, 3, 2), 2, 0)}, "motion: holds NaN or infinity where there is a segment"),
        ({"text_visual/uwav": with_nan((3, 2), 1)}, "text_visual/uwav: holds NaN or infinity"),
        ({"text_visual/uwav": np.ones((2, 2), np.float32)}, "but axis C has 3 elsewhere"),
        ({"video_ids": ["a", "a", "c", "d"]}, "video_ids: names a clip twice"),
        ({"video_ids": ["a", "b", "c", ""]}, "video_ids: names a clip twice, or not at all"),
        ({"video_ids": ["a", "x", "c", "d"]}, "provenance: lists failures of clips that are not there: b"),
        ({"status": np.array([1, 2, 1, 0], np.uint8)}, "status: holds [0], which is no code"),
        ({"status": np.array([1, 2, 1, 99], np.uint8)}, "status: holds [99], which is no code"),
        ({"lengths": np.array([3, 3, 3], np.int32)}, "but axis N has 4 elsewhere"),
    ],
)
def test_values_that_features_may_not_hold_are_found(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in findings(features(Store(tmp_path), **changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given["provenance"].update(stage_version=2), "provenance: gives the key "),
        (lambda given: given["provenance"]["params"].update(seed=9), "provenance: gives the key "),
        (
            lambda given: given["provenance"]["failures"].append({"video_id": "x", "code": "bad luck", "message": ""}),
            "provenance: lists failures with unknown codes bad luck",
        ),
        (lambda given: given["provenance"].pop("sources"), "has sources of type NoneType, where dict is wanted"),
        (lambda given: given.update(classes=["Bell", "Bell", "Drum"]), "not 3 different names"),
    ],
)
def test_a_record_that_does_not_fit_the_artifact_is_found(tmp_path: Path, change: Change, message: str) -> None:
    artifact = resealed(made_labels(Store(tmp_path)), change)
    assert message in findings(artifact)


def test_a_record_of_an_ancestor_that_does_not_give_its_key_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = dict(features(store).provenance)
    told = f"features/mine@{features(store).key}"
    artifact = made_labels(store)
    assert findings(resealed(artifact, lambda given: given.update(lineage={told: record}))) == ""
    changed = {**record, "stage_version": 7}
    assert f"the record of {told} gives the key" in findings(
        resealed(artifact, lambda given: given.update(lineage={told: changed}))
    )


def test_an_input_that_is_gone_or_came_out_otherwise_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    read = features(store)
    identity = Identity("pseudolabel", 1, {}, {"features": read.key})
    record: dict[str, Any] = {"inputs": {"features": str(read.reference)}, "input_digests": {"features": read.digest}}
    labels = made(store, Reference("scores", "s"), identity, lambda builder: builder.describe(a=1), **record)
    assert "input features" not in findings(labels, store)
    store.discard(read)
    assert f"input features: {read.reference} is not in the store any more, nor is its record" in findings(
        labels, store
    )
    again = features(store, seed=1)
    assert again.key == read.key
    assert f"input features: {read.reference} is not the one that was read" in findings(labels, store)


def test_one_damaged_artifact_does_not_hide_how_the_others_are(demo_copy: Any, avvp: Callable[..., Any]) -> None:
    store = Store(demo_copy.store)
    (store.get("labels/uwav").path / METADATA).write_bytes(b"{")
    ran = avvp("verify", "--store", demo_copy.store, "--json", "--quiet")
    assert ran.code == 1
    wrong = {one["artifact"].partition("@")[0] for one in ran.document["artifacts"] if one["findings"]}
    assert "labels/uwav" in wrong
    assert len(ran.document["artifacts"]) == len(list(store.artifacts()))


def test_a_file_that_is_not_there_is_wrong_use(tmp_path: Path, avvp: Callable[..., Any]) -> None:
    for command in (("verify",), ("labels", "adopt")):
        ran = avvp(*command, tmp_path / "nowhere.zarr.zip", "--store", tmp_path / "store", "--json")
        assert (ran.code, "no file" in ran.document["error"]) == (2, True)


def test_damage_to_one_artifact_or_one_note_does_not_stop_ls_or_verify(avvp: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    good, bad = made_labels(store, name="good"), made_labels(store, name="bad")
    (bad.path / "zarr.json").write_text("{")
    note = good.path.parent / ".runs" / f"{good.key}.json"
    note.write_text("[1]")
    ran = avvp("ls", "--store", tmp_path, "--json")
    assert ran.code == 0, ran.err
    rows = {row["artifact"]: row["damage"] for row in ran.document["artifacts"]}
    assert rows[str(good.reference)] is None
    assert "not readable JSON" in rows[str(bad.reference)]
    assert "damaged" in avvp("ls", "--store", tmp_path).out
    ran = avvp("verify", "--store", tmp_path, "--json", "--quiet")
    assert ran.code == 1
    assert [one["artifact"] for one in ran.document["artifacts"] if one["findings"]] == [str(bad.reference)]
    assert f"{note.name} is damaged (a list, not an object); delete it" in ran.document["store"][0]["message"]


@pytest.mark.parametrize(
    ("segment", "video", "sound"), [(1.0, 1.08, True), (1.001, 1.0, False), (-0.001, 1.0, False), (1.0, np.inf, False)]
)
def test_probabilities_of_segments_are_bounded_and_those_of_whole_clips_as_han_pools_them(
    tmp_path: Path, segment: float, video: float, sound: bool
) -> None:
    """HAN weighs over time and over modality apart; the products need not add up to one (1.08 seen)."""

    def fill(builder: Builder) -> None:
        builder.put("video_ids", ["a"])
        builder.put("splits", ["val"])
        builder.put("weak", np.ones((1, 3), bool))
        builder.put("lengths", np.array([2], np.int32))
        builder.put("status", np.ones(1, np.uint8))
        for modality in ("audio", "visual"):
            builder.put(f"{modality}_hard", np.ones((1, 2, 3), bool))
            builder.put(f"{modality}_probs", np.full((1, 2, 3), segment, np.float32))
        builder.put("video_probs", np.full((1, 3), video, np.float32))
        builder.describe(classes=CLASSES)

    artifact = made(Store(tmp_path), Reference("parser", "p"), Identity("train-parser", 1, {}, {}), fill)
    assert verify(artifact).is_sound == sound
