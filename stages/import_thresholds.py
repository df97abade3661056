"""Stage `import-thresholds`: the thresholds that UWAV's released code wrote beside its labels become an artifact.

    {a,v}_classwise_threhsolds.npy (sic), (C,) in the dataset's order of classes -> audio, visual (C,) float32

They cut logits and may be -inf, which means: always, where the weak label names the class. What they achieve is not
in the files, so `audio_f1` and `visual_f1` are NaN; `evaluate` scores the labels that are made with them. They fit
the logits of the generator they were fitted on, and no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.generators import WeakFilter, label_generator
from avvp_pipe.stages.stage import Inputs, ParameterError, Progress, Reads, Stage, option, outside_key
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.store import Builder
    from avvp_pipe.store.layouts.tree import Tree

MODALITIES = ("audio", "visual")


@dataclass(frozen=True, slots=True)
class Params:
    """What the files do not say, and where they are."""

    layout: Literal["uwav"] = option("uwav", "Whose files.")
    method: Literal["zero-shot", "valor", "uwav", "ear"] = option("uwav", "Whose logits they cut.")
    prompts: str = option("auto", "Prompt set that the logits were made with; auto: the method's own.")
    weak_filter: WeakFilter = option("both", "Which modalities' labels are kept within the weak label; released: both.")
    source: str = outside_key("", "Folder that holds the files, or its parent (LLP_Dataset).")


def settle(params: Params, inputs: Inputs) -> Params:
    """Fill in the method's own prompt set."""
    own = label_generator(params.method).prompts
    return replace(params, prompts=own if params.prompts == "auto" else params.prompts)


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """One digest over both files."""
    from avvp_pipe.stages.blocks.imports import tree_digest

    return {"files": tree_digest(_tree(params))}


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Read and check both, then write."""
    from avvp_pipe.stages.blocks.imports import ORIGIN

    classes = list(inputs["dataset"].attrs["classes"])
    tree = _tree(params)
    read = {modality: _read(tree, modality, classes) for modality in MODALITIES}
    if len(shapes := {array.shape for array in read.values()}) > 1:
        raise StoreError(f"{tree.root}: one file holds a threshold a class, the other one for all, {shapes}")
    progress.note("the thresholds are taken to be in the dataset's order of classes; the files do not say")
    mode = "per-class" if read["audio"].ndim else "class-agnostic"
    out.describe(classes=classes, method=params.method, mode=mode, prompts=params.prompts)
    out.describe(source="imported", weak_filter=params.weak_filter, origin=ORIGIN, layout=params.layout)
    out.describe(file_names={modality: tree.singles[f"{modality}_thresholds"].name for modality in MODALITIES})
    out.put("classes", classes)
    for modality, array in read.items():
        out.put(modality, np.full(len(classes), array, np.float32))
        out.put(f"{modality}_f1", np.full(len(classes), np.nan))
        for name in _listed(classes, np.isneginf(array)):
            progress.note(f"{modality}: {name} has threshold -inf, on wherever the weak label names it")
        for name in _listed(classes, np.isposinf(array)):
            progress.note(f"{modality}: {name} has threshold inf, never on")


def _tree(params: Params) -> "Tree":
    from avvp_pipe.store.layouts.table import LABELS
    from avvp_pipe.store.layouts.tree import find_singles

    if not params.source:
        raise ParameterError("no folder to import from; give the one with a_classwise_threhsolds.npy as --source")
    return find_singles(Path(params.source), LABELS[params.layout])


def _read(tree: "Tree", modality: str, classes: list[str]) -> NDArray[Any]:
    """(C,), or () where one threshold is for all classes. Raises StoreError."""
    from avvp_pipe.store.layouts.npy import read_npy

    path = tree.singles[f"{modality}_thresholds"]
    array = read_npy(path, finite=False)
    if array.dtype.kind != "f" or array.shape not in ((), (1,), (len(classes),)):
        raise StoreError(
            f"{path} holds {array.dtype} of shape {array.shape}; wanted floats, one for each of the dataset's "
            f"{len(classes)} classes or a single one. Import them for the dataset they were fitted on"
        )
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    if (np.isinf(narrow) & np.isfinite(array)).any():
        raise StoreError(
            f"{path} holds {float(np.abs(array[np.isfinite(array)]).max()):g}, which is no threshold of a logit"
        )
    return narrow if narrow.shape == (len(classes),) else narrow.reshape(())


def _listed(classes: list[str], marked: NDArray[np.bool_]) -> list[str]:
    return [classes[index] for index in np.flatnonzero(marked)] if marked.ndim else []


STAGE = Stage(
    name="import-thresholds",
    kind="thresholds",
    version=1,
    summary="Take over thresholds that UWAV's released code fitted.",
    reads={"dataset": Reads("dataset", "Whose classes they are for, in their order.")},
    params=Params,
    run=run,
    settle=settle,
    sources=sources,
    example="avvp-pipe import-thresholds --dataset dataset/llp --source run/LLP_Dataset --name llp-uwav-released",
)
