"""The embedded teachers: a tiny CLIP (open_clip) and a tiny CLAP (transformers), built from small configurations.

    frame (64, 64, 3) -> ViT, 3 layers of 96 -> 96        second at 16 kHz -> 101 x 32 mel -> HTSAT, 3 stages -> 96
    text -> byte-level BPE of our own -> transformer -> 96

Nothing is fetched: configurations, weights (safetensors) and tokenizer lie beside this file.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from avvp_pipe.stages.blocks.device import tensor_on
from avvp_pipe.stages.teachers.shipped import FOLDER, TOKENIZER

PAD_ID, END_ID = 1, 2
"""Of the shared tokenizer: `<start>` 0, `<pad>` 1, `<end>` 2."""
CONTEXT = 48
"""Tokens of a text; what is longer is cut."""
FRAMES_MEAN, FRAMES_STD = 0.45, 0.25
"""Frames in [0, 1] are normalised by these, all channels alike."""


def tokens_of(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """Prompts -> (P, CONTEXT) int64, padded."""
    rows = []
    for prompt in prompts:
        ids = [0, *tokenizer.encode(prompt).ids[: CONTEXT - 2], END_ID]
        rows.append(ids + [PAD_ID] * (CONTEXT - len(ids)))
    return torch.tensor(rows, dtype=torch.long)


def build_clip(config: dict[str, Any]) -> nn.Module:
    """An open_clip model of this configuration, with random weights."""
    import open_clip

    module: nn.Module = open_clip.CLIP(**config)
    return module


def build_clap(config: dict[str, Any]) -> nn.Module:
    """A transformers ClapModel of this configuration, with random weights."""
    from transformers import ClapConfig, ClapModel

    module: nn.Module = ClapModel(ClapConfig(**config))
    return module


def clip_pixels(frames: Tensor) -> Tensor:
    """Frames (B, S, S, 3) in grey levels 0 to 255 -> (B, 3, S, S) normalised."""
    pixels = frames.permute(0, 3, 1, 2).float() / 255
    return pixels.sub(FRAMES_MEAN).div(FRAMES_STD)


class MelInput(nn.Module):
    """Pieces of one second to what HTSAT takes: log-mel in decibels, centred, (B, 1, frames, bands)."""

    def __init__(self, *, rate: int, bands: int) -> None:
        """`rate`: samples a second; `bands`: mel bands."""
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        self.mel = MelSpectrogram(rate, n_fft=512, hop_length=160, f_min=50, f_max=rate / 2, n_mels=bands)

    def forward(self, waves: Tensor) -> Tensor:
        """Waves (B, rate) -> (B, 1, frames, bands)."""
        power: Tensor = self.mel(waves)
        return power.clamp_min(1e-8).log10().mul(10).transpose(1, 2)[:, None].add(20).div(20)


def clap_features(model: Any, *, mel: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
    """Normalised embeddings of sounds or texts; newer transformers wrap them in an output record."""
    if mel is not None:
        found = model.get_audio_features(input_features=mel)
    elif tokens is None:
        raise ValueError("clap_features wants mel or tokens, and neither came")
    else:
        found = model.get_text_features(input_ids=tokens, attention_mask=tokens.ne(PAD_ID).long())
    tensor: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return functional.normalize(tensor, dim=-1)


@dataclass(frozen=True)
class TinyClip:
    """The embedded image-text teacher."""

    name: str
    width: int
    image_size: int
    log_scale: float
    model: Any
    tokenizer: Any
    device: str

    def images(self, frames: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames (B, S, S, 3), uint8 or float32 in grey levels 0 to 255 -> (B, D)."""
        with torch.inference_mode():
            pixels = clip_pixels(tensor_on(self.device, frames))
            return _array(self.model.encode_image(pixels, normalize=True))

    def texts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Prompts -> (P, D)."""
        with torch.inference_mode():
            tokens = tokens_of(self.tokenizer, prompts).to(self.device)
            return _array(self.model.encode_text(tokens, normalize=True))


@dataclass(frozen=True)
class TinyClap:
    """The embedded audio-text teacher."""

    name: str
    width: int
    sample_rate: int
    log_scale: float
    model: Any
    mel: MelInput
    tokenizer: Any
    device: str

    def sounds(self, pieces: NDArray[np.float32] | Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Pieces of one second (B, sample_rate) -> (B, D); longer ones are cut to it, shorter ones end in zeros."""
        with torch.inference_mode():
            mel = self.mel(tensor_on(self.device, _seconds(pieces, self.sample_rate)))
            return _array(clap_features(self.model, mel=mel))

    def texts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Prompts -> (P, D)."""
        with torch.inference_mode():
            return _array(clap_features(self.model, tokens=tokens_of(self.tokenizer, prompts).to(self.device)))


def load_tiny_clip(device: str) -> TinyClip:
    """Load the embedded image-text teacher from the package."""
    record, state, tokenizer = _files("tiny-clip")
    model = build_clip(record["model"])
    model.load_state_dict(state)
    size = int(record["model"]["vision_cfg"]["image_size"])
    width = int(record["model"]["embed_dim"])
    ready = model.eval().to(device)
    return TinyClip("tiny-clip", width, size, float(record["log_scale"]), ready, tokenizer, device)


def load_tiny_clap(device: str) -> TinyClap:
    """Load the embedded audio-text teacher from the package."""
    record, state, tokenizer = _files("tiny-clap")
    model = build_clap(record["model"])
    model.load_state_dict(state)
    rate, bands = int(record["sample_rate"]), int(record["model"]["audio_config"]["num_mel_bins"])
    width = int(record["model"]["projection_dim"])
    mel = MelInput(rate=rate, bands=bands).eval().to(device)
    ready = model.eval().to(device)
    return TinyClap("tiny-clap", width, rate, float(record["log_scale"]), ready, mel, tokenizer, device)


def _files(name: str, folder: Path = FOLDER) -> tuple[dict[str, Any], dict[str, Tensor], Any]:
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    record = json.loads((folder / f"{name}.json").read_text())
    return record, load_file(folder / f"{name}.safetensors"), Tokenizer.from_file(str(folder / TOKENIZER))


def _seconds(pieces: NDArray[np.float32] | Sequence[NDArray[np.float32]], rate: int) -> NDArray[np.float32]:
    waves = np.zeros((len(pieces), rate), np.float32)
    for wave, piece in zip(waves, pieces, strict=True):
        wave[: len(piece)] = piece[:rate]
    return waves


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)
