"""Parts made on several machines and put together are, byte for byte, what one run over all clips makes."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avvp_pipe.pipeline.merge_plan import check_alike, software_of
from avvp_pipe.pipeline.names import part_called, part_name
from avvp_pipe.pipeline.part_search import FoundPart
from avvp_pipe.stages.clips.parts import Part, part_of
from avvp_pipe.stages.clips.units import UNIT_CLIPS
from avvp_pipe.store import Artifact, Reference, Store, StoreError
from avvp_pipe.store.notes import Request
from tests.small_world import TINY, files_of, write_manifest, write_video
from tests.test_buckets import server, url  # noqa: F401

CLIPS = 40
"""Three units: two of 16 clips, one of 8."""
LOST = (3, 20, 38)
"""Clips without a file, one in each unit."""
PARTS = (1, 2, 3)
DECODE = ("decode", "--dataset", "mine", "--frame-size", "64", "--sample-rate", "16000", "--workers", "0")
EXTRACT = ("extract", "--dataset", "mine", *TINY, "--workers", "0")


@dataclass(frozen=True)
class Machines:
    """A store with everything made in one run each, and three with a third of it."""

    folder: Path
    avvp: Callable[..., Any]

    @property
    def whole(self) -> Path:
        return self.folder / "whole"

    @property
    def parts(self) -> list[Path]:
        return [self.folder / f"machine{part}" for part in PARTS]

    def run(self, store: Path | str, *command: str, code: tuple[int, ...] = (0,)) -> Any:
        ran = self.avvp(*command, "--store", store, "--json")
        assert ran.code in code, ran.err
        return ran.document

    def fails(self, store: Path | str, *command: str) -> str:
        ran = self.avvp(*command, "--store", store, "--quiet")
        assert ran.code == 2, ran.out
        return str(ran.err)

    def copied(self, folder: Path, *which: int) -> list[Path]:
        """Copies of these parts' stores, to be changed."""
        return [Path(shutil.copytree(self.parts[part - 1], folder / f"machine{part}")) for part in which]

    def empty(self, folder: Path) -> Path:
        """A store that holds the dataset alone."""
        shutil.copytree(self.whole / "dataset", folder / "head" / "dataset")
        return folder / "head"


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, avvp: Callable[..., Any]) -> Machines:
    """Must not be written to."""
    made = Machines(tmp_path_factory.mktemp("machines"), avvp)
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_video(made.folder / name, ord(name[0]), seconds=1)
    files = ["lost.mp4" if row in LOST else "abc"[row % 3] + ".mp4" for row in range(CLIPS)]
    manifest = write_manifest(made.folder, files, [1] * CLIPS)
    for store in (made.whole, *made.parts):
        made.run(store, "dataset", "--source", str(manifest), "--name", "mine")
    for command in (DECODE, EXTRACT, (*EXTRACT, "--media", "mine", "--name", "kept")):
        made.run(made.whole, *command, code=(1,))
    for part, store in zip(PARTS, made.parts, strict=True):
        for command in (DECODE, EXTRACT):
            made.run(store, *command, "--shard", f"{part}/3", code=(1,))
        made.run(made.whole, *EXTRACT, "--media", "mine", "--name", "kept", "--shard", f"{part}/3", code=(1,))
    return made


def others(stores: list[Path]) -> list[str]:
    return [word for store in stores for word in ("--from", str(store))]


def only(store: Path | str, reference: str) -> Artifact:
    found = [one for one in Store(store).artifacts() if str(Reference(one.kind, one.name)) == reference]
    assert len(found) == 1, found
    return found[0]


def bytes_of(store: Path | str, reference: str) -> dict[str, bytes]:
    place = only(store, reference).place
    return {name: place.read(name) for name in place.names()}


def without(document: Any, name: str) -> Any:
    """A JSON document without the members of this name."""
    if isinstance(document, dict):
        return {key: without(value, name) for key, value in document.items() if key != name}
    return [without(value, name) for value in document] if isinstance(document, list) else document


