"""Stage `dataset`: annotation files in, one table of clips out: ids, splits, weak labels, dense labels, report.

N clips, T the longest clip's segments of one second, C classes. Where paths in a manifest are relative they
stay so; the folder they start from is kept in the attribute `location`, the one thing in an artifact that
depends on where its sources lay.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from avvp_pipe.stages.stage import Inputs, Progress, Stage, option, outside_key
from avvp_pipe.store.integrity import digest_of_file

if TYPE_CHECKING:
    from avvp_pipe.stages.datasets import Dataset
    from avvp_pipe.store import Builder


@dataclass(frozen=True, slots=True)
class Params:
    """Which annotations to read."""

    reader: Literal["manifest", "llp"] = option("manifest", "How to read the source.")
    source: str = outside_key("", "Manifest file (.csv, .jsonl), or the folder of LLP's six files.")
    classes: str = outside_key("", "File with one class a line: fixes the order, makes unknown classes errors.")
    videos: str = outside_key("", "Folder of the videos (LLP; a manifest's paths start from the manifest's folder).")
    prompts: str = outside_key("", "JSON file with prompt sets of your own, beside those of the methods.")


def read(params: Params) -> "Dataset":
    """Read the source. Raises ValueError or FileNotFoundError that name the file, the line and the remedy."""
    from avvp_pipe.stages.datasets.prompts import read_prompts

    dataset = _annotations(params)
    if not params.prompts:
        return dataset
    own = read_prompts(Path(params.prompts), dataset.classes)
    return replace(dataset, prompts={**dataset.prompts, **own})


def _annotations(params: Params) -> "Dataset":
    from avvp_pipe.stages.datasets import read_classes, read_llp, read_manifest

    if params.reader == "llp":
        return read_llp(Path(params.source), videos=Path(params.videos) if params.videos else None)
    classes = read_classes(Path(params.classes)) if params.classes else None
    return read_manifest(Path(params.source), classes=classes)


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """Digests of the annotation files and of the prompts, by name."""
    if not params.source:
        raise ValueError("dataset needs the annotations to read; give them as --source FILE_OR_FOLDER")
    own = {"prompts": digest_of_file(Path(params.prompts))} if params.prompts else {}
    return {path.name: digest_of_file(path) for path in _files(params)} | own


def _files(params: Params) -> list[Path]:
    from avvp_pipe.stages.datasets import llp_files

    if params.reader == "llp":
        return llp_files(Path(params.source))
    return [Path(path) for path in (params.source, params.classes) if path]


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Read, check and store."""
    dataset = read(params)
    for name in ("video_ids", "splits", "paths"):
        out.put(name, getattr(dataset, name))
    for name in ("weak", "lengths", "audio", "visual", "audio_visual", "dense"):
        out.put(name, getattr(dataset, name))
    folder = Path(params.source).resolve()
    out.describe(
        classes=list(dataset.classes),
        prompts={name: asdict(prompts) for name, prompts in dataset.prompts.items()},
        report=[asdict(finding) for finding in dataset.report],
        location=str(folder if folder.is_dir() else folder.parent),
    )
    for finding in dataset.report:
        progress.note(f"{finding.code}: {finding.count} ({finding.message})")


STAGE = Stage(
    name="dataset",
    kind="dataset",
    version=1,
    summary="Read annotation files or a manifest of your own into a dataset artifact, with a data-quality report.",
    reads={},
    params=Params,
    run=run,
    sources=sources,
    example="avvp-pipe dataset --source clips.jsonl --name mine",
)
