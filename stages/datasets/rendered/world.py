"""The rendered world: a target set and a pre-training set of mp4 files, with manifests, made from one seed.

    out/target.jsonl      12 classes, 10 s; weak labels for train, audio and visual events for val and test
    out/pretrain.jsonl    17 classes, 10 to 16 s; labelled where heard and seen at once
    out/videos/*.mp4
    out/world.json        written last: size, seed, version, digest of the manifests

A clip depends on (seed, set, split, index) alone, never on the order in which clips are made.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from avvp_pipe.stages.datasets.manifest import write_manifest
from avvp_pipe.stages.datasets.records import Clip
from avvp_pipe.stages.datasets.rendered.cast import PRETRAIN, TARGET
from avvp_pipe.stages.datasets.rendered.film import pictures, soundtrack, write_mp4
from avvp_pipe.stages.datasets.rendered.script import Script, pretrain_script, target_script
from avvp_pipe.stages.stage import Progress

VERSION = 1
"""Raised when the same seed gives other videos."""

Size = Literal["tiny", "small", "full"]
SetName = Literal["target", "pretrain"]
CLIPS: dict[Size, dict[tuple[SetName, str], int]] = {
    "tiny": {
        ("target", "train"): 8, ("target", "val"): 6, ("target", "test"): 6,
        ("pretrain", "train"): 8, ("pretrain", "val"): 4,
    },
    "small": {
        ("target", "train"): 120, ("target", "val"): 60, ("target", "test"): 60,
        ("pretrain", "train"): 120, ("pretrain", "val"): 30,
    },
    "full": {
        ("target", "train"): 400, ("target", "val"): 150, ("target", "test"): 250,
        ("pretrain", "train"): 800, ("pretrain", "val"): 60,
    },
}  # fmt: skip
_SPLIT_LETTERS = {"train": "tr", "val": "va", "test": "te"}


@dataclass(frozen=True, slots=True)
class WorldFiles:
    """Where the manifests are."""

    target: Path
    pretrain: Path


@dataclass(frozen=True, slots=True)
class Take:
    """One clip to be made."""

    seed: int
    group: SetName
    split: str
    index: int

    @property
    def video_id(self) -> str:
        """Like LLP's: eleven characters, and the seconds it was cut from."""
        letter = "d" if self.group == "target" else "p"
        return f"{letter}emo-{_SPLIT_LETTERS[self.split]}{self.index:04d}_0_{self.script().seconds}"

    def _random(self, part: int) -> np.random.Generator:
        numbers = (self.seed, ("target", "pretrain").index(self.group), *self.split.encode(), self.index, part)
        return np.random.default_rng(np.random.SeedSequence(numbers))

    def script(self) -> Script:
        """What happens in it."""
        random = self._random(0)
        if self.group == "target":
            return target_script(TARGET, random)
        return pretrain_script(PRETRAIN, random, seconds=int(random.integers(10, 17)))

    def clip(self) -> Clip:
        """Its line in the manifest."""
        script = self.script()
        heard, seen = script.events("heard"), script.events("seen")
        names = tuple(sorted({event.label for event in heard + seen}))
        dense = self.group == "target" and self.split != "train"
        return Clip(
            video_id=self.video_id,
            path=f"videos/{self.video_id}.mp4",
            split=self.split,
            labels=names,
            seconds=script.seconds,
            audio_events=heard if dense else None,
            visual_events=seen if dense else None,
            # Both senses share their stretches here, so that heard is heard and seen.
            events=heard if self.group == "pretrain" else None,
        )

    def film(self, folder: Path) -> None:
        """Make the mp4 file, unless it is there."""
        path = folder / f"{self.video_id}.mp4"
        if not path.exists():
            script = self.script()
            write_mp4(path, pictures(script, self._random(1)), soundtrack(script, self._random(2)))


def takes(size: Size, seed: int) -> tuple[Take, ...]:
    """Every clip of a world."""
    return tuple(
        Take(seed, group, split, index) for (group, split), count in CLIPS[size].items() for index in range(count)
    )


def render_world(out: Path, *, size: Size, seed: int, workers: int, progress: Progress) -> WorldFiles:
    """Render what is missing and write the manifests. A finished world is recognised at once.

    workers: processes; 0 means one a processor. Raises ValueError where `out` holds a world of another size or seed.
    """
    files = WorldFiles(out / "target.jsonl", out / "pretrain.jsonl")
    about = {"size": size, "seed": seed, "version": VERSION}
    if _recorded(out) == about and files.target.exists() and files.pretrain.exists():
        return files
    if _recorded(out) not in (None, about):
        raise ValueError(
            f"{out} holds a rendered world with {_recorded(out)}, but {about} is wanted; "
            "choose another folder, or delete that one"
        )
    every = takes(size, seed)
    for _ in progress.track(_film_all(every, out / "videos", workers), total=len(every), label="render"):
        pass
    for group, path in (("target", files.target), ("pretrain", files.pretrain)):
        write_manifest(path, [take.clip() for take in every if take.group == group])
    digest = hashlib.sha256(files.target.read_bytes() + files.pretrain.read_bytes()).hexdigest()
    part = out / f".world.{os.getpid()}.part"
    part.write_text(json.dumps({**about, "digest": digest}, indent=1))
    part.replace(out / "world.json")
    return files


def _recorded(out: Path) -> dict[str, object] | None:
    file = out / "world.json"
    if not file.exists():
        return None
    record = json.loads(file.read_text())
    return {name: record.get(name) for name in ("size", "seed", "version")}


def _film_all(every: tuple[Take, ...], folder: Path, workers: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    film = partial(_film, folder)
    processes = workers or os.cpu_count() or 1
    if processes == 1 or len(every) < 2 * processes:
        yield from map(film, every)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(film, every, chunksize=8)


def _film(folder: Path, take: Take) -> None:
    take.film(folder)
