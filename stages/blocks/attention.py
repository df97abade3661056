"""Attention over the seconds of a clip: the layers that generators and parsers are built of.

Two layers.  `EncoderLayer` is the usual transformer layer on one stream.  `HanLayer` lets one stream
look at itself and at the other one; HAN uses the same layer object for both streams::

    audio  (B, T, D) --+--> look at own seconds   --+--> add, norm, feed-forward --> audio'
    visual (B, T, D) --+--> look at other's seconds +

Parameter names inside a layer are those of `torch.nn.MultiheadAttention` and the released checkpoints.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from avvp_pipe.stages.blocks.dropout import Dropout, dropout
from avvp_pipe.stages.blocks.packing import Packing, pack

__all__ = [
    "Attend",
    "Attention",
    "EncoderLayer",
    "HanEncoder",
    "HanLayer",
    "Norm",
    "Order",
    "Stacking",
    "attention_mask",
    "one_of",
    "stack",
    "valid_mask",
]

Norm = Literal["post", "pre"]
Order = Literal["sequential", "symmetric"]
Stacking = Literal["chained", "legacy"]
Attend = Literal["video", "segment"]
Layer = TypeVar("Layer", bound=nn.Module)


def one_of(name: str, value: str, choices: object) -> None:
    """Raise ValueError naming the choices of a Literal unless `value` is one of them."""
    known = get_args(choices)
    if value not in known:
        raise ValueError(f"no {name} {value!r}; there are {', '.join(known)}")


def stack(make_layer: Callable[[], Layer], layers: int, *, identical: bool) -> list[Layer]:
    """Make several layers of one form, each with parameters of its own.

    identical: all start from the same values, being deep copies of one, as in every released code.
    """
    first = make_layer()
    return [first, *(copy.deepcopy(first) if identical else make_layer() for _ in range(layers - 1))]


def valid_mask(lengths: Tensor, segments: int) -> Tensor:
    """Mark the real seconds of a padded batch: lengths (B,) in 0..T -> (B, T) bool, T = `segments`."""
    return torch.arange(segments, device=lengths.device) < lengths[:, None]


def attention_mask(valid: Tensor, *, attend: Attend = "video") -> Tensor | None:
    """Which second may look at which: valid (B, T) bool -> (B, 1, T, T) bool, or None if all may.

    Real seconds see the real ones.  Padding sees only itself, so that no row is empty, in which case
    softmax would give NaN.  The released code adds -1e10 to every pair with padding: the same for real
    seconds, but out of range in half precision.  `attend="segment"`: each second sees only itself.
    """
    itself = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    if attend == "segment":
        return itself[None, None]
    if bool(valid.all()):
        return None
    return ((valid[:, :, None] & valid[:, None, :]) | itself)[:, None]


class Attention(nn.Module):
    """Multi-head attention; parameters, first values and outputs as `torch.nn.MultiheadAttention`.

    Our own twenty lines because torch's module has two numerically different paths (training, inference)
    and wants the mask repeated for every head.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if min(width, heads) < 1 or width % heads:
            raise ValueError(f"the heads share the width evenly, but {heads = } does not divide {width = }")
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Each query second gathers from the context: (B, T, D), (B, S, D), mask (B|1, 1, T, S) -> (B, T, D)."""
        batch, _, width = query.shape
        split = (batch, -1, self.heads, width // self.heads)
        # Cut in one operation each, whose gradient is put together in one, too.
        weights, biases = (torch.split(one, [width, 2 * width]) for one in (self.in_proj_weight, self.in_proj_bias))
        asked = functional.linear(query, weights[0], biases[0])
        offered = functional.linear(context, weights[1], biases[1])
        queries, keys, values = (
            projected.reshape(split).transpose(1, 2) for projected in (asked, *offered.chunk(2, dim=2))
        )
        gathered = _gathered(queries, keys, values, mask, self.dropout if self.training else 0.0)
        out: Tensor = self.out_proj(gathered.transpose(1, 2).reshape(query.shape))
        return out

    def over_itself(self, stream: Tensor, mask: Tensor | None = None, packing: Packing | None = None) -> Tensor:
        """Each second gathers from its own stream: `forward(stream, stream, mask)`, faster.

        stream (B, T, D), or with `packing` (M, D), its real seconds only; the same shape comes out.
        """
        projected = functional.linear(stream, self.in_proj_weight, self.in_proj_bias)
        if packing is not None:
            projected = packing.spread(projected)
        batch, segments, width = projected.shape
        split = projected.view(batch, segments, 3, self.heads, width // 3 // self.heads).permute(2, 0, 3, 1, 4)
        share = self.dropout if self.training else 0.0
        queries, keys, values = (split.contiguous() if share else split).unbind()  # torch's own needs no copy
        gathered = _gathered(queries, keys, values, mask, share)
        together = gathered.transpose(1, 2).reshape(batch, segments, width // 3)
        out: Tensor = self.out_proj(pack(together, packing))
        return out


def _gathered(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, share: float) -> Tensor:
    """Attention of (B, H, T, d) each, with dropout of `share`.

    Torch's own, but on a processor with dropout, where ours draws faster, and in less than 32 bits, where plain
    products take half the time of torch's fused kernel for 10 seconds, and three quarters for 60.
    """
    if queries.device.type != "cpu" or not (share or queries.dtype.itemsize < 4):
        return functional.scaled_dot_product_attention(queries, keys, values, mask, share)
    with torch.autocast("cpu", enabled=False):  # which would convert there and back for the softmax
        scores = (queries * queries.shape[3] ** -0.5) @ keys.mT
        if mask is not None:
            scores += torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, -math.inf)
        looked_at = scores.softmax(dim=3)
        return (dropout(looked_at, share) if share else looked_at) @ values


class EncoderLayer(nn.Module):
    """One post-norm transformer layer, as `torch.nn.TransformerEncoderLayer` with ReLU."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.drop = Dropout(dropout)

    def forward(self, stream: Tensor, mask: Tensor | None = None, packing: Packing | None = None) -> Tensor:
        """(B, T, D) -> the same shape, or with `packing` (M, D), real seconds only; mask as `attention_mask`'s."""
        stream = self.norm1(stream + self.drop(self.self_attn.over_itself(stream, mask, packing)))
        # Dropped before and not after what is negative becomes zero: the same, and both can be done in place.
        hidden = functional.relu_(self.drop(self.linear1(stream)))
        out: Tensor = self.norm2(stream + self.drop(self.linear2(hidden)))
        return out


