"""What CoLeaF minimises, batch by batch: references first, then the anchor, which learns from them.

    reference audio   weak label, class tokens, self-modality distillation from the anchor   -> step
    reference visual  the same                                                               -> step
    anchor            its own losses, event-aware contrastive, co-occurrence distillation,
                      from what the references say *after* their steps, without gradient      -> step

    CoLeaF (ECCV 2024) and its released code (github.com/faeghehsardari/coleaf at a36a153).

    part                     form="code"                                form="paper"
    labels                   audio y, visual 0.9 y + 0.05, denoised     y
    reference                asymmetric loss (a sum over the batch)     cross-entropy (a mean)
      weights, epochs 1-3    clip 1, tokens 1.2 audio, 1 visual         all 1, from the first epoch
      weights, from 4        clip 0.5, tokens 0.001 audio, 0 visual,
                             self-modality 0.5
    self-modality            p >= 0.5 audio, 0.6 visual, times label    p > 0.5
    anchor's own             2 audio + 1 visual + 2 video + 1 NCE of    "han": cross-entropy of video; "cmpae": CMPAE's
                             audio and visual + 1 mutual                losses as released (left column), labels y
    contrastive, co-occ.     from epoch 2                               from the first epoch
      contrastive            0.009 audio, 1 visual; reference asks      1 and 1; anchor asks, positive left out
      co-occurrence          1e-4; confident targets                    1; the reference everywhere

Departures.  The paper's L_anch = BCE(y, p) would leave the evidence heads of its anchor CMPAE without labels,
so that "cmpae" keeps its own losses in the paper's form too.  The anchor "han" has no uncertainties, hence no mutual
loss.  The release runs the anchor for self-modality labels in all epochs, and for denoising without ratios too;
here only where they are used.  The paper gives its terms no weights: all are 1.
Ours: where labels of seconds come (CoLeaF's Table 7, VALOR's labels; not released), their cross-entropy is
added to the anchor's loss (`objectives.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from avvp_pipe.stages.blocks.attention import one_of, valid_mask
from avvp_pipe.stages.blocks.losses import video_loss
from avvp_pipe.stages.parsers.coleaf_anchor import Anchored
from avvp_pipe.stages.parsers.coleaf_labels import NoiseWarmup, denoised, modality_labels, noise_ratios, noise_share
from avvp_pipe.stages.parsers.coleaf_losses import (
    Form,
    asymmetric_loss,
    confident_targets,
    contrastive_loss,
    cooccurrence_loss,
    event_weights,
    mutual_loss,
    self_labels,
)
from avvp_pipe.stages.parsers.coleaf_reference import Modality, Referred
from avvp_pipe.stages.parsers.objectives import SharedObjective, shared_terms
from avvp_pipe.stages.parsers.records import Batch, Moment, Terms

if TYPE_CHECKING:
    from avvp_pipe.stages.parsers.coleaf import CoLeaF

__all__ = ["Contrastive", "Switches", "terms"]

Contrastive = Literal["event", "plain", "off"]
MODALITIES: tuple[Modality, Modality] = ("audio", "visual")
_EARLY_EPOCHS = 3
_EDGE = 1e-7


@dataclass(frozen=True, slots=True)
class Switches:
    """Which form of CoLeaF, and which of its parts."""

    form: Form = "code"
    """As released, or as the paper has it."""
    contrastive: Contrastive = "event"
    """"event": weighed by the events of one modality only; "plain": all clips alike (Table 2, L_NCE); "off"."""
    self_distillation: bool = True
    """Whether the references learn from the anchor (Table 3)."""
    cooccurrence: bool = True
    """Whether the anchor learns products of class probabilities from the references (Table 4)."""
    audio_noise: str = ""
    """Noise ratios of the audio labels, a number a class with spaces between; empty: no denoising. Code only."""
    visual_noise: str = ""
    """Likewise of the visual labels."""
    noise_warmup: NoiseWarmup = "code"
    segment_weight: float = 1.0
    """Of the cross-entropy of seconds, where there are labels for them."""

    def __post_init__(self) -> None:
        one_of("form", self.form, Form)
        one_of("contrastive", self.contrastive, Contrastive)
        one_of("noise_warmup", self.noise_warmup, NoiseWarmup)
        if self.form == "paper" and (self.audio_noise or self.visual_noise):
            raise ValueError("CoLeaF's paper does not denoise labels; leave the noise ratios out, or take form=code")


@dataclass(frozen=True, slots=True)
class _Reference:
    """Weights of a reference's terms."""

    video: float
    tokens: float
    self_modality: float


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the two modalities do not share, in the released code."""

    early: _Reference
    late: _Reference
    self_threshold: float
    own: float
    contrastive: float
    confident: tuple[float, float]
    """At or above, at or below."""


_CODE: dict[Modality, _Settings] = {
    "audio": _Settings(_Reference(1.0, 1.2, 0.0), _Reference(0.5, 0.001, 0.5), 0.5, 2.0, 0.009, (0.8, 0.1)),
    "visual": _Settings(_Reference(1.0, 1.0, 0.0), _Reference(0.5, 0.0, 0.5), 0.6, 1.0, 1.0, (0.6, 0.4)),
}
_PAPER = _Reference(1.0, 1.0, 1.0)
_VIDEO, _COOCCURRENCE = 2.0, 1e-4
"""Of the anchor, released code."""


def terms(model: CoLeaF, batch: Batch, moment: Moment, switches: Switches) -> Iterator[tuple[str, Terms]]:
    """Each group's weighted terms, the anchor's only when asked for after the references' steps.

    model in training mode; batch.targets may be empty.  Groups: reference_audio, reference_visual, anchor.
    """
    labels = _labels(model, batch, moment, switches)
    guides = _guides(model, batch, labels, moment, switches)
    for modality in MODALITIES:
        said = model.reference(modality)(batch.streams, batch.lengths)
        yield f"reference_{modality}", _reference_terms(modality, said, labels[modality], guides, moment, switches)
    yield "anchor", _anchor_terms(model, batch, labels, moment, switches)


def _labels(model: CoLeaF, batch: Batch, moment: Moment, switches: Switches) -> dict[Modality, Tensor]:
    """Clip labels of each modality, (B, C)."""
    if switches.form == "paper":
        return dict.fromkeys(MODALITIES, batch.weak.float())
    labels = modality_labels(batch.weak)
    share, classes = noise_share(moment, switches.noise_warmup), batch.weak.shape[1]
    found = [noise_ratios(text, classes) for text in (switches.audio_noise, switches.visual_noise)]
    ratios = [None if each is None else share * each for each in found]
    if share and any(each is not None for each in ratios):
        with torch.no_grad():
            alone = model.anchor(batch.streams, batch.lengths, cross=False).outputs
        probabilities = alone.audio_video_probs, alone.visual_video_probs
        labels = denoised(labels, probabilities, (ratios[0], ratios[1]))
    return dict(zip(MODALITIES, labels, strict=True))


def _guides(
    model: CoLeaF, batch: Batch, labels: dict[Modality, Tensor], moment: Moment, switches: Switches
) -> dict[Modality, Tensor]:
    """The anchor's pseudo-labels for the references, equation 12; empty where they do not count yet."""
    if not switches.self_distillation or (switches.form == "code" and moment.epoch <= _EARLY_EPOCHS):
        return {}
    with torch.no_grad():
        said = model.anchor(batch.streams, batch.lengths).outputs
    code = switches.form == "code"
    return {
        modality: self_labels(
            getattr(said, f"{modality}_video_probs"),
            labels[modality],
            threshold=_CODE[modality].self_threshold if code else 0.5,
            form=switches.form,
        )
        for modality in MODALITIES
    }


