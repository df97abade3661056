"""What a parser is trained for: parts that any parser can take, switched on by the parameters of `train-parser`.

    video     pooled    BCE(p, y)                                                     every method
              guided    and BCE(p^a, 1.0 y) + BCE(p^v, 0.9 y + 0.05)                  HAN
              mean      BCE(sigmoid of the mean logit of all seconds and both modalities, y)   VALOR's baseline on AVE
              none                                                                    VALOR on AVE
    segment   bce       of every second, hard or soft targets, re-weighted or not     VALOR, UWAV, EAR
              global    of p^a and p^v, targets reduced to video labels               VALOR, section 5
              kd        KL(softmax of the teacher's logits || softmax of the parser's)  VALOR, eq. 8
    mixup     soft, hard: of segment features after attention                         UWAV, EAR

Video terms are binary cross-entropies, or asymmetric losses (`video_loss="asymmetric"`, CoLeaF's). A parser with an
objective of its own (CoLeaF) says so in its `ParserMethod` and uses none of these.

With a background column (AVE: C + 1 logits) video terms leave the column out, since weak labels say nothing of it, but
for `mean` (VALOR, eq. 11), whose labels have it as AVE's weak labels do: set for clips without any class. Targets get
one, set where no class is on (`losses.with_background`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.attention import valid_mask
from avvp_pipe.stages.blocks.losses import (
    ClassBalance,
    distillation_loss,
    draw_mixup,
    labels_of_clips,
    mixup_loss,
    segment_loss,
    smoothed,
    video_loss,
    with_background,
)
from avvp_pipe.stages.parsers.records import Batch, Outputs

__all__ = ["MODALITIES", "SharedObjective", "mean_logits", "shared_terms"]

MODALITIES = ("audio", "visual")
MIXED = "_mixed"
"""Suffix of a modality's targets of mixup, where they differ from those of its seconds."""
VideoTerm = Literal["pooled", "guided", "mean", "none"]
SegmentTerm = Literal["bce", "global", "kd", "none"]


@dataclass(frozen=True, slots=True)
class SharedObjective:
    """Which terms there are; the defaults are UWAV's without its re-weighting and mixup."""

    video: VideoTerm = "pooled"
    audio_smoothing: float = 1.0
    """How much is kept of the weak label that guides what is heard; the rest is one half."""
    visual_smoothing: float = 0.9
    video_loss: Literal["bce", "asymmetric"] = "bce"
    segment: SegmentTerm = "bce"
    balance: Mapping[str, ClassBalance] = field(default_factory=dict)
    """Modality -> weights of the segment term; empty for none."""
    mixup: bool = False
    mixup_alpha: float = 1.7
    background: bool = False
    """Whether the parser has a column for background after those of the classes."""


def shared_terms(model: nn.Module, outputs: Outputs, batch: Batch, objective: SharedObjective) -> dict[str, Tensor]:
    """The terms of a batch: `video`, `audio_video`, `visual_video`, and by modality `segment_`, `mixup_`...

    outputs: of `model`, float32. batch.targets: `audio`, `visual` (B, T, C), and `audio_mixed`, `visual_mixed` where
    mixup takes others; without them only video terms come.
    """
    valid = valid_mask(batch.lengths, outputs.audio_logits.shape[1])
    terms = _video_terms(outputs, batch.weak, valid, objective)
    for modality in MODALITIES if batch.targets else ():
        if objective.segment != "none":
            terms[f"segment_{modality}"] = _segment_term(outputs, batch, modality, valid, objective)
        if objective.mixup:
            targets = _target(batch, modality + MIXED if modality + MIXED in batch.targets else modality, objective)
            segments = getattr(outputs, f"{modality}_features")[valid]
            draw = draw_mixup(len(segments), alpha=objective.mixup_alpha)
            terms[f"mixup_{modality}"] = mixup_loss(segments, targets[valid], draw, _classifier(model))
    return terms


def _classifier(model: nn.Module) -> Callable[[Tensor], Tensor]:
    found: Any = getattr(model, "classifier", None)
    if found is None:
        raise ValueError(f"mixup needs a parser with one classifier, and {type(model).__name__} has none; leave it out")
    return lambda features: found(features)


def _video_terms(outputs: Outputs, weak: Tensor, valid: Tensor, objective: SharedObjective) -> dict[str, Tensor]:
    if objective.video == "none":
        return {}
    if objective.video == "mean":
        nothing = ~weak.any(dim=1, keepdim=True)
        labels = torch.cat((weak, nothing), dim=1) if objective.background else weak
        return {"video": _video_term(mean_logits(outputs, valid).sigmoid(), labels, objective)}
    classes = weak.shape[1]  # the column of background, if there is one, is left out
    found = {"video": _video_term(outputs.video_probs[:, :classes], weak, objective)}
    if objective.video == "guided":
        for modality, keep in (("audio", objective.audio_smoothing), ("visual", objective.visual_smoothing)):
            pooled: Tensor = getattr(outputs, f"{modality}_video_probs")[:, :classes]
            found[f"{modality}_video"] = _video_term(pooled, smoothed(weak, keep), objective)
    return found


def mean_logits(outputs: Outputs, valid: Tensor) -> Tensor:
    """(B, C): the mean over real seconds and over both modalities of their logits; 0 for clips without a second."""
    both = (outputs.audio_logits + outputs.visual_logits) / 2
    return both.masked_fill(~valid[:, :, None], 0).sum(dim=1) / valid.sum(dim=1, keepdim=True).clamp(min=1)


def _video_term(probabilities: Tensor, targets: Tensor, objective: SharedObjective) -> Tensor:
    if objective.video_loss == "bce":
        return video_loss(probabilities, targets)
    from avvp_pipe.stages.parsers.coleaf_losses import asymmetric_loss

    return asymmetric_loss(probabilities.float(), targets.float())


def _target(batch: Batch, name: str, objective: SharedObjective) -> Tensor:
    targets = batch.targets[name]
    return with_background(targets) if objective.background else targets


def _segment_term(outputs: Outputs, batch: Batch, modality: str, valid: Tensor, objective: SharedObjective) -> Tensor:
    logits: Tensor = getattr(outputs, f"{modality}_logits")
    if objective.segment == "kd":
        return distillation_loss(logits, batch.targets[modality], valid)
    targets = _target(batch, modality, objective)
    if objective.segment == "global":
        return video_loss(getattr(outputs, f"{modality}_video_probs"), labels_of_clips(targets, valid))
    weights = objective.balance[modality].weights(batch.weak) if objective.balance else None
    if weights is not None and objective.background:  # which every clip may have
        weights = nn.functional.pad(weights, (0, 1), value=objective.balance[modality].positive)
    return segment_loss(logits, targets, weights=weights, valid=valid)