@given(clips=st.integers(0, 3000), count=st.integers(1, 300))
def test_parts_are_disjoint_cover_all_clips_in_order_and_begin_at_units(clips: int, count: int) -> None:
    rows = [Part(index, count).rows(clips) for index in range(1, count + 1)]
    assert [row for part in rows for row in range(part.start, part.stop)] == list(range(clips))
    assert all(part.start % UNIT_CLIPS == 0 or part.start == clips for part in rows)
    units = [-(-(part.stop - part.start) // UNIT_CLIPS) for part in rows]
    assert max(units) - min(units) <= 1


@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True),
    part=st.integers(1, 999).flatmap(lambda count: st.builds(Part, st.integers(1, count), st.just(count))),
)
def test_the_name_of_a_part_tells_which_part_of_what_it_is(name: str, part: Part) -> None:
    called = part_name(name, str(part))
    assert part_called(called, whole=name) == part == part_of(str(part))
    assert part_name(called, str(part)) == called
    assert part_called(name, whole=name) is None


@pytest.mark.parametrize("kind", ["media", "features"])
def test_parts_of_three_machines_become_the_bytes_of_one_run(machines: Machines, tmp_path: Path, kind: str) -> None:
    head = machines.empty(tmp_path)
    told = machines.run(head, "merge", f"{kind}/mine", *others(machines.parts), code=(1,))
    assert told["state"] == "built"
    assert [one["clips"] for one in told["parts"]] == [16, 16, 8]
    assert [one["video_id"] for one in told["failures"]] == [f"c{row:03d}" for row in LOST]
    assert bytes_of(head, f"{kind}/mine") == bytes_of(machines.whole, f"{kind}/mine")
    assert machines.run(head, "verify")["sound"]
    steps = machines.run(head, "status")["steps"]
    assert {one["state"] for one in steps} == {"cached"}
    ways = [machines.run(store, "lineage", f"{kind}/mine") for store in (head, machines.whole)]
    assert without(ways[0], "finished") == without(ways[1], "finished")


def test_features_from_media_merge_to_the_bytes_of_one_run(machines: Machines, tmp_path: Path) -> None:
    store = Path(shutil.copytree(machines.whole, tmp_path / "store"))
    once = bytes_of(store, "features/kept")
    machines.run(store, "gc", "features/kept")
    assert machines.run(store, "merge", "features/kept", code=(1,))["state"] == "built"
    assert bytes_of(store, "features/kept") == once
    assert machines.run(store, "merge", "features/kept", code=(1,))["state"] == "cached"
    assert machines.run(store, "merge", "features/kept", "--force", code=(1,))["reasons"] == ["forced"]
    assert bytes_of(store, "features/kept") == once


def test_after_merging_the_parts_may_go_and_status_does_not_miss_them(machines: Machines, tmp_path: Path) -> None:
    store = Path(shutil.copytree(machines.whole, tmp_path / "store"))
    asked = [one["artifact"] for one in machines.run(store, "status")["steps"]]
    assert sum("-of-3@" in one for one in asked) == len(PARTS)
    (remove,) = machines.run(store, "merge", "features/kept", code=(1,))["remove"]
    program, *words = shlex.split(remove)
    assert program == "avvp-pipe"
    machines.run(store, *words[:-2])
    assert not [one for one in Store(store).artifacts() if "-of-" in one.name]
    assert {one["state"] for one in machines.run(store, "status")["steps"]} == {"cached"}
    assert machines.run(store, "verify")["sound"]


def test_a_missing_part_is_named_with_the_command_that_makes_it(machines: Machines, tmp_path: Path) -> None:
    first, third = machines.copied(tmp_path, 1, 3)
    told = machines.fails(first, "merge", "media/mine", "--from", str(third))
    (line,) = [line for line in told.splitlines() if line.startswith("  2/3: ")]
    words = shlex.split(line.removeprefix("  2/3: avvp-pipe "))
    machines.run(first, *words[: words.index("--store")], code=(1,))
    machines.run(first, "merge", "media/mine", "--from", str(third), code=(1,))
    assert bytes_of(first, "media/mine") == bytes_of(machines.whole, "media/mine")


