"""The parts of EAR's parser: fusion driven by one modality, event features of each class, relations between classes.

    AttentionUnit    look at some stream, then a feed-forward part                 Eqs. 10-12
    Fusion           dynamic streams look at the other modality's static one       Eqs. 10-12 (AMDF)
    EventDecoder     both streams together -> (B, T, C, E), E numbers a class      Eqs. 13-14
    Relation         conv, adjacency, batch norm, LeakyReLU over the classes       the G of Eq. 15
    EventRelations   L of these, within modalities and across them, alternating    Eq. 15 (ERM)

What is known of each and what was chosen stands in `ear.py`. B clips, T seconds, D numbers, C classes. `valid`
(B, T) bool marks real seconds, `mask` is `attention_mask(valid)`; padding changes nothing and comes out finite.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from avvp_pipe.stages.blocks.attention import Attention, EncoderLayer, HanEncoder, HanLayer, Norm
from avvp_pipe.stages.blocks.dropout import Dropout
from avvp_pipe.stages.blocks.packing import Packing
from avvp_pipe.stages.parsers.ear_network import Network

__all__ = [
    "AttentionUnit",
    "EventDecoder",
    "EventRelations",
    "Relation",
    "UnitFusion",
    "box_of",
    "fusion_of",
    "rows_of",
]

Pair = tuple[Tensor, Tensor]
"""Audio and visual."""


class AttentionUnit(nn.Module):
    """Attention to a context, then a feed-forward part; with residuals and norms, or (residual=False) bare.

    post: u = LN(q + MHA(q, context)), out = LN(u + FFN(u)); pre: norms before each part, on the query's side only;
    bare: FFN(MHA(q, context)). Dropout after each part. Without a context the stream looks at itself.
    """

    def __init__(
        self, width: int, heads: int, ffn: int, dropout: float, *, norm: Norm = "post", residual: bool = True
    ) -> None:
        super().__init__()
        self.pre, self.residual = norm == "pre", residual
        self.attention = Attention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, ffn), nn.Linear(ffn, width)
        if residual:
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = Dropout(dropout)

    def forward(self, stream: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """(B, T, D), context (B, S, D) or None -> (B, T, D)."""
        query = self.norm1(stream) if self.residual and self.pre else stream
        looked: Tensor = self.drop(self.attention(query, query if context is None else context, mask))
        if not self.residual:
            return self._feed_forward(looked)
        if self.pre:
            summed = stream + looked
            return summed + self._feed_forward(self.norm2(summed))
        summed = self.norm1(stream + looked)
        out: Tensor = self.norm2(summed + self._feed_forward(summed))
        return out

    def _feed_forward(self, stream: Tensor) -> Tensor:
        hidden = functional.relu(self.drop(self.linear1(stream)))  # dropped before: the same, and done in place
        out: Tensor = self.drop(self.linear2(hidden))
        return out


class UnitFusion(nn.Module):
    """Eqs. 10-12: each modality is modelled over time, then looks at the other one.

    asymmetric: at the other's *static* stream, which no second but its own has touched. Otherwise as "MSA+MCA" of
    Table VIII, at the other's dynamic stream.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.asymmetric = network.fusion == "asymmetric"
        self.temporal = nn.ModuleDict(
            {name: nn.ModuleList(_unit(network) for _ in range(network.layers)) for name in ("audio", "visual")}
        )
        self.cross = nn.ModuleDict(
            {name: _unit(network, residual=network.fusion_residual) for name in ("audio", "visual")}
        )

    def forward(self, streams: Pair, static: Pair, mask: Tensor | None) -> Pair:
        """Q_a, Q_v (B, T, D) from what the temporal layers read and from the static streams, all (B, T, D)."""
        heard, seen = (
            self._over_time(name, stream, mask) for name, stream in zip(("audio", "visual"), streams, strict=True)
        )
        sound, sight = static if self.asymmetric else (heard, seen)
        return self.cross["audio"](heard, sight, mask), self.cross["visual"](seen, sound, mask)

    def _over_time(self, name: str, stream: Tensor, mask: Tensor | None) -> Tensor:
        for layer in cast(nn.ModuleList, self.temporal[name]):
            stream = layer(stream, None, mask)
        return stream


