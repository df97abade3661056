"""A fitted `stack`: its models, and the arrays that they are stored as.

| array | shape | meaning |
|---|---|---|
| `inputs` | (F,) text | names of the columns |
| `teachers` | (R,) text | whose logits they are made of |
| `sources` | (R,) text | key of the generator that each is, empty for the static teachers |
| `video_ids`, `folds` | (M,) | clips that it was fitted on; `…_weights[fold]` has not seen them |
| `audio_weights`, `visual_weights` | (K + 1, F) | of each fold's model, and last of the model of all clips |
| `…_deviations` | (K + 1, C, F) | what each class adds to them |
| `…_intercepts` | (K + 1, C) | |
| `…_centres`, `…_scales` | (K + 1, R, C) | zero and unit of each teacher's logits |
| `…_cuts` | (2,) or (0,) | cut of a second, and of its clip's best second; nothing where a sweep chose the cut |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.generators.records import Fitted, Logits
from avvp_pipe.stages.generators.stack_inputs import Units
from avvp_pipe.stages.generators.stack_model import MODALITIES, Clips, Model, TeacherUnits, cells_of, scores
from avvp_pipe.stages.generators.stack_presence import Presence, brought_down


@dataclass(frozen=True, slots=True)
class Part:
    """What was learnt from some of the clips."""

    units: TeacherUnits
    audio: Model
    visual: Model


@dataclass(frozen=True, slots=True)
class Stack:
    """All that the labels of `stack` are made with."""

    inputs: tuple[str, ...]
    sources: Mapping[str, str]
    """Teacher -> key of its generator, empty for the static teachers."""
    folds: Mapping[str, int]
    """Video id -> fold, of the clips it was fitted on."""
    parts: tuple[Part, ...]
    """Without fold 0, without fold 1 …, and last without none."""
    cuts: Mapping[str, Presence]
    """Modality -> both cuts; empty where a sweep chooses one."""

    def logits(self, clips: Clips, video_ids: Sequence[str]) -> Logits:
        """Logits of N clips, each by the part that has not seen it, before the cuts bring any down."""
        of_clip = np.array([self.folds.get(name, len(self.parts) - 1) for name in video_ids], np.int64)
        shape = (*clips.valid.shape, clips.weak.shape[1])
        found = Logits(*(np.full(shape, np.nan, np.float32) for _ in MODALITIES))
        for place in np.unique(of_clip):
            rows, part = np.flatnonzero(of_clip == place), self.parts[place]
            some = clips.of(rows)
            for modality in MODALITIES:
                cells = cells_of(some, part.units, modality)
                getattr(found, modality)[rows] = scores(self.inputs, cells, getattr(part, modality))
        return found

    def lowered(self, logits: Logits) -> Logits:
        """Logits brought down in clips where the class is not present."""
        if not self.cuts:
            return logits
        return Logits(*(brought_down(values, self.cuts[name]) for name, values in logits._asdict().items()))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As stored."""
        arrays: dict[str, NDArray[Any]] = {
            "inputs": np.array(self.inputs, np.str_),
            "teachers": np.array(list(self.sources), np.str_),
            "sources": np.array(list(self.sources.values()), np.str_),
            "video_ids": np.array(list(self.folds), np.str_),
            "folds": np.array(list(self.folds.values()), np.int64),
        }
        for place, name in enumerate(MODALITIES):
            models = [getattr(part, name) for part in self.parts]
            units = [[part.units[teacher][place] for teacher in self.sources] for part in self.parts]
            cuts = self.cuts.get(name)
            arrays[f"{name}_weights"] = np.stack([model.weights for model in models])
            arrays[f"{name}_deviations"] = np.stack([model.deviations for model in models])
            arrays[f"{name}_intercepts"] = np.stack([model.intercepts for model in models])
            arrays[f"{name}_centres"] = np.array([[unit.centre for unit in row] for row in units])
            arrays[f"{name}_scales"] = np.array([[unit.scale for unit in row] for row in units])
            arrays[f"{name}_cuts"] = np.array([cuts.second, cuts.clip] if cuts else [], np.float64)
        return arrays


class Weight(NamedTuple):
    """One line of the table that explains a fitted stack."""

    modality: str
    name: str
    """Of the input (`stack_inputs.py`)."""
    weight: float
    """By how much the logit rises when the input rises by one unit of its class, for all classes."""
    spread: float
    """Standard deviation, over classes, of what each adds to it."""


def explained(fitted: Fitted) -> tuple[Weight, ...]:
    """The weights of the model of all clips, audio before visual, the heaviest first."""
    stack = stack_of(fitted)
    lines = []
    for modality in MODALITIES:
        model = getattr(stack.parts[-1], modality)
        table = zip(stack.inputs, model.weights.tolist(), model.deviations.std(axis=0).tolist(), strict=True)
        of_modality = [Weight(modality, *line) for line in table]
        lines += sorted(of_modality, key=lambda line: -abs(line.weight))
    return tuple(lines)


def stack_of(fitted: Fitted) -> Stack:
    """The stack that was stored as these arrays."""
    teachers = _texts(fitted["teachers"])
    count = len(fitted["audio_weights"])
    return Stack(
        inputs=_texts(fitted["inputs"]),
        sources=dict(zip(teachers, _texts(fitted["sources"]), strict=True)),
        folds=dict(zip(_texts(fitted["video_ids"]), fitted["folds"].tolist(), strict=True)),
        parts=tuple(_part(fitted, teachers, place) for place in range(count)),
        cuts={name: Presence(*fitted[f"{name}_cuts"].tolist()) for name in MODALITIES if len(fitted[f"{name}_cuts"])},
    )


def _part(fitted: Fitted, teachers: tuple[str, ...], place: int) -> Part:
    def units(modality: str, row: int) -> Units:
        return Units(fitted[f"{modality}_centres"][place, row], fitted[f"{modality}_scales"][place, row])

    def model(modality: str) -> Model:
        return Model(*(fitted[f"{modality}_{name}"][place] for name in ("weights", "deviations", "intercepts")))

    of_teachers = {name: (units("audio", row), units("visual", row)) for row, name in enumerate(teachers)}
    return Part(of_teachers, audio=model("audio"), visual=model("visual"))


def _texts(array: NDArray[Any]) -> tuple[str, ...]:
    return tuple(str(item) for item in array)
