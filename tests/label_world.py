"""A small dataset with features that follow its labels, made by hand, for tests of methods and of the stages around."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.generators import GENERATORS, Evidence, Labelled, SegmentFeatures
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Artifact, Builder, Identity, Reference, Store
from tests.made import made

CLASSES = ("Bell", "Drum", "Flute", "Harp")
AUDIO_WIDTH, VISUAL_WIDTH = 8, 12
CALIBRATED = [name for name, method in GENERATORS.items() if method.calibrated]


@dataclass(frozen=True)
class World:
    """N clips of up to T seconds; the first `training` of them have no dense labels that may be looked at."""

    classes: tuple[str, ...]
    video_ids: tuple[str, ...]
    splits: tuple[str, ...]
    lengths: NDArray[np.int32]
    weak: NDArray[np.bool_]
    audio: NDArray[np.bool_]
    visual: NDArray[np.bool_]
    status: NDArray[np.uint8]
    features: Mapping[str, NDArray[np.float32]]
    """audio and visual (N, T, D), text_audio and text_visual (C, D)."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Of the features, where they differ from what is usual."""

    @property
    def evidence(self) -> Evidence:
        """As methods see it."""
        found = SegmentFeatures(**self.features, audio_log_scale=3.2912, visual_log_scale=4.6052, lengths=self.lengths)
        return Evidence(found, self.weak, self.video_ids)

    @property
    def labelled(self) -> Labelled:
        """The dense labels of all clips."""
        return Labelled(self.audio, self.visual)

    def rows(self, rows: Any) -> World:
        """Some clips, in that order."""
        names = np.array(self.video_ids, dtype=object)[rows]
        features = {name: array if name.startswith("text") else array[rows] for name, array in self.features.items()}
        return replace(
            self,
            video_ids=tuple(names.tolist()),
            splits=tuple(np.array(self.splits, dtype=object)[rows].tolist()),
            features=features,
            **{name: getattr(self, name)[rows] for name in ("lengths", "weak", "audio", "visual", "status")},
        )

    def columns(self, columns: list[int]) -> World:
        """The classes in another order."""
        features = {name: array[columns] if name.startswith("text") else array for name, array in self.features.items()}
        return replace(
            self,
            classes=tuple(self.classes[column] for column in columns),
            weak=self.weak[:, columns],
            audio=self.audio[:, :, columns],
            visual=self.visual[:, :, columns],
            features=features,
        )

    def padded(self, more: int) -> World:
        """The same clips in arrays with room for more seconds: features NaN, labels as they never should be read."""
        features = {
            name: array if name.startswith("text") else _longer(array, more, np.nan)
            for name, array in self.features.items()
        }
        return replace(
            self,
            audio=_longer(self.audio, more, True),
            visual=_longer(self.visual, more, True),
            features=features,
        )


def _longer(array: NDArray[Any], more: int, fill: Any) -> NDArray[Any]:
    return np.pad(array, ((0, 0), (0, more), (0, 0)), constant_values=fill)


def world(
    clips: int = 24,
    *,
    segments: int = 6,
    classes: tuple[str, ...] = CLASSES,
    training: int = 8,
    noise: float = 0.35,
    seed: int = 0,
    failed: tuple[int, ...] = (),
    shortest: int = 1,
) -> World:
    """Clips whose features are the texts of what is on, plus noise; some last as little as `shortest` seconds."""
    rng = np.random.default_rng(seed)
    count = len(classes)
    lengths = rng.integers(shortest, segments + 1, clips).astype(np.int32)
    lengths[rng.integers(clips)] = segments
    there = np.arange(segments) < lengths[:, None]
    some = rng.random((clips, 1, count)) < 0.6
    audio, visual = ((rng.random((clips, segments, count)) < 0.5) & some & there[:, :, None] for _ in range(2))
    weak = (audio | visual).any(axis=1)
    weak[~weak.any(axis=1), 0] = True
    status = np.ones(clips, np.uint8)
    status[list(failed)] = 3
    features = {}
    for name, width, truth in (("audio", AUDIO_WIDTH, audio), ("visual", VISUAL_WIDTH, visual)):
        text = _unit(rng.normal(size=(count, width)))
        found = _unit(truth @ text + noise * rng.normal(size=(clips, segments, width)))
        found[~there | (status != 1)[:, None]] = np.nan
        features[name], features[f"text_{name}"] = found, text
    ids = tuple(f"clip{row:07d}_0_{length}" for row, length in enumerate(lengths))
    evaluated = ["val" if row % 2 else "test" for row in range(clips - training)]
    splits = ("train",) * training + tuple(evaluated)
    return World(classes, ids, splits, lengths, weak, audio, visual, status, features)


