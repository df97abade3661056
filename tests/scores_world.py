"""A small dataset, labels and predictions drawn for it, and their scores."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.store import Artifact, Builder, Identity, Reference, Store
from tests.made import made
from tests.trees import Told

Labels = NDArray[np.bool_]
CLASSES = ("Bell", "Drum", "Flute")
SECONDS = 6


def dataset_of(folder: Path, clips: list[dict[str, Any]], classes: tuple[str, ...] = CLASSES) -> Store:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"id": f"c{row}", "path": f"{row}.mp4", "seconds": SECONDS} | clip for row, clip in enumerate(clips)]
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "classes.txt").write_text("\n".join(classes))
    params = {"source": str(folder / "clips.jsonl"), "classes": str(folder / "classes.txt")}
    run_step(Store(folder / "store"), Step("dataset", "d", params), progress=Told())
    return Store(folder / "store")


SEPARATE: dict[str, Any] = {"audio_events": [["Bell", 0, 3], ["Drum", 4, 5]], "visual_events": [["Bell", 1, 6]]}
CLIPS: list[dict[str, Any]] = [
    {"split": "train", "labels": ["Bell", "Flute"]},
    {"split": "train", "labels": ["Drum"]},
    {"split": "val", "labels": ["Bell", "Drum"], **SEPARATE},
    {"split": "val", "labels": ["Flute"], "audio_events": [["Flute", 0, 2]], "visual_events": [], "seconds": 4},
    {"split": "test", "labels": ["Bell"], **SEPARATE},
    {"split": "test", "labels": ["Drum", "Flute"], "audio_events": [], "visual_events": [["Drum", 0, 6]]},
]


def predict(
    store: Store,
    name: str = "mine",
    *,
    kind: str = "labels",
    seed: int = 0,
    failed: tuple[int, ...] = (),
    hard: Mapping[str, Labels] | None = None,
    **attributes: Any,
) -> Artifact:
    """Labels drawn within the weak ones, or a parser's predictions anywhere."""
    dataset = store.get("dataset/d")
    rng, weak = np.random.default_rng(seed), dataset.array("weak")
    clips, segments = len(weak), dataset.facts("audio").shape[1]
    status = np.ones(clips, np.uint8)
    status[list(failed)] = 2
    valid = ((np.arange(segments) < dataset.array("lengths")[:, None]) & (status == 1)[:, None])[:, :, None]

    def fill(out: Builder) -> None:
        for text in ("video_ids", "splits"):
            out.put(text, dataset.strings(text))
        for array in ("weak", "lengths"):
            out.put(array, dataset.array(array))
        out.put("status", status)
        for modality in ("audio", "visual"):
            allowed = weak[:, None] if kind == "labels" else np.ones_like(weak)[:, None]
            soft = np.where(valid & allowed, rng.random((*valid.shape[:2], weak.shape[1])), 0).astype(np.float32)
            out.put(f"{modality}_hard", soft > 0.5 if hard is None else hard[modality])
            out.put(f"{modality}_{'soft' if kind == 'labels' else 'probs'}", soft)
        if kind == "parser":
            out.put("video_probs", np.zeros(weak.shape, np.float32))
        out.describe(**({"classes": list(dataset.attrs["classes"]), "method": "drawn"} | attributes))

    params = {"seed": seed, "failed": list(failed), "drawn": hard is None, "more": sorted(attributes)}
    return made(store, Reference(kind, name), Identity("pseudolabel", 1, params, {}), fill)


def evaluate(store: Store, predictions: str = "labels/mine", told: Told | None = None, **more: Any) -> Artifact:
    inputs = {"predictions": predictions, "dataset": "d"} | {
        name: more.pop(name) for name in ("against",) if name in more
    }
    return run_step(store, Step("evaluate", "s", more, inputs), progress=told or Told()).artifact


def of_split(store: Store, split: str) -> tuple[Any, Any]:
    dataset = store.get("dataset/d")
    return dataset, np.flatnonzero(np.array(dataset.strings("splits")) == split)
