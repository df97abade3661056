"""From artifacts to the arrays that label generators take."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.generators.records import Evidence, SegmentFeatures, Texts
from avvp_pipe.stages.rows import OK, check_same_clips
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

Rows = slice | NDArray[np.intp]


def check_features_of(features: "Artifact", dataset: "Artifact") -> None:
    """Raise StoreError where features are not of just these clips, lengths and classes, in this order."""
    check_same_clips(features, dataset)
    if not np.array_equal(features.array("lengths"), dataset.array("lengths")):
        raise StoreError(
            f"{features.reference} and {dataset.reference} give clips other lengths; extract features of that dataset"
        )
    if "audio" in features and features.facts("audio").shape[1] != dataset.facts("audio").shape[1]:
        raise StoreError(
            f"{features.reference} has room for {features.facts('audio').shape[1]} segments a clip, "
            f"{dataset.reference} for {dataset.facts('audio').shape[1]}; extract features of that dataset"
        )
    came, wanted = list(features.attrs.get("classes", [])), list(dataset.attrs["classes"])
    if came and came != wanted:
        how = "in another order" if sorted(came) == sorted(wanted) else "others"
        raise StoreError(
            f"the classes whose texts {features.reference} holds are not those of {dataset.reference} ({how}): "
            f"{', '.join(came[:3])}... where {', '.join(wanted[:3])}... are wanted; extract features of that dataset"
        )


def evidence_of(dataset: "Artifact", features: "Artifact", *, prompts: str, rows: Rows = slice(None)) -> Evidence:
    """What methods may look at of some clips.

    Raises StoreError naming the prompt sets there are, and naming a clip that did not fail but has features that are
    not finite.
    """
    ids = tuple(str(name) for name in _rows(dataset, "video_ids", rows))
    found = segment_features(features, prompts=prompts, rows=rows)
    weak = _rows(dataset, "weak", rows).astype(np.bool_)
    if weak.shape[1] != len(found.text_audio) or weak.shape[1] != len(found.text_visual):
        raise StoreError(
            f"{features.reference} holds texts of {len(found.text_audio)} and {len(found.text_visual)} classes, "
            f"{dataset.reference} has {weak.shape[1]} classes; extract features of that dataset"
        )
    _check_finite(features, found, ok=_rows(features, "status", rows) == OK, ids=ids)
    return Evidence(found, weak=weak, video_ids=ids, texts=_texts(features))


def segment_features(features: "Artifact", *, prompts: str, rows: Rows = slice(None)) -> SegmentFeatures:
    """The features of some clips, with the texts of one prompt set.

    Raises StoreError naming the prompt sets there are, and where segments and texts have other widths.
    """
    if f"text_visual/{prompts}" not in features:
        known = [name.removeprefix("text_visual/") for name in features.array_names() if name.startswith("text_vi")]
        raise StoreError(f"{features.reference} has no prompt set {prompts!r}; it has {', '.join(known) or 'none'}")
    if "audio_log_scale" not in features.attrs:
        raise StoreError(
            f"{features.reference} does not say how its teachers scale similarities "
            f"({features.attrs.get('origin', 'origin unknown')}); "
            "logits need features that were extracted here, or imported in the layout `uwav`"
        )
    found = SegmentFeatures(
        audio=_rows(features, "audio", rows).astype(np.float32, copy=False),
        visual=_rows(features, "visual", rows).astype(np.float32, copy=False),
        text_audio=features.array(f"text_audio/{prompts}").astype(np.float32),
        text_visual=features.array(f"text_visual/{prompts}").astype(np.float32),
        audio_log_scale=float(features.attrs["audio_log_scale"]),
        visual_log_scale=float(features.attrs["visual_log_scale"]),
        lengths=_rows(features, "lengths", rows),
    )
    for name, segments, texts in (
        ("audio", found.audio, found.text_audio),
        ("visual", found.visual, found.text_visual),
    ):
        if segments.shape[2] != texts.shape[1]:
            raise StoreError(
                f"the {name} segments of {features.reference} are {segments.shape[2]} wide, its texts {prompts!r} "
                f"{texts.shape[1]}; both must come from one teacher"
            )
    return found


def _texts(features: "Artifact") -> dict[str, Texts]:
    """The text features of every prompt set."""
    sets = [name.removeprefix("text_audio/") for name in features.array_names() if name.startswith("text_audio/")]
    return {
        name: Texts(*(features.array(f"text_{one}/{name}").astype(np.float32) for one in ("audio", "visual")))
        for name in sets
        if f"text_visual/{name}" in features
    }


def _check_finite(features: "Artifact", found: SegmentFeatures, *, ok: NDArray[np.bool_], ids: tuple[str, ...]) -> None:
    there = (np.arange(found.audio.shape[1]) < found.lengths[:, None]) & ok[:, None]
    for name, values in (("audio", found.audio), ("visual", found.visual)):
        # A sum is finite where all its terms are, unless they are close to the largest float: ten times as fast.
        suspects = there & ~np.isfinite(values.sum(axis=2))
        for row, second in np.argwhere(suspects):
            if not np.isfinite(values[row, second]).all():
                raise StoreError(
                    f"{features.reference} has {name} features of {ids[row]} that are NaN or infinite in second "
                    f"{second}, though the clip did not fail; extract or import it again"
                )


def _rows(artifact: "Artifact", name: str, rows: Rows) -> NDArray[Any]:
    """Some rows of an array; of scattered ones, the stretch that holds them is read."""
    if isinstance(rows, slice):
        return artifact.rows(name, rows)
    if not len(rows):
        return artifact.rows(name, slice(0, 0))
    first = int(rows.min())
    found: NDArray[Any] = artifact.rows(name, slice(first, int(rows.max()) + 1))[rows - first]
    return found
