"""A store made from arrays for tests of the report: a dataset, media, sets of labels, thresholds, a parser, scores.

Truth and labels are drawn by a seed; every set is the truth with some cells wrong, more of them from set to set.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Artifact, Builder, Identity, Reference, Store
from tests.made import made

CLASSES = ("Bell", "Dog", "Flute")
SPLITS = ("val", "test", "train")
HOSTILE = "</script><img src=x onerror=alert(1)>&\"'"


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a world is."""

    clips: int = 6
    classes: tuple[str, ...] = CLASSES
    seconds: int = 10
    sets: tuple[str, ...] = ("first", "second")
    ids: tuple[str, ...] = ()
    side: int = 16
    """Of stored frames; 0: no media."""
    rate: int = 4000
    failed: frozenset[int] = frozenset()
    """Clips that media and labels lack."""

    def names(self) -> list[str]:
        """Ids of the clips."""
        return list(self.ids) or [f"clip{row:07d}_0_10" for row in range(self.clips)]


def build(
    store: Store, kind: str, name: str, arrays: Mapping[str, Any], inputs: Mapping[str, Artifact], **more: Any
) -> Artifact:
    """An artifact of arrays, made of others."""
    record = {"inputs": {role: str(one.reference) for role, one in inputs.items()}}
    keys = {role: one.key for role, one in inputs.items()}
    digest = hashlib.sha256(repr(sorted(more.items())).encode())
    for one in sorted(arrays):
        array = arrays[one]
        digest.update(repr(array).encode() if isinstance(array, list | tuple) else np.asarray(array).tobytes())
    identity = Identity(f"make-{kind}", 1, {"made": name}, keys, {"arrays": digest.hexdigest()})

    def fill(builder: Builder) -> None:
        builder.describe(**more)
        for one, array in arrays.items():
            builder.put(one, array)

    return made(store, Reference(kind, name), identity, fill, shard_rows=32, **record)


def make_dataset(store: Store, shape: Shape, *, seed: int = 0) -> Artifact:
    """Clips of all splits; those of train are labelled by their weak labels alone."""
    rng = np.random.default_rng(seed)
    n, t, c = shape.clips, shape.seconds, len(shape.classes)
    weak = rng.random((n, c)) < min(1, 2.2 / c)
    weak[~weak.any(axis=1), 0] = True
    splits = [SPLITS[row % 3] for row in range(n)]
    dense = np.array([split != "train" for split in splits], np.uint8)
    truth = [weak[:, None] & (rng.random((n, t, c)) < 0.6) & (dense == 1)[:, None, None] for _ in range(2)]
    arrays = {
        "video_ids": shape.names(),
        "splits": splits,
        "paths": [""] * n,
        "weak": weak,
        "lengths": np.full(n, t, np.int32),
        "dense": dense,
        "audio": truth[0],
        "visual": truth[1],
        "audio_visual": truth[0] & truth[1],
    }
    report = [{"code": "odd-times", "count": 2, "message": "events that end before they begin", "examples": ["a", "b"]}]
    return build(store, "dataset", "world", arrays, {}, classes=list(shape.classes), report=report, location="/nowhere")


def make_labels(
    store: Store, shape: Shape, dataset: Artifact, name: str, place: int, inputs: Mapping[str, Artifact]
) -> Artifact:
    """The truth of a set's own drawing with a share of wrong cells that grows with `place`."""
    weak = dataset.array("weak")
    arrays = {**_clips(dataset), "status": status_of(shape)}
    for modality, cells in _drawn(dataset, place).items():
        logits = np.where(cells, 1, -1) * np.random.default_rng(place).uniform(0.2, 3, cells.shape)
        arrays[f"{modality}_hard"] = cells & weak[:, None] & _there(shape)
        arrays[f"{modality}_soft"] = (weak[:, None] & _there(shape)) / (1 + np.exp(-logits)).astype(np.float32)
        arrays[f"{modality}_soft"] = arrays[f"{modality}_soft"].astype(np.float32)
        arrays[f"{modality}_logits"] = logits.astype(np.float32)
        arrays[f"{modality}_thresholds"] = np.array([0, np.inf, -np.inf] + [0] * 1000, np.float32)[: weak.shape[1]]
    described = {"classes": list(shape.classes), "method": f"method {name}", "weak_filter": "both"}
    return build(store, "labels", name, arrays, {"dataset": dataset, **inputs}, **described)


def make_parser(store: Store, shape: Shape, dataset: Artifact, labels: Artifact) -> Artifact:
    """Predictions that the weak labels do not bound, and the history of a training."""
    arrays: dict[str, Any] = {**_clips(dataset), "status": status_of(shape)}
    for modality, cells in _drawn(dataset, 7).items():
        probs = np.clip(np.where(cells, 0.8, 0.15) + np.random.default_rng(3).normal(0, 0.1, cells.shape), 0, 1)
        arrays[f"{modality}_probs"] = (probs * _there(shape)).astype(np.float32)
        arrays[f"{modality}_hard"] = (probs > 0.5) & _there(shape)
    arrays["video_probs"] = arrays["audio_probs"].max(axis=1)
    arrays |= {"history/epoch": np.arange(1.0, 5), "history/loss": np.array([0.7, 0.5, 0.4, 0.35])}
    arrays |= {"history/val_Type": np.array([30, 50, 60, 55.0]), "history/rate": np.full(4, 1e-3)}
    described = {"classes": list(shape.classes), "method": "parser on first", "parser": "han", "best_epoch": 3}
    return build(
        store, "parser", "pupil", arrays, {"dataset": dataset, "labels": labels}, selected_by="val_Type", **described
    )


