"""Artifacts made by hand for tests of the store."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from avvp_pipe.store import Artifact, Builder, Identity, Reference, Store

IDENTITY = Identity("extract", 1, {}, {})
PLACE = Reference("features", "mine")
CLASSES = ["Bell", "Drum", "Flute"]


def made(
    store: Store,
    reference: Reference,
    identity: Identity,
    fill: Callable[[Builder], object],
    *,
    shard_rows: int = 8,
    **record: Any,
) -> Artifact:
    """Build and publish what `fill` puts, unless it is there. `record`: what provenance says beside or instead."""

    def provenance(builder: Builder) -> Mapping[str, Any]:
        return {
            "stage": identity.stage,
            "stage_version": identity.version,
            "params": dict(identity.params),
            "inputs": {role: f"features/x@{key}" for role, key in identity.inputs.items()},
            "sources": dict(identity.sources),
            "software": {},
            "failures": [asdict(failure) for failure in builder.failures],
            **record,
        }

    with store.build(
        reference,
        identity,
        shard_rows=shard_rows,
        provenance=provenance,
        run_facts={},
        waiting=lambda holder: None,
    ) as builder:
        if builder is not None:
            fill(builder)
    found = store.find(Reference(reference.kind, reference.name, identity.key))
    assert found is not None
    return found


def made_labels(store: Store, *, clips: int = 20, name: str = "mine", seed: int = 0, **attributes: Any) -> Artifact:
    """Labels of `clips` clips, 10 segments, 3 classes; every fifth clip is shorter."""
    rng = np.random.default_rng(seed)

    def fill(builder: Builder) -> None:
        lengths = np.where(np.arange(clips) % 5 == 4, 7, 10).astype(np.int32)
        valid = (np.arange(10) < lengths[:, None])[:, :, None]
        builder.put("video_ids", [f"clip{row:07d}_0_10" for row in range(clips)])
        builder.put("splits", ["train" if row % 2 else "val" for row in range(clips)])
        builder.put("weak", rng.random((clips, 3)) < 0.5)
        builder.put("lengths", lengths)
        builder.put("status", np.ones(clips, np.uint8))
        for modality in ("audio", "visual"):
            logits = rng.normal(size=(clips, 10, 3)).astype(np.float32)
            builder.put(f"{modality}_logits", logits)
            builder.put(f"{modality}_hard", (logits > 0) & valid)
            builder.put(f"{modality}_soft", np.where(valid, 1 / (1 + np.exp(-logits)), 0).astype(np.float32))
            builder.put(f"{modality}_thresholds", np.array([0, -np.inf, 0], np.float32))
        builder.describe(classes=CLASSES, method="made", **attributes)

    identity = Identity("pseudolabel", 1, {"seed": seed, "clips": clips, **attributes}, {})
    return made(store, Reference("labels", name), identity, fill)


def rows(builder: Builder, *, until: Callable[[int], None] = lambda start: None) -> None:
    """Forty clips in five shards; `until` is told before each."""
    builder.put("video_ids", [f"clip{row}" for row in range(40)])
    builder.put("splits", ["train"] * 40)
    builder.put("weak", np.ones((40, 3), bool))
    builder.put("lengths", np.full(40, 10, np.int32))
    builder.describe(classes=CLASSES)
    builder.declare("visual", (40, 10, 16), "float32", fill=float("nan"))
    builder.declare("status", (40,), "uint8")
    for shard in builder.pending():
        until(shard.start)
        values = np.arange(shard.start * 160, shard.stop * 160, dtype=np.float32).reshape(-1, 10, 16)
        builder.write(shard, {"visual": values, "status": np.ones(len(values), np.uint8)})
