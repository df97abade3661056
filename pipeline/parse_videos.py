"""From video files to predictions: the steps dataset, extract and parse, with the teachers that the parser knows.

    videos -> a manifest -> dataset/NAME -> features/NAME -> predictions/NAME

How a parser's own features were extracted is found through its records; the same teachers, with weights of the same
digest, are asked the same of the new videos.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.runner import Step
from avvp_pipe.pipeline.settings import settings_of
from avvp_pipe.stages.stage import ParameterError, Progress, make_params
from avvp_pipe.store import Artifact, Store, StoreError, cache_folder
from avvp_pipe.store.lineage import lineage

__all__ = ["Extraction", "extraction_of", "steps_for", "video_files"]

ENDINGS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".mpg", ".mpeg", ".ts", ".ogv", ".wmv", ".3gp",
)  # fmt: skip
"""Of files that are taken from a folder; a file that is named itself may be called anything."""
DEFAULT_SECONDS = 10
"""Of a file whose length cannot be told; decoding will say why."""
NEARLY = 0.5
"""A last second that is so long, or longer, counts as a whole one; its last frame is shown on."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """How a parser's features were made."""

    features: str
    """Reference of them."""
    params: Mapping[str, Any]
    """Parameters of `extract` that give the same from other videos; weights as they were named on this machine."""
    teachers: Mapping[str, str]
    """Teacher -> digest of its weights."""
    version: int
    """Of the stage that extracted them."""


