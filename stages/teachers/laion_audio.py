"""laion_clap's audio branch (HTSAT, a Swin transformer over a log-mel image) for many pieces at once.

    piece, up to 10 s -> copies or zeros up to 480,000 samples -> 1,001 x 64 log-mel -> 256 x 256 image
    -> 4,096 patches -> four stages of windows -> 64 tokens of 768 -> mean -> 512, L2-normalised

Source: laion_clap 1.1.7, `hook.py`, `training/data.py` and `clap_module/htsat.py`, whose weights and modules are used.
What is left out does not touch the embedding: three of the fused model's four equal channels (only recordings above
10 s have others), attention maps, per-frame outputs and the AudioSet head.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from avvp_pipe.stages.blocks.device import exact_convolutions

__all__ = ["FULL", "AudioBranch", "audio_branch", "filled", "resampled"]

FULL = 480_000
"""Samples that the model takes: 10 s at 48 kHz."""


def filled(pieces: Sequence[NDArray[np.float32]], fill: str) -> NDArray[np.float32]:
    """Pieces of 1 to 480,000 samples -> (B, 480000).

    fill: `repeatpad`, as many whole copies as fit and then zeros; `pad`, one copy and zeros.
    Raises ValueError for a piece that is empty, too long or not one-dimensional.

    >>> filled([np.ones(48_051, np.float32)], "repeatpad").sum() / 48_051
    9.0
    """
    if fill not in ("repeatpad", "pad"):
        raise ValueError(f"fill must be repeatpad or pad, and is {fill!r}")
    waves = np.zeros((len(pieces), FULL), np.float32)
    for wave, piece in zip(waves, pieces, strict=True):
        if piece.ndim != 1 or not 0 < len(piece) <= FULL:
            raise ValueError(
                f"pieces of 1 to {FULL} samples are wanted, one-dimensional, and one of shape {piece.shape} came; "
                "cut longer sound first (laion_clap itself would cut it at random)"
            )
        copies = FULL // len(piece) if fill == "repeatpad" else 1
        wave[: copies * len(piece)].reshape(copies, len(piece))[:] = piece
    return waves


def resampled(waves: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, n) -> (B, 480000) by nearest index, as VALOR++ takes its features from the whole clip.

    Source: VALOR's released extraction; `round(linspace(0, n - 1, 480000))`.
    """
    if waves.ndim != 2 or not waves.shape[1]:
        raise ValueError(f"waves (B, n) with n above 0 are wanted, and {waves.shape} came")
    index = np.round(np.linspace(0, waves.shape[1] - 1, FULL)).astype(np.int64)
    return waves[:, index]


@dataclass(frozen=True)
class Windows:
    """How one block sees its tokens.

    order, back: (L,) int64, tokens window after window (shifted where the block is) and the way back.
    count: windows. bias: relative positions, and for shifted windows what may not see each other, (1, heads, n, n)
    or (1, count * heads, n, n).
    """

    order: Tensor
    back: Tensor
    count: int
    bias: Tensor


@dataclass(frozen=True)
class AudioBranch:
    """laion_clap's audio branch and projection, ready to run.

    mel: (B, 480000) -> (B, 1, 1001, 64) in decibels. map_order: (64,) tokens by coarse frequency bin, then time.
    """

    model: Any
    mel: nn.Module
    windows: tuple[tuple[Windows, ...], ...]
    map_order: Tensor
    dtype: torch.dtype
    device: str

    def tokens(self, waves: Tensor) -> Tensor:
        """(B, 480000) -> (B, 64, 768) float32, before pooling: 8 x 8 patches of the image."""
        branch = self.model.audio_branch
        with exact_convolutions(self.device):
            image = branch.reshape_wav2img(branch.bn0(self.mel(waves).transpose(1, 3)).transpose(1, 3))
        lower = self.dtype != torch.float32
        on_cuda = self.device.startswith("cuda")
        with torch.autocast("cuda", self.dtype) if lower and on_cuda else nullcontext():
            with exact_convolutions(self.device):
                x = branch.patch_embed(image if on_cuda else image.to(self.dtype), longer_idx=[])
            for layer, windows in zip(branch.layers, self.windows, strict=True):
                for block, window in zip(layer.blocks, windows, strict=True):
                    x = x + attended(block, window, x)
                    x = x + block.mlp(block.norm2(x))
                if layer.downsample is not None:
                    x = layer.downsample(x)
            found: Tensor = branch.norm(x)
        return found.float()

    def embed(self, waves: Tensor) -> Tensor:
        """(B, 480000) -> (B, 512) float32, L2-normalised."""
        return functional.normalize(self.model.audio_projection(self.tokens(waves).mean(1)), dim=-1)

    def maps(self, waves: Tensor) -> Tensor:
        """(B, 480000) -> (B, 64, 768): 2 coarse frequency bins x 32 time steps, frequency-major, not normalised."""
        return self.tokens(waves).index_select(1, self.map_order)


