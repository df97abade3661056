"""Stage `import-features`: features that somebody else extracted, one `.npy` a clip, become a features artifact.

    <id>.npy (L, D) -> visual, audio, motion (N, T, D), one row a second; NaN beyond a clip's length
                       native_<stream> (N, L, D) and native_<stream>_lengths (N,), where L is not the clip's seconds
                       audio_map (N, 64, 768), which has no rows of seconds

Layouts: `store/layouts/table.py`. Values and dtypes are the files' own: nothing is normalised. Rows that are not one a
second are pooled as UWAV's loader does (`blocks/adaptive_pooling.py`) and kept, so that an export gives the same files.
A clip that lacks a file fails with `missing-file`; a file that cannot be trusted stops the import.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.rows import put_clips
from avvp_pipe.stages.stage import Inputs, Progress, Reads, Stage, option, outside_key
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact, Builder
    from avvp_pipe.store.layouts.table import Stream
    from avvp_pipe.store.layouts.tree import Facts, Tree


@dataclass(frozen=True, slots=True)
class Params:
    """How the files are laid out, and where they are."""

    layout: Literal["uwav", "valor", "valor++", "classic", "unav"] = option(
        "uwav",
        "Whose files: UWAV's or VALOR's CLIP and CLAP, with motion (valor++), HAN's three, UnAV-100's official ones.",
    )
    widths: Literal["released", "any"] = option("released", "Whether features must be as wide as the released ones.")
    source: str = outside_key(
        "", "Folder that holds the layout's folders, or one of its usual parents (data, data/LLP)."
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """One stream and how it is stored."""

    stream: "Stream"
    facts: "Facts"
    segments: int
    """T, or the rows of an array without seconds."""
    native: bool
    """Whether the files' own rows are stored beside one row a second."""


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """One digest over all files that are read."""
    from avvp_pipe.stages.blocks.imports import tree_digest

    return {"files": tree_digest(_tree(params, inputs["dataset"]))}


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Check every header, then write shard by shard."""
    from avvp_pipe.stages.blocks.imports import origin_of, tell, tell_orders

    dataset = inputs["dataset"]
    tree, lengths = _tree(params, dataset), dataset.array("lengths")
    tell(tree, progress)
    parts = _parts(tree, lengths, params)
    facts = {part.stream.array: part.facts for part in parts}
    tell_orders(facts, progress)
    texts = _texts(tree, len(dataset.attrs["classes"]), params, progress)
    put_clips(out, dataset)
    for name, array in texts.items():
        out.put(name, _stored(array))
    out.describe(classes=list(dataset.attrs["classes"]), **origin_of(tree, facts, texts), **tree.layout.attributes)
    _declare(out, parts, tree, lengths, progress)
    shards, clips, names = list(out.pending()), len(lengths), dataset.strings("video_ids")
    done = -(-clips // STAGE.shard_rows) - len(shards)
    for shard in progress.track(shards, total=len(shards) + done, label="import-features", done=done):
        _write_shard(out, shard, tree, parts, names, lengths)


def _tree(params: Params, dataset: "Artifact") -> "Tree":
    from avvp_pipe.stages.blocks.imports import tree_of
    from avvp_pipe.store.layouts.table import FEATURES

    return tree_of(params.source, FEATURES[params.layout], dataset)


def _parts(tree: "Tree", lengths: NDArray[Any], params: Params) -> list[_Part]:
    from avvp_pipe.store.layouts.tree import scan

    complete, seconds = tree.complete, int(lengths.max(initial=0))
    parts = []
    for stream in tree.layout.streams:
        facts = scan(tree, stream, lengths, width=stream.width if params.widths == "released" else None)
        if facts.dtype.kind != "f":
            raise StoreError(f"{tree.root / stream.folder} holds {facts.dtype}; features are floats of 2, 4 or 8 bytes")
        native = stream.timed and bool((facts.rows != lengths)[complete].any())
        parts.append(_Part(stream, facts, seconds if stream.timed else int(facts.rows.max()), native))
    return parts


def _texts(tree: "Tree", classes: int, params: Params, progress: Progress) -> dict[str, NDArray[Any]]:
    """Embeddings of the event names, where the tree has them: both, in the dataset's order of classes, or none."""
    from avvp_pipe.store.layouts.tree import read_single

    any_width = params.widths == "any"
    found = {one.array: read_single(tree, one, classes, any_width=any_width) for one in tree.layout.singles}
    texts = {name: array for name, array in found.items() if array is not None}
    if texts and len(texts) < len(found):
        lacking = ", ".join(single.files[0] for single in tree.layout.singles if single.array not in texts)
        raise StoreError(f"{tree.root} has the event texts of one modality only; add {lacking} or remove the other")
    if texts:
        progress.note("the event texts are taken to be in the dataset's order of classes; the files do not say")
    else:
        progress.note("no event texts among the files: labels cannot be made of these features, parsers can be trained")
    return texts


