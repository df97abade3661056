"""Everything a report shows, gathered from the store as records: no HTML, and nothing is computed but what is shown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from avvp_pipe.pipeline.recipe import read_recipe
from avvp_pipe.pipeline.report import CLIPS, MAX_BYTES
from avvp_pipe.pipeline.report.clips import clip_data
from avvp_pipe.pipeline.report.curves import curves_of, history_of
from avvp_pipe.pipeline.report.packing import data_bytes
from avvp_pipe.pipeline.report.pictures import no_pictures, pictures_of
from avvp_pipe.pipeline.report.quality import origins_of, quality_of
from avvp_pipe.pipeline.report.records import ClipData, Pictures, Report
from avvp_pipe.pipeline.report.scores import class_tables, rate_tables, score_tables
from avvp_pipe.pipeline.report.sources import source_of
from avvp_pipe.pipeline.report.subjects import LABELLED, Subjects, subjects_of
from avvp_pipe.stages.stage import Progress
from avvp_pipe.store import Artifact, Store

__all__ = ["Wanted", "gather", "titles_of", "with_clips"]

DATA_SHARE = 0.6
"""Of the viewer's room, what label data may take before logits, and then clips, are left out."""
TOO_LARGE = "the file would be larger than asked (--max-bytes)"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to show."""

    references: tuple[str, ...]
    clips: int = CLIPS
    """At most so many in the viewer."""
    max_bytes: int = MAX_BYTES
    """Of the file."""
    pictures: bool = True
    recipes: tuple[str, ...] = ()
    """Recipes whose published rows are shown beside what was measured."""


def gather(store: Store, wanted: Wanted, *, made: str) -> tuple[Report, Subjects]:
    """Read what the report shows beside its clips, and which artifacts it is about.

    Raises StoreError for references that are none or do not belong together, ParameterError for unknown recipes.
    """
    for name in wanted.recipes:
        read_recipe(name)
    subjects = subjects_of(store, wanted.references)
    titles = titles_of(subjects.of(*LABELLED))
    scores = [one for one in subjects.of("scores") if _is_about(one, subjects)]
    named = _score_titles(scores, titles)
    trained = subjects.of("generator", "parser")
    histories = [history_of(one, titles.get(str(one.reference), f"generator {one.name}")) for one in trained]
    home = subjects.dataset
    report = Report(
        title=home.name if home is not None else wanted.references[0],
        shown=tuple((one.kind, str(one.reference)) for one in subjects.artifacts),
        made=made,
        tables=score_tables(scores, named, wanted.recipes),
        class_scores=class_tables(scores, named),
        rates=rate_tables(scores, named),
        curves=tuple(curves_of(one, one.name) for one in subjects.of("thresholds") if _is_about(one, subjects)),
        histories=tuple(one for one in histories if one is not None),
        quality=quality_of(home, subjects.artifacts),
        origins=origins_of(subjects.nodes),
        clips=None,
        pictures=no_pictures(0, ""),
    )
    return report, subjects


def with_clips(
    store: Store, report: Report, subjects: Subjects, wanted: Wanted, *, room_bytes: int, progress: Progress
) -> Report:
    """The report with its clip viewer, which takes at most `room_bytes`."""
    titles = titles_of(subjects.of(*LABELLED))
    data, notes, size = _clips(subjects, titles, wanted.clips, room_bytes)
    pictures = _pictures(store, subjects, data, wanted, room_bytes - size, progress)
    return replace(report, clips=data, pictures=pictures, notes=tuple(notes))


def _is_about(artifact: Artifact, subjects: Subjects) -> bool:
    return str(artifact.reference) in subjects.about


def titles_of(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Reference -> as short a title as tells them apart: the name, with the kind, with the key."""
    names = Counter(one.name for one in artifacts)
    kinds = Counter((one.kind, one.name) for one in artifacts)
    found = {}
    for one in artifacts:
        plain = (
            f"{one.kind} {one.name}"
            if names[one.name] > kinds[one.kind, one.name] or one.kind != "labels"
            else one.name
        )
        found[str(one.reference)] = plain if kinds[one.kind, one.name] == 1 else f"{plain} @{one.key[:4]}"
    return found


def _score_titles(scores: Sequence[Artifact], titles: Mapping[str, str]) -> dict[str, str]:
    """Reference of scores -> title of what was scored, set apart where several scores are of one."""
    of = {str(one.reference): str(one.provenance["inputs"].get("predictions", "")) for one in scores}
    times = Counter(of.values())
    return {
        str(one.reference): titles.get(of[str(one.reference)], one.name)
        + (f" ({one.name} @{one.key[:4]})" if times[of[str(one.reference)]] > 1 else "")
        for one in scores
    }


def _clips(
    subjects: Subjects, titles: Mapping[str, str], limit: int, room_bytes: int
) -> tuple[ClipData | None, list[str], int]:
    """The viewer's data, as much of it as there is room for, what was left out, and its size."""
    logits, notes = True, dict[str, str]()
    while True:
        data = clip_data(subjects.dataset, subjects.sets(), titles, limit=limit, logits=logits)
        if data is None:
            return None, list(notes.values()), 0
        size = data_bytes(data)
        if size <= DATA_SHARE * room_bytes:
            return data, list(notes.values()), size
        if logits and data.logits:
            logits = False
            notes["logits"] = f"Logits are left out of the clip viewer: {TOO_LARGE}."
        else:
            clips = len(data.video_ids)
            limit = max(0, min(int(clips * 0.9 * DATA_SHARE * room_bytes / size), clips - 1))
            notes["clips"] = f"Only {limit} clips are in the viewer: {TOO_LARGE}."


def _pictures(
    store: Store, subjects: Subjects, data: ClipData | None, wanted: Wanted, room_bytes: int, progress: Progress
) -> Pictures:
    if data is None:
        return no_pictures(0, "")
    clips = len(data.video_ids)
    if not wanted.pictures:
        return no_pictures(clips, "pictures were not asked for (--no-pictures)")
    media = next((one for one in reversed(subjects.of("media")) if _is_about(one, subjects)), None)
    others = [one for one in subjects.of("features", "media") if _is_about(one, subjects)]
    source = source_of(store, subjects.dataset, media, others, data.video_ids)
    if source is None:
        return no_pictures(clips, "there are neither stored media nor video files of this dataset")
    return pictures_of(source, room_bytes=max(room_bytes, 0), progress=progress)