def test_a_part_that_was_asked_for_otherwise_since_does_not_count(machines: Machines, tmp_path: Path) -> None:
    (first,) = machines.copied(tmp_path, 1)
    name = Reference("media", "mine.1-of-3")
    asked = Store(first).request(name)
    assert asked is not None
    Store(first).ask(name, Request("decode", {**asked.params, "frame_size": 32}, asked.inputs, "0" * 12))
    told = machines.fails(first, "merge", "media/mine", *others(machines.parts[1:]))
    assert "  1/3: avvp-pipe decode" in told


def test_a_part_of_other_parameters_is_refused_saying_which(machines: Machines, tmp_path: Path) -> None:
    head = machines.empty(tmp_path)
    machines.run(head, *DECODE, "--frame-rule", "centre", "--shard", "3/3", code=(1,))
    told = machines.fails(head, "merge", "media/mine", *others(machines.parts[:2]))
    assert "part 3/3" in told
    assert 'parameter frame_rule: "linspace" -> "centre"' in told
    told = machines.fails(head, "merge", "media/mine", *others(machines.parts))
    assert "two different ones" in told
    assert 'parameter frame_rule: "centre" -> "linspace"' in told


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"scale": 3.0}, "attribute scale differs"),
        ({"text": 2.0}, "array text_audio/uwav has other bytes"),
        ({"width": 5}, "array visual is float32 (2, 4) a clip there, float32 (2, 5) here"),
        ({"more": "motion"}, "arrays: text_audio/uwav, visual -> motion, text_audio/uwav, visual"),
    ],
)
def test_parts_whose_attributes_texts_or_shapes_differ_are_not_alike(
    tmp_path: Path, make_artifact: Callable[..., Artifact], other: dict[str, Any], said: str
) -> None:
    parts = []
    for index, own in enumerate(({}, {}, other), start=1):
        arrays = {"visual": np.zeros((index, 2, own.get("width", 4)), np.float32)}
        arrays["text_audio/uwav"] = np.full((3, 4), own.get("text", 1.0), np.float32)
        if "more" in own:
            arrays[own["more"]] = np.zeros((index, 2, 4), np.float32)
        store = Store(tmp_path / str(index))
        facts = {"params": {"shard": f"{index}/3"}, "sources": {"videos": str(index)}}
        made = make_artifact(store, "features/a", arrays=arrays, scale=own.get("scale", 2.0), **facts)
        parts.append(FoundPart(Part(index, 3), made, store))
    check_alike(parts[0], parts[1])
    with pytest.raises(StoreError, match=re.escape(said)):
        check_alike(parts[0], parts[2])


def test_a_part_of_another_dataset_is_refused(machines: Machines, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, ["a.mp4"] * CLIPS, [1] * CLIPS)
    store = tmp_path / "store"
    machines.run(store, "dataset", "--source", str(manifest), "--name", "mine")
    machines.run(store, *DECODE, "--shard", "3/3", code=(1,))
    told = machines.fails(machines.whole, "merge", "media/mine", *others([*machines.parts[:2], store]))
    assert "part 3/3" in told
    assert "input dataset" in told
    told = machines.fails(store, "merge", "media/mine", *others(machines.parts))
    assert "two different ones" in told


def test_a_part_made_of_other_videos_makes_another_whole(machines: Machines, tmp_path: Path) -> None:
    for name in "abc":
        write_video(tmp_path / f"{name}.mp4", ord(name) + (name == "c"), seconds=1)
    (first, second) = machines.copied(tmp_path, 1, 2)
    head = machines.empty(tmp_path)
    machines.run(head, *DECODE, "--videos", str(tmp_path), "--shard", "3/3", code=(1,))
    machines.run(head, "merge", "media/mine", *others([first, second]), code=(1,))
    merged, once = only(head, "media/mine"), only(machines.whole, "media/mine")
    assert merged.key != once.key
    assert merged.strings("video_digests")[:32] == once.strings("video_digests")[:32]
    assert merged.strings("video_digests")[32:] != once.strings("video_digests")[32:]


