"""Extraction: straight from videos or from media, whole or in parts, killed or not, the bits are the same."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avvp_pipe.stages.blocks.embedding import Embedder, Embedding, load_embedder
from avvp_pipe.stages.clips.units import Unit
from avvp_pipe.stages.media.clip import Sampling
from avvp_pipe.store import Artifact, Store
from avvp_pipe.store.status import Status
from tests.small_world import TINY, arrays_of, files_of, small_world, write_manifest, write_video

CLIPS = 20
"""Two units: of 16 and of 4."""
HERE = ("--workers", "0")


@dataclass(frozen=True)
class World:
    """A folder with videos and a store."""

    folder: Path
    avvp: Callable[..., Any]

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def run(self, command: str, *arguments: str) -> Any:
        ran = self.avvp(command, *arguments, "--store", self.store, "--json", "--quiet")
        assert ran.code in (0, 1), ran.err
        return ran.document

    def dataset(self, manifest: Path, name: str = "mine") -> None:
        self.run("dataset", "--source", str(manifest), "--name", name)

    def extract(self, name: str, *more: str, dataset: str = "mine", where: tuple[str, ...] = HERE) -> Artifact:
        made = self.run("extract", "--dataset", dataset, "--name", name, *TINY, *where, *more)
        return Store(self.store).get(made["artifact"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, avvp: Callable[..., Any]) -> World:
    """Twenty clips of one second or two, one of twelve, one whose sound and pictures last 10.01 s; extracted."""
    found = World(tmp_path_factory.mktemp("world"), avvp)
    found.dataset(small_world(found.folder, CLIPS, lengths={2: 10.01, 17: 12}))
    found.extract("whole")
    return found


@pytest.fixture
def whole(world: World) -> Artifact:
    return Store(world.store).get("features/whole")


SAMPLINGS = {
    "defaults": (),
    "three frames a second, not rounded": ("--frames-per-second", "3", "--frame-dtype", "float32"),
    "VALOR's cut": ("--audio-cut", "valor", "--frame-rule", "centre", "--resize", "crop"),
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_straight_from_videos_the_features_are_those_from_media_bit_for_bit(world: World, name: str) -> None:
    sampling, called = SAMPLINGS[name], name.split()[0].lower().replace("'", "")
    size = ("--frame-size", "64", "--sample-rate", "16000")
    world.run("decode", "--dataset", "mine", "--name", called, *size, *sampling, "--workers", "2")
    stored = world.extract(f"{called}-media", "--media", called)
    straight = world.extract(f"{called}-videos", *sampling, where=("--workers", "1"))
    assert arrays_of(straight) == arrays_of(stored)
    assert straight.provenance["failures"] == stored.provenance["failures"] == []
    assert (straight.array("status") == Status.OK).all()


def test_of_several_frames_a_second_their_normalised_mean_is_kept_beside_them(world: World) -> None:
    features = world.extract("frames", "--frames-per-second", "3")
    frames, visual = features.array("visual_frames"), features.array("visual")
    clips, segments, width = visual.shape
    assert frames.shape == (clips, segments, 3, width)
    for clip in range(clips):
        for second in range(features.array("lengths")[clip]):
            mean = sum(frames[clip, second].astype(np.float64)) / 3
            np.testing.assert_allclose(visual[clip, second], mean / np.sqrt((mean**2).sum()), atol=1e-6)
    assert np.isnan(frames[0, 1:]).all()
    assert len(np.unique(frames[0, 0].round(4), axis=0)) == 3


def test_the_parts_of_a_dataset_hold_the_bits_of_the_whole(world: World, whole: Artifact) -> None:
    parts = [world.extract(f"part.{part}-of-2", "--shard", f"{part}/2") for part in (1, 2)]
    for name in ("visual", "audio", "status", "lengths"):
        joined = np.concatenate([part.array(name) for part in parts])
        assert joined.tobytes() == whole.array(name).tobytes(), name
    assert [len(part.array("status")) for part in parts] == [16, 4]
    for name in whole.array_names():
        if name.startswith("text_"):
            assert parts[1].array(name).tobytes() == whole.array(name).tobytes()


@pytest.mark.parametrize("size", ["1", "7"])
def test_the_size_of_a_batch_changes_no_embedding_by_more_than_rounding(
    world: World, whole: Artifact, size: str
) -> None:
    other = world.extract(f"batch{size}", "--batch-size", size, "--force")
    exists = ~np.isnan(whole.array("audio")[:, :, 0])
    for name in ("visual", "audio"):
        cosines = (whole.array(name).astype(np.float64) * other.array(name)).sum(-1)
        assert (1 - cosines[exists] < 1e-6).all()
    assert exists.sum() == whole.array("lengths").sum()


def test_clips_that_fail_do_not_change_a_bit_of_the_others_even_where_a_whole_unit_fails(
    world: World, whole: Artifact
) -> None:
    for name, lost in (("scattered", {0, 3, 17}), ("unit", set(range(16))), ("all", set(range(CLIPS)))):
        manifest = (world.folder / "clips.jsonl").read_text()
        for row in lost:
            manifest = manifest.replace(f'"v{row:03d}.mp4"', f'"none{row}.mp4"')
        (world.folder / f"{name}.jsonl").write_text(manifest)
        world.dataset(world.folder / f"{name}.jsonl", name)
        found = world.extract(name, dataset=name)
        rows = sorted(set(range(CLIPS)) - lost)
        for array in ("visual", "audio"):
            assert found.array(array)[rows].tobytes() == whole.array(array)[rows].tobytes(), (name, array)
            assert np.isnan(found.array(array)[sorted(lost)]).all()
        assert found.array("status").tolist() == [2 if row in lost else 1 for row in range(CLIPS)]
        assert len(found.provenance["failures"]) == len(lost)


def test_a_dataset_of_one_clip_beyond_ten_seconds_has_a_row_for_each_of_its_seconds(
    world: World, whole: Artifact
) -> None:
    (world.folder / "one.jsonl").write_text((world.folder / "clips.jsonl").read_text().splitlines()[17])
    world.dataset(world.folder / "one.jsonl", "one")
    one = world.extract("one", dataset="one")
    assert one.array("visual").shape[:2] == (1, 12)
    cosines = (one.array("visual")[0] * whole.array("visual")[17]).sum(-1)
    assert (1 - cosines < 1e-6).all()


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder(Embedding("tiny-clip", "tiny-clap", Sampling(frame_size=64, sample_rate=16000), batch_size=4))


def random_media(seed: int, clips: int, segments: int) -> Unit:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {
        "frames": rng.integers(0, 256, (clips, segments, 64, 64, 3), np.uint8),
        "audio": rng.uniform(-1, 1, (clips, segments * 16000)).astype(np.float32),
        "audio_samples": np.full(clips, segments * 16000, np.int32),
        "status": np.ones(clips, np.uint8),
    }
    return Unit(slice(0, clips), arrays)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3)), min_size=1, max_size=5), st.integers(0, 99))
def test_whichever_clips_of_a_unit_fail_the_others_keep_their_bits(
    embedder: Embedder, clips: list[tuple[bool, int]], seed: int
) -> None:
    lengths = np.array([seconds for _, seconds in clips], np.int32)
    failed = np.array([lost for lost, _ in clips])
    media = random_media(seed, len(clips), 3)
    whole = embedder.unit(media, lengths, 3).arrays
    broken: dict[str, Any] = {name: array.copy() for name, array in media.arrays.items()}
    for array in broken.values():
        array[failed] = 0
    broken["status"] = np.where(failed, Status.CORRUPT, Status.OK).astype(np.uint8)
    told: list[int] = []
    found = embedder.unit(Unit(media.rows, broken), lengths, 3, told.append).arrays
    for name in ("visual", "audio"):
        assert found[name][~failed].tobytes() == whole[name][~failed].tobytes()
        assert np.isnan(found[name][failed]).all()
        for row, seconds in enumerate(lengths):
            assert np.isfinite(whole[name][row, :seconds]).all()
            assert np.isnan(whole[name][row, seconds:]).all()
    assert sum(told) == 2 * lengths.sum()


def test_embeddings_that_are_not_finite_are_an_error_and_not_stored(embedder: Embedder) -> None:
    raw = dataclasses.replace(embedder, recipe=dataclasses.replace(embedder.recipe, quantise=False))
    media = random_media(0, 1, 2)
    media.arrays["audio"][0, 7] = np.nan
    with pytest.raises(ValueError, match="embeddings in fp32 are not finite"):
        raw.unit(media, np.array([2], np.int32), 2)


@pytest.mark.parametrize("per_second", [1, 3, 5])
def test_however_frames_fall_into_batches_every_second_is_counted_once(embedder: Embedder, per_second: int) -> None:
    several = dataclasses.replace(embedder.recipe.sampling, frames_per_second=per_second)
    counting = dataclasses.replace(embedder, recipe=dataclasses.replace(embedder.recipe, sampling=several))
    media, lengths = random_media(0, 3, 2 * per_second), np.array([2, 1, 2], np.int32)
    arrays = {**media.arrays, "audio": media.arrays["audio"][:, :32000], "audio_samples": np.full(3, 32000, np.int32)}
    told: list[int] = []
    counting.unit(Unit(media.rows, arrays), lengths, 2, told.append)
    assert sum(told) == 2 * lengths.sum()


KILLS, SEED = 10, 20_261_121
DRIVER = """
import dataclasses, os, sys
import av, numpy, pydantic, torch, torchaudio, zarr
import avvp_pipe.store.builder
from avvp_pipe.cli.main import app
from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.stages.blocks.embedding import Embedder, Embedding, load_embedder
from avvp_pipe.stages.media import Sampling
import avvp_pipe.stages.executors.local, avvp_pipe.stages.media.gather

