"""EAR's parser: fusion that keeps each modality its own, and relations between events.

    "EAR: Enhancing Uni-Modal Representations for Weakly Supervised Audio-Visual Video Parsing",
    arXiv:2605.08723 (May 2026), section III-C.  No code was released.

::

    audio, visual --W--> temporal layers --> dynamic --+             +--> D_a --+              +--> classifier -> logits
                                                       +--> Q_a, Q_v-+          +--> relations-+
    audio, visual --W'---------------------> static  --+             +--> D_v --+              +--> MMIL -> clip
                         AMDF, Eqs. 10-12                 Eqs. 13-14     ERM, Eq. 15

    paper        here                                              shape
    H^d, H^s     dynamic, static streams                           (B, T, D)
    Q_a, Q_v     what `fusion` gives                               (B, T, D)
    D_a, D_v     event features, of `decoder` and of `relations`   (B, T, C, E)
    p_a, p_v, p  as in `han.py`                                    (B, T, C), (B, C)

The paper's text that could be had lacks its formulas; what they say is read from the prose.  Each reading, how sure it
is, and its switch in `Network` (`ear_network.py`):

    Eq. 10  H^d comes of self-attention over time, one stack a modality; H^s of a projection: high
    Eq. 10  H^s has a projection of its own: fair (`static_projection`)
    Eq. 10  W is one Linear layer, pictures and motion side by side as in UWAV: low (`audio_projection`,
            `visual_fusion`)
    Eqs. 11-12  dynamic queries, static keys and values of the other modality, then FFN: certain, the text says so
    Eqs. 11-12  residuals and norms around both parts: fair (`fusion_residual`); norms follow the sums: low (`norm`)
    4-A     width, heads, FFN, depth and dropout are UWAV's release, the paper being silent: low (sizes)
    Eqs. 13-14  each modality attends to the other, residual, one attention for both: fair (`aggregate`)
    Eqs. 13-14  event features are made for each second and class by a Linear: fair (`decode`); one for both
            modalities: low (`shared_decoder`); E = 64: low (`event_width`; with 1 and `kernel=3`, maps over time)
    Eq. 15  within modalities and across them by turns, L = 3: certain (`relations`, `relation_layers`)
    Eq. 15  conv, adjacency, batch norm, LeakyReLU: certain; in this order: fair
    Eq. 15  the convolution sees one second, all modelling over time being AMDF's: low (`kernel`)
    Eq. 15  a residual around each G: fair (`relation_residual`)
    Eq. 15  batch norm over each channel, whatever the event: low (`batch_norm`); slope 0.01, torch's: low (`slope`)
    Eq. 15  adjacencies are learnt, layer by layer: high; from the identity and a little noise: low
            (`adjacency_noise`; `from_co_occurrence` starts them from weak labels)
    after   one classifier for both modalities: high, MMIL and mixup need it; of each class's own E numbers: low
            (`classifier`)

What the tables remove: "without AMDF" (`fusion="none"`) no second sees another before Eq. 13, since the text calls
AMDF the temporal modelling; "without ERM" (`relations="none"`) leaves out Eqs. 13-15 and classifies Q.
The loss is UWAV's, of EAR's labels (Eq. 16, S-22 to S-28).

Departures: padding takes part in nothing, batch norm's mean and variance included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.attention import attention_mask, valid_mask
from avvp_pipe.stages.blocks.pooling import AttentivePooling, ClipProbabilities
from avvp_pipe.stages.parsers.ear_blocks import EventDecoder, EventRelations, Relation, fusion_of
from avvp_pipe.stages.parsers.ear_network import Network
from avvp_pipe.stages.parsers.inputs import VisualInput, audio_input, one_a_second
from avvp_pipe.stages.parsers.records import GateSettings, Outputs, ParserMethod, Streams

__all__ = ["METHOD", "Ear", "EventClassifier", "Network", "from_co_occurrence"]


class Ear(nn.Module):
    """The parser."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.dynamic_in = _Inputs(network)
        reads_static = network.fusion == "asymmetric" and network.static_projection == "own"
        self.static_in = _Inputs(network) if reads_static else None
        self.fusion = fusion_of(network)
        self.relations, width = None, network.width
        if network.relations != "none":
            self.decoder, self.relations = EventDecoder(network), EventRelations(network)
            width = network.classes * network.event_width
        self.squeeze = None
        if self.relations and network.classifier == "squeeze":
            self.squeeze, width = nn.Linear(width, network.width), network.width
        by_event = self.relations is not None and self.squeeze is None
        self.classifier = EventClassifier(network) if by_event else nn.Linear(width, network.classes)
        self.pooling = AttentivePooling(width, network.classes)

    def forward(self, streams: Streams, lengths: Tensor | None = None) -> Outputs:
        """Parse a batch of clips.

        streams: those of `Network.widths`: audio (B, T, Da), visual (B, T, Dv) or k frames a second (B, kT, Dv),
        motion (B, T, Dm). lengths (B,), None for all T: what lies beyond is padding, may be NaN, and comes out
        meaningless but finite. Features are C * E wide, or D where the classifier squeezes or nothing is related.
        Raises ValueError for streams that do not fit.
        """
        seconds = one_a_second(streams, self.network.widths(), lengths)
        batch, segments = seconds["audio"].shape[:2]
        full = torch.full((batch,), segments, device=seconds["audio"].device)
        valid = valid_mask(full if lengths is None else lengths, segments)
        mask = None if lengths is None else attention_mask(valid)
        dynamic = self.dynamic_in(seconds)
        static = dynamic if self.static_in is None else self.static_in(seconds)
        heard, seen = self.fusion(dynamic, static, mask)
        if self.relations is not None:
            related = self.relations(*self.decoder(heard, seen, mask), valid)
            heard, seen = (events.flatten(2) for events in related)
            if self.squeeze is not None:
                heard, seen = self.squeeze(heard), self.squeeze(seen)
        features = torch.stack((heard, seen), dim=2)
        logits: Tensor = self.classifier(features)
        pooled: ClipProbabilities = self.pooling(features, logits.sigmoid(), None if lengths is None else valid)
        return Outputs(*pooled, logits[:, :, 0], logits[:, :, 1], heard, seen)


