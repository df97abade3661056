"""What a parser is fed: streams of features, weak labels and targets of some clips, as a batch on the device.

Features are held in memory, as they are stored, where they fit; otherwise each batch reads its clips from the store,
which costs time and gives the same numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avvp_pipe.stages.blocks.device import tensor_on
from avvp_pipe.stages.parsers.records import Batch
from avvp_pipe.stages.rows import OK
from avvp_pipe.store import StoreError
from avvp_pipe.store.rows import take_rows

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

__all__ = ["Feed", "Keeping", "bytes_of", "feed_of", "free_memory_bytes", "keeps_in_memory"]

MAP = "audio_map"
"""The stream of whole clips, without rows of seconds."""
Keeping = Literal["memory", "stream", "auto"]
SHARE = 0.6
"""Of the free memory that features may take; the rest is for the network, its gradients and the batch."""
CLIPS_AT_ONCE = 512
NAMED = 3
"""Clips that an error names."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Clips by their rows."""

    features: Artifact
    names: tuple[str, ...]
    """Of the streams."""
    weak: Tensor
    """(N, C) bool, as all tensors here on the device."""
    lengths: Tensor
    """(N,) int64."""
    segments: int
    """T."""
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    """audio, visual (audio_mixed, visual_mixed) -> (N, T, C) float32 in [0, 1]; empty where nothing supervises
    seconds."""
    held: Mapping[str, Tensor] = field(default_factory=dict)
    """Stream -> (N, rows, width), where they are in memory; rows are a multiple of T, but of a map."""

    def batch(self, rows: NDArray[np.intp]) -> Batch:
        """Some clips to learn from. Raises StoreError where features of their seconds are missing."""
        batch, gaps = self.batch_and_gaps(rows)
        beyond = np.arange(self.segments) >= batch.lengths.cpu().numpy()[:, None]
        holed = rows[(gaps & ~beyond).any(axis=1)]
        if len(holed):
            raise StoreError(
                f"{self.features.reference} has no features of some seconds of {len(holed)} clips that are marked as "
                f"processed, such as {', '.join(self._ids(holed))}; extract or import those anew"
            )
        return batch

    def batch_and_gaps(self, rows: NDArray[np.intp]) -> tuple[Batch, NDArray[np.bool_]]:
        """Some clips, and which of their seconds (B, T) have no features; there and beyond a clip, streams are 0."""
        chosen = torch.from_numpy(rows).to(self.lengths.device)
        streams, gaps = self._streams(rows, chosen)
        batch = Batch(
            streams=streams,
            weak=self.weak[chosen],
            lengths=self.lengths[chosen],
            targets={name: every[chosen] for name, every in self.targets.items()},
        )
        return batch, gaps.cpu().numpy()

    def _streams(self, rows: NDArray[np.intp], chosen: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        if self.held:
            found = {name: stream.index_select(0, chosen).float() for name, stream in self.held.items()}
        else:
            found = {name: self._read(name, rows) for name in self.names}
        gaps = torch.zeros(len(rows), self.segments, dtype=torch.bool, device=self.lengths.device)
        for name, stream in found.items():
            holes = (stream[:, :1, 0] if name == MAP else stream[:, :, 0]).isnan()
            gaps |= holes if name == MAP else holes.view(len(rows), self.segments, -1).any(dim=2)
        beyond = torch.arange(self.segments, device=self.lengths.device) >= self.lengths[chosen][:, None]
        empty = gaps | beyond
        for name, stream in found.items():
            if name == MAP:
                stream.masked_fill_(gaps.all(dim=1)[:, None, None], 0)
            else:
                frames = stream.shape[1] // self.segments
                stream.masked_fill_(empty.repeat_interleave(frames, dim=1)[:, :, None], 0)
        return found, gaps

    def _read(self, name: str, rows: NDArray[np.intp]) -> Tensor:
        """From the store, each chunk once."""
        ordered, back = np.unique(rows, return_inverse=True)
        return tensor_on(self.lengths.device, take_rows(self.features, name, ordered)[back].astype(np.float32))

    def _ids(self, rows: NDArray[np.intp]) -> list[str]:
        names = self.features.strings("video_ids")
        return [names[row] for row in rows[:NAMED]]


def feed_of(
    features: Artifact,
    dataset: Artifact,
    names: tuple[str, ...],
    targets: Mapping[str, NDArray[np.float32]],
    *,
    where: torch.device,
    in_memory: bool,
) -> Feed:
    """The clips of these artifacts, which cover the same ones. targets: as `Feed.targets`."""
    held = {}
    if in_memory:
        held = {name: tensor_on(where, features.array(name)) for name in names}
    return Feed(
        features=features,
        names=names,
        weak=tensor_on(where, dataset.array("weak")),
        lengths=tensor_on(where, dataset.array("lengths").astype(np.int64)),
        segments=dataset.facts("audio").shape[1],
        targets={name: tensor_on(where, array) for name, array in targets.items()},
        held=held,
    )


def bytes_of(features: Artifact, names: tuple[str, ...]) -> int:
    """What these streams take in memory."""
    facts = [features.facts(name) for name in names]
    return sum(int(np.prod(one.shape, dtype=np.int64)) * np.dtype(one.dtype).itemsize for one in facts)


def free_memory_bytes(where: torch.device) -> int:
    """Memory that is free on the device; on a processor what the system could make free."""
    if where.type == "cuda":
        return int(torch.cuda.mem_get_info(where)[0])
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # elsewhere than on Linux
        return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE")) // 2


def keeps_in_memory(keeping: Keeping, wanted_bytes: int, where: torch.device) -> bool:
    """Whether features of so many bytes are to be held in memory.

    auto: where they, twice while they are read, take no more than a share of what is free.
    """
    if keeping == "auto":
        return 2 * wanted_bytes <= SHARE * free_memory_bytes(where)
    return keeping == "memory"


def blocks(rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Rows in groups that are parsed at once."""
    return [rows[start : start + CLIPS_AT_ONCE] for start in range(0, len(rows), CLIPS_AT_ONCE)]


def failed(artifact: Artifact) -> NDArray[np.bool_]:
    """Which clips could not be processed: (N,); none where the artifact has no status."""
    clips = artifact.facts("weak").shape[0]
    return np.asarray(artifact.array("status") != OK) if "status" in artifact else np.zeros(clips, bool)
