"""Logits, thresholds, labels and their scores, against the straightforward way, side by side in one run.

3,849 clips of ten seconds with 25 classes, 649 of them labelled second by second; features as wide as CLIP's and
CLAP's, a temporal generator of width 256 with 5 layers and drawn weights. Both ways start from features on the disk and
end with scores of the 649 clips; both keep logits, soft and hard labels of all clips.

    straightforward  one .npy file a clip and modality, read and written; batches of one; the released threshold search
                     class by class; scores by the loops of tests/reference_metrics.py, clip by clip
    here             features in a store -> calibrate -> pseudolabel -> evaluate, as `run_step` runs them, the network
                     in bfloat16 where the processor is made for it (`--precision auto`)

How many hard labels differ is told; in float32 none do but for logits within rounding of a threshold.
Exits 1 below the wanted ratio.

    python tests/bench/bench_labels.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.blocks.best_f1 import best_f1_threshold
from avvp_pipe.stages.blocks.stored import put_network
from avvp_pipe.stages.generators.uwav import Network, TemporalGenerator
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Builder, Identity, Reference, Store

CLIPS, LABELLED, SEGMENTS, CLASSES = 3_849, 649, 10, 25
NETWORK = Network(width=256, heads=4, ffn=512, layers=5)
WANTED = 10.0
TURNS = 2
NAMES = [f"class {number}" for number in range(CLASSES)]
TEMPERATURE = 2.0


@dataclass(frozen=True)
class World:
    """What both ways start from."""

    ids: list[str]
    weak: NDArray[np.bool_]
    truth: dict[str, NDArray[np.bool_]]
    """(LABELLED, T, C) of the first clips."""
    features: dict[str, NDArray[np.float32]]
    texts: dict[str, NDArray[np.float32]]
    model: TemporalGenerator


def made_world() -> World:
    """As many events as LLP has, and features that follow them."""
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    weak = random.random((CLIPS, CLASSES)) < 1.7 / CLASSES
    weak[~weak.any(axis=1), 0] = True
    texts, features, truth = {}, {}, {}
    for modality, width in (("audio", NETWORK.audio_width), ("visual", NETWORK.visual_width)):
        on = (random.random((CLIPS, SEGMENTS, CLASSES)) < 0.6) & weak[:, None]
        texts[modality] = _unit(random.standard_normal((CLASSES, width), np.float32))
        noise = random.standard_normal((CLIPS, SEGMENTS, width), np.float32)
        features[modality] = _unit(on.astype(np.float32) @ texts[modality] + 0.05 * noise)
        truth[modality] = on[:LABELLED]
    ids = [f"clip{row:07d}_0_10" for row in range(CLIPS)]
    return World(ids, weak, truth, features, texts, TemporalGenerator(NETWORK).eval())


def _unit(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(array / np.linalg.norm(array, axis=-1, keepdims=True), np.float32)


def write_files(world: World, folder: Path) -> None:
    """One .npy file a clip and modality."""
    for modality, array in world.features.items():
        (folder / modality).mkdir(parents=True)
        for name, rows in zip(world.ids, array, strict=True):
            np.save(folder / modality / f"{name}.npy", rows)


def write_store(world: World, store: Store) -> None:
    """The same as artifacts, written as the stages write them: features shard by shard."""
    splits = ["val"] * LABELLED + ["train"] * (CLIPS - LABELLED)
    dense = {
        name: np.concatenate([array, np.zeros((CLIPS - LABELLED, SEGMENTS, CLASSES), bool)])
        for name, array in world.truth.items()
    }

    def clips(out: Builder) -> None:
        out.put("video_ids", world.ids)
        out.put("splits", splits)
        out.put("weak", world.weak)
        out.put("lengths", np.full(CLIPS, SEGMENTS, np.int32))
        out.describe(classes=NAMES, visual_log_scale=4.6052, audio_log_scale=3.2912)

    def dataset(out: Builder) -> None:
        clips(out)
        out.put("dense", np.array([split == "val" for split in splits], np.uint8))
        out.put("paths", world.ids)
        for name, array in {**dense, "audio_visual": dense["audio"] & dense["visual"]}.items():
            out.put(name, array)

    def features(out: Builder) -> None:
        clips(out)
        for name, array in world.texts.items():
            out.put(f"text_{name}/uwav", array)
            out.declare(name, world.features[name].shape, "float32", fill=float("nan"))
        out.declare("status", (CLIPS,), "uint8")
        for rows in out.pending():
            out.write(
                rows,
                {"status": np.ones(rows.stop - rows.start, np.uint8)}
                | {name: array[rows] for name, array in world.features.items()},
            )

    def generator(out: Builder) -> None:
        put_network(out, NETWORK, world.model.state_dict(), [{"epoch": 1.0}])
        out.describe(method="uwav")

    _build(store, "dataset/bench", "dataset", dataset)
    _build(store, "features/bench", "extract", features)
    _build(store, "generator/bench", "pretrain", generator)


def _build(store: Store, reference: str, stage: str, fill: Callable[[Builder], None]) -> None:
    kind, _, name = reference.partition("/")
    identity = Identity(stage, STAGES[stage].version, {}, {})
    record: dict[str, Any] = {
        "stage": stage, "stage_version": identity.version, "params": {}, "inputs": {}, "sources": {},
        "software": {}, "failures": [],
    }  # fmt: skip
    with store.build(
        Reference(kind, name),
        identity,
        shard_rows=STAGES[stage].shard_rows,
        provenance=lambda builder: record,
        run_facts={},
        waiting=lambda holder: None,
    ) as builder:
        assert builder is not None
        fill(builder)


def by_hand(world: World, files: Path, out: Path, reference: Any) -> tuple[Any, dict[str, NDArray[np.bool_]]]:
    """The straightforward way. Returns the scores, and the hard labels of the labelled clips."""
    texts = [torch.from_numpy(world.texts[name]) for name in ("audio", "visual")]
    logits: dict[str, list[NDArray[np.float32]]] = {"audio": [], "visual": []}
    for name in world.ids:
        rows = [torch.from_numpy(np.load(files / modality / f"{name}.npy"))[None] for modality in logits]
        with torch.no_grad():
            found = world.model(*rows, *texts, torch.tensor([SEGMENTS]))
        for modality, values in zip(logits, found, strict=True):
            logits[modality].append(values[0].numpy())
    hard: dict[str, list[NDArray[np.bool_]]] = {"audio": [], "visual": []}
    for modality, clips in logits.items():
        cuts = _search(clips[:LABELLED], world.truth[modality], world.weak)
        for kind in ("logits", "soft", "hard"):
            (out / modality / kind).mkdir(parents=True)
        for row, name in enumerate(world.ids):
            called = (clips[row] > cuts) & world.weak[row]
            soft = np.where(world.weak[row], 1 / (1 + np.exp((cuts - clips[row]) / TEMPERATURE)), 0)
            for kind, array in (("logits", clips[row]), ("soft", soft), ("hard", called)):
                np.save(out / modality / kind / f"{name}.npy", array)
            hard[modality].append(called)
    predicted = {modality: np.stack(clips[:LABELLED]) for modality, clips in hard.items()}
    scores = reference.official_scores(*predicted.values(), *world.truth.values())
    return scores, predicted


def _search(clips: list[NDArray[np.float32]], truth: NDArray[np.bool_], weak: NDArray[np.bool_]) -> NDArray[np.float32]:
    cuts = np.zeros(CLASSES, np.float32)
    for column in range(CLASSES):
        masked = [np.where(weak[row, column], clip[:, column], -np.inf) for row, clip in enumerate(clips)]
        cuts[column] = best_f1_threshold(np.concatenate(masked), truth[:, :, column].ravel()).threshold
    return cuts


def by_stages(store: Store) -> dict[str, float]:
    """Here. Returns how long each stage took."""
    inputs = {"dataset": "dataset/bench", "features": "features/bench", "generator": "generator/bench"}
    seconds = {}
    for step in (
        Step("calibrate", "bench", {"method": "uwav", "precision": "auto"}, inputs),
        Step("pseudolabel", "bench", {"method": "uwav"}, {**inputs, "thresholds": "thresholds/bench"}),
        Step("evaluate", "bench", {}, {"dataset": "dataset/bench", "predictions": "labels/bench"}),
    ):
        seconds[step.stage] = run_step(store, step, progress=Silent(), force=True).seconds
    return seconds


def main() -> int:
    """Time both, taking turns, and say by the exit code whether the factor is reached."""
    world, reference = made_world(), import_module("bench_metrics").load_reference()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        store = Store(work / "store")
        write_files(world, work / "files")
        write_store(world, store)
        by_stages(store)  # what is imported on the way is not timed, on either side
        plain, ours = [], []
        for turn in range(TURNS):
            start = time.perf_counter()
            _, predicted = by_hand(world, work / "files", work / f"out{turn}", reference)
            plain.append(time.perf_counter() - start)
            ours.append(by_stages(store))
        labels = store.get("labels/bench")
        for modality, hard in predicted.items():
            differing = int((labels.array(f"{modality}_hard")[:LABELLED] != hard).sum())
            share = differing / int(hard.sum())
            print(f"labels, {modality}: {differing} hard labels differ, {share:.2%} of those called")
            assert share < 0.02
            assert hard.any()
    best = min(ours, key=lambda one: sum(one.values()))
    total = sum(best.values())
    ratio = min(plain) / total
    shown = ", ".join(f"{stage} {taken:.2f} s" for stage, taken in best.items())
    print(
        f"labels, {CLIPS} clips: straightforward {min(plain):.1f} s, here {total:.2f} s ({shown}), {ratio:.1f} times "
        f"as fast (at least {WANTED:.0f} wanted)"
    )
    return 0 if ratio >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
