"""Stage `import-labels`: pseudo-labels that somebody else made, one `.npy` a clip, become a labels artifact.

    uwav:  {a,v}_segmentwise_logits, {a,v}_segmentwise_pseudo_labels, {a,v}_classwise_threhsolds.npy (sic)
           -> <modality>_logits, _hard, _thresholds as they are; _soft computed here, as `pseudolabel` does
    valor: {CLAP,CLIP}/segment_pseudo_labels -> audio_hard, visual_hard; _soft are the hard ones

Files hold (T, C): the seconds of a clip, the classes in the dataset's order. What is odd in them (labels outside the
weak label, labels that logits and thresholds do not give) is counted and told, and kept as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from avvp_pipe.stages.rows import put_clips
from avvp_pipe.stages.stage import Inputs, Progress, Reads, Stage, option, outside_key
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.stages.blocks.labelling import Clips
    from avvp_pipe.store import Artifact, Builder
    from avvp_pipe.store.layouts.table import Stream
    from avvp_pipe.store.layouts.tree import Facts, Tree

MODALITIES = ("audio", "visual")


@dataclass(frozen=True, slots=True)
class Params:
    """How the files are laid out, and where they are."""

    layout: Literal["uwav", "valor"] = option("uwav", "Whose files: UWAV's or VALOR's.")
    temperature: Annotated[float, Field(gt=0)] = option(2.0, "Of the soft labels that are made of UWAV's logits.")
    floor_split: str = option("train", "Split whose lowest logits stand in for thresholds of -inf.")
    source: str = outside_key("", "Folder that holds the layout's folders, or its parent.")


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """One digest over all files that are read."""
    from avvp_pipe.stages.blocks.imports import tree_digest

    return {"files": tree_digest(_tree(params, inputs["dataset"]))}


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Read and check everything, tell what is odd, then write shard by shard."""
    from avvp_pipe.stages.blocks.imports import missing, origin_of, tell, tell_orders
    from avvp_pipe.store.layouts.tree import read_single

    dataset = inputs["dataset"]
    tree, classes = _tree(params, dataset), list(dataset.attrs["classes"])
    tell(tree, progress)
    progress.note("the files' classes are taken to be in the dataset's order; the files do not say")
    facts = _facts(tree, dataset)
    tell_orders(facts, progress)
    arrays = {one.array: _read(tree, one, facts[one.array], dataset, progress) for one in tree.layout.streams}
    found = {one.array: read_single(tree, one, len(classes)) for one in tree.layout.singles}
    singles = {name: array for name, array in found.items() if array is not None}
    clips = _clips(tree, dataset, params)
    oddities = _oddities(arrays, singles, clips, progress)
    arrays |= _soft(arrays, singles, clips, params)
    put_clips(out, dataset)
    for name, array in singles.items():
        out.put(name, np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
    out.describe(classes=classes, method=params.layout, **oddities, **origin_of(tree, facts, singles))
    out.describe(**_soft_facts(params))
    names = dataset.strings("video_ids")
    arrays["status"] = clips.status
    for name, array in arrays.items():
        fill = float("nan") if name.endswith("_logits") else 0
        out.declare(name, array.shape, array.dtype.name, fill=fill, compressed=True)
    for shard in out.pending():
        lacking = [row for row in range(shard.start, shard.stop) if not tree.complete[row]]
        failures = [missing(tree, row, names[row]) for row in lacking]
        out.write(shard, {name: array[shard] for name, array in arrays.items()}, failures=failures)


def _tree(params: Params, dataset: "Artifact") -> "Tree":
    from avvp_pipe.stages.blocks.imports import tree_of
    from avvp_pipe.store.layouts.table import LABELS

    return tree_of(params.source, LABELS[params.layout], dataset)


def _facts(tree: "Tree", dataset: "Artifact") -> dict[str, "Facts"]:
    """Of every stream. Raises StoreError where a file has not the seconds of its clip or the dataset's classes."""
    from avvp_pipe.store.layouts.tree import scan

    lengths, classes = dataset.array("lengths"), len(dataset.attrs["classes"])
    facts = {one.array: scan(tree, one, lengths, width=classes) for one in tree.layout.streams}
    for name, one in facts.items():
        for row in np.flatnonzero((one.rows > 0) & (one.rows != lengths))[:1]:
            raise StoreError(
                f"{tree.files[name][row]} labels {one.rows[row]} seconds, but the clip has {lengths[row]}; "
                "wanted one row a second of the dataset's clip"
            )
    return facts


def _read(tree: "Tree", stream: "Stream", facts: "Facts", dataset: "Artifact", progress: Progress) -> NDArray[Any]:
    """(N, T, C): bool for labels, the files' floats for logits; False or NaN where a clip has no file."""
    from avvp_pipe.stages.blocks.imports import read_clip

    if not stream.binary and facts.dtype.kind != "f":
        raise StoreError(f"{tree.root / stream.folder} holds {facts.dtype}; logits are floats of 2, 4 or 8 bytes")
    shape = (len(facts.rows), int(dataset.array("lengths").max(initial=0)), facts.width)
    dtype = np.dtype(bool) if stream.binary else facts.dtype.newbyteorder("=")
    found = np.zeros(shape, dtype) if stream.binary else np.full(shape, np.nan, dtype)
    rows = np.flatnonzero(tree.complete)
    for row in progress.track(rows, total=len(rows), label=f"read {stream.array}"):
        path = tree.files[stream.array][row]
        assert path is not None, "a complete clip has all files"
        values = read_clip(path, facts, int(row))
        if stream.binary and not (((values == 0) & ~np.signbit(values.astype(float))) | (values == 1)).all():
            strange = np.unique(values[(values != 0) & (values != 1)])[:3].tolist()
            raise StoreError(f"{path} holds {strange or '-0.0'}; wanted hard labels, 0 or 1. Are these logits?")
        found[row, : len(values)] = values
    return found


def _clips(tree: "Tree", dataset: "Artifact", params: Params) -> "Clips":
    from avvp_pipe.stages.blocks.imports import status_of
    from avvp_pipe.stages.blocks.labelling import Clips

    lengths = dataset.array("lengths")
    training = np.array(dataset.strings("splits"), dtype=str) == params.floor_split
    segments = int(lengths.max(initial=0))
    return Clips(dataset.array("weak"), lengths, status_of(tree), training, segments=segments)


def _oddities(
    arrays: Mapping[str, NDArray[Any]], singles: Mapping[str, NDArray[Any]], clips: "Clips", progress: Progress
) -> dict[str, dict[str, int]]:
    """How many cells (clip, second, class) are odd, by modality; each kind is told, none is changed."""
    from avvp_pipe.stages.blocks.labelling import stored_hard

    outside, differing = {}, {}
    for modality in MODALITIES:
        hard = arrays[f"{modality}_hard"]
        outside[modality] = int((hard & ~clips.weak[:, None]).sum())
        if f"{modality}_logits" in arrays:
            expected = stored_hard(arrays[f"{modality}_logits"], singles[f"{modality}_thresholds"], clips)
            differing[modality] = int((hard != expected).sum())
    for modality, count in outside.items():
        if count:
            progress.note(f"{modality}: {count} hard labels lie outside the clips' weak labels; kept as they are")
    for modality, count in differing.items():
        if count:
            progress.note(
                f"{modality}: {count} hard labels are not (logit > threshold) within the weak label; kept as they are"
            )
    return {"outside_weak": outside, **({"not_from_logits": differing} if differing else {})}


def _soft(
    arrays: Mapping[str, NDArray[Any]], singles: Mapping[str, NDArray[Any]], clips: "Clips", params: Params
) -> dict[str, NDArray[np.float32]]:
    from avvp_pipe.stages.blocks.labelling import stored_soft

    if params.layout == "valor":
        return {f"{modality}_soft": arrays[f"{modality}_hard"].astype(np.float32) for modality in MODALITIES}
    return {
        f"{modality}_soft": stored_soft(
            arrays[f"{modality}_logits"], singles[f"{modality}_thresholds"], clips, temperature=params.temperature
        )
        for modality in MODALITIES
    }


def _soft_facts(params: Params) -> dict[str, Any]:
    if params.layout == "valor":
        return {"soft": "the hard labels as numbers; the files hold no logits"}
    return {"soft": "computed here from the imported logits and thresholds", "temperature": params.temperature}


STAGE = Stage(
    name="import-labels",
    kind="labels",
    version=2,
    summary="Take over pseudo-labels that were made elsewhere, one .npy file a clip.",
    reads={"dataset": Reads("dataset", "Whose clips: ids, order, weak labels and classes.")},
    params=Params,
    run=run,
    sources=sources,
    shard_rows=1024,
    example="avvp-pipe import-labels --dataset dataset/llp --layout uwav --source run --name llp-uwav-released",
)
# version 2: compressed