class _Inputs(nn.Module):
    """W or W' of Eq. 10: one projection a modality."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.audio = audio_input(network.audio_projection, network.audio_width, network.width)
        self.visual = VisualInput(network.visual_fusion, network.visual_width, network.motion_width, network.width)

    def forward(self, seconds: Streams) -> tuple[Tensor, Tensor]:
        return self.audio(seconds["audio"]), self.visual(seconds["visual"], seconds.get("motion"))


class EventClassifier(nn.Module):
    """From the E numbers of each class to its logit; linear, so that mixed features may be classified too."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        rows = 1 if network.classifier == "event" else network.classes
        self.shape, bound = (network.classes, network.event_width), 1 / math.sqrt(network.event_width)
        self.weight = nn.Parameter(torch.empty(rows, network.event_width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(rows))

    def forward(self, features: Tensor) -> Tensor:
        """(..., C * E) -> (..., C)."""
        events = features.reshape(*features.shape[:-1], *self.shape)
        return (events * self.weight).sum(dim=-1) + self.bias


def from_co_occurrence(parser: Ear, weak: Tensor) -> None:
    """Start all adjacencies from how often classes occur together, instead of from the identity.

    weak (N, C) bool or 0/1, of the training clips. Row i of the matrix says which share of the clips with class i have
    class j too, divided by the row's sum; of classes that occur nowhere it is the identity's. Across modalities the
    matrix stands in all four blocks, halved.

    The alternative that the head of this file names; for Python, `train-parser` starts from the identity.
    """
    if weak.ndim != 2 or weak.shape[1] != parser.network.classes:
        raise ValueError(f"wanted weak labels (N, {parser.network.classes}), but they are {tuple(weak.shape)}")
    together = weak.double().T @ weak.double()
    together += torch.diag((together.diagonal() == 0).double())
    shares = together / together.diagonal()[:, None]
    matrix = shares / shares.sum(dim=1, keepdim=True)
    for relation in (module for module in parser.modules() if isinstance(module, Relation)):
        blocks = len(relation.adjacency) // len(matrix)
        with torch.no_grad():
            relation.adjacency.copy_(matrix.repeat(blocks, blocks) / blocks)


_RECIPE: dict[str, Any] = {
    "epochs": 80, "warmup": 10, "learning_rate": 1e-4, "learning_rate_min": 5e-6, "train_batch": 64,
    "targets": "soft", "reweight": "code", "balance": 0.5, "mixup": "soft", "mixup_alpha": 1.7,
}  # fmt: skip
"""Section IV-A; W and alpha of the loss are not given, UWAV's are taken, as for weight decay, betas and clipping."""

_build: Callable[[Network], nn.Module] = Ear

METHOD = ParserMethod(
    name="ear",
    paper="EAR (arXiv:2605.08723)",
    network=Network(),
    build=_build,
    reads=("audio", "visual", "motion"),
    gate=GateSettings(strict=True),
    recipe=_RECIPE,
)
"""Decisions as UWAV's: the paper says nothing of them."""
