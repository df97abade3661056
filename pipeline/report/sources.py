"""Where the pictures of clips come from: stored media, or video files that are decoded anew."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.rows import OK
from avvp_pipe.store import Artifact, Store
from avvp_pipe.store.rows import take_rows
from avvp_pipe.store.status import Status

__all__ = ["Files", "Footage", "Media", "Source", "source_of"]

AT_A_TIME = 32
"""Clips that are read or decoded at a time."""
FRAME_SIZE, SAMPLE_RATE = 112, 16000
"""Of files that are decoded for their pictures."""
NO_FILE = "its video file is not where the dataset says"
NOT_DECODED = "it is not among the stored media"


@dataclass(frozen=True, slots=True)
class Footage:
    """What can be seen and heard of a clip."""

    frames: NDArray[np.uint8]
    """(T, H, W, 3), one a second."""
    samples: NDArray[np.floating[Any]]
    """(K,) mono, in [-1, 1]."""
    rate: int


class Source(Protocol):
    """Clips in the viewer's order."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why a clip can have no picture; empty where it can."""
        ...

    def footage(self, places: Sequence[int]) -> Iterator[tuple[int, "Footage | str"]]:
        """(place, footage) of some clips, in that order, or why there is none after all."""
        ...


@dataclass(frozen=True)
class Media:
    """Stored frames and sound."""

    artifact: Artifact
    rows: NDArray[np.intp]
    """(N,) of the viewer's clips, -1 where there is none."""
    reasons: tuple[str, ...]

    def footage(self, places: Sequence[int]) -> Iterator[tuple[int, "Footage | str"]]:
        """Read them, some at a time."""
        sampling = self.artifact.attrs["sampling"]
        lengths = self.artifact.array("lengths")
        used = self.artifact.array("audio_samples") if "audio_samples" in self.artifact else None
        for start in range(0, len(places), AT_A_TIME):
            here = places[start : start + AT_A_TIME]
            rows = self.rows[list(here)]
            order = np.unique(rows)
            frames, audio = (take_rows(self.artifact, name, order) for name in ("frames", "audio"))
            for place, row in zip(here, rows, strict=True):
                at, seconds = int(np.searchsorted(order, row)), int(lengths[row])
                samples = audio[at, : seconds * int(sampling["sample_rate"]) if used is None else int(used[row])]
                yield place, _footage(frames[at], samples, seconds, sampling)


@dataclass(frozen=True)
class Files:
    """Video files, decoded in processes of their own."""

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    lengths: NDArray[np.int32]
    reasons: tuple[str, ...]

    def footage(self, places: Sequence[int]) -> Iterator[tuple[int, "Footage | str"]]:
        """Decode them; a clip that cannot be decoded costs only itself."""
        from avvp_pipe.stages.media import Sampling
        from avvp_pipe.stages.media.gather import Clips, Decoding, media_units, worker_count

        sampling = Sampling(frame_rule="centre", frame_size=FRAME_SIZE, sample_rate=SAMPLE_RATE)
        facts = {"frames_per_second": 1, "sample_rate": SAMPLE_RATE}
        decoding = Decoding(worker_count("auto"), 60.0, 4096 * 2**20)
        lengths = self.lengths[list(places)]
        clips = Clips(
            tuple(self.names[place] for place in places),
            [self.paths[place] for place in places],
            lengths,
            int(lengths.max(initial=1)),
            np.ones(len(places), np.bool_),
        )
        units = [slice(at, min(at + AT_A_TIME, len(places))) for at in range(0, len(places), AT_A_TIME)]
        for unit in media_units(clips, units, sampling, decoding):
            for at in range(unit.rows.start, unit.rows.stop):
                row = at - unit.rows.start
                if unit.arrays["status"][row] != OK:
                    yield places[at], _failed(int(unit.arrays["status"][row]))
                    continue
                samples = unit.arrays["audio"][row][: int(unit.arrays["audio_samples"][row])]
                yield places[at], _footage(unit.arrays["frames"][row], samples, int(lengths[at]), facts)


def _footage(frames: NDArray[Any], samples: NDArray[Any], seconds: int, sampling: Mapping[str, Any]) -> Footage:
    """The middle frame of each second; floating frames, of 0 to 1 or to 255, as bytes."""
    each = int(sampling["frames_per_second"])
    middle = frames[: seconds * each][each // 2 :: each]
    if middle.dtype != np.uint8:
        middle = np.rint(np.clip(middle * (1 if middle.max(initial=0) > 2 else 255), 0, 255)).astype(np.uint8)
    sound = samples / 32768 if samples.dtype == np.int16 else samples
    return Footage(middle, np.nan_to_num(sound), int(sampling["sample_rate"]))


def _failed(status: int) -> str:
    known = {one.value: one.code for one in Status}
    return f"it could not be decoded ({known.get(status, status)})"


def source_of(
    store: Store, dataset: Artifact | None, media: Artifact | None, others: Sequence[Artifact], names: Sequence[str]
) -> Source | None:
    """Stored media where there are any, else the dataset's video files; None where it has none.

    others: artifacts made from the dataset, whose runs may have been told of another folder of videos.
    """
    if media is not None:
        return _media(media, names)
    if dataset is None or not any(texts := dataset.strings("paths")):
        return None
    from avvp_pipe.stages.clips.videos import video_paths

    told = (store.run_record(one).get("params", {}).get("videos") for one in others)
    paths = video_paths(dataset, next(filter(None, told), ""))
    row = {name: place for place, name in enumerate(dataset.strings("video_ids"))}
    mine = [row[name] for name in names]
    reasons = tuple("" if texts[one] and paths[one].is_file() else NO_FILE for one in mine)
    return Files(tuple(names), tuple(paths[one] for one in mine), dataset.array("lengths")[mine], reasons)


def _media(media: Artifact, names: Sequence[str]) -> Media:
    place = {name: row for row, name in enumerate(media.strings("video_ids"))}
    rows = np.array([place.get(name, -1) for name in names], np.intp)
    status = media.array("status")
    reasons = (NOT_DECODED if row < 0 else "" if status[row] == OK else _failed(int(status[row])) for row in rows)
    return Media(media, rows, tuple(reasons))
