"""What a parser says of clips, and how good that is: predictions, and the scores that training selects by.

val_A, val_V, val_AV, val_Type, val_Event       segment level, official protocol; VALOR, UWAV, HAN: val_Type
val_event_A, ...                                event level; LSLD: val_event_A
val_mean10                                      the mean of these ten (EAR's "Avg.")
val_coleaf10                                    the mean of Ao, Vo, AV, Typeo and Evento of both levels (CoLeaF)
val_joint_AV, val_joint_event_AV                where only what is heard and seen at once is labelled (UnAV)
val_accuracy                                    the same, where no second has two classes: AVE's measure
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avvp_pipe.stages.ave_accuracy import ave_accuracy, class_indices, one_a_second
from avvp_pipe.stages.blocks.device import Precision, autocast
from avvp_pipe.stages.metrics import LEVELS, avvp_scores
from avvp_pipe.stages.parsers.feeding import Feed, blocks, failed
from avvp_pipe.stages.parsers.han import predict
from avvp_pipe.stages.parsers.records import Batch, GateSettings, Outputs
from avvp_pipe.stages.rows import JOINT, SEPARATE
from avvp_pipe.store.rows import take_rows

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

__all__ = ["Parsing", "Validation", "predictions", "validation_of"]

OFFICIAL = ("A", "V", "AV", "Type", "Event")
COLEAF = ("Ao", "Vo", "AV", "Typeo", "Evento")


@dataclass(frozen=True, slots=True)
class Parsing:
    """How a parser is run and its probabilities are made decisions."""

    gate: GateSettings
    background: bool = False
    """Whether the last column is background: then the most probable class of a second is on, in both modalities, by the
    mean of both; nothing where that is background. (AVE. How VALOR combines modalities is not published.)"""
    precision: Precision = "fp32"

    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        """What the parser says of a batch, in float32."""
        with autocast(batch.lengths.device, self.precision):
            outputs: Outputs = model(batch.streams, batch.lengths)
        return outputs if self.precision == "fp32" else Outputs(*(each.float() for each in outputs))

    def decisions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Heard and seen, (B, T, C) bool each, background left out."""
        if not self.background:
            return predict(outputs, **dataclasses.asdict(self.gate))
        mean = (outputs.audio_logits.sigmoid() + outputs.visual_logits.sigmoid()) / 2
        on = nn.functional.one_hot(mean.argmax(dim=2), mean.shape[2]).bool()[:, :, :-1]
        return on, on


def predictions(model: nn.Module, feed: Feed, rows: NDArray[np.intp], parsing: Parsing) -> dict[str, NDArray[Any]]:
    """Probabilities and decisions for some clips: video_probs (N, C), audio_ and visual_ probs and hard (N, T, C).

    Zero where there was nothing to predict from: seconds without features, and for video_probs clips.
    """
    parts: dict[str, list[NDArray[Any]]] = {}
    with torch.inference_mode():
        for group in blocks(rows):
            batch, gaps = feed.batch_and_gaps(group)
            outputs, classes = parsing.outputs(model, batch), batch.weak.shape[1]
            heard, seen = parsing.decisions(outputs)
            found = {
                "video_probs": outputs.video_probs[:, :classes],
                "audio_probs": outputs.audio_logits[:, :, :classes].sigmoid(),
                "visual_probs": outputs.visual_logits[:, :, :classes].sigmoid(),
                "audio_hard": heard,
                "visual_hard": seen,
            }
            gone = gaps | (np.arange(feed.segments) >= batch.lengths.cpu().numpy()[:, None])
            for name, tensor in found.items():
                parts.setdefault(name, []).append(_blank(tensor.cpu().numpy(), gone))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _blank(array: NDArray[Any], gone: NDArray[np.bool_]) -> NDArray[Any]:
    """Zero in the seconds (B, T) that are gone, or for (B, C) arrays in clips without a second."""
    lost = gone.all(axis=1) if array.ndim == 2 else gone
    return np.where(lost[..., None], array.dtype.type(0), array)


@dataclass(frozen=True, slots=True)
class Validation:
    """The labelled clips of the validation split."""

    rows: NDArray[np.intp]
    truth: Mapping[str, NDArray[np.bool_]]
    """audio and visual, or audio_visual where only that is known: (N, T, C)."""
    lengths: NDArray[Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the scores there are."""
        if "audio_visual" not in self.truth:
            by_level = [f"val_{level}{name}" for level in ("", "event_") for name in OFFICIAL]
            return (*by_level, "val_mean10", "val_coleaf10")
        return ("val_joint_AV", "val_joint_event_AV", *(("val_accuracy",) if self._single else ()))

    @property
    def _single(self) -> bool:
        """Whether no second has two classes."""
        return bool(self.truth["audio_visual"].sum(axis=2).max() <= 1)

    def scores(self, model: nn.Module, feed: Feed, parsing: Parsing) -> dict[str, float]:
        """Name -> percent, names as at the head of this file."""
        found = predictions(model, feed, self.rows, parsing)
        heard, seen = found["audio_hard"], found["visual_hard"]
        if "audio_visual" in self.truth:
            return self._joint_scores(heard & seen, found["audio_probs"] + found["visual_probs"])
        table = avvp_scores(heard, seen, self.truth["audio"], self.truth["visual"], lengths=self.lengths)
        scores = {f"val_{name}": table["segment"][name] for name in OFFICIAL}
        scores |= {f"val_event_{name}": table["event"][name] for name in OFFICIAL}
        for name, metrics in (("val_mean10", OFFICIAL), ("val_coleaf10", COLEAF)):
            scores[name] = float(np.mean([table[level][metric] for level in LEVELS for metric in metrics]))
        return scores

    def _joint_scores(self, both: NDArray[np.bool_], probabilities: NDArray[Any]) -> dict[str, float]:
        truth = self.truth["audio_visual"]
        table = avvp_scores(both, both, truth, truth, lengths=self.lengths)
        scores = {"val_joint_AV": table["segment"]["AV"], "val_joint_event_AV": table["event"]["AV"]}
        if self._single:
            wanted, came = class_indices(truth), class_indices(one_a_second(both, probabilities))
            scores["val_accuracy"] = ave_accuracy(came, wanted, lengths=self.lengths)
        return scores


def validation_of(dataset: Artifact, features: Artifact) -> Validation | None:
    """The clips to select by: those labelled by modality, or else those labelled jointly; None where there are none."""
    usable = (np.array(dataset.strings("splits"), dtype=str) == "val") & ~failed(features)
    dense, lengths = dataset.array("dense"), dataset.array("lengths")
    for kind, names in ((SEPARATE, ("audio", "visual")), (JOINT, ("audio_visual",))):
        rows = np.flatnonzero(usable & (dense == kind))
        if len(rows):
            return Validation(rows, {name: take_rows(dataset, name, rows) for name in names}, lengths[rows])
    return None
