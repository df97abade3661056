"""What a generator is pre-trained on: clips labelled second by second, all in memory, apart from some videos.

LLP, UnAV-100 and AVE are cut from YouTube, and partly from the same videos. Where a generator must not have seen
what its labels are evaluated on, clips of shared videos are left out, whatever their seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avvp_pipe.stages.blocks.device import tensor_on
from avvp_pipe.stages.datasets.overlap import ids_by_split, shared_rows
from avvp_pipe.stages.generators.reading import check_features_of, evidence_of
from avvp_pipe.stages.generators.records import SegmentFeatures
from avvp_pipe.stages.rows import rows_of
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

__all__ = ["Clips", "Labelled", "clips_on", "labelled_clips", "labelled_rows", "shared_with"]

PROMPTS = "uwav"
"""The prompt set of UWAV, which EAR takes over."""


@dataclass(frozen=True, slots=True)
class Clips:
    """Clips of one split as tensors on a device, all of them at once."""

    audio: Tensor
    """(N, T, Da)."""
    visual: Tensor
    """(N, T, Dv)."""
    labels: Tensor
    """(N, T, C) bool, heard and seen at once."""
    lengths: Tensor
    """(N,) int64, on the CPU: they say how batches are cut."""
    text_audio: Tensor
    """(C, Da)."""
    text_visual: Tensor
    """(C, Dv)."""

    def batch(self, rows: Tensor) -> Clips:
        """Some clips, cut to the longest of them; rows (b,) int64 on the CPU."""
        lengths = self.lengths[rows]
        longest, there = int(lengths.max()), rows.to(self.audio.device)
        audio, visual, labels = (each[there, :longest] for each in (self.audio, self.visual, self.labels))
        return Clips(audio, visual, labels, lengths, self.text_audio, self.text_visual)


def clips_on(where: torch.device, features: SegmentFeatures, labels: NDArray[np.bool_]) -> Clips:
    """Clips with their audio-visual labels (N, T, C), as tensors; lengths are those of the features."""
    return Clips(
        audio=tensor_on(where, features.audio),
        visual=tensor_on(where, features.visual),
        labels=tensor_on(where, labels),
        lengths=tensor_on("cpu", features.lengths.astype(np.int64)),
        text_audio=tensor_on(where, features.text_audio),
        text_visual=tensor_on(where, features.text_visual),
    )


@dataclass(frozen=True, slots=True)
class Labelled:
    """The clips that `pretrain` learns from and selects by."""

    clips: Mapping[str, Clips]
    """train, val."""
    left_out: Mapping[str, int]
    """train, val -> clips of videos that the other dataset has, too."""
    log_scales: tuple[float, float]
    """Of the teachers' logits: audio, visual."""


def labelled_clips(inputs: Mapping[str, Artifact], *, splits: Sequence[str], where: torch.device) -> Labelled:
    """Training and validation clips whose seconds are labelled.

    inputs: `dataset` and `features` of the same clips; `apart_from`, if any, the dataset whose videos in `splits`
    are left out. Raises StoreError where nothing is left of a split, and where features do not fit the dataset.
    """
    dataset, features = inputs["dataset"], inputs["features"]
    check_features_of(features, dataset)
    other = inputs.get("apart_from")
    names = dataset.strings("video_ids")
    shared = np.zeros(len(names), np.bool_) if other is None else shared_with(names, other, splits)
    clips, left_out, log_scales = {}, {}, (0.0, 0.0)
    for split in ("train", "val"):
        rows = labelled_rows(dataset, split, status=features.array("status"))
        left_out[split] = int(shared[rows].sum())
        rows = rows[~shared[rows]]
        if not len(rows):
            raise StoreError(
                f"every labelled clip of split {split!r} in {dataset.reference} is of a video that "
                f"{other.reference if other else 'nothing'} has, too; pretrain apart from fewer splits of it"
            )
        found = evidence_of(dataset, features, prompts=PROMPTS, rows=rows).features
        clips[split] = clips_on(where, found, dataset.array("audio_visual")[rows])
        log_scales = (found.audio_log_scale, found.visual_log_scale)
    return Labelled(clips, left_out, log_scales)


def shared_with(video_ids: Sequence[str], other: Artifact, splits: Sequence[str]) -> NDArray[np.bool_]:
    """Which clips are of videos that some splits of another dataset have, too: (N,). Raises StoreError."""
    theirs = ids_by_split(other.strings("video_ids"), other.strings("splits"))
    if unknown := [name for name in splits if name not in theirs]:
        raise StoreError(
            f"{other.reference} has no clips in split {unknown[0]!r} to stay apart from; it has {', '.join(theirs)}"
        )
    return shared_rows(video_ids, [name for split in splits for name in theirs[split]])


def labelled_rows(dataset: Artifact, split: str, *, status: NDArray[Any]) -> NDArray[np.intp]:
    """Clips of a split, without those that failed, whose seconds are labelled, jointly or for each modality.

    status: (N,) of the features. Raises StoreError where there are none.
    """
    rows = rows_of(dataset, split, status=status)
    found: NDArray[np.intp] = rows[dataset.array("dense")[rows] > 0]
    if not len(found):
        raise StoreError(
            f"no clip of split {split!r} in {dataset.reference} has its seconds labelled; pretrain needs them"
        )
    return found
