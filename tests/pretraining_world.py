"""A small set of clips labelled second by second where something is heard and seen, and `pretrain` run on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.stage import Progress, Silent
from avvp_pipe.store import Artifact, Builder, Identity, Reference, Store
from tests.label_world import World, stored, world
from tests.made import made

SMALL: Mapping[str, Any] = {
    "width": 16, "heads": 2, "ffn": 16, "layers": 2, "epochs": 3, "warmup": 1, "train_batch": 5, "learning_rate": 1e-3,
    "learning_rate_min": 1e-4, "device": "cpu",
}  # fmt: skip
"""Four batches an epoch with the clips below."""


def clips(**changes: Any) -> World:
    """Sixteen clips to learn from, eight to select by."""
    one = world(24, training=16, **{"seed": 1, "segments": 6, **changes})
    return replace(one, splits=tuple("val" if split == "test" else split for split in one.splits))


def put(store: Store, one: World, *, dense: int = 2) -> None:
    """dataset/dense and features/mine. dense: the code of all clips; 2 says labelled jointly."""
    stored(store, one)
    key = abs(hash((one.video_ids, one.audio.tobytes(), dense))) % 10**9

    def fill(out: Builder) -> None:
        for name in ("video_ids", "splits", "weak", "lengths", "audio", "visual"):
            out.put(name, getattr(one, name))
        out.put("audio_visual", one.audio & one.visual)
        out.put("dense", np.full(len(one.weak), dense, np.uint8))
        out.describe(classes=list(one.classes))

    made(store, Reference("dataset", "dense"), Identity("dataset", 1, {"n": key}, {}), fill)


def pretrained(
    store: Store,
    name: str = "made",
    *,
    progress: Progress | None = None,
    inputs: Mapping[str, str] | None = None,
    **params: Any,
) -> Artifact:
    """What `pretrain` makes of the clips in the store."""
    given = {"dataset": "dense", "features": "mine", **(inputs or {})}
    step = Step("pretrain", name, {**SMALL, **params}, given)
    return run_step(store, step, progress=progress or Silent()).artifact


def weights_of(artifact: Artifact) -> dict[str, bytes]:
    """The bits of all weights, and of the history."""
    return {name: artifact.array(name).tobytes() for name in artifact.array_names()}
