"""Which videos two datasets share: LLP, UnAV-100 and AVE are all cut from YouTube, and partly from the same videos.

Clips are compared by the YouTube id that their ids begin with; the seconds that were cut out may differ.

| ids of | form | compared by |
|---|---|---|
| UnAV-100 | `<YouTube id>` | the whole |
| LLP | `<YouTube id>_<start>_<end>` | the first 11 characters |
| AVE | `<YouTube id>_<row>` | the first 11 characters |
| your own, of no such form | anything | the whole |
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.datasets.records import SPLITS

YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
YOUTUBE_CLIP = re.compile(rf"({YOUTUBE_ID.pattern})(?:_\d+(?:\.\d+)?){{0,2}}")
"""A YouTube id, alone or followed by one or two numbers: seconds, or the row in an annotation file."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """The videos that one split of a dataset shares with one split of another."""

    split: str
    other_split: str
    videos: tuple[str, ...]
    """Their YouTube ids, sorted; each once, however many clips were cut from it."""


def video_of(clip_id: str) -> str:
    """The video that a clip was cut from: its YouTube id, or the clip's whole id where that has no such form.

    >>> video_of("-Rjmgv0O_p0_30_40"), video_of("Bci_KkTdUYM_1051"), video_of("my clip")
    ('-Rjmgv0O_p0', 'Bci_KkTdUYM', 'my clip')
    """
    found = YOUTUBE_CLIP.fullmatch(clip_id)
    return found[1] if found else clip_id


def shared_rows(video_ids: Sequence[str], other_ids: Sequence[str]) -> NDArray[np.bool_]:
    """Which clips are cut from a video that the others were cut from, too.

    video_ids: N ids of clips; other_ids: any number of them. Returns (N,) bool.

    >>> shared_rows(["72f67ednp7w", "8WSesSOfBrE"], ["72f67ednp7w_30_40"])
    array([ True, False])
    """
    others = {video_of(name) for name in other_ids}
    return np.fromiter((video_of(name) in others for name in video_ids), dtype=np.bool_, count=len(video_ids))


def shared_videos(one: Mapping[str, Sequence[str]], other: Mapping[str, Sequence[str]]) -> tuple[Overlap, ...]:
    """What each split of one dataset shares with each split of another.

    one, other: split -> ids of its clips. Returns a record for every pair, in the order train, val, test of
    `one` and, within it, of `other`; also where nothing is shared.
    """
    mine, theirs = ({split: {*map(video_of, ids)} for split, ids in clips.items()} for clips in (one, other))
    return tuple(
        Overlap(split, other_split, tuple(sorted(mine[split] & theirs[other_split])))
        for split in sorted(mine, key=_order)
        for other_split in sorted(theirs, key=_order)
    )


def ids_by_split(video_ids: Sequence[str], splits: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Split -> the ids of its clips; `video_ids` and `splits` name N clips in one order."""
    return {split: tuple(np.array(video_ids, object)[np.array(splits) == split]) for split in sorted({*splits})}


def _order(split: str) -> tuple[int, str]:
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)
