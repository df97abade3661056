"""Stage `dataset`: annotation files in, one table of clips out: ids, splits, weak labels, dense labels, report.

N clips, T the longest clip's segments of one second, C classes. Where paths in a manifest are relative they
stay so; the folder they start from is kept in the attribute `location`, and that of `--videos` in `videos`: with
the paths the only things in an artifact that depend on where its sources lay. Told another place, it is made anew.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from avvp_pipe.stages.stage import Inputs, ParameterError, Progress, Stage, option, outside_key
from avvp_pipe.store.integrity import digest_of_file

if TYPE_CHECKING:
    from avvp_pipe.stages.datasets import Dataset
    from avvp_pipe.store import Artifact, Builder


@dataclass(frozen=True, slots=True)
class Params:
    """Which annotations to read."""

    reader: Literal["manifest", "llp", "unav", "ave"] = option("manifest", "How to read the source.")
    class_order: Literal["official", "uwav"] = option(
        "official", "Of AVE: order of its own files, or the alphabetical one of UWAV's released code."
    )
    joint: Literal["keep", "each"] = option(
        "keep", "Seconds labelled for both at once: kept so, or (each) taken as heard and as seen."
    )
    source: str = outside_key("", "Manifest (.csv, .jsonl), UnAV-100's .json, or the folder of LLP's or AVE's files.")
    classes: str = outside_key("", "Of a manifest: file with one class a line, fixes the order, forbids others.")
    videos: str = outside_key("", "Folder of the videos (a manifest's paths start from the manifest's folder).")
    prompts: str = outside_key("", "JSON file with prompt sets of your own, beside those of the methods.")


def settle(params: Params, inputs: Inputs) -> Params:
    """The parameters as they are. Raises ParameterError where one is given that the reader has no use for."""
    reader = params.reader
    for given, fits, text in (
        (params.classes, reader == "manifest", f"--classes is for a manifest; the classes of {reader} are fixed"),
        (params.videos, reader != "manifest", "--videos: a manifest's paths start from its folder, or are absolute"),
        (params.class_order != "official", reader == "ave", f"--class-order is for AVE; {reader} has one order"),
        (params.joint != "keep", reader != "llp", "--joint: LLP labels audio and vision separately"),
    ):
        if given and not fits:
            raise ParameterError(f"{text}; leave the option out, or choose another --reader than {reader}")
    return params


def read(params: Params) -> "Dataset":
    """Read the source. Raises ValueError or FileNotFoundError that name the file, the line and the remedy."""
    from avvp_pipe.stages.datasets import heard_and_seen
    from avvp_pipe.stages.datasets.prompts import read_prompts

    dataset = _annotations(params)
    if params.joint == "each":
        dataset = heard_and_seen(dataset)
    if not params.prompts:
        return dataset
    own = read_prompts(Path(params.prompts), dataset.classes)
    return replace(dataset, prompts={**dataset.prompts, **own})


def _annotations(params: Params) -> "Dataset":
    from avvp_pipe.stages.datasets import read_ave, read_classes, read_llp, read_manifest, read_unav

    source, videos = Path(params.source), Path(params.videos) if params.videos else None
    if params.reader == "llp":
        return read_llp(source, videos=videos)
    if params.reader == "unav":
        return read_unav(source, videos=videos)
    if params.reader == "ave":
        return read_ave(source, videos=videos, class_order=params.class_order)
    classes = read_classes(Path(params.classes)) if params.classes else None
    return read_manifest(source, classes=classes)


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """Digests of the annotation files and of the prompts, by name."""
    if not params.source:
        raise ValueError("dataset needs the annotations to read; give them as --source FILE_OR_FOLDER")
    own = {"prompts": digest_of_file(Path(params.prompts))} if params.prompts else {}
    return {path.name: digest_of_file(path) for path in _files(params)} | own


def _files(params: Params) -> list[Path]:
    from avvp_pipe.stages.datasets import ave_files, llp_files, unav_file

    source = Path(params.source)
    if params.reader == "manifest":
        return [Path(path) for path in (params.source, params.classes) if path]
    if params.reader == "unav":
        return [unav_file(source)]
    return llp_files(source) if params.reader == "llp" else ave_files(source)


def _class_order(params: Params) -> dict[str, object]:
    """Of AVE, whose files come in two orders of classes: which one this is, and both in full."""
    from avvp_pipe.stages.datasets import CLASS_ORDERS

    if params.reader != "ave":
        return {}
    orders = {str(name): list(classes) for name, classes in CLASS_ORDERS.items()}
    return {"class_order": {"used": params.class_order, **orders}}


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Read, check and store."""
    dataset = read(params)
    for name in ("video_ids", "splits", "paths"):
        out.put(name, getattr(dataset, name))
    for name in ("weak", "lengths", "audio", "visual", "audio_visual", "dense"):
        out.put(name, getattr(dataset, name))
    out.describe(
        classes=list(dataset.classes),
        prompts={name: asdict(prompts) for name, prompts in dataset.prompts.items()},
        report=[asdict(finding) for finding in dataset.report],
        location=_location(params),
        videos=_videos(params),
        **_class_order(params),
    )
    for finding in dataset.report:
        progress.note(f"{finding.code}: {finding.count} ({finding.message})")


def _location(params: Params) -> str:
    """The folder that relative paths start from."""
    folder = Path(params.source).resolve()
    return str(folder if folder.is_dir() else folder.parent)


def _videos(params: Params) -> str:
    """The folder that was told for videos, "" where none was."""
    return str(Path(params.videos).resolve()) if params.videos else ""


def moved(params: Params, made: "Artifact") -> str:
    """Where the videos are said to lie now, in words, if that is not where this dataset looks for them."""
    told, before = _videos(params), str(made.attrs.get("videos", ""))
    if told != before:
        return f"the videos lie in {told or _location(params)}, not in {before or made.attrs.get('location')}"
    place, before = _location(params), str(made.attrs.get("location"))
    if told or place == before or all(Path(path).is_absolute() for path in made.strings("paths")):
        return ""
    return f"the videos lie in {place}, not in {before}"


STAGE = Stage(
    name="dataset",
    kind="dataset",
    version=2,
    summary="Read annotation files or a manifest of your own into a dataset artifact, with a data-quality report.",
    reads={},
    params=Params,
    run=run,
    sources=sources,
    settle=settle,
    moved=moved,
    example="""\
your own videos, listed in a manifest
avvp-pipe dataset --source clips.jsonl --name mine
public annotations, and the folder of their videos
avvp-pipe dataset --reader llp --source AVVP-ECCV20/data --videos llp-videos --name llp
avvp-pipe dataset --reader unav --source unav100_annotations.json --videos unav-videos --name unav
avvp-pipe dataset --reader ave --source AVE-ECCV18/data --videos ave-videos --name ave""",
)
# version 2: VALOR's words also for classes of LLP that are spelled otherwise