class HanFusion(nn.Module):
    """ "HAN" of Table VIII: the hybrid attention network in the place of the asymmetric fusion."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        sizes = (network.width, network.heads, network.ffn, network.dropout)
        layers = [HanLayer(*sizes, norm=network.norm) for _ in range(network.layers)]
        self.encoder = HanEncoder(layers, order="symmetric")

    def forward(self, streams: Pair, static: Pair, mask: Tensor | None) -> Pair:
        """As `UnitFusion`; the static streams are not read."""
        out: Pair = self.encoder(*streams, mask)
        return out


class NoFusion(nn.Module):
    """The ablation without AMDF: no second knows of another, no modality of the other."""

    def forward(self, streams: Pair, static: Pair, mask: Tensor | None) -> Pair:
        """The projected streams as they are."""
        return streams


def fusion_of(network: Network) -> nn.Module:
    """The module that makes Q_a and Q_v."""
    if network.fusion == "none":
        return NoFusion()
    return HanFusion(network) if network.fusion == "han" else UnitFusion(network)


def _unit(network: Network, *, residual: bool = True) -> AttentionUnit:
    sizes = (network.width, network.heads, network.ffn, network.dropout)
    return AttentionUnit(*sizes, norm=network.norm, residual=residual)


class EventDecoder(nn.Module):
    """Eqs. 13-14: Q_a and Q_v take in one another, then each second gets E numbers for every class.

    aggregate="attend": Z_a = LN(Q_a + MHA(Q_a, Q_v)) and the reverse, one attention for both; "concatenate": a Linear
    of both side by side, one a modality; "none": as they are.
    decode="linear": a Linear D -> C * E; "queries": each class has a learnt query, which looks at both vectors of a
    second, and a Linear D -> E. shared: one decoder for both modalities.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        width, self.shape = network.width, (network.classes, network.event_width)
        self.aggregate, self.decode = network.aggregate, network.decode
        if self.aggregate == "attend":
            self.attention = Attention(width, network.heads, network.dropout)
            self.norm = nn.LayerNorm(width)
            self.drop = Dropout(network.dropout)
        elif self.aggregate == "concatenate":
            self.joined = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(2))
        self.decoders = nn.ModuleList(_Decoder(network) for _ in range(1 if network.shared_decoder else 2))

    def forward(self, heard: Tensor, seen: Tensor, mask: Tensor | None = None) -> Pair:
        """(B, T, D) each -> D_a, D_v (B, T, C, E) each."""
        streams = self._together(heard, seen, mask)
        first, last = self.decoders[0], self.decoders[-1]
        return first(streams[0], streams[1]), last(streams[1], streams[0])

    def _together(self, heard: Tensor, seen: Tensor, mask: Tensor | None) -> Pair:
        if self.aggregate == "attend":
            crossed = (self.drop(self.attention(*pair, mask)) for pair in ((heard, seen), (seen, heard)))
            return self.norm(heard + next(crossed)), self.norm(seen + next(crossed))
        if self.aggregate == "concatenate":
            both = torch.cat((heard, seen), dim=2)
            return self.joined[0](both), self.joined[1](both)
        return heard, seen


