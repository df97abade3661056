"""Labels joined with features, as torch's data loaders take them. The one file of the store that needs torch."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from avvp_pipe.store.artifact import Artifact
from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.labels import Labels
from avvp_pipe.store.status import Status

__all__ = ["LabelledFeatures"]

LABELS = ("weak", "audio_hard", "visual_hard", "audio_soft", "visual_soft")


class LabelledFeatures(Dataset[dict[str, Any]]):
    """One item a clip, joined by video id: what its teachers saw and heard, and how it is labelled.

    Items hold `video_id`, `length` (valid segments), `visual` (T, Dv), `audio` (T, Da) float32, zero beyond the
    length; `weak` (C,), `audio_hard`, `visual_hard` (T, C) bool, `audio_soft`, `visual_soft` (T, C)
    float32. All items have the same T, so that the default collation makes batches of them.
    """

    def __init__(self, labels: Labels, features: Artifact, *, split: str | None = None, in_memory: bool = True) -> None:
        """labels: of N clips. features: an artifact of kind features. split: leave out the clips of others.

        in_memory: read everything at once, which is quickest where it fits (LLP: 182 MB in float16); otherwise rows
        are read as they are asked for. Clips that failed are left out: `left_out` names them. Raises StoreError where
        features of a labelled clip are missing, or have another number of segments.
        """
        if features.kind != "features":
            raise StoreError(f"{features.reference} is of kind {features.kind}, where features are wanted")
        self._labels, self._features = labels, features
        self._rows, self.left_out = _joined(labels, features, split)
        self._arrays = {name: features.array(name) for name in ("visual", "audio")} if in_memory else {}
        self._arrays |= {name: labels.artifact.array(name) for name in LABELS} if in_memory else {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, place = self._rows[index]
        length = int(self._labels.lengths[row])
        item: dict[str, Any] = {"video_id": self._labels.video_ids[row], "length": length}
        for name in ("visual", "audio"):
            item[name] = _tensor(self._row(self._features, name, place), length)
        for name in LABELS:
            item[name] = torch.tensor(self._row(self._labels.artifact, name, row))
        return item

    def _row(self, artifact: Artifact, name: str, row: int) -> NDArray[Any]:
        return self._arrays[name][row] if self._arrays else artifact.rows(name, row)


def _tensor(values: NDArray[Any], length: int) -> Tensor:
    kept = values.astype(np.float32)
    kept[length:] = 0
    return torch.tensor(kept)


def _joined(labels: Labels, features: Artifact, split: str | None) -> tuple[list[tuple[int, int]], tuple[str, ...]]:
    """(row of the labels, row of the features) of every clip that both could process, and who was left out."""
    for name in ("visual", "audio"):
        segments, wanted = features.facts(name).shape[1], labels.artifact.facts("audio_hard").shape[1]
        if segments != wanted:
            raise StoreError(
                f"{features.reference} has {segments} segments a clip in {name!r}, the labels have {wanted}"
            )
    places = {video_id: place for place, video_id in enumerate(features.strings("video_ids"))}
    chosen = [row for row in range(len(labels)) if split is None or labels.splits[row] == split]
    if missing := [labels.video_ids[row] for row in chosen if labels.video_ids[row] not in places]:
        raise StoreError(
            f"{features.reference} lacks {len(missing)} of the labelled clips, {missing[0]} first; "
            "use features of the same dataset, or name the split that they are of"
        )
    if not chosen:
        raise StoreError(f"no labelled clips in split {split!r}; there are {', '.join(sorted(set(labels.splits)))}")
    sound = features.array("status")
    rows = [(row, places[labels.video_ids[row]]) for row in chosen]
    good = [(row, place) for row, place in rows if labels.status[row] == Status.OK and sound[place] == Status.OK]
    kept = {row for row, _ in good}
    return good, tuple(labels.video_ids[row] for row in chosen if row not in kept)
