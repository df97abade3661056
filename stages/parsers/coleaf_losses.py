"""CoLeaF's losses, each as its code and as its paper has it, and the losses of CMPAE that its anchor brings along.

    CoLeaF: "A Contrastive-Collaborative Learning Framework for Weakly Supervised Audio-Visual Video Parsing",
    ECCV 2024.  Released code: github.com/faeghehsardari/coleaf at a36a153.
    CMPAE: "Collecting Cross-Modal Presence-Absence Evidence", CVPR 2023, whose network is the released anchor.

    paper          here                                          code (`form="code"`) and paper (`form="paper"`)
    L_video^Ref    asymmetric_loss, or losses.video_loss         asymmetric loss, a sum; cross-entropy
    L_Evt (8)      contrastive_loss, event_weights (9-11)        reference asks, positive counted, labels smoothed;
                                                                 anchor asks, positive not counted
    L_SelMo (12)   self_labels, then the loss of L_video^Ref     where p >= 0.5 or 0.6, times the label; where p > 0.5
    L_CoCls (13)   cooccurrence_loss, confident_targets          B / C times the sum, confident targets; the mean
    of CMPAE       evidence, mutual_loss                         the same; not in CoLeaF's paper

Departures.  Clips may be shorter than the batch: seconds count equally within a clip and clips within a batch.
A clip of one second has no other to be told from and adds nothing but, in the code's form, a constant.
Neither tau nor theta is in the paper: both forms use the code's 0.2 and 0.5.  As in the code, features are
L2-normalised before they are compared (`coleaf_objective.py`), of which equation 8 says nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from avvp_pipe.stages.blocks.attention import one_of

__all__ = [
    "Form",
    "asymmetric_loss",
    "confident_targets",
    "contrastive_loss",
    "cooccurrence_loss",
    "event_weights",
    "evidence",
    "evidence_logits",
    "global_uncertainty",
    "mutual_loss",
    "self_labels",
]

Form = Literal["code", "paper"]

_SMALLEST = 1e-8
"""Probabilities are at least this before the logarithm of the asymmetric loss."""
_EVIDENCE_LIMIT, _EVIDENCE_TEMPERATURE = 10.0, 0.8
_TINY = torch.finfo(torch.float32).tiny
_LEAST_UNCERTAINTY = 0.9
"""Of the global branch in the mutual loss."""


def asymmetric_loss(
    probabilities: Tensor, targets: Tensor, *, gammas: tuple[float, float] = (1.0, 1.0), clip: float = 0.05
) -> Tensor:
    """Cross-entropy that makes little of what is right already, summed (not averaged) over clips and classes.

    probabilities, targets (B, C) in [0, 1]; gammas: exponents of the focus where the target is 1 and where it is 0;
    clip: where the target is 0, a probability below it costs nothing.  With q = min(1 - p + clip, 1):
    loss = -sum (1 - p y - q (1 - y))^gamma (y log p + (1 - y) log q), gamma = y gamma+ + (1 - y) gamma-; no gradient
    goes through the focus.  Asymmetric loss (ICCV 2021) as CoLeaF released it: on probabilities, gammas 1 and 1.
    """
    positive, negative = gammas
    probabilities = probabilities.float()
    absent = (1 - probabilities + clip).clamp(max=1)
    entropy = targets * probabilities.clamp(min=_SMALLEST).log() + (1 - targets) * absent.clamp(min=_SMALLEST).log()
    with torch.no_grad():
        right = probabilities * targets + absent * (1 - targets)
        focus = (1 - right) ** (positive * targets + negative * (1 - targets))
    return -(entropy * focus).sum()


def contrastive_loss(
    query: Tensor,
    key: Tensor,
    weights: Tensor | None = None,
    *,
    valid: Tensor | None = None,
    form: Form = "code",
    temperature: float = 0.2,
    smoothing: float = 0.1,
) -> Tensor:
    """How well each second of the query finds the same second of the key among the clip's others.

    query, key (B, T, D), gradients flow into both; weights (B,) or (B, T) >= 0; valid (B, T) bool, None for all.
    With s_tn = query_t . key_n / temperature, the mean over clips of the mean over seconds of
    "code": -w log sum_n q_tn softmax_n(s_t), q = 1 - smoothing at n = t and smoothing / (T - 1) elsewhere;
    "paper" (equation 8): -w (s_tt - log sum_{n != t} exp s_tn), which has no lower bound.
    Who asks is the caller's choice: the reference in the code, the anchor in the paper.
    """
    one_of("form", form, Form)
    batch, segments, _ = query.shape
    if valid is None:
        valid = query.new_ones(batch, segments, dtype=torch.bool)
    itself = torch.eye(segments, dtype=torch.bool, device=query.device)
    others = valid[:, None, :] & ~itself
    scores = _without((query @ key.mT).float() / temperature, ~(others | itself))
    found = (
        _smoothed_log(scores, others, smoothing) if form == "code" else _log_odds_among(scores, others, others.any(-1))
    )
    found = torch.where(valid, found, 0.0)
    if weights is not None:
        found = found * (weights if weights.ndim == 2 else weights[:, None])
    return -(found.sum(dim=1) / valid.sum(dim=1).clamp(min=1)).mean()


def _without(scores: Tensor, left_out: Tensor) -> Tensor:
    return scores.masked_fill(left_out, torch.finfo(scores.dtype).min)


def _smoothed_log(scores: Tensor, others: Tensor, smoothing: float) -> Tensor:
    """Log of the softmax of scores (B, T, T), expected under the smoothed labels -> (B, T)."""
    count = others.sum(dim=2, keepdim=True).clamp(min=1)
    itself = torch.eye(scores.shape[2], device=scores.device)
    expected = itself * (1 - smoothing) + others * (smoothing / count)
    # In logarithms: as the code has it, a sum of products that rounds to zero would be infinite.
    return (scores.log_softmax(dim=2) + expected.clamp(min=_TINY).log()).logsumexp(dim=2)


def _log_odds_among(scores: Tensor, others: Tensor, has_others: Tensor) -> Tensor:
    """Score of the same second against all others together -> (B, T); 0 where there is no other."""
    own = scores.diagonal(dim1=1, dim2=2)
    return torch.where(has_others, own - _without(scores, ~others).logsumexp(dim=2), 0.0)


def event_weights(
    audio: Tensor, visual: Tensor, *, threshold: float = 0.5, form: Form = "code"
) -> tuple[Tensor, Tensor]:
    """Which share of the events heard is not seen, and of those seen is not heard: (B,) and (B,) in [0, 1].

    audio, visual (B, C): the reference's clip probabilities.  An event is there where p >= threshold (paper: >).
    With N_a, N_v, N_av events heard only, seen only, both: N_a / (N_a + N_av) and N_v / (N_v + N_av), 0 where
    there is none.  No gradient flows.  CoLeaF, equations 9 to 11.

    >>> event_weights(torch.tensor([[0.9, 0.9, 0.1]]), torch.tensor([[0.1, 0.9, 0.1]]))
    (tensor([0.5000]), tensor([0.]))
    """
    heard, seen = (_above(each.detach(), threshold, form) for each in (audio, visual))
    both = (heard & seen).sum(dim=1)
    only = ((heard & ~seen).sum(dim=1), (seen & ~heard).sum(dim=1))
    audio_share, visual_share = (one / (one + both).clamp(min=1) for one in only)
    return audio_share, visual_share


def _above(probabilities: Tensor, threshold: float, form: Form) -> Tensor:
    one_of("form", form, Form)
    return probabilities >= threshold if form == "code" else probabilities > threshold


def self_labels(probabilities: Tensor, labels: Tensor, *, threshold: float = 0.5, form: Form = "code") -> Tensor:
    """Pseudo-labels of clips for the reference of one modality, from the anchor: (B, C) in [0, 1], no gradient.

    probabilities (B, C): the anchor's, of that modality; labels (B, C): its (smoothed) weak labels.
    "code": the label where p >= threshold (0.5 for audio, 0.6 for visual), else 0; "paper" (equation 12): 1 where
    p > threshold, else 0, whatever the weak label says.
    """
    above = _above(probabilities.detach(), threshold, form).to(labels.dtype)
    return above * labels if form == "code" else above


def cooccurrence_loss(student: Tensor, teacher: Tensor, *, form: Form = "code") -> Tensor:
    """How far the products of all pairs of class probabilities are from the teacher's.

    student, teacher (B, C) in [0, 1].  "code": sum (R R^T - P P^T)^2 / C * B, where the code's precedence
    multiplies by the batch; "paper" (equation 13 and below): the mean over clips and pairs.
    """
    one_of("form", form, Form)
    batch, classes = student.shape
    apart = (_pairs(teacher) - _pairs(student)) ** 2
    return apart.mean() if form == "paper" else apart.sum() / classes * batch


def _pairs(probabilities: Tensor) -> Tensor:
    return probabilities[:, :, None] * probabilities[:, None, :]


def confident_targets(student: Tensor, teacher: Tensor, labels: Tensor, *, high: float, low: float) -> Tensor:
    """Targets of co-occurrence distillation: the teacher where it is sure, else the student itself; no gradient.

    student, teacher, labels (B, C) in [0, 1].  Where the teacher is >= high or <= low, the target is a mean of
    teacher and student whose weight is the (smoothed) label: so without a label it is the student's own value.
    CoLeaF, released code (0.8 and 0.1 for audio, 0.6 and 0.4 for visual); the paper takes the teacher everywhere.
    """
    student, teacher = student.detach(), teacher.detach()
    share = ((teacher >= high) | (teacher <= low)).to(labels.dtype) * labels
    return share * teacher + (1 - share) * student


def evidence(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Evidence for presence and for absence (..., 2) -> probability and uncertainty (...), both in (0, 1).

    alpha = exp(clamp(logit, -10, 10) / 0.8) + 1; p = alpha_0 / (alpha_0 + alpha_1); u = 2 / (alpha_0 + alpha_1).
    CMPAE, released code, after Subjective Logic.
    """
    alpha = _alpha(logits.float())
    total = alpha.sum(dim=-1)
    return alpha[..., 0] / total, 2 / total


