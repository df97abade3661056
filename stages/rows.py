"""Rows: every artifact about clips keeps the dataset's order, so that row i is the same clip everywhere."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact, Builder

OK = 1
"""Status of a clip that could be processed; the other codes are in `stages/media/errors.py`."""
NONE, SEPARATE, JOINT = 0, 1, 2
"""The dataset's `dense` codes of clips: their seconds are not labelled; those of audio and vision are, each by itself;
only what is heard and seen at once is known."""


def check_same_clips(*artifacts: "Artifact") -> None:
    """Raise StoreError where two artifacts do not cover the same clips in the same order."""
    first = artifacts[0].strings("video_ids")
    for other in artifacts[1:]:
        if other.strings("video_ids") != first:
            raise StoreError(
                f"{artifacts[0].reference} and {other.reference} cover different clips; "
                "use artifacts that were made from one dataset"
            )


def check_media_of(media: "Artifact", dataset: "Artifact") -> None:
    """Raise StoreError where media were not decoded for just these clips and lengths."""
    check_same_clips(media, dataset)
    if not np.array_equal(media.array("lengths"), dataset.array("lengths")):
        raise StoreError(
            f"{media.reference} was decoded to other lengths than {dataset.reference} asks for; decode that dataset"
        )


def put_clips(out: "Builder", dataset: "Artifact", rows: slice = slice(None)) -> None:
    """Copy what identifies the clips in `rows`, so that the artifact can be read without its dataset."""
    for name in ("video_ids", "splits"):
        out.put(name, dataset.strings(name)[rows])
    for name in ("weak", "lengths"):
        out.put(name, dataset.array(name)[rows])


def rows_of(dataset: "Artifact", split: str, *, status: NDArray[Any] | None = None) -> NDArray[np.intp]:
    """Rows of a split, without those whose `status` (N,) tells of a failure.

    Raises StoreError where none is left, naming the splits there are.
    """
    splits = np.array(dataset.strings("splits"), dtype=str)
    chosen = splits == split
    if not chosen.any():
        known = ", ".join(sorted(set(splits.tolist())))
        raise StoreError(f"{dataset.reference} has no clips in split {split!r}; it has {known}")
    if status is not None:
        chosen &= status == OK
        if not chosen.any():
            raise StoreError(f"every clip of split {split!r} in {dataset.reference} failed; see `avvp-pipe show`")
    return np.flatnonzero(chosen)


def by_lot(video_ids: Sequence[str], lot: str) -> list[int]:
    """The clips in an order drawn at random, as their rows: (N,).

    Which of two clips comes first depends on their ids and on `lot` alone, not on other clips or on their order.

    >>> by_lot(["a", "b", "c", "d"], "0")
    [3, 0, 2, 1]
    """
    drawn = [hashlib.sha256(f"{lot}:{name}".encode()).hexdigest() for name in video_ids]
    return sorted(range(len(drawn)), key=drawn.__getitem__)