def test_a_part_with_a_flipped_byte_is_refused(machines: Machines, tmp_path: Path) -> None:
    (second,) = machines.copied(tmp_path, 2)
    head = machines.empty(tmp_path)
    file = only(second, "media/mine.2-of-3").path / "audio/c/0/0"
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    stores = [machines.parts[0], second, machines.parts[2]]
    told = machines.fails(head, "merge", "media/mine", *others(stores))
    assert "part 2/3" in told
    assert "is damaged: audio" in told
    assert not [one for one in Store(head).artifacts() if one.kind == "media"]


def test_a_folder_without_parts_and_what_has_no_parts_are_refused(machines: Machines, tmp_path: Path) -> None:
    assert "holds no finished part" in machines.fails(
        machines.parts[0], "merge", "media/mine", "--from", str(tmp_path / "nowhere")
    )
    assert "--shard 1/4 --name other" in machines.fails(machines.whole, "merge", "media/other")
    for text in ("labels/mine", "features/mine@latest"):
        assert "cannot be merged" in machines.fails(machines.whole, "merge", text)
    assert "is not in" in machines.fails(tmp_path / "bare", "merge", "media/mine", *others(machines.parts))


def test_two_whole_sets_of_parts_are_refused_and_a_stray_part_is_left_out(machines: Machines, tmp_path: Path) -> None:
    head = machines.empty(tmp_path)
    machines.run(head, *DECODE, "--shard", "1/2", code=(1,))
    told = machines.run(head, "merge", "media/mine", *others(machines.parts), "--dry-run")
    assert told["state"] == "would build"
    assert len(told["parts"]) == 3
    assert "part 1/2" in told["notes"][0]
    assert not [one for one in Store(head).artifacts() if one.name == "mine" and one.kind == "media"]
    machines.run(head, *DECODE, "--shard", "2/2", code=(1,))
    told = machines.fails(head, "merge", "media/mine", *others(machines.parts))
    assert "all 2 and all 3 parts" in told


def test_more_parts_than_units_leave_some_empty_and_merge_all_the_same(machines: Machines, tmp_path: Path) -> None:
    store = machines.empty(tmp_path)
    for part in range(1, 6):
        machines.run(store, *DECODE, "--shard", f"{part}/5", code=(0, 1))
    told = machines.run(store, "merge", "media/mine", code=(1,))
    assert sorted(one["clips"] for one in told["parts"]) == [0, 0, 8, 16, 16]
    assert machines.run(store, "verify")["sound"]
    assert bytes_of(store, "media/mine") == bytes_of(machines.whole, "media/mine")


def test_an_empty_part_of_features_is_sound_and_holds_the_texts(machines: Machines, tmp_path: Path) -> None:
    store = machines.empty(tmp_path)
    machines.run(store, *EXTRACT, "--shard", "3/5")
    empty = only(store, "features/mine.3-of-5")
    assert empty.facts("visual").shape[0] == 0
    assert empty.facts("text_audio/uwav").shape == only(machines.whole, "features/mine").facts("text_audio/uwav").shape
    assert machines.run(store, "verify", "features/mine.3-of-5")["sound"]