def _alpha(logits: Tensor) -> Tensor:
    return (logits.clamp(-_EVIDENCE_LIMIT, _EVIDENCE_LIMIT) / _EVIDENCE_TEMPERATURE).exp() + 1


def evidence_logits(logits: Tensor) -> Tensor:
    """The logit of `evidence`'s probability, (..., 2) -> (...): log alpha_0 - log alpha_1."""
    alphas = functional.softplus(logits.float().clamp(-_EVIDENCE_LIMIT, _EVIDENCE_LIMIT) / _EVIDENCE_TEMPERATURE)
    return alphas[..., 0] - alphas[..., 1]


def global_uncertainty(logits: Tensor) -> Tensor:
    """Uncertainty of the global branch (B,) in (0, 1) from its logits (B, C), the means over seconds.

    C / sum over classes of (exp(clamp(logit, -10, 10) / 0.8) + 1).  CMPAE, released code.
    """
    return logits.shape[1] / _alpha(logits.float()).sum(dim=1)


def mutual_loss(
    targets: Tensor,
    video: Tensor,
    probabilities: tuple[Tensor, Tensor],
    uncertainties: tuple[Tensor, Tensor],
    video_uncertainty: Tensor,
    *,
    odd: bool,
) -> Tensor:
    """CMPAE's mutual learning between the global branch and the two modalities.

    targets, video (B, C): weak labels and the global branch's probabilities; probabilities, uncertainties: of audio
    and visual, (B, C) each; video_uncertainty (B,), taken as at least 0.9.  odd: number of the batch in its epoch,
    from 0: in odd batches the global branch learns from the modalities, in even ones they learn from it.
    Where the label is on, the modality with the higher probability counts, elsewhere the mean of both.
    The mean over clips and classes of u or 1 - u of the global branch, times 1 - u of the modalities, times the
    squared difference; gradients flow through the uncertainties too.  CMPAE, released code.
    """
    both, unsure = torch.stack(probabilities, dim=-1), torch.stack(uncertainties, dim=-1)
    highest, which = both.max(dim=-1)
    of_highest = unsure.gather(-1, which[..., None])[..., 0]
    weight = video_uncertainty.clamp(min=_LEAST_UNCERTAINTY)[:, None]

    def apart(modalities: Tensor, uncertainty: Tensor) -> Tensor:
        if odd:
            return weight * (1 - uncertainty) * (video - modalities.detach()) ** 2
        return (1 - weight) * (1 - uncertainty) * (video.detach() - modalities) ** 2

    on, off = apart(highest, of_highest), apart(both.mean(dim=-1), unsure.mean(dim=-1))
    return (on * targets + off * (1 - targets)).mean()