def _reference_terms(
    modality: Modality,
    said: Referred,
    labels: Tensor,
    guides: dict[Modality, Tensor],
    moment: Moment,
    switches: Switches,
) -> Terms:
    code = switches.form == "code"
    settings = _CODE[modality]
    weights = (settings.early if moment.epoch <= _EARLY_EPOCHS else settings.late) if code else _PAPER
    loss: Callable[[Tensor, Tensor], Tensor] = asymmetric_loss if code else video_loss
    found = {f"reference_{modality}": weights.video * loss(said.video_probs, labels)}
    if said.class_probs is not None and weights.tokens:
        found[f"tokens_{modality}"] = weights.tokens * loss(said.class_probs, labels)
    if guides:
        found[f"self_{modality}"] = weights.self_modality * loss(said.video_probs, guides[modality])
    return found


def _anchor_terms(
    model: CoLeaF, batch: Batch, labels: dict[Modality, Tensor], moment: Moment, switches: Switches
) -> Terms:
    said: Anchored = model.anchor(batch.streams, batch.lengths)
    valid = valid_mask(batch.lengths, said.outputs.audio_logits.shape[1])
    found = _own_terms(said, batch, labels, valid, moment, switches)
    for name, value in shared_terms(model, said.outputs, batch, SharedObjective(video="none")).items():
        found[name] = switches.segment_weight * value
    if moment.epoch == 1 and switches.form == "code":
        return found
    if switches.contrastive == "off" and not switches.cooccurrence:
        return found
    with torch.no_grad():
        referred = {each: model.reference(each)(batch.streams, batch.lengths) for each in MODALITIES}
    if switches.contrastive != "off":
        found |= _contrastive_terms(said, referred, valid, switches)
    if switches.cooccurrence:
        found |= _cooccurrence_terms(said, referred, labels, switches)
    return found


