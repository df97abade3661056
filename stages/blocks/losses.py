"""Losses that several methods share: how far a parser is from weak labels and from pseudo-labels.

All are means, never sums, over what is real: clips (B), seconds (T) that are not padding, classes (C).
A method's objective is a sum of these, which the training loop (training.py) reports term by term.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from avvp_pipe.stages.blocks.attention import one_of

__all__ = [
    "BalanceForm",
    "ClassBalance",
    "Mixup",
    "class_balance",
    "distillation_loss",
    "draw_mixup",
    "labels_of_clips",
    "log_of_both",
    "mixup_loss",
    "segment_loss",
    "smoothed",
    "video_loss",
    "with_background",
]

BalanceForm = Literal["code", "paper"]

_EDGE = 1e-7
"""Clip probabilities are kept this far from 0 and 1 before the logarithm (VALOR and UWAV, released code)."""


def video_loss(probabilities: Tensor, weak: Tensor) -> Tensor:
    """Mean binary cross-entropy of clip probabilities (B, C) in [0, 1] and weak labels (B, C), maybe smoothed."""
    clamped = probabilities.float().clamp(_EDGE, 1 - _EDGE)
    labels = weak.to(clamped.dtype)
    # Not torch's own, which stops at NaN, on CUDA for good, before the training loop can say where it came from.
    return -(labels * clamped.log() + (1 - labels) * (-clamped).log1p()).mean()


def smoothed(weak: Tensor, keep: float) -> Tensor:
    """Labels drawn towards one half: keep * y + (1 - keep) / 2, of the shape of `weak`, float32.

    HAN's guided loss, released code: 1.0 for what is heard, 0.9 (y -> 0.95, 0.05) for what is seen; the paper smooths
    both.

    >>> smoothed(torch.tensor([True, False]), 0.9)
    tensor([0.9500, 0.0500])
    """
    return keep * weak.float() + (1 - keep) / 2


def labels_of_clips(targets: Tensor, valid: Tensor) -> Tensor:
    """Dense labels (B, T, C) in [0, 1] reduced to their clip's: the highest over real seconds, (B, C).

    Global VALOR (NeurIPS 2023, section 5): such labels supervise what is pooled of each modality.
    """
    return targets.masked_fill(~valid[:, :, None], 0).amax(dim=1)


def with_background(targets: Tensor) -> Tensor:
    """(B, T, C) in [0, 1] -> (B, T, C + 1): last, how sure it is that nothing else is on, 1 - the highest.

    VALOR's AVE (NeurIPS 2023, appendix F) for hard labels: 1 where no class fires. Ours for soft ones.
    """
    return torch.cat((targets, 1 - targets.amax(dim=2, keepdim=True)), dim=2)


def distillation_loss(logits: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """KL(q || q_m), q_m the softmax over classes of the logits: summed over classes, mean over real seconds.

    logits (B, T, C); teacher (B, T, C), q, which adds up to one over classes; valid (B, T) bool. VALOR (NeurIPS 2023)
    eq. 8, which sums over seconds; the mean keeps it beside the other terms, as the released code has those.
    """
    return functional.kl_div(logits[valid].log_softmax(dim=1), teacher[valid], reduction="batchmean")


def segment_loss(
    logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    """Mean, over real seconds and classes, of the weighted binary cross-entropy with logits.

    logits (B, T, C); targets (B, T, C) in [0, 1] or bool; weights (B, C), as `ClassBalance.weights` gives
    them; valid (B, T) bool leaves out padding, whose targets may then be anything, NaN too.
    UWAV (CVPR 2025) and VALOR (NeurIPS 2023), released code; the papers write sums over time.
    """
    spread = None if weights is None else weights[:, None].to(logits.dtype).expand_as(logits)
    if valid is not None:
        logits, targets = logits[valid], targets[valid]
        spread = None if spread is None else spread[valid]
    return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), weight=spread)


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """How much more a clip's own classes count in the segment loss than the others."""

    positive: float
    """Weight of the cells whose class the weak label names."""
    negative: float
    """Weight of all other cells."""

    def weights(self, weak: Tensor) -> Tensor:
        """Weak labels (B, C) -> weights (B, C): `positive` where the class is named, else `negative`."""
        return torch.where(weak.bool(), self.positive, self.negative)


