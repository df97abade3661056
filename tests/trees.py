"""Trees of files as others keep them, written by numpy alone, and a dataset to import them for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.pipeline.runner import Outcome, Step, run_step
from avvp_pipe.stages.stage import Progress, Silent
from avvp_pipe.store import Store

CLASSES = ("Cat", "Dog", "Speech")


class Told(Silent):
    """Remembers what a stage told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    @property
    def text(self) -> str:
        return "\n".join(self.notes)


def clip_names(count: int) -> list[str]:
    """Whole ids in LLP's style; one begins with a dash, as 151 of LLP's do."""
    return [f"{'-' if index == 1 else 'v'}id{index:08d}_{index}_{index + 10}" for index in range(count)]


def make_dataset(folder: Path, seconds: Mapping[str, int], *, classes: tuple[str, ...] = CLASSES) -> Store:
    """A store with `dataset/clips`: clip i has the weak labels i and i + 1 (mod C); every other one is for training."""
    lines = []
    for index, (name, length) in enumerate(seconds.items()):
        labels = [classes[index % len(classes)], classes[(index + 1) % len(classes)]]
        split = "val" if index % 2 else "train"
        events = {"audio_events": [[labels[0], 0, 2]], "visual_events": [[labels[1], 1, 3]]}
        record = {"id": name, "path": f"{name}.mp4", "split": split, "labels": labels, "seconds": length}
        lines.append(json.dumps(record | (events if split == "val" else {})))
    folder.mkdir(parents=True, exist_ok=True)
    manifest, names = folder / "clips.jsonl", folder / "classes.txt"
    manifest.write_text("\n".join(lines) + "\n")
    names.write_text("\n".join(classes))
    store = Store(folder / "store")
    run_step(store, Step("dataset", "clips", {"source": str(manifest), "classes": str(names)}), progress=Silent())
    return store


def save(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def imported(
    store: Store, what: str, layout: str, source: Path | str, told: Progress | None = None, **params: Any
) -> Outcome:
    """Run `import-features` or `import-labels`."""
    step = Step(f"import-{what}", "theirs", {"layout": layout, "source": str(source), **params}, {"dataset": "clips"})
    return run_step(store, step, progress=told or Told())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def numbers(*shape: int, seed: int = 0, dtype: str = "float32") -> NDArray[Any]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def visible(store: Store) -> list[str]:
    """Kinds of the artifacts that a reader of the store can see."""
    return [artifact.kind for artifact in store.artifacts()]


def uwav_tree(folder: Path, stems: dict[str, int], *, dtype: str = "float32", texts: int = 0) -> None:
    """UWAV's CLIP and CLAP features of clips of these lengths, and of `texts` classes."""
    for teacher, width in (("CLIP", 768), ("CLAP", 512)):
        for row, (stem, length) in enumerate(stems.items()):
            array = numbers(length, width, seed=row, dtype=dtype)
            save(folder / f"feats_{teacher}" / "segment_feats" / f"{stem}.npy", array)
        if texts:
            save(folder / f"feats_{teacher}" / "event_feats" / "all_event_feats.npy", numbers(texts, width))


def uwav_labels(run: Path, stems: list[str], weak: NDArray[Any], *, seed: int = 0) -> None:
    """What UWAV's label writer leaves: logits of all classes, hard labels within the weak ones, thresholds.

    The rule of its released code, in plain loops: 1 where the logit is above the threshold and the clip has the class.
    """
    classes = weak.shape[1]
    for number, letter in enumerate("av"):
        thresholds = numbers(classes, seed=seed + number)
        thresholds[0] = -np.inf
        save(run / f"{letter}_classwise_threhsolds.npy", thresholds)
        for row, stem in enumerate(stems):
            logits = numbers(10, classes, seed=seed + 100 * row + number)
            hard = np.zeros((10, classes), np.float32)
            for second in range(10):
                for column in range(classes):
                    if weak[row, column] and logits[second, column] > thresholds[column]:
                        hard[second, column] = 1
            save(run / f"{letter}_segmentwise_logits" / f"{stem}.npy", logits)
            save(run / f"{letter}_segmentwise_pseudo_labels" / f"{stem}.npy", hard)


def valor_labels(data: Path, stems: list[str], weak: NDArray[Any]) -> None:
    """VALOR's label files: int64, CLAP for what is heard and CLIP for what is seen."""
    for number, teacher in enumerate(("CLAP", "CLIP")):
        for row, stem in enumerate(stems):
            hard = (numbers(10, weak.shape[1], seed=row + 1000 * number) > 0) & weak[row]
            save(data / teacher / "segment_pseudo_labels" / f"{stem}.npy", hard.astype(np.int64))
