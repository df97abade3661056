"""The layouts that released code reads and writes, as data.

Sources: the released loaders and label writers of VALOR (commit 2677da9), UWAV (15c9a8d), AVVP-ECCV20 (fde5611)
and UnAV (1609deb). The dtypes are what their code saves; of UWAV's feature files no writer was released, so
their dtype is what it is read as.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["features", "labels"]

CLIP_WIDTH, CLAP_WIDTH = 768, 512
NATIVE = "native_"
"""Prefix of an array that holds a file's own rows, where they are not one a second."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One `.npy` file for each clip: `<folder>/<id><ending>`, two axes, the first along time."""

    array: str
    """Which array of an artifact holds it."""
    folder: str
    """Below the tree's root; empty: in the root itself."""
    rows: int | None
    """Length of the first axis; None: whatever a clip has."""
    width: int | None
    """Length of the second axis; None: as many as there are classes."""
    dtype: str = "<f4"
    """Of the released files; imported ones keep their own."""
    ending: str = ".npy"
    timed: bool = True
    """Whether rows follow one another in time, so that they can be pooled to seconds."""
    binary: bool = False
    """Whether all values are 0 or 1."""


@dataclass(frozen=True, slots=True)
class Single:
    """One `.npy` file for the whole tree."""

    array: str
    files: tuple[str, ...]
    """Paths it may have; the first is the released one."""
    width: int | None
    """Length of the second axis; None: there is one axis only. The first axis is the classes."""
    required: bool
    finite: bool
    """Whether infinite values are refused; NaN always are."""
    dtype: str = "<f4"


@dataclass(frozen=True, slots=True)
class Layout:
    """One tree of files."""

    name: str
    kind: Kind
    streams: tuple[Stream, ...]
    below: tuple[str, ...]
    """Where, below the folder that somebody names, the streams' folders may begin."""
    singles: tuple[Single, ...] = ()
    attributes: Mapping[str, float] = field(default_factory=dict)
    """What the released code takes for granted about such files."""


def _uwav_labels(letter: str, modality: str) -> tuple[Stream, ...]:
    return (
        Stream(f"{modality}_logits", f"{letter}_segmentwise_logits", None, None),
        Stream(f"{modality}_hard", f"{letter}_segmentwise_pseudo_labels", None, None, binary=True),
    )


def _uwav_thresholds(letter: str, modality: str) -> Single:
    # The first name is misspelt in the release, and that is the one its code reads.
    names = (f"{letter}_classwise_threhsolds.npy", f"{letter}_classwise_thresholds.npy")
    return Single(f"{modality}_thresholds", names, width=None, required=True, finite=False)


def _texts(array: str, folder: str, width: int) -> Single:
    return Single(array, (f"{folder}/event_feats/all_event_feats.npy",), width=width, required=False, finite=True)


def _by_name(*layouts: Layout) -> Mapping[str, Layout]:
    return {layout.name: layout for layout in layouts}


_VALOR = (
    Stream("visual", "CLIP/features", 10, CLIP_WIDTH),
    # HTSAT's map before pooling: 2 bands of frequency times 32 steps of time.
    Stream("audio_map", "CLAP/features", 64, 768, timed=False),
)

FEATURES: Mapping[str, Layout] = _by_name(
    Layout(
        "uwav",
        "features",
        streams=(
            Stream("visual", "feats_CLIP/segment_feats", None, CLIP_WIDTH),
            Stream("audio", "feats_CLAP/segment_feats", None, CLAP_WIDTH),
        ),
        below=("", "LLP", "UnAV", "data/LLP", "data/UnAV"),
        singles=(
            _texts("text_visual/uwav", "feats_CLIP", CLIP_WIDTH),
            _texts("text_audio/uwav", "feats_CLAP", CLAP_WIDTH),
        ),
        # The scales that UWAV's generator has as constants.
        attributes={"visual_log_scale": 4.6052, "audio_log_scale": 3.2912},
    ),
    Layout(
        "valor",
        "features",
        streams=_VALOR,
        below=("", "data"),
        attributes={"visual_log_scale": 4.6052},
    ),
    Layout(
        "valor++",  # all that VALOR++ reads
        "features",
        streams=(*_VALOR, Stream("motion", "feats/r2plus1d_18", 10, 512)),
        below=("", "data"),
        attributes={"visual_log_scale": 4.6052},
    ),
    Layout(
        "classic",
        "features",
        streams=(
            Stream("audio", "vggish", 10, 128),
            Stream("visual", "res152", 80, 2048),
            Stream("motion", "r2plus1d_18", 10, 512),
        ),
        below=("", "feats", "data", "data/feats", "data/LLP", "LLP"),
    ),
    Layout(
        "unav",
        "features",
        streams=(
            Stream("audio", "", None, 128, ending="_vggish.npy"),
            Stream("visual", "", None, 1024, ending="_rgb.npy"),
            Stream("motion", "", None, 1024, ending="_flow.npy"),
        ),
        below=("", "av_features", "data/unav100/av_features"),
    ),
)
"""Features by layout: VALOR's and UWAV's CLIP and CLAP, VALOR++'s with motion, HAN's ResNet-152, R(2+1)D and VGGish,
UnAV's I3D and VGGish."""

LABELS: Mapping[str, Layout] = _by_name(
    Layout(
        "uwav",
        "labels",
        streams=(*_uwav_labels("a", "audio"), *_uwav_labels("v", "visual")),
        below=("", "LLP_Dataset"),
        singles=(_uwav_thresholds("a", "audio"), _uwav_thresholds("v", "visual")),
    ),
    Layout(
        "valor",
        "labels",
        streams=(
            Stream("audio_hard", "CLAP/segment_pseudo_labels", None, None, dtype="<i8", binary=True),
            Stream("visual_hard", "CLIP/segment_pseudo_labels", None, None, dtype="<i8", binary=True),
        ),
        below=("", "data"),
    ),
)
"""Pseudo-labels by layout."""