def _unit(array: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(array / np.linalg.norm(array, axis=-1, keepdims=True), np.float32)


def stored(store: Store, one: World, *, name: str = "mine", dense: int = 1) -> None:
    """Put dataset/NAME and features/NAME into the store. dense: the code of validation and test clips."""
    key = abs(hash((one.video_ids, one.classes, one.audio.tobytes(), dense))) % 10**9
    split = np.array(one.splits, dtype=str)

    def put_dataset(out: Builder) -> None:
        _put_clips(out, one)
        out.put("paths", [f"{clip}.mp4" for clip in one.video_ids])
        out.put("dense", np.where(split == "train", 0, dense).astype(np.uint8))
        out.put("audio", one.audio)
        out.put("visual", one.visual)
        out.put("audio_visual", one.audio & one.visual)
        out.describe(classes=list(one.classes))

    def put_features(out: Builder) -> None:
        _put_clips(out, one)
        out.put("status", one.status)
        for modality in ("audio", "visual"):
            out.put(modality, one.features[modality])
            for prompts in ("valor", "uwav"):
                out.put(f"text_{modality}/{prompts}", one.features[f"text_{modality}"])
        usual = {"classes": list(one.classes), "audio_log_scale": 3.2912, "visual_log_scale": 4.6052}
        out.describe(**{**usual, **one.attributes})

    made(store, Reference("dataset", name), Identity("dataset", 1, {"n": key}, {}), put_dataset)
    made(store, Reference("features", name), Identity("extract", 1, {"n": key}, {}), put_features)


def _put_clips(out: Builder, one: World) -> None:
    out.put("video_ids", one.video_ids)
    out.put("splits", one.splits)
    out.put("weak", one.weak)
    out.put("lengths", one.lengths)


def stored_generator(store: Store, method: str, *, widths: tuple[int, int] = (AUDIO_WIDTH, VISUAL_WIDTH)) -> Artifact:
    """A small temporal generator with drawn weights, as `pretrain --method METHOD` would leave it."""
    import torch

    from avvp_pipe.stages.blocks.stored import put_network
    from avvp_pipe.stages.generators.uwav import Network, TemporalGenerator

    network = Network(width=16, heads=2, ffn=16, layers=2, audio_width=widths[0], visual_width=widths[1])

    def fill(out: Builder) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(len(method))
            put_network(out, network, TemporalGenerator(network).state_dict(), [{"epoch": 1.0}])
        out.describe(method=method)

    identity = Identity("pretrain", 1, {"method": method, "widths": list(widths)}, {})
    return made(store, Reference("generator", method), identity, fill)


def generator_inputs(name: str) -> dict[str, str]:
    """The generators that a method is given in these tests, by role: those that `stored_generator` made."""
    wanted = GENERATORS[name].generator
    if wanted == "any":
        return {"generator": "generator/uwav", "second_generator": "generator/ear"}
    return {} if wanted == "none" else {"generator": f"generator/{wanted}"}


class Noting(Silent):
    """A Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def track(self, items: Iterable[Any], *, total: int, label: str, done: int = 0) -> Iterator[Any]:
        yield from items


class Bench:
    """A store with one world, and the stages run on it."""

    def __init__(self, folder: Path, one: World) -> None:
        self.store, self.world, self.progress = Store(folder), one, Noting()
        stored(self.store, one)

    def calibrate(self, method: str = "valor", *, name: str = "fit", **params: Any) -> Artifact:
        inputs = {"dataset": "mine", "features": "mine", **generator_inputs(method)}
        step = Step("calibrate", name, {"method": method, **params}, inputs)
        return run_step(self.store, step, progress=self.progress).artifact

    def label(
        self, method: str = "valor", *, name: str = "fit", thresholds: str | None = "fit", **params: Any
    ) -> Artifact:
        inputs = {"dataset": "mine", "features": "mine", **generator_inputs(method)}
        inputs |= {} if thresholds is None else {"thresholds": thresholds}
        step = Step("pseudolabel", name, {"method": method, **params}, inputs)
        return run_step(self.store, step, progress=self.progress).artifact