# Imports what teachers need; one thread, because those of torch do not survive a fork.
load_embedder(Embedding("tiny-clip", "tiny-clap", Sampling(frame_size=64, sample_rate=16000), threads=1))
# Shards of two units; each run is a process group and says which unit it embeds.
STAGES["extract"] = dataclasses.replace(STAGES["extract"], shard_rows=32)
events = os.fdopen(os.dup(1), "w", buffering=1)
embed = Embedder.unit

def told(self, media, *arguments):
    print("unit", media.rows.start, file=events)
    return embed(self, media, *arguments)

def child():
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    Embedder.unit = told
    code = 99
    try:
        code = app(sys.argv[1:], standalone_mode=False) or 0
    finally:
        os._exit(code)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        child()
    print("run", pid, file=events)
    print("over", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=events)
"""


@dataclass
class Runs:
    """The same command, again and again, one run at a time, in a process that has imported everything."""

    process: subprocess.Popen[str]
    embedded: list[int] = field(default_factory=list)
    """First rows of the units that the last run began to embed."""

    def start(self) -> int:
        """The process of a run that begins now."""
        assert self.process.stdin is not None
        print("run", file=self.process.stdin, flush=True)
        self.embedded = []
        return int(self._event()[1])

    def until(self, units: int) -> int | None:
        """Wait until so many units were begun; the exit code, where the run ended before."""
        while len(self.embedded) < units:
            words = self._event()
            if words[0] == "over":
                return int(words[1])
            self.embedded.append(int(words[1]))
        return None

    def end(self) -> int:
        """The exit code of the run that was started."""
        code = self.until(sys.maxsize)
        assert code is not None
        return code

    def _event(self) -> list[str]:
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert words, "the driver is gone"
        return words


@pytest.fixture
def runs(tmp_path: Path, avvp: Callable[..., Any]) -> Iterator[Runs]:
    """Extraction of 40 clips, in three units, of eight files."""
    for seed in range(8):
        write_video(tmp_path / f"v{seed}.mp4", seed)
    manifest = write_manifest(tmp_path, [f"v{row % 8}.mp4" for row in range(40)], [1 + row % 2 for row in range(40)])
    World(tmp_path, avvp).dataset(manifest)
    command = (
        "extract",
        "--dataset",
        "mine",
        *TINY,
        "--store",
        str(tmp_path / "store"),
        "--quiet",
        "--workers",
        "1",
        "--threads",
        "1",
    )
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        yield Runs(process)
        assert process.stdin is not None
        process.stdin.close()


def units_kept(name: Path) -> set[int]:
    """First rows of units that need not be embedded again: kept by themselves, or in a shard that is whole."""
    kept = {int(path.stem) for path in name.glob(".*.partial/scratch/units/*.npz")}
    for journal in name.glob(".*.partial/journal.jsonl"):
        starts = [
            int(json.loads(line)["start"])
            for line in journal.read_bytes().splitlines(keepends=True)
            if line.endswith(b"\n")
        ]
        kept |= {start + more for start in starts for more in (0, 16)}
    return kept


def test_killed_at_ten_random_moments_it_ends_in_the_same_bytes_and_embeds_no_finished_unit_again(
    runs: Runs, tmp_path: Path
) -> None:
    name, chance, kills, spared = tmp_path / "store" / "features" / "mine", random.Random(SEED), 0, 0
    begun = time.monotonic()
    runs.start()
    runs.until(1)
    beginning = time.monotonic() - begun
    assert (runs.end(), runs.embedded) == (0, [0, 16, 32]), (tmp_path / "log").read_text()[-3000:]
    working = time.monotonic() - begun - beginning
    undisturbed = tmp_path / "undisturbed"
    name.rename(undisturbed)
    while kills < KILLS:
        kept = units_kept(name)
        pid, units = runs.start(), chance.randint(0, 2)
        code = runs.until(units)
        if code is None:  # else it had fewer units to embed than that, and is done
            time.sleep(chance.random() * (working / 3 if units else beginning))
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            code = runs.end()
        assert code in (0, -signal.SIGKILL), (tmp_path / "log").read_text()[-3000:]
        assert not kept & {*runs.embedded}, "a finished unit was embedded again"
        kills, spared = kills + (code != 0), spared + len(kept)
        if list(name.glob(".*.partial")) and code != 0:
            assert {*runs.embedded[:-1]} <= units_kept(name), "a kill cost more than the unit that it fell into"
        for artifact in Store(tmp_path / "store").artifacts():
            if artifact.kind == "features":
                assert files_of(artifact.path) == files_of(undisturbed / artifact.key)
                shutil.rmtree(name)
    runs.start()
    assert runs.end() == 0, (tmp_path / "log").read_text()[-3000:]
    (key,) = [path.name for path in name.iterdir() if not path.name.startswith(".")]
    assert files_of(name / key) == files_of(undisturbed / key)
    assert not list(name.glob(".*.partial"))
    assert spared, f"with seed {SEED} no kill left a finished unit behind"