def attended(block: Any, windows: Windows, x: Tensor) -> Tensor:
    """What a Swin block's attention adds to its tokens (B, L, C), before the residual sum."""
    attention, (batch, length, width) = block.attn, x.shape
    heads, size = attention.num_heads, length // windows.count
    y = block.norm1(x).index_select(1, windows.order)
    parts = attention.qkv(y).view(batch, windows.count, size, 3, heads, width // heads).permute(3, 0, 1, 4, 2, 5)
    masked = len(windows.bias[0]) != heads
    shape = (batch, windows.count * heads, size, -1) if masked else (batch * windows.count, heads, size, -1)
    query, key, value = (part.reshape(shape) for part in parts)
    seen = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=windows.bias, scale=float(attention.scale)
    )
    seen = seen.reshape(batch, windows.count, heads, size, -1).transpose(2, 3).reshape(batch, length, width)
    projected: Tensor = attention.proj(seen)
    return projected.index_select(1, windows.back)


def windows_of(block: Any, dtype: torch.dtype) -> Windows:
    """The windows of a block of clap_module, from its resolution, shift, table of relative positions and mask."""
    (height, width), side, shift = block.input_resolution, block.window_size, block.shift_size
    grid = torch.arange(height * width).view(height, width).roll((-shift, -shift), (0, 1))
    order = grid.view(height // side, side, width // side, side).transpose(1, 2).reshape(-1)
    count, size, attention = len(order) // side**2, side**2, block.attn
    table = attention.relative_position_bias_table[attention.relative_position_index.view(-1)]
    bias = table.view(size, size, -1).permute(2, 0, 1)[None].float()
    if block.attn_mask is not None:
        bias = (bias + block.attn_mask[:, None]).reshape(1, -1, size, size)
    device = bias.device
    return Windows(order.to(device), order.argsort().to(device), count, bias.to(dtype).contiguous())


def audio_branch(model: Any, config: dict[str, Any], *, fused: bool, device: str, dtype: torch.dtype) -> AudioBranch:
    """Make a loaded CLAP's audio branch ready; below float32 on a CPU its transformer is converted in place.

    Mel, batch norm, image and projection stay in float32.
    """
    branch = model.audio_branch
    with torch.inference_mode():
        windows = tuple(tuple(windows_of(block, dtype) for block in layer.blocks) for layer in branch.layers)
    if not device.startswith("cuda"):
        for part in (branch.patch_embed, branch.layers, branch.norm):
            part.to(dtype)
    grid = torch.arange(64, device=device).view(4, 2, 8)  # of 8 rows: 4 stretches of time x 2 bins, 8 steps each
    mel = FusedMel(config).to(device) if fused else PlainMel(branch)
    return AudioBranch(model, mel.eval(), windows, grid.transpose(0, 1).reshape(-1), dtype, device)


class FusedMel(nn.Module):
    """The fused models' log-mel: torchaudio's, HTK scale without normalisation, 10 log10 above 1e-10."""

    def __init__(self, config: dict[str, Any]) -> None:
        """`config`: the model's `audio_cfg`."""
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        self.power = MelSpectrogram(
            config["sample_rate"],
            n_fft=config["window_size"],
            hop_length=config["hop_size"],
            f_min=config["fmin"],
            f_max=config["fmax"],
            n_mels=config["mel_bins"],
        )

    def forward(self, waves: Tensor) -> Tensor:
        """Waves (B, 480000) -> (B, 1, 1001, 64)."""
        power: Tensor = self.power(waves)
        return power.clamp_min(1e-10).log10().mul(10).transpose(1, 2)[:, None]


class PlainMel(nn.Module):
    """The unfused models' log-mel: their own layers (torchlibrosa, Slaney scale), with the checkpoint's weights."""

    def __init__(self, branch: Any) -> None:
        """`branch`: the model's audio branch."""
        super().__init__()
        self.spectrum, self.mel = branch.spectrogram_extractor, branch.logmel_extractor

    def forward(self, waves: Tensor) -> Tensor:
        """Waves (B, 480000) -> (B, 1, 1001, 64)."""
        found: Tensor = self.mel(self.spectrum(waves))
        return found
