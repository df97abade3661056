"""Labels as tasks with predictions for Label Studio, where people correct them.

Events lie on the timeline of the clip's sound, in seconds, beside the video that plays with it: what is heard under
the control `heard`, what is seen under `seen`. Documented at labelstud.io/guide/predictions (tasks with `data` and
`predictions`, each with `result`, `score`, `model_version`), labelstud.io/tags/audio (a region's `start` and `end` in
seconds, `original_length`) and labelstud.io/templates/video_timeline_segmentation (video and sound in step).
"""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.layouts.events import runs
from avvp_pipe.store.layouts.export import good_rows
from avvp_pipe.store.layouts.tree import short_id
from avvp_pipe.store.schema import soft_name

if TYPE_CHECKING:
    from avvp_pipe.store.artifact import Artifact

TASKS, CONFIG = "tasks.json", "labeling-config.xml"
CONTROLS = {"audio": "heard", "visual": "seen"}
TIMELINE = "audio"
DEFAULT_URL = "/data/local-files/?d={id}.mp4"
DECIMALS = 4


def label_studio_files(artifact: "Artifact", *, url: str = DEFAULT_URL) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the tasks and of the labelling interface that goes with them.

    url: where Label Studio finds a clip's video; {id} stands for the clip's id, {youtube} for its first 11 characters.
    """
    classes = tuple(artifact.attrs["classes"])
    names, splits = artifact.strings("video_ids"), artifact.strings("splits")
    tasks = []
    for row, clip in _clips(artifact):
        found = [region for name, control in CONTROLS.items() for region in regions(*clip[name], classes, control)]
        result = [{"id": f"{row}-{number}", **region} for number, region in enumerate(found)]
        video = url.replace("{id}", names[row]).replace("{youtube}", short_id(names[row]))
        data = {"video": video, "video_id": names[row], "split": splits[row]}
        tasks.append({"data": data, "predictions": [_prediction(str(artifact.reference), result)]})
    yield TASKS, (json.dumps(tasks, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    yield CONFIG, labelling_config(classes).encode()


def regions(
    hard: NDArray[Any], soft: NDArray[Any] | None, classes: Sequence[str], control: str
) -> list[dict[str, Any]]:
    """The `result` entries of one clip and modality, without ids.

    hard (T, C) bool; soft (T, C) in [0, 1] or None: a region's `score` is the mean over its seconds.
    """
    found = []
    for run in runs(hard):
        region: dict[str, Any] = {
            "from_name": control,
            "to_name": TIMELINE,
            "type": "labels",
            "original_length": len(hard),
            "value": {"start": run.onset, "end": run.offset, "channel": 0, "labels": [classes[run.column]]},
        }
        if soft is not None:
            region["score"] = round(float(np.mean(soft[run.onset : run.offset, run.column])), DECIMALS)
        found.append(region)
    return found


def labelling_config(classes: Sequence[str]) -> str:
    """The labelling interface, as XML: the video, its sound as the timeline, and every class as heard and as seen."""
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in classes)
    controls = "".join(
        f'  <Header value="{control.capitalize()}"/>\n'
        f'  <Labels name="{control}" toName="{TIMELINE}" choice="multiple">\n{labels}  </Labels>\n'
        for control in CONTROLS.values()
    )
    video = '  <Video name="video" value="$video" sync="clip"/>\n'
    return f'<View>\n{video}{controls}  <Audio name="{TIMELINE}" value="$video" sync="clip"/>\n</View>\n'


def _clips(artifact: "Artifact") -> Iterator[tuple[int, dict[str, tuple[NDArray[Any], NDArray[Any] | None]]]]:
    """Row and arrays, cut to its length, of every clip that did not fail."""
    lengths = artifact.array("lengths")
    hard = {modality: artifact.array(f"{modality}_hard") for modality in CONTROLS}
    soft = {modality: _soft(artifact, modality) for modality in CONTROLS}
    for row in good_rows(artifact).tolist():
        seconds = slice(0, int(lengths[row]))
        yield row, {m: (hard[m][row, seconds], None if soft[m] is None else soft[m][row, seconds]) for m in CONTROLS}


def _soft(artifact: "Artifact", modality: str) -> Any:
    name = soft_name(artifact, modality)
    return artifact.array(name) if name else None


def _prediction(version: str, result: list[dict[str, Any]]) -> dict[str, Any]:
    """A task's prediction; its score is the mean of its regions' scores, and left out where they have none."""
    scores = [region["score"] for region in result if "score" in region]
    scored = {"score": round(sum(scores) / len(scores), DECIMALS)} if scores else {}
    return {"model_version": version, "result": result, **scored}


def require_labels(artifact: "Artifact") -> None:
    """Raise StoreError where an artifact holds no hard labels of both modalities."""
    if missing := [name for name in ("audio_hard", "visual_hard") if name not in artifact]:
        raise StoreError(f"{artifact.reference} has no {' and no '.join(missing)}; export labels/… or parser/…")