def _declare(out: "Builder", parts: list[_Part], tree: "Tree", lengths: NDArray[Any], progress: Progress) -> None:
    clips, nan = len(lengths), float("nan")
    for part in parts:
        name, width, dtype = part.stream.array, part.facts.width, _stored_dtype(part.facts.dtype)
        holes = part.segments > lengths.min(initial=part.segments) or not tree.complete.all()  # NaN, which shrinks
        out.declare(name, (clips, part.segments, width), dtype, fill=nan, compressed=bool(holes))
        if part.native:
            rows = np.where(tree.complete, part.facts.rows, 0).astype(np.int32)
            out.put(f"native_{name}_lengths", rows)
            out.declare(f"native_{name}", (clips, int(rows.max(initial=0)), width), dtype, fill=nan, compressed=True)
            different = np.flatnonzero(tree.complete & (part.facts.rows != lengths))
            progress.note(
                f"{name}: {len(different)} clips have another number of rows than of seconds, such as "
                f"{part.facts.rows[different[0]]} in {lengths[different[0]]} s; {name} holds their means over seconds, "
                f"native_{name} the rows themselves"
            )
    out.declare("status", (clips,), "uint8")


def _write_shard(
    out: "Builder", shard: slice, tree: "Tree", parts: list[_Part], names: tuple[str, ...], lengths: NDArray[Any]
) -> None:
    from avvp_pipe.stages.blocks.imports import missing, status_of

    arrays: dict[str, NDArray[Any]] = {"status": status_of(tree)[shard]}
    for part in parts:
        arrays |= _shard_of(shard, part, tree, lengths)
    lacking = [row for row in range(shard.start, shard.stop) if not tree.complete[row]]
    out.write(shard, arrays, failures=[missing(tree, row, names[row]) for row in lacking])


def _shard_of(shard: slice, part: _Part, tree: "Tree", lengths: NDArray[Any]) -> dict[str, NDArray[Any]]:
    from avvp_pipe.stages.blocks.adaptive_pooling import adaptive_average
    from avvp_pipe.stages.blocks.imports import read_clip

    name, clips, dtype = part.stream.array, shard.stop - shard.start, _stored_dtype(part.facts.dtype)
    longest = int(part.facts.rows[tree.complete].max(initial=0))
    seconds = np.full((clips, part.segments, part.facts.width), np.nan, dtype)
    native = np.full((clips, longest, part.facts.width), np.nan, dtype) if part.native else None
    for place, row in enumerate(range(shard.start, shard.stop)):
        path = tree.files[name][row]
        if path is None or not tree.complete[row]:
            continue
        rows = read_clip(path, part.facts, row)
        pooled = adaptive_average(rows, int(lengths[row])) if part.stream.timed else rows
        seconds[place, : len(pooled)] = pooled
        if native is not None:
            native[place, : len(rows)] = rows
    return {name: seconds} if native is None else {name: seconds, f"native_{name}": native}


def _stored(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype=_stored_dtype(array.dtype))


def _stored_dtype(dtype: "np.dtype[Any]") -> str:
    """In the machine's order of bytes."""
    return dtype.newbyteorder("=").name


STAGE = Stage(
    name="import-features",
    kind="features",
    version=1,
    summary="Take over features that were extracted elsewhere, one .npy file a clip.",
    reads={"dataset": Reads("dataset", "Whose clips: ids, order and lengths.")},
    params=Params,
    run=run,
    sources=sources,
    shard_rows=256,
    example="avvp-pipe import-features --dataset dataset/llp --layout uwav --source data/LLP --name llp-uwav",
)