def test_clips_that_a_part_won_back_are_merged_again(machines: Machines, tmp_path: Path) -> None:
    for name in "abc":
        shutil.copy(machines.folder / f"{name}.mp4", tmp_path)
    manifest = write_manifest(tmp_path, ["a.mp4"] * 17, [1] * 17)
    store = tmp_path / "store"
    machines.run(store, "dataset", "--source", str(manifest), "--name", "mine")
    video, content, facts = tmp_path / "a.mp4", (tmp_path / "a.mp4").read_bytes(), (tmp_path / "a.mp4").stat()

    def written(data: bytes) -> None:
        """As a bad drive delivers it: name, size and time say that nothing has changed."""
        with video.open("r+b") as file:
            file.write(data)
        os.utime(video, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    machines.run(store, *DECODE, "--shard", "1/2")
    written(b"\0" * len(content))
    machines.run(store, *DECODE, "--shard", "2/2", code=(1,))
    told = machines.run(store, "merge", "media/mine", code=(1,))
    assert [one["code"] for one in told["failures"]] == ["not-a-video"]
    written(content)
    for part in ("1/2", "2/2"):
        machines.run(store, *EXTRACT, "--media", "mine", "--shard", part, code=(0, 1))
    machines.run(store, *DECODE, "--shard", "2/2", "--retry-failed")
    told = machines.run(store, "merge", "media/mine")
    assert told["reasons"] == ["1 clips failed in it that the parts have now"]
    machines.run(tmp_path / "once", "dataset", "--source", str(manifest), "--name", "mine")
    machines.run(tmp_path / "once", *DECODE)
    assert bytes_of(store, "media/mine") == bytes_of(tmp_path / "once", "media/mine")
    assert "holds other bytes" in machines.fails(store, "merge", "features/mine")


KILLED = """
import os, signal, sys
from avvp_pipe.pipeline.merge import merge_parts
from avvp_pipe.pipeline.merge_plan import plan_merge
from avvp_pipe.store import Store

class Deadly:
    def track(self, items, *, total, label, done=0):
        for item in items:
            yield item
            if "clips" in label and item >= 32:
                while not list(store.root.glob("media/mine/.*.partial/journal.jsonl")):
                    pass
                os.kill(os.getpid(), signal.SIGKILL)

    def note(self, message):
        pass

store = Store(os.path.abspath(sys.argv[1]))
merge_parts(store, plan_merge(store, "media/mine", [Store(one) for one in sys.argv[2:]]), progress=Deadly())
"""


def test_a_merge_that_was_killed_goes_on_where_it_stopped(machines: Machines, tmp_path: Path) -> None:
    head = machines.empty(tmp_path)
    command = [sys.executable, "-c", KILLED, str(head), *map(str, machines.parts)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not [one for one in Store(head).artifacts() if one.kind == "media"]
    beside = Path(shutil.copytree(head, tmp_path / "beside"))
    ran = machines.avvp("merge", "media/mine", *others(machines.parts), "--store", head, "--json")
    assert ran.code == 1
    counted = [line for line in ran.err.splitlines() if line.startswith("merge, clips")]
    assert counted[0].startswith("merge, clips: 36/40, "), "the first shard is not copied again"
    assert bytes_of(head, "media/mine") == bytes_of(machines.whole, "media/mine")
    assert_other_failures_are_not_mixed_in(machines, beside)


def assert_other_failures_are_not_mixed_in(machines: Machines, killed: Path) -> None:
    """An unfinished build may stem from parts that failed otherwise, before their clips were tried again."""
    (journal,) = killed.glob("media/mine/.*.partial/journal.jsonl")
    journal.write_text(journal.read_text().replace("missing-file", "timeout"))
    assert "lies in the way" in machines.fails(killed, "merge", "media/mine", *others(machines.parts))
    machines.run(killed, "gc", "--leftovers")
    machines.run(killed, "merge", "media/mine", *others(machines.parts), code=(1,))
    assert bytes_of(killed, "media/mine") == bytes_of(machines.whole, "media/mine")


def test_parts_and_whole_may_lie_in_a_bucket(machines: Machines, url: str) -> None:  # noqa: F811
    for name, data in files_of(machines.parts[1]).items():
        Store(url).place.write(name, data)
    told = machines.run(url, "merge", "media/mine", *others([machines.parts[0], machines.parts[2]]), code=(1,))
    assert [one["store"] == url for one in told["parts"]] == [False, True, False]
    assert bytes_of(url, "media/mine") == bytes_of(machines.whole, "media/mine")
    assert machines.run(url, "verify", "media/mine")["sound"]
    assert machines.run(url, "merge", "media/mine", *others(machines.parts), code=(1,))["state"] == "cached"


def test_software_that_differs_among_the_parts_is_kept_on_record(
    tmp_path: Path, make_artifact: Callable[..., Artifact]
) -> None:
    store = Store(tmp_path)
    made = [
        make_artifact(store, f"features/a{index}", software={"torch": torch, "numpy": "2.1"}, params={"k": index})
        for index, torch in enumerate(("2.10", "2.11", "2.10"))
    ]
    parts = [FoundPart(Part(index, 3), artifact, store) for index, artifact in enumerate(made, start=1)]
    assert software_of(parts) == {"torch": "2.10 and 2.11", "numpy": "2.1"}