def video_files(given: Sequence[Path]) -> tuple[Path, ...]:
    """Files, and those in folders that end like videos, in the order of their names; each once.

    Raises ParameterError for what is not there, a folder without videos, and two files of one name.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.suffix.lower() in ENDINGS and one.is_file())
            if not inside:
                raise ParameterError(
                    f"{path} holds no files that end in {', '.join(ENDINGS)}; name the files themselves"
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ParameterError(f"there is no file or folder {path}")
    unique = tuple(dict.fromkeys(path.resolve() for path in found))
    twice = [stem for stem, count in Counter(path.stem for path in unique).items() if count > 1]
    if twice:
        alike = ", ".join(str(path) for path in unique if path.stem == twice[0])
        raise ParameterError(f"videos are called by their files' names, and these are alike: {alike}; parse them apart")
    return unique


def extraction_of(store: Store, parser: Artifact) -> Extraction:
    """How the features were extracted that a parser was trained on.

    Raises StoreError where its records do not tell, or tell of features that came from elsewhere.
    """
    known = lineage(store, parser)
    instead = (
        "extract features as it was trained, then `avvp-pipe parse --parser "
        f"{parser.kind}/{parser.name} --features features/NAME`"
    )
    read = known.root.inputs.get("features")
    node = known.node(read) if read else None
    if read is None or node is None or node.identity is None:
        what = "were removed, with their records" if read else "are not known: it was imported"
        raise StoreError(f"the features that {parser.reference} was trained on {what}; {instead}")
    if node.identity.stage != "extract":
        raise StoreError(
            f"{parser.reference} was trained on {read}, which `{node.identity.stage}` made and not `extract`, so that "
            f"nothing here makes the like of a video; {instead}"
        )
    found = store.find(node.stored_as or read)
    outside = store.run_record(found).get("params", {}) if found else {}
    weights = {name: outside.get(name, "") for name in ("visual_weights", "audio_weights")}
    params = {name: value for name, value in node.identity.params.items() if name != "shard"}
    teachers = {name: digest for name, digest in node.identity.sources.items() if name != "videos"}
    return Extraction(
        str(read), params | {name: value for name, value in weights.items() if value}, teachers, node.identity.version
    )


def steps_for(
    store: Store,
    parser: str,
    videos: Sequence[Path],
    *,
    name: str | None,
    seconds: int | None,
    params: Mapping[str, Any],
    settings: Sequence[str],
    progress: Progress,
) -> tuple[Step, ...]:
    """The steps from videos to predictions; the manifest of the first one is written to the cache.

    parser: reference. name: of all artifacts; None: after the videos. seconds: of each clip; None: as many as each
    file has. params: of `parse`, whose device counts for `extract` too. settings: STAGE.PARAMETER=VALUE.
    Raises ParameterError, and StoreError where there is no such parser or its features cannot be made here.
    """
    changed = settings_of(settings)
    if strange := sorted(set(changed) - {"dataset", "extract", "parse"}):
        raise ParameterError(f"--set {strange[0]}: parsing videos runs dataset, extract and parse only")
    artifact = store.get(parser, kind="parser")
    extraction, files = extraction_of(store, artifact), video_files(videos)
    extract = {**extraction.params, **_given(params, "device"), **changed.get("extract", {})}
    _check_teachers(extraction, extract)
    if extraction.version != (now := STAGES["extract"].version):
        progress.note(f"{extraction.features} was made by version {extraction.version} of extract, videos by {now}")
    parse = {**params, **changed.get("parse", {})}
    STAGES["parse"].settle(make_params(STAGES["parse"], parse), {"parser": artifact})  # before hours of extracting
    manifest, classes = _manifest(files, [str(one) for one in artifact.attrs["classes"]], seconds, progress)
    called, named = name or _name(videos, files), parser if "/" in parser else f"parser/{parser}"
    dataset = {"source": str(manifest), "classes": str(classes), **changed.get("dataset", {})}
    steps = (
        Step("dataset", called, dataset),
        Step("extract", called, extract, {"dataset": f"dataset/{called}"}),
        Step("parse", called, parse, {"parser": named, "features": f"features/{called}"}),
    )
    for step in steps:
        make_params(STAGES[step.stage], step.params)
    return steps


def _given(params: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: params[name] for name in names if name in params}


def _check_teachers(extraction: Extraction, extract: Mapping[str, Any]) -> None:
    """Raise StoreError where a teacher's weights here are not those that made the parser's features."""
    from avvp_pipe.stages.teachers import teacher_digest

    for kind in ("visual", "audio"):
        name, weights = str(extract[f"{kind}_teacher"]), str(extract.get(f"{kind}_weights", ""))
        wanted = extraction.teachers.get(name)
        if wanted is None:
            known = ", ".join(extraction.teachers)
            raise StoreError(f"{extraction.features} was made by {known}, not by {name}; leave that setting out")
        if teacher_digest(name, weights) != wanted:
            raise StoreError(
                f"the weights of {name} on this machine are not those that made {extraction.features}; name the right "
                f"ones: --set extract.{kind}-weights=FILE"
            )


def _manifest(
    files: Sequence[Path], classes: Sequence[str], seconds: int | None, progress: Progress
) -> tuple[Path, Path]:
    """A manifest of the videos and a list of the classes, called by what they say, so that equal calls find them."""
    from avvp_pipe.stages.datasets import Clip, write_manifest

    shown = progress.track(files, total=len(files), label="videos")
    clips = [Clip(path.stem, "test", str(path), (), seconds or _whole_seconds(path)) for path in shown]
    told = json.dumps([[(clip.video_id, clip.path, clip.seconds) for clip in clips], list(classes)])
    folder = cache_folder() / "parse"
    digest = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    manifest, names = folder / f"{digest}.jsonl", folder / f"{digest}.txt"
    write_manifest(manifest, clips)
    names.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    return manifest, names


def _whole_seconds(path: Path) -> int:
    """How many seconds a video has, a nearly whole one at the end included; of what is no video, a clip's usual."""
    from avvp_pipe.stages.media.errors import ClipError
    from avvp_pipe.stages.media.probe import check_file, index_video

    try:
        check_file(path)
        return max(1, math.floor(index_video(path).duration_seconds + NEARLY))
    except ClipError:
        return DEFAULT_SECONDS


def _name(given: Sequence[Path], files: Iterable[Path]) -> str:
    """After the folder or the first video, and apart from the names that people give.

    >>> _name([Path("a b.mp4")], [Path("a b.mp4")]), _name([Path("x/a.mp4"), Path("b.mp4")], [Path("a"), Path("b")])
    ('parse-a-b', 'parse-a-and-1-more')
    """
    more = len(list(files)) - 1
    first = given[0].resolve()
    base = first.name if first.is_dir() else first.stem
    if not first.is_dir() and more:
        base += f"-and-{more}-more"
    return "parse-" + re.sub(r"[^A-Za-z0-9._+-]+", "-", base)[:80]
