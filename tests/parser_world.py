"""Small artifacts that parsers are trained on: a dataset, features of any streams, and labels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.parsers import parser_method
from avvp_pipe.stages.rows import NONE, SEPARATE
from avvp_pipe.store import Artifact, Builder, Identity, Reference, Store
from tests.label_world import Noting
from tests.made import made

CLASSES = ("Bell", "Drum", "Flute")
SEGMENTS, CLIPS = 4, 20
TEACHERS = {"audio": 6, "visual": 10}
CLASSIC = {"audio": 128, "visual": 2048, "motion": 512}
SMALL: Mapping[str, Any] = {"width": 8, "heads": 1, "ffn": 8, "layers": 1, "epochs": 3, "train_batch": 4}
SPLITS = ("train",) * 12 + ("val",) * 5 + ("test",) * 3


def put_world(
    store: Store,
    *,
    widths: Mapping[str, int] = TEACHERS,
    classes: Sequence[str] = CLASSES,
    splits: Sequence[str] = SPLITS,
    dense: int = SEPARATE,
    failed: Iterable[int] = (),
    single: bool = False,
    change: Any = None,
    seed: int = 0,
) -> dict[str, Artifact]:
    """Put dataset/mine, features/mine and labels/mine. dense: the code of labelled clips; single: one class a second at
    most; change: what is done to the arrays of features before they are stored."""
    rng, clips = np.random.default_rng(seed), len(splits)
    lengths = rng.integers(1, SEGMENTS + 1, clips).astype(np.int32)
    lengths[0] = SEGMENTS
    there = (np.arange(SEGMENTS) < lengths[:, None])[:, :, None]
    heard, seen = (rng.random((clips, SEGMENTS, len(classes))) < 0.4 for _ in range(2))
    if single:
        one = rng.integers(0, len(classes) + 1, (clips, SEGMENTS))
        heard = seen = one[:, :, None] == np.arange(len(classes))
    heard, seen = heard & there, seen & there
    weak = (heard | seen).any(axis=1)
    status = np.ones(clips, np.uint8)
    status[list(failed)] = 3
    same: dict[str, Any] = {
        "video_ids": [f"clip{row:07d}" for row in range(clips)],
        "splits": list(splits),
        "weak": weak,
    }
    same |= {"lengths": lengths}
    labelled = np.where(np.array(splits) == "train", NONE, dense).astype(np.uint8)
    truth = {"audio": heard, "visual": seen, "audio_visual": heard & seen, "dense": labelled}
    features = _features(rng, widths, heard, seen, there & (status == 1)[:, None, None])
    if change:
        change(features)
    soft = {m: rng.random(heard.shape, np.float32) * weak[:, None] * there for m in ("audio", "visual")}
    labels: dict[str, Any] = {f"{m}_soft": array for m, array in soft.items()}
    labels |= {f"{m}_hard": array > 0.5 for m, array in soft.items()}
    labels |= {f"{m}_logits": array * 4 - 2 for m, array in soft.items()}
    kinds: dict[str, dict[str, Any]] = {
        "dataset": truth,
        "features": {**features, "status": status},
        "labels": {**labels, "status": status},
    }
    key = {"n": abs(hash((tuple(classes), tuple(splits), tuple(widths.items()), dense, single, seed, bool(change))))}
    return {kind: _put(store, kind, {**same, **arrays}, classes, key) for kind, arrays in kinds.items()}


def _features(
    rng: np.random.Generator, widths: Mapping[str, int], heard: Any, seen: Any, there: Any
) -> dict[str, NDArray[np.float32]]:
    """What is on, seen through a drawn matrix, with noise; NaN where there is nothing."""
    found = {}
    for name, width in widths.items():
        truth = heard if name.startswith("audio") else seen
        values = truth @ rng.normal(size=(truth.shape[2], width)) + 0.1 * rng.normal(size=(*truth.shape[:2], width))
        if name == "audio_map":
            values = np.repeat(values[:, :1], 64, axis=1)
            found[name] = np.where(there[:, :1], values, np.nan).astype(np.float32)
        else:
            found[name] = np.where(there, values, np.nan).astype(np.float32)
    return found


def _put(
    store: Store, kind: str, arrays: Mapping[str, Any], classes: Sequence[str], key: Mapping[str, Any]
) -> Artifact:
    def fill(out: Builder) -> None:
        for name, array in arrays.items():
            out.put(name, array)
        out.describe(classes=list(classes), **({"method": "uwav"} if kind == "labels" else {}))

    return made(store, Reference(kind, "mine"), Identity(f"make-{kind}", 1, dict(key), {}), fill)


def step_of(*, labels: bool = True, name: str = "p", **params: Any) -> Step:
    """`train-parser` on what `put_world` put; a parameter that is None is left out."""
    inputs = {"dataset": "dataset/mine", "features": "features/mine", **({"labels": "labels/mine"} if labels else {})}
    method = parser_method(params.get("parser", "uwav-clip-clap"))
    schedule = params.get("schedule") or method.recipe.get("schedule", "cosine")
    given = {"device": "cpu", **SMALL, **({"warmup": 0} if schedule == "cosine" else {}), **params}
    return Step("train-parser", name, {name: value for name, value in given.items() if value is not None}, inputs)


def train(store: Store, **params: Any) -> tuple[Artifact, list[str]]:
    """Run `step_of` these parameters; the parser and what was noted."""
    told = Noting()
    return run_step(store, step_of(**params), progress=told).artifact, told.notes


def weights_of(artifact: Artifact) -> dict[str, NDArray[Any]]:
    """Weights and history of a stored parser."""
    kept = [name for name in artifact.array_names() if name.startswith(("weights/", "history/"))]
    return {name: artifact.array(name) for name in kept}


def same_arrays(first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two parsers have the same bits; NaN equals NaN."""
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name], equal_nan=True) for name in first
    )