def class_balance(
    hard: Tensor, *, valid: Tensor | None = None, strength: float = 0.5, form: BalanceForm = "code"
) -> ClassBalance:
    """Weights against the rarity of positive cells, from the hard labels of a training split.

    hard (N, T, C) bool or 0/1; valid (N, T) bool.  With f the sum over classes of the share of seconds in
    which a class is on: positive = strength (C - f), negative = f, as UWAV released it.
    form="paper" (UWAV eqs. 17-19): shares of all cells, both weights C times smaller; the ratio is equal.

    >>> class_balance(torch.tensor([[[1, 0], [1, 0], [0, 0], [0, 0]]]))
    ClassBalance(positive=0.75, negative=0.5)
    """
    one_of("form", form, BalanceForm)
    seconds = hard.flatten(0, 1) if valid is None else hard[valid]
    if not seconds.numel():
        raise ValueError(f"class balance needs labelled seconds, but hard labels {tuple(hard.shape)} hold none")
    classes = seconds.shape[1]
    on = seconds.double().mean(dim=0).sum().item()
    scale = 1.0 if form == "code" else 1.0 / classes
    return ClassBalance(positive=scale * strength * (classes - on), negative=scale * on)


@dataclass(frozen=True, slots=True)
class Mixup:
    """One draw of mixup: each segment is blended with the one that the permutation puts at its place."""

    share: float
    """Lambda, in [0, 1]: how much of the segment itself is kept."""
    permutation: Tensor
    """(M,) int64."""


def draw_mixup(segments: int, *, alpha: float = 1.7) -> Mixup:
    """Draw lambda ~ Beta(alpha, alpha) and a permutation of M = `segments`, from torch's global generator.

    UWAV (CVPR 2025), released code: one draw per modality and batch.
    """
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    return Mixup(share, torch.randperm(segments))


def mixup_loss(features: Tensor, targets: Tensor, mixup: Mixup, classifier: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean binary cross-entropy of the classifier on blended segments against both of their labels.

    features (M, D) of all real seconds of a batch, taken *after* attention, gradients flow; targets (M, C)
    in [0, 1]; classifier maps (M, D) to logits (M, C) and is the parser's own.
    f' = lam f_i + (1 - lam) f_j;  loss = lam BCE(h(f'), t_i) + (1 - lam) BCE(h(f'), t_j).
    UWAV, full paper and released code; its short paper places mixup on the generator's features instead.
    """
    if mixup.permutation.shape != features.shape[:1] or targets.shape[:1] != features.shape[:1]:
        raise ValueError(
            f"mixup of {features.shape[0]} segments needs as many labels and a permutation of as many, but "
            f"{tuple(targets.shape) = } and {tuple(mixup.permutation.shape) = }"
        )
    other = mixup.permutation.to(features.device)
    logits = classifier(mixup.share * features + (1 - mixup.share) * features[other])
    own = functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))
    others = functional.binary_cross_entropy_with_logits(logits, targets[other].to(logits.dtype))
    return mixup.share * own + (1 - mixup.share) * others


def log_of_both(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of p and of 1 - p, where p is the product of two sigmoids, from their logits; any one shape.

    log p = log s(a) + log s(b), and log(1 - p) = log p + log(e^-a + e^-b + e^-(a+b)); neither saturates.
    """
    log_both = functional.logsigmoid(first) + functional.logsigmoid(second)
    return log_both, log_both + torch.stack((-first, -second, -first - second)).logsumexp(dim=0)
