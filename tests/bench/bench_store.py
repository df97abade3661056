"""What the store costs and saves against one .npy file per clip, side by side in one run.

11,849 clips of (10, 768) float16, as CLIP's features of LLP, written as a stage writes them (through the runner,
with the shards of `extract`), and LLP-sized labels. The promises, each a line; exits 1 where one is broken:

- at most 1/200 of the files;
- writing everything, with fsync on both sides and without on both, at least as fast; so is reading everything (page
  cache warm on both sides, best of a few turns, the two sides taking turns);
- `load_labels` and one clip of it in under a second, start of the interpreter included;
- reading one clip takes as much memory of N clips as of 4N.

    python tests/bench/bench_store.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages import extract, pseudolabel
from avvp_pipe.stages.stage import Inputs, Progress, Silent
from avvp_pipe.store import Artifact, Builder, Store

CLIPS, SEGMENTS, WIDTH, CLASSES = 11_849, 10, 768, 25
TURNS = 5
FILES_RATIO = 200
COLD_SECONDS = 1.0
MEMORY_SLACK_BYTES = 4 * 2**20

LOAD_ONE = """
import sys
from avvp_pipe.store import load_labels
assert load_labels("labels/bench", store=sys.argv[1])["clip0004242"].audio_hard.shape == (10, 25)
"""
READ_ONE = """
import sys
from avvp_pipe.store import Store, load_labels
def bytes_of(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))
array = Store(sys.argv[1]).get("features/bench").lazy("visual")
labels = load_labels("bench", store=sys.argv[1])
middle = labels.video_ids[len(labels) // 2]
labels.row(middle), labels.weak, labels.lengths
def grown(read):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak counts from here
    before = bytes_of("VmRSS")
    read()
    return bytes_of("VmHWM") - before
print(grown(lambda: array[len(labels) // 2]), grown(lambda: labels[middle]))
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How many clips a bench stage writes."""

    clips: int


def ids(clips: int) -> list[str]:
    """Names of 11 characters, as YouTube's."""
    return [f"clip{row:07d}" for row in range(clips)]


def features(clips: int) -> NDArray[np.float16]:
    """(clips, 10, 768) noise: the worst case for anything that would compress."""
    random = np.random.default_rng(0)
    return random.standard_normal((clips, SEGMENTS, WIDTH), dtype=np.float32).astype(np.float16)


def write_features(data: NDArray[np.float16], out: Builder) -> None:
    """As `extract` does it: names, then shard after shard of embeddings and status."""
    out.put("video_ids", ids(len(data)))
    out.declare("visual", data.shape, "float16", fill=float("nan"))
    out.declare("status", (len(data),), "uint8")
    for shard in out.pending():
        out.write(shard, {"visual": data[shard], "status": np.ones(shard.stop - shard.start, np.uint8)})


def write_labels(inputs: Inputs, params: Size, out: Builder, progress: Progress) -> None:
    """As `pseudolabel` does it: whole arrays of logits, soft and hard labels of both modalities."""
    random, shape = np.random.default_rng(0), (params.clips, SEGMENTS, CLASSES)
    out.describe(classes=[f"class {index}" for index in range(CLASSES)])
    out.put("video_ids", ids(params.clips))
    out.put("splits", ["train"] * params.clips)
    out.put("status", np.ones(params.clips, np.uint8))
    out.put("weak", random.random((params.clips, CLASSES)) < 0.1)
    out.put("lengths", np.full(params.clips, SEGMENTS, np.int32))
    for modality in ("audio", "visual"):
        logits = random.standard_normal(shape, dtype=np.float32)
        out.put(f"{modality}_logits", logits)
        out.put(f"{modality}_thresholds", np.full(CLASSES, 1.5, np.float32))
        out.put(f"{modality}_soft", 1 / (1 + np.exp(-logits)))
        out.put(f"{modality}_hard", logits > 1.5)


def build(store: Path, model: Any, run: Callable[..., None], clips: int) -> Artifact:
    """Run a stage of our own that is `model` in everything but what it reads and computes."""
    stage = replace(model, reads={}, params=Size, run=run, sources=lambda params, inputs: {})
    with mock.patch.dict(STAGES, {stage.name: stage}):
        return run_step(Store(store), Step(stage.name, "bench", {"clips": clips}), progress=Silent()).artifact


def build_features(store: Path, data: NDArray[np.float16]) -> Artifact:
    """The features' artifact in a fresh store."""
    return build(store, extract.STAGE, lambda inputs, params, out, progress: write_features(data, out), len(data))


def write_npy(folder: Path, data: NDArray[np.float16], *, durable: bool) -> None:
    """One file a clip, as VALOR and UWAV keep their features."""
    folder.mkdir()
    for name, clip in zip(ids(len(data)), data, strict=True):
        with (folder / f"{name}.npy").open("wb") as file:
            np.save(file, clip)
            if durable:
                file.flush()
                os.fsync(file.fileno())


def read_npy(folder: Path) -> NDArray[np.float16]:
    """All clips of the tree in one array."""
    first = np.load(folder / f"{ids(1)[0]}.npy")
    data = np.empty((CLIPS, *first.shape), first.dtype)
    for row, name in enumerate(ids(CLIPS)):
        data[row] = np.load(folder / f"{name}.npy")
    return data


def seconds(function: Callable[[], object], *, replaces: Path | None = None) -> float:
    """How long one call takes. replaces: what it writes; an older one is removed before, untimed and synced."""
    if replaces is not None:
        shutil.rmtree(replaces, ignore_errors=True)
        os.sync()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turns(sides: Mapping[Path, Callable[[], object]], turns: int = TURNS, *, writes: bool = False) -> list[float]:
    """The shortest of several turns of each side; they take turns, so that what disturbs one disturbs the other."""
    taken = [
        [seconds(function, replaces=place if writes else None) for place, function in sides.items()]
        for _ in range(turns)
    ]
    return [min(times) for times in zip(*taken, strict=True)]


def compared(what: str, times: list[float]) -> bool:
    """Say and judge one comparison."""
    ours, theirs = times
    print(f"store, {what}: ours {ours:.2f} s, npy tree {theirs:.2f} s, {theirs / ours:.1f} times as fast (1 wanted)")
    return ours <= theirs


def writing(work: Path, data: NDArray[np.float16]) -> list[bool]:
    """Everything written, durable on both sides, then without any fsync on both. Leaves the last trees of both."""
    ours, theirs = work / "ours", work / "npy"
    sides = {ours: lambda: build_features(ours, data), theirs: lambda: write_npy(theirs, data, durable=True)}
    durable = in_turns(sides, 1, writes=True)
    with mock.patch("os.fsync"):
        sides = {ours: sides[ours], theirs: lambda: write_npy(theirs, data, durable=False)}
        plain = in_turns(sides, writes=True)
    return [compared("writing all with fsync", durable), compared("writing all without fsync", plain)]


def reading(work: Path, data: NDArray[np.float16]) -> bool:
    """Everything read into one array, which must hold what was written."""
    artifact = Store(work / "ours").get("features/bench")
    assert np.array_equal(artifact.array("visual"), data)
    assert np.array_equal(read_npy(work / "npy"), data)
    sides = {work / "ours": lambda: artifact.array("visual"), work / "npy": lambda: read_npy(work / "npy")}
    return compared("reading all", in_turns(sides))


def files(work: Path) -> bool:
    """Files under the store, all that is not the artifact included."""
    ours = sum(path.is_file() for path in (work / "ours").rglob("*"))
    theirs = sum(path.is_file() for path in (work / "npy").iterdir())
    print(f"store, files: ours {ours}, npy tree {theirs}, 1/{theirs / ours:.0f} (at most 1/{FILES_RATIO} wanted)")
    return ours * FILES_RATIO <= theirs


def cold_start(work: Path) -> bool:
    """One clip's labels, from a process that did not run before."""
    build(work / "ours", pseudolabel.STAGE, write_labels, CLIPS)
    command = [sys.executable, "-c", LOAD_ONE, str(work / "ours")]
    taken = min(seconds(lambda: subprocess.run(command, check=True)) for _ in range(TURNS))
    print(f"store, load_labels and one clip, cold process: {taken:.2f} s (under {COLD_SECONDS:.0f} s wanted)")
    return taken < COLD_SECONDS


def memory(work: Path, data: NDArray[np.float16]) -> bool:
    """What reading one clip's features, then its labels, adds to a process, of N clips and of 4N."""
    build_features(work / "four", np.concatenate([data] * 4))
    build(work / "four", pseudolabel.STAGE, write_labels, 4 * CLIPS)
    grown = []
    for store in ("ours", "four"):
        command = [sys.executable, "-c", READ_ONE, str(work / store)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        grown.append([int(word) for word in said.split()])
    for what, few, many in zip(("features", "labels"), *grown, strict=True):
        print(
            f"store, memory for one clip's {what}: {few / 2**20:.1f} MiB of {CLIPS} clips, {many / 2**20:.1f} MiB of "
            f"{4 * CLIPS} (within {MEMORY_SLACK_BYTES / 2**20:.0f} MiB wanted)"
        )
    return all(many - few <= MEMORY_SLACK_BYTES for few, many in zip(*grown, strict=True))


def main() -> int:
    """Measure, print a line each, and say by the exit code whether all promises are kept."""
    data = features(CLIPS)
    with tempfile.TemporaryDirectory(prefix="avvp-bench-") as folder:
        work = Path(folder)
        kept = [*writing(work, data), reading(work, data), files(work), cold_start(work), memory(work, data)]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
