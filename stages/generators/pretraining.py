"""What a temporal generator is pre-trained on, and how far it is from it: the objectives of UWAV and of EAR.

    features, audio-visual labels of a batch of clips, cut to its longest -> named terms of the loss

UWAV: one term, the cross-entropy of both probabilities' product (`uwav.audio_visual_loss`).  EAR: four, on labels
that migrate within each modality (`ear.asymmetric_loss`).  Migrated labels and the frozen teachers' logits are
computed batch by batch: both are under one percent of a step, and kept for all clips they would fill the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from avvp_pipe.stages.blocks.attention import valid_mask
from avvp_pipe.stages.blocks.device import Precision, autocast
from avvp_pipe.stages.generators.ear import (
    AUDIO_SIMILARITY,
    VISUAL_SIMILARITY,
    Across,
    Combine,
    asymmetric_loss,
    migrated_labels,
    static_logits,
)
from avvp_pipe.stages.generators.pretraining_clips import Clips
from avvp_pipe.stages.generators.uwav import TemporalGenerator, audio_visual_loss, audio_visual_probability
from avvp_pipe.stages.metrics import avvp_scores

__all__ = ["Asymmetric", "Objective", "audio_visual_f", "ear_objective", "uwav_objective"]

Objective = Callable[[Tensor], dict[str, Tensor]]
"""Rows of a batch (b,) int64, on the CPU -> named terms of the loss."""
DECISION = 0.5
CLIPS_AT_ONCE = 256


def uwav_objective(
    model: TemporalGenerator, clips: Clips, *, present_weight: float = 5.0, precision: Precision = "fp32"
) -> Objective:
    """UWAV's loss: one term, `audio_visual`."""

    def terms(rows: Tensor) -> dict[str, Tensor]:
        batch = clips.batch(rows)
        heard, seen, lengths = _logits(model, batch, precision)
        return {"audio_visual": audio_visual_loss(heard, seen, batch.labels, lengths, present_weight=present_weight)}

    return terms


@dataclass(frozen=True, slots=True)
class Asymmetric:
    """EAR's switches; `ear.py` says at its head where each comes from and how sure it is."""

    audio_similarity: float = AUDIO_SIMILARITY
    visual_similarity: float = VISUAL_SIMILARITY
    similar: Literal["above", "at-least"] = "above"
    migrate_across: Across = "video"
    audio_weight: float = 0.05
    visual_weight: float = 0.15
    present_weight: float = 5.0
    unimodal_present_weight: float = 1.0
    combine: Combine = "product"


def ear_objective(
    model: TemporalGenerator, clips: Clips, switches: Asymmetric, *, precision: Precision = "fp32"
) -> Objective:
    """EAR's loss: four terms, as `ear.asymmetric_loss` names them."""

    def terms(rows: Tensor) -> dict[str, Tensor]:
        batch = clips.batch(rows)
        *dynamic, lengths = _logits(model, batch, precision)
        migrated = [
            migrated_labels(
                features,
                batch.labels,
                lengths,
                threshold=threshold,
                strict=switches.similar == "above",
                across=switches.migrate_across,
            )
            for features, threshold in (
                (batch.audio, switches.audio_similarity),
                (batch.visual, switches.visual_similarity),
            )
        ]
        return asymmetric_loss(
            _pair(dynamic),
            (
                static_logits(batch.audio, batch.text_audio, model.audio.factor()),
                static_logits(batch.visual, batch.text_visual, model.visual.factor()),
            ),
            batch.labels,
            _pair(migrated),
            lengths,
            audio_weight=switches.audio_weight,
            visual_weight=switches.visual_weight,
            present_weight=switches.present_weight,
            unimodal_present_weight=switches.unimodal_present_weight,
            combine=switches.combine,
        )

    return terms


def _pair(both: Any) -> tuple[Tensor, Tensor]:
    audio, visual = both
    return audio, visual


def _logits(model: TemporalGenerator, batch: Clips, precision: Precision) -> tuple[Tensor, Tensor, Tensor]:
    """Audio and visual logits (B, T, C) float32, and the lengths on the model's device."""
    lengths = batch.lengths.to(batch.audio.device)
    with autocast(batch.audio.device, precision):
        heard, seen = model(batch.audio, batch.visual, batch.text_audio, batch.text_visual, lengths)
    return heard.float(), seen.float(), lengths


def audio_visual_f(model: TemporalGenerator, clips: Clips, *, precision: Precision = "fp32") -> float:
    """Segment-level audio-visual F, in percent, of "the product of both probabilities is at least 0.5".

    UWAV's released selection (UnAV-100 in the AVVP protocol); EAR's trained branches, which the labels are made of,
    are taken likewise. The model is as it is: in eval mode, or not. Clips of similar length are parsed together.
    """
    truth = clips.labels.cpu().numpy()
    called = np.zeros_like(truth)
    for rows in torch.split(clips.lengths.argsort(stable=True), CLIPS_AT_ONCE):
        batch = clips.batch(rows)
        heard, seen, lengths = _logits(model, batch, precision)
        valid = valid_mask(lengths, batch.audio.shape[1])[:, :, None]
        on = (audio_visual_probability(heard, seen) >= DECISION) & valid
        called[rows.numpy(), : on.shape[1]] = on.cpu().numpy()
    # Heard and seen alike, so that the product is what it is.
    return avvp_scores(called, called, truth, truth, lengths=clips.lengths.numpy())["segment"]["AV"]
