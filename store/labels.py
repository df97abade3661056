"""The labels that people load: segment-level pseudo-labels of every clip, read lazily, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store.artifact import Artifact
from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.layouts.tree import short_id
from avvp_pipe.store.opening import open_artifact
from avvp_pipe.store.schema import check_shapes, columns, wrong_values
from avvp_pipe.store.status import Status
from avvp_pipe.store.store import DEFAULT_STORE, Store

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, slots=True)
class ClipLabels:
    """The labels of one clip: T seconds, C classes."""

    video_id: str
    classes: tuple[str, ...]
    weak: NDArray[np.bool_]
    """(C,) which classes occur somewhere in the clip."""
    audio_hard: NDArray[np.bool_]
    """(T, C) heard, in each second."""
    visual_hard: NDArray[np.bool_]
    """(T, C) seen, in each second."""
    audio_soft: NDArray[np.float32]
    """(T, C) in [0, 1]."""
    visual_soft: NDArray[np.float32]
    """(T, C) in [0, 1]."""


@dataclass(frozen=True)
class Labels:
    """Pseudo-labels of N clips, T segments of one second and C classes. Arrays are read on first use."""

    artifact: Artifact

    def __post_init__(self) -> None:
        check_shapes(self.artifact, "labels")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the last axis."""
        return tuple(self.artifact.attrs["classes"])

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How the labels came to be."""
        return self.artifact.provenance

    @cached_property
    def video_ids(self) -> tuple[str, ...]:
        """N ids, in the order of the first axis."""
        return self.artifact.strings("video_ids")

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The split of each clip."""
        return self.artifact.strings("splits")

    @cached_property
    def weak(self) -> NDArray[np.bool_]:
        """(N, C) weak labels: the class occurs somewhere in the clip."""
        return self.artifact.array("weak")

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """(N,) valid segments of each clip; what lies beyond is padding."""
        lengths = self.artifact.array("lengths")
        segments = self.artifact.facts("audio_hard").shape[1]
        if wrong := wrong_values(lengths, columns("labels", ())["lengths"], segments=segments):
            raise StoreError(f"array 'lengths' of {self.artifact.location} {wrong}; such labels are not used")
        return lengths

    @cached_property
    def status(self) -> NDArray[np.uint8]:
        """(N,) 1 where the clip could be processed, else the code of its failure."""
        return self.artifact.array("status")

    @cached_property
    def audio_hard(self) -> NDArray[np.bool_]:
        """(N, T, C) heard."""
        return self.artifact.array("audio_hard")

    @cached_property
    def visual_hard(self) -> NDArray[np.bool_]:
        """(N, T, C) seen."""
        return self.artifact.array("visual_hard")

    @cached_property
    def audio_soft(self) -> NDArray[np.float32]:
        """(N, T, C) in [0, 1]."""
        return self._checked("audio_soft")

    @cached_property
    def visual_soft(self) -> NDArray[np.float32]:
        """(N, T, C) in [0, 1]."""
        return self._checked("visual_soft")

    @cached_property
    def audio_logits(self) -> NDArray[np.float32]:
        """(N, T, C) before thresholds and weak-label filter."""
        return self._checked("audio_logits")

    @cached_property
    def visual_logits(self) -> NDArray[np.float32]:
        """(N, T, C) before thresholds and weak-label filter."""
        return self._checked("visual_logits")

    @cached_property
    def audio_thresholds(self) -> NDArray[np.float32]:
        """(C,) on logits; -inf labels every second of a weak-positive clip."""
        return self._checked("audio_thresholds")

    @cached_property
    def visual_thresholds(self) -> NDArray[np.float32]:
        """(C,) on logits; -inf labels every second of a weak-positive clip."""
        return self._checked("visual_thresholds")

    def _checked(self, name: str, row: int | None = None) -> NDArray[Any]:
        """An array, or one clip's part of it. Raises StoreError where it holds what such an array may not hold."""
        values = self.artifact.array(name) if row is None else self.artifact.rows(name, row)
        rows = slice(None) if row is None else row
        present = np.arange(values.shape[-2]) < np.asarray(self.lengths[rows])[..., None] if values.ndim > 1 else None
        if present is not None:
            present &= (self.status[rows] == Status.OK)[..., None]
        if wrong := wrong_values(values, columns("labels", (name,))[name], present):
            raise StoreError(f"array {name!r} of {self.artifact.location} {wrong}; such labels are not used")
        return values

    @cached_property
    def _rows(self) -> Mapping[str, int]:
        return {video_id: row for row, video_id in enumerate(self.video_ids)}

    @cached_property
    def _rows_of_short_ids(self) -> Mapping[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, video_id in enumerate(self.video_ids):
            rows.setdefault(short_id(video_id), []).append(row)
        return rows

    def row(self, video_id: str) -> int:
        """Row of a clip, by its id or by the 11-character YouTube id. Raises KeyError, also where that fits several."""
        if video_id in self._rows:
            return self._rows[video_id]
        fitting = self._rows_of_short_ids.get(video_id, [])
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            names = ", ".join(self.video_ids[row] for row in fitting)
            raise KeyError(f"{video_id!r} fits several clips: {names}; use a whole id")
        raise KeyError(f"no clip {video_id!r} among {len(self.video_ids)}; ids look like {self.video_ids[:1]}")

    def to_xarray(self) -> "xarray.Dataset":
        """All arrays, read and named: dimensions clip, segment and class, coordinates video_id, split and class.

        Needs xarray: `pip install "avvp-pipe[xarray]"`.
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError('xarray is not installed; run: pip install "avvp-pipe[xarray]"') from error
        axes = {3: ("clip", "segment", "class"), 2: ("clip", "class"), 1: ("clip",)}
        arrays = {}
        for name in columns("labels", self.artifact.array_names()):
            if name not in ("video_ids", "splits"):
                array = self.artifact.array(name)
                arrays[name] = (("class",) if name.endswith("_thresholds") else axes[array.ndim], array)
        coordinates = {
            "class": list(self.classes),
            "video_id": ("clip", list(self.video_ids)),
            "split": ("clip", list(self.splits)),
        }
        return xarray.Dataset(arrays, coordinates, attrs={"labels": str(self.artifact.reference)})

    def __len__(self) -> int:
        return len(self.video_ids)

    def __contains__(self, video_id: str) -> bool:
        try:
            self.row(video_id)
        except KeyError:
            return False
        return True

    def __getitem__(self, video_id: str) -> ClipLabels:
        row = self.row(video_id)
        seconds = slice(0, int(self.lengths[row]))

        def of_clip(name: str) -> NDArray[Any]:
            return self.artifact.rows(name, row)[seconds]

        return ClipLabels(
            video_id=self.video_ids[row],
            classes=self.classes,
            weak=self.artifact.rows("weak", row),
            audio_hard=of_clip("audio_hard"),
            visual_hard=of_clip("visual_hard"),
            audio_soft=self._checked("audio_soft", row)[seconds],
            visual_soft=self._checked("visual_soft", row)[seconds],
        )


def load_labels(source: str | Path, *, store: str | Path = DEFAULT_STORE) -> Labels:
    """Open pseudo-labels: a reference (`labels/llp-uwav`, `llp-uwav@1a2b`), an artifact's folder, a released zip.

    store: the folder or `s3://` URL that references are looked up in. Arrays are read when they are used. What comes
    from strangers is checked: names, sizes, shapes and dtypes before anything is decoded, each piece as it is; every
    single byte with `avvp-pipe verify`. Raises ArtifactNotFoundError or StoreError, saying what there is.
    """
    return Labels(open_artifact(str(source), Store(store), kind="labels"))