class _Decoder(nn.Module):
    """One modality's second, with the other's beside it -> (C, E)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        width, self.shape = network.width, (network.classes, network.event_width)
        self.asks = network.decode == "queries"
        if self.asks:
            self.queries = nn.Parameter(0.02 * torch.randn(network.classes, width))
            self.attention = Attention(width, network.heads, network.dropout)
        self.out = nn.Linear(width, network.event_width * (1 if self.asks else network.classes))

    def forward(self, stream: Tensor, other: Tensor) -> Tensor:
        """(B, T, D), (B, T, D) -> (B, T, C, E)."""
        if not self.asks:
            decoded: Tensor = self.out(stream)
            return decoded.reshape(*stream.shape[:2], *self.shape)
        batch, segments = stream.shape[:2]
        seconds = torch.stack((stream, other), dim=2).flatten(0, 1)  # (B * T, 2, D)
        queries = self.queries.to(seconds.dtype).expand(len(seconds), -1, -1)
        asked: Tensor = self.out(queries + self.attention(queries, seconds))
        return asked.view(batch, segments, *self.shape)


class Relation(nn.Module):
    """G of Eq. 15: LeakyReLU(BN(A * Conv(X))), and X itself added where residual.

    events: C of one modality, or 2 C of both; A (events, events) is learnt and starts from the identity and a little
    noise. Conv runs over time with a kernel of so many seconds, the same for every event. Batch norm takes its mean
    and variance over real seconds: of each channel ("channels"), or of each event's each channel ("events").
    """

    def __init__(self, events: int, network: Network) -> None:
        super().__init__()
        width, self.residual, self.slope = network.event_width, network.relation_residual, network.slope
        self.conv = nn.Conv1d(width, width, network.kernel, padding=network.kernel // 2)
        self.adjacency = nn.Parameter(torch.eye(events) + network.adjacency_noise * torch.randn(events, events))
        self.by_event = network.batch_norm == "events"
        self.norm = nn.BatchNorm1d(events * width if self.by_event else width)

    def forward(self, events: Tensor, packing: Packing) -> Tensor:
        """(events, M, E), as `rows_of` gives them -> the same shape."""
        after = self._over_time(events, packing)
        related = (self.adjacency @ after.flatten(1)).view_as(after)
        new = functional.leaky_relu(self._normed(related), self.slope)
        return events + new if self.residual else new

    def _over_time(self, events: Tensor, packing: Packing) -> Tensor:
        if self.conv.kernel_size == (1,):
            return functional.linear(events, self.conv.weight[:, :, 0], self.conv.bias)
        padded = box_of(events, packing)
        lines = padded.permute(0, 2, 3, 1).flatten(0, 1)  # (B * events, E, T)
        seen: Tensor = self.conv(lines)
        return rows_of(seen.view(len(padded), len(events), *seen.shape[1:]).permute(0, 3, 1, 2), packing)

    def _normed(self, events: Tensor) -> Tensor:
        rows = events.transpose(0, 1).flatten(1) if self.by_event else events.flatten(0, 1)
        if len(rows) < (2 if self.training else 1):  # nothing to take a variance of
            return events
        normed: Tensor = self.norm(rows)
        if not self.by_event:
            return normed.view_as(events)
        return normed.view(events.shape[1], len(events), -1).transpose(0, 1)


def rows_of(events: Tensor, packing: Packing) -> Tensor:
    """(B, T, events, E) -> (events, M, E): the real seconds, event by event, which one product relates."""
    return events.flatten(0, 1).transpose(0, 1).index_select(1, packing.places)


def box_of(rows: Tensor, packing: Packing) -> Tensor:
    """(events, M, E) -> (B, T, events, E), 0 in padding: the reverse of `rows_of`."""
    spread = packing.spread(rows.transpose(0, 1).flatten(1))
    return spread.view(*spread.shape[:2], len(rows), rows.shape[2])


class EventRelations(nn.Module):
    """Eq. 15: what each class of each modality says of the others, second by second, in L layers.

    alternate: within audio and within vision, then across both, L times (as printed); uni-then-multi: L times within,
    then L times across ("A/V-AV" of Table IX); uni, multi: only one of the two ("w/o AV", "w/o A/V"); attention:
    L self-attention layers over the 2 C event features of a second.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        classes, layers, form = network.classes, network.relation_layers, network.relations
        within, across = form not in ("multi", "attention"), form not in ("uni", "attention")
        self.audio, self.visual = (
            nn.ModuleList(Relation(classes, network) for _ in range(layers * within)) for _ in range(2)
        )
        self.both = nn.ModuleList(Relation(2 * classes, network) for _ in range(layers * across))
        sizes = (network.event_width, network.event_heads, 4 * network.event_width, network.dropout)
        self.layers = nn.ModuleList(EncoderLayer(*sizes) for _ in range(layers * (form == "attention")))
        steps: list[tuple[str, int]] = [(kind, at) for at in range(layers) for kind in ("uni", "multi")]
        if form == "uni-then-multi":
            steps.sort(key=lambda step: ("uni", "multi").index(step[0]))
        self.steps = [step for step in steps if {"uni": within, "multi": across}[step[0]]]

    def forward(self, heard: Tensor, seen: Tensor, valid: Tensor) -> Pair:
        """D_a, D_v (B, T, C, E) each -> the same shapes, 0 beyond the valid seconds."""
        packing = Packing(valid.flatten().nonzero()[:, 0], *valid.shape)
        heard, seen = rows_of(heard, packing), rows_of(seen, packing)
        for kind, at in self.steps:
            if kind == "uni":
                heard, seen = self.audio[at](heard, packing), self.visual[at](seen, packing)
            else:
                heard, seen = self.both[at](torch.cat((heard, seen)), packing).chunk(2)
        if self.layers:
            events = torch.cat((heard, seen)).transpose(0, 1)  # (M, 2 C, E)
            for layer in self.layers:
                events = layer(events)
            heard, seen = events.transpose(0, 1).chunk(2)
        return box_of(heard, packing), box_of(seen, packing)
