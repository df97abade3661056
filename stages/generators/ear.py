"""EAR's generator: labels of what is heard and what is seen, and a loss that teaches each modality by itself.

    "EAR: Enhancing Uni-Modal Representations for Weakly Supervised Audio-Visual Video Parsing",
    arXiv:2605.08723 (May 2026).  No code was released.

The network is UWAV's (`uwav.py`).  UWAV learns only from what is heard *and* seen; EAR adds two things.  Labels
migrate, in each modality, to the other seconds of a video that sound, or look, nearly the same.  And each modality's
trained ("dynamic") branch is paired with the *other* modality's frozen ("static") teacher, so that it cannot
lean on the other's training::

    frozen CLAP (B, T, Da) -> transformer -> dynamic audio  --x-- static visual <- frozen CLIP
    frozen CLIP (B, T, Dv) -> transformer -> dynamic visual --x-- static audio  <- frozen CLAP

    paper        here                       shape
    f            features                   (B, T, D)   CLAP or CLIP features, frozen
    Y_av         labels                     (B, T, C)   heard and seen
    Y_a, Y_v     `migrated_labels`          (B, T, C)   in [0, 1]
    P^d, P^s     sigmoid of dynamic, static (B, T, C)
    L            sum of `asymmetric_loss`   ()

The paper's text that could be had lacks its formulas; what they say is read from the prose.  Each reading, how sure
it is, and its switch:

    Eqs. 1-2, S-17 to S-21  migration as `migrated_labels` says: high, the supplement describes each step
    Eq. 1   segments are compared within their video: fair; the text also says "segments in a batch" (`across`)
    Eq. 1   similar means above the threshold, not at it: immaterial (`strict`)
    4-A     0.98 for audio, 0.95 for vision: high, Table S-XVIII (`threshold`)
    S-20    where nothing is similar the label is 0: certain
    Eqs. 4-5  logits are scaled as in UWAV's release, by the log scale; with its exponential the static
            probabilities saturate at 1 and nothing is asymmetric any more: fair (`scale`; `Network.scales`)
    Eq. 5   the static branch is the frozen feature, without parameters or gradient: high
    Eqs. 6-7  both probabilities are multiplied, as in UWAV: fair (`combine`)
    Eq. 8   four terms, mean binary cross-entropies; the two audio-visual ones weigh 1: high
    Eq. 8   0.05 belongs to audio and 0.15 to vision: low, Table S-XIX can be read either way; choose on
            validation (`audio_weight`, `visual_weight`)
    Eq. 8   classes that occur in a clip weigh 5 in the audio-visual terms, as in UWAV's release, and 1 in the
            uni-modal ones: fair (`present_weight`, `unimodal_present_weight`)
    Eq. 3   sizes, dropout, projections: UWAV's release, the paper being silent (`uwav.Network`)

Departures: cosines above 1 by rounding count as 1, so that labels stay in [0, 1]; padding takes part in nothing.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from avvp_pipe.stages.blocks.attention import one_of, valid_mask
from avvp_pipe.stages.blocks.losses import log_of_both

__all__ = [
    "AUDIO_SIMILARITY",
    "VISUAL_SIMILARITY",
    "Across",
    "Combine",
    "asymmetric_loss",
    "migrated_labels",
    "static_logits",
]

Across = Literal["video", "batch"]
Combine = Literal["product", "min", "mean", "geometric"]
LogPair = tuple[Tensor, Tensor]
"""Logarithms of a probability and of what it lacks to 1."""

AUDIO_SIMILARITY = 0.98
"""Cosine above which two seconds sound alike (section IV-A)."""
VISUAL_SIMILARITY = 0.95
"""Cosine above which two seconds look alike."""


def migrated_labels(
    features: Tensor,
    labels: Tensor,
    lengths: Tensor,
    *,
    threshold: float,
    strict: bool = True,
    across: Across = "video",
) -> Tensor:
    """Spread audio-visual labels to the seconds that are nearly the same in one modality.

    features (B, T, D): frozen, of any norm; labels (B, T, C) bool or 0/1, heard and seen; lengths (B,) real seconds:
    what lies beyond may be anything, NaN too. Returns (B, T, C) float32 in [0, 1]: 1 where `labels` are on, else the
    mean cosine to the seconds above `threshold` whose label is on, 0 without one and in padding; no gradient.
    strict: whether a cosine has to be above the threshold, or may be at it. across: whether seconds are compared
    with those of their own "video" or with all of the "batch". Raises ValueError where shapes or settings do not fit.

    EAR Eqs. 1-2 and S-17 to S-21: Y' = (M * S) Y_av / (M Y_av), Y = max(Y', Y_av), with S the cosines and
    M = [S > threshold].

    >>> seconds = torch.tensor([[[1.0, 0.0], [0.96, 0.28], [0.0, 1.0]]])
    >>> labels = torch.tensor([[[True], [False], [False]]])
    >>> migrated_labels(seconds, labels, torch.tensor([3]), threshold=0.95).flatten()
    tensor([1.0000, 0.9600, 0.0000])
    """
    one_of("across", across, Across)
    if features.shape[:2] != labels.shape[:2] or lengths.shape != labels.shape[:1] or not -1 <= threshold <= 1:
        raise ValueError(
            "label migration wants features (B, T, D), labels (B, T, C), lengths (B,) and a cosine in [-1, 1], but "
            f"{tuple(features.shape) = }, {tuple(labels.shape) = }, {tuple(lengths.shape) = } and {threshold = }"
        )
    valid = valid_mask(lengths, labels.shape[1])
    truth = (labels.to(torch.bool) & valid[:, :, None]).float()
    frozen = features.detach().float().masked_fill(~valid[:, :, None], 0)
    if across == "video":
        return _migrated(frozen, truth, threshold, strict=strict)
    return _migrated(frozen.flatten(0, 1)[None], truth.flatten(0, 1)[None], threshold, strict=strict).view_as(truth)


def _migrated(features: Tensor, truth: Tensor, threshold: float, *, strict: bool) -> Tensor:
    """(B, T, C): labels of seconds, migrated among those of a row; features and labels of padding are all 0."""
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        unit = functional.normalize(features, dim=2)
        cosine = unit @ unit.mT
        similar = cosine > threshold if strict else cosine >= threshold
        total = (cosine * similar) @ truth
        matches = similar.float() @ truth
        return torch.maximum(total / matches.clamp(min=1), truth).clamp(max=1)


def static_logits(features: Tensor, text: Tensor, scale: float | Tensor) -> Tensor:
    """What the frozen teacher says of each second by itself: scale * cosine, (B, T, C) float32, without gradient.

    features (B, T, D): of any norm; what is NaN stays NaN; text (C, D): L2-normalised; scale: the number itself that
    multiplies, which in UWAV's release is the *logarithm* of the teacher's scale.  EAR Eq. 5, before the sigmoid.
    """
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        return functional.normalize(features.float(), dim=-1) @ text.float().T * scale


def asymmetric_loss(
    dynamic: tuple[Tensor, Tensor],
    static: tuple[Tensor, Tensor],
    labels: Tensor,
    migrated: tuple[Tensor, Tensor],
    lengths: Tensor,
    *,
    audio_weight: float = 0.05,
    visual_weight: float = 0.15,
    present_weight: float = 5.0,
    unimodal_present_weight: float = 1.0,
    combine: Combine = "product",
) -> dict[str, Tensor]:
    """Four terms whose sum is EAR's objective (Eq. 8).

    audio_dynamic   BCE(dynamic audio x static visual, labels)    audio    audio_weight  BCE(dynamic audio, migrated)
    visual_dynamic  BCE(dynamic visual x static audio, labels)    visual   visual_weight BCE(dynamic visual, migrated)

    dynamic, static, migrated: (audio, visual), each (B, T, C); the first two are logits, the last in [0, 1]; static
    gets no gradient. labels (B, T, C) bool or 0/1, heard and seen. lengths (B,): padding may be anything, NaN too.
    Each term is a mean over real seconds and classes, in which the cells of classes that occur in the clip weigh
    `present_weight`, in the uni-modal terms (by the migrated label) `unimodal_present_weight`, and the others 1.
    combine: how two probabilities make one (Eqs. 6-7). Computed from logits; nothing saturates.
    """
    one_of("combine", combine, Combine)
    valid = valid_mask(lengths, labels.shape[1])
    truth = labels.to(torch.bool)
    audio, visual = (each[valid].float() for each in dynamic)
    heard, seen = (each.detach()[valid].float() for each in static)
    weights = _present(truth, valid, present_weight)
    terms = {
        "audio_dynamic": _entropy(_combined(audio, seen, combine), truth[valid], weights),
        "visual_dynamic": _entropy(_combined(visual, heard, combine), truth[valid], weights),
    }
    for name, logits, target, share in (
        ("audio", audio, migrated[0], audio_weight),
        ("visual", visual, migrated[1], visual_weight),
    ):
        own = _present(target > 0, valid, unimodal_present_weight)
        terms[name] = share * _entropy(_alone(logits), target[valid], own)
    return terms


def _present(occurs: Tensor, valid: Tensor, weight: float) -> Tensor:
    """(cells, C): `weight` for classes that occur anywhere in the clip, 1 for the others; one row a real second."""
    present = (occurs & valid[:, :, None]).any(dim=1, keepdim=True).expand_as(occurs)
    return torch.where(present[valid], weight, 1.0)


def _entropy(logs: LogPair, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean binary cross-entropy from the logarithms of p and 1 - p."""
    log_on, log_off = logs
    share = targets.to(log_on.dtype)
    return -((share * log_on + (1 - share) * log_off) * weights).mean()


def _alone(logits: Tensor) -> LogPair:
    return functional.logsigmoid(logits), functional.logsigmoid(-logits)


def _combined(first: Tensor, second: Tensor, combine: Combine) -> LogPair:
    """Two logits -> log p and log(1 - p) of both at once.

    Of the geometric mean g, 1 - g = (1 - g^2) / (1 + g).
    """
    if combine == "min":
        return _alone(torch.minimum(first, second))
    if combine == "mean":
        (on, off), (other_on, other_off) = _alone(first), _alone(second)
        return torch.logaddexp(on, other_on) - math.log(2), torch.logaddexp(off, other_off) - math.log(2)
    both, not_both = log_of_both(first, second)
    if combine == "product":
        return both, not_both
    return both / 2, not_both - functional.softplus(both / 2)