def make_thresholds(store: Store, shape: Shape, dataset: Artifact) -> Artifact:
    """Curves of eleven thresholds; the first class has a spread, the second no positives."""
    c, grid = len(shape.classes), np.linspace(-2, 2, 11)
    arrays: dict[str, Any] = {}
    for modality in ("audio", "visual"):
        curves = np.stack(
            [np.broadcast_to(one, (c, 11)) for one in (grid, grid * 0 + 0.5, grid * 0 + 0.5, 0.8 - grid**2 / 8)]
        )
        curves = curves.astype(np.float32).copy()
        curves[:, 1] = np.nan
        chosen = np.zeros(c, np.float32)
        chosen[1] = np.inf
        f1 = np.full(c, 0.8)
        f1[1] = np.nan
        arrays |= {modality: chosen, f"{modality}_f1": f1, f"{modality}_curves": curves}
        arrays[f"{modality}_spread"] = np.stack([chosen - 0.5, chosen + 0.5]).astype(np.float32)
    described = {"mode": "per-class", "clips": 3, "bootstrap": {"resamples": 9, "percentiles": [5, 95]}}
    return build(store, "thresholds", "first", arrays, {"dataset": dataset}, classes=list(shape.classes), **described)


def make_media(store: Store, shape: Shape, dataset: Artifact) -> Artifact:
    """Frames of coarse and fine patterns, and sound that is a tone in even seconds; shard by shard."""
    n, t, side, rate = shape.clips, shape.seconds, shape.side, shape.rate
    tone = np.sin(np.arange(t * rate) * 2 * np.pi * 440 / rate) * (np.arange(t * rate) // rate % 2 == 0)
    identity = Identity("make-media", 1, {}, {"dataset": dataset.key})

    def fill(builder: Builder) -> None:
        for name in ("video_ids", "lengths"):
            builder.put(name, shape.names() if name == "video_ids" else dataset.array("lengths"))
        builder.describe(sampling={"frames_per_second": 1, "sample_rate": rate, "frame_size": side})
        builder.declare("frames", (n, t, side, side, 3), "uint8")
        builder.declare("audio", (n, t * rate), "int16")
        builder.declare("status", (n,), "uint8")
        for shard in builder.pending():
            rows = range(shard.start, shard.stop)
            frames = np.stack([_frames(row, t, side) for row in rows])
            audio = np.stack([tone * 20000 / (1 + row % 3) for row in rows]).astype(np.int16)
            builder.write(shard, {"frames": frames, "audio": audio, "status": status_of(shape)[shard]})

    record = {"inputs": {"dataset": str(dataset.reference)}, "failures": _failures(shape)}
    return made(store, Reference("media", "world"), identity, fill, shard_rows=32, **record)


def world(store: Store, shape: Shape = Shape(), *, seed: int = 0) -> dict[str, Artifact]:
    """Everything, by kind and name; scores by the stage itself."""
    dataset = make_dataset(store, shape, seed=seed)
    found = {"dataset": dataset, "thresholds": make_thresholds(store, shape, dataset)}
    if shape.side:
        found["media"] = make_media(store, shape, dataset)
    for place, name in enumerate(shape.sets):
        inputs = {"thresholds": found["thresholds"]} if place == 0 else {}
        if shape.side:
            inputs["media"] = found["media"]
        found[name] = make_labels(store, shape, dataset, name, place, inputs)
    found["parser"] = make_parser(store, shape, dataset, found[shape.sets[0]])
    for one in [*shape.sets, "parser"]:
        references = {"predictions": str(found[one].reference), "dataset": str(dataset.reference)}
        found[f"scores-{one}"] = run_step(store, Step("evaluate", one, {}, references), progress=Silent()).artifact
    return found


def status_of(shape: Shape) -> NDArray[np.uint8]:
    """(N,) 7, corrupt, where a clip failed."""
    return np.array([7 if row in shape.failed else 1 for row in range(shape.clips)], np.uint8)


def _there(shape: Shape) -> NDArray[np.bool_]:
    return np.asarray(status_of(shape) == 1)[:, None, None]


def _failures(shape: Shape) -> list[dict[str, str]]:
    names: Sequence[str] = shape.names()
    return [
        {"video_id": names[row], "code": "corrupt", "message": f"broken: {names[row]}"} for row in sorted(shape.failed)
    ]


def _clips(dataset: Artifact) -> dict[str, Any]:
    return {name: dataset.array(name) for name in ("weak", "lengths")} | {
        name: list(dataset.strings(name)) for name in ("video_ids", "splits")
    }


def _drawn(dataset: Artifact, place: int) -> dict[str, NDArray[np.bool_]]:
    rng = np.random.default_rng(100 + place)
    found = {}
    for modality in ("audio", "visual"):
        truth = dataset.array(modality)
        drawn = np.where((dataset.array("dense") == 1)[:, None, None], truth, rng.random(truth.shape) < 0.5)
        named = dataset.array("weak")[:, None] | (rng.random(truth.shape) < 0.02)
        found[modality] = named & (drawn ^ (rng.random(truth.shape) < 0.03 * (place + 1)))
    return found


def _frames(row: int, seconds: int, side: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(row)
    coarse = rng.integers(0, 256, (seconds, 4, 4, 3)).repeat(-(-side // 4), axis=1).repeat(-(-side // 4), axis=2)
    fine = rng.integers(-30, 31, (seconds, side, side, 1))
    return np.clip(coarse[:, :side, :side] + fine, 0, 255).astype(np.uint8)