class HanLayer(nn.Module):
    """One layer of the hybrid attention network (HAN, arXiv:2007.10558), for one stream at a time.

    u = q + MHA_cross(q, other) + MHA_self(q, q), then a feed-forward part, each with dropout; the norm
    follows each sum ("post"), or precedes it on the query stream only ("pre": the other stream's keys
    and values stay as they come, as VALOR and UWAV released it).
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, *, norm: Norm = "post") -> None:
        super().__init__()
        one_of("norm", norm, Norm)
        self.pre = norm == "pre"
        self.self_attn = Attention(width, heads, dropout)
        self.cm_attn = Attention(width, heads, dropout)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.drop = Dropout(dropout)

    def forward(self, stream: Tensor, other: Tensor, mask: Tensor | None = None) -> Tensor:
        """Update `stream` (B, T, D) from itself and from `other` (B, T, D)."""
        query = self.norm1(stream) if self.pre else stream
        crossed = self.drop(self.cm_attn(query, other, mask))
        summed: Tensor = stream + crossed + self.drop(self.self_attn.over_itself(query, mask))
        if self.pre:
            return summed + self._feed_forward(self.norm2(summed))
        summed = self.norm1(summed)
        out: Tensor = self.norm2(summed + self._feed_forward(summed))
        return out

    def _feed_forward(self, stream: Tensor) -> Tensor:
        hidden = functional.relu_(self.drop(self.linear1(stream)))  # as in `EncoderLayer`
        out: Tensor = self.drop(self.linear2(hidden))
        return out


class HanEncoder(nn.Module):
    """A stack of HAN layers over the audio and the visual stream.

    layers: as `stack` makes them.
    order: "sequential" as VALOR and UWAV released it: audio first, then visual looks at the *updated*
    audio; "symmetric" as the papers: both look at the other's old state.
    stacking: "chained"; "legacy" as AVVP-ECCV20 released it: every layer reads the encoder's inputs again,
    so that only the last layer counts.
    The final norms act in pre-norm only; they always exist because the released files hold them.
    """

    def __init__(
        self,
        layers: list[HanLayer],
        *,
        order: Order = "sequential",
        stacking: Stacking = "chained",
    ) -> None:
        super().__init__()
        one_of("order", order, Order)
        one_of("stacking", stacking, Stacking)
        self.order = order
        self.stacking = stacking
        self.pre = layers[0].pre
        self.layers = nn.ModuleList(layers)
        width = layers[0].linear1.in_features
        self.final_norm_a = nn.LayerNorm(width)
        self.final_norm_v = nn.LayerNorm(width)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, D) and (B, T, D) -> the same shapes; mask as `attention_mask` gives it."""
        for layer in self.layers if self.stacking == "chained" else self.layers[-1:]:
            heard = layer(audio, visual, mask)
            visual = layer(visual, heard if self.order == "sequential" else audio, mask)
            audio = heard
        if self.pre:
            return self.final_norm_a(audio), self.final_norm_v(visual)
        return audio, visual