def _own_terms(
    said: Anchored,
    batch: Batch,
    labels: dict[Modality, Tensor],
    valid: Tensor,
    moment: Moment,
    switches: Switches,
) -> dict[str, Tensor]:
    """The losses that the anchor has without references."""
    outputs, unsure = said.outputs, said.uncertainties
    if switches.form == "paper" and unsure is None:
        return {"video": video_loss(outputs.video_probs, batch.weak)}
    clips = tuple(each.float().clamp(_EDGE, 1 - _EDGE) for each in outputs[:3])
    found = {
        "audio": _CODE["audio"].own * video_loss(clips[1], labels["audio"]),
        "visual": _CODE["visual"].own * video_loss(clips[2], labels["visual"]),
        "video": _VIDEO * video_loss(clips[0], batch.weak),
        "nce": contrastive_loss(_unit(outputs.audio_features), _unit(outputs.visual_features), valid=valid),
    }
    if unsure is not None:
        odd = bool(_batch_of_epoch(moment) % 2)
        found["mutual"] = mutual_loss(
            batch.weak.float(), clips[0], (clips[1], clips[2]), (unsure.audio, unsure.visual), unsure.video, odd=odd
        )
    return found


def _contrastive_terms(
    said: Anchored, referred: dict[Modality, Referred], valid: Tensor, switches: Switches
) -> dict[str, Tensor]:
    """Equation 8 and its released form."""
    code, form = switches.form == "code", switches.form
    weights: tuple[Tensor | None, Tensor | None] = (None, None)
    if switches.contrastive == "event":
        weights = event_weights(*(referred[each].video_probs for each in MODALITIES), form=form)
    found = {}
    for modality, weight in zip(MODALITIES, weights, strict=True):
        anchor, reference = _unit(getattr(said.outputs, f"{modality}_features")), _unit(referred[modality].features)
        query, key = (reference, anchor) if code else (anchor, reference)
        scale = _CODE[modality].contrastive if code else 1.0
        found[f"contrastive_{modality}"] = scale * contrastive_loss(query, key, weight, valid=valid, form=form)
    return found


def _cooccurrence_terms(
    said: Anchored, referred: dict[Modality, Referred], labels: dict[Modality, Tensor], switches: Switches
) -> dict[str, Tensor]:
    """Equation 13 and its released form."""
    found = {}
    for modality in MODALITIES:
        student, teacher = getattr(said.outputs, f"{modality}_video_probs"), referred[modality].video_probs
        scale = 1.0
        if switches.form == "code":
            high, low = _CODE[modality].confident
            student, scale = student.float().clamp(_EDGE, 1 - _EDGE), _COOCCURRENCE
            teacher = confident_targets(student, teacher, labels[modality], high=high, low=low)
        found[f"cooccurrence_{modality}"] = scale * cooccurrence_loss(student, teacher, form=switches.form)
    return found


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features, dim=-1)


def _batch_of_epoch(moment: Moment) -> int:
    """Number of the batch in its epoch, from 0: batches so far over epochs so far is batches an epoch."""
    epochs = moment.epoch - 1 + moment.progress
    return round(moment.progress * moment.step / epochs) if epochs else 0
