"""How much faster an epoch of pre-training is than the straightforward loop, side by side in one run.

1,500 videos of 10 to 60 seconds, as long as those of UnAV-100's training split, 100 classes, a generator of width 256
(5 layers, 16 heads, feed-forward layers of 2,048, CLAP's 512 and CLIP's 768 numbers a second).

    straightforward   torch's own layers in float32, everything padded to 60 s, one .npy per video and modality, read
                      by a DataLoader in every epoch; UWAV's released loss and AdamW
    ours, by steps    features in memory, padding left out, dropout and AdamW that are cheap; then bfloat16; then
                      batches of similar length

Both start from the same weights, and first show that their losses agree. Exits 1 where the second of ours, which is
`pretrain --precision auto`, is not three times as fast.

    python tests/bench/bench_pretrain.py [VIDEOS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from avvp_pipe.stages.blocks.device import fast_precision
from avvp_pipe.stages.generators.pretraining import uwav_objective
from avvp_pipe.stages.generators.pretraining_clips import Clips
from avvp_pipe.stages.generators.uwav import Network, TemporalGenerator
from avvp_pipe.stages.pretrain import Params, settle, trained

VIDEOS, SEGMENTS, CLASSES = 1500, 60, 100
WANTED = 3.0
BATCH = 64
QUANTILES = (10, 21, 28, 33, 36, 38, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 52, 54, 58, 60)
"""Seconds: each twentieth of UnAV-100's 6,489 training videos; 42 on average."""
NETWORK = Network(width=256)
Item = tuple[Tensor, Tensor, Tensor, int]


def world(videos: int) -> Clips:
    """Drawn features and labels, 1.6 classes a video, lengths spread as in UnAV-100."""
    rng, draw = np.random.default_rng(0), torch.Generator().manual_seed(0)
    lengths = np.interp(rng.random(videos), np.linspace(0, 1, len(QUANTILES)), QUANTILES).round().astype(np.int64)

    def unit(*shape: int) -> Tensor:
        return nn.functional.normalize(torch.randn(*shape, generator=draw), dim=-1)

    there = np.arange(SEGMENTS) < lengths[:, None]
    labels = (rng.random((videos, 1, CLASSES)) < 0.016) & (rng.random((videos, SEGMENTS, CLASSES)) < 0.6)
    return Clips(
        audio=unit(videos, SEGMENTS, NETWORK.audio_width),
        visual=unit(videos, SEGMENTS, NETWORK.visual_width),
        labels=torch.from_numpy(labels & there[:, :, None]),
        lengths=torch.from_numpy(lengths),
        text_audio=unit(CLASSES, NETWORK.audio_width),
        text_visual=unit(CLASSES, NETWORK.visual_width),
    )


class Files(Dataset[Item]):
    """One .npy per video and modality, padded to 60 seconds when read."""

    def __init__(self, folder: Path, clips: Clips) -> None:
        self.folder, self.lengths, self.labels = folder, clips.lengths.tolist(), clips.labels
        for modality in ("audio", "visual"):
            (folder / modality).mkdir()
            for video, length in enumerate(self.lengths):
                np.save(folder / modality / f"{video}.npy", getattr(clips, modality)[video, :length].numpy())

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, video: int) -> Item:
        found = []
        for modality in ("audio", "visual"):
            read = np.load(self.folder / modality / f"{video}.npy")
            found.append(torch.from_numpy(np.pad(read, ((0, SEGMENTS - len(read)), (0, 0)))))
        return found[0], found[1], self.labels[video].float(), self.lengths[video]


class Stream(nn.Module):
    """One modality, of torch's own layers; names are those of ours."""

    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        width = NETWORK.width
        self.register_buffer("scale", torch.tensor(0.0))
        self.enter = nn.Sequential(nn.Linear(features, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        layer = nn.TransformerEncoderLayer(width, NETWORK.heads, NETWORK.ffn, NETWORK.dropout, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, NETWORK.layers, enable_nested_tensor=False).layers
        self.leave = nn.Sequential(nn.Linear(width, features), nn.ReLU(), nn.Linear(features, features))

    def forward(self, features: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        stream = self.enter(features)
        for layer in self.layers:
            stream = layer(stream, src_mask=mask)
        logits: Tensor = self.scale * self.leave(stream) @ text.T
        return logits


class Straightforward(nn.Module):
    """UWAV's generator as one would write it down."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.audio, self.visual = Stream(NETWORK.audio_width), Stream(NETWORK.visual_width)
        self.load_state_dict(weights)

    def loss(self, batch: Any, text: tuple[Tensor, Tensor]) -> Tensor:
        """UWAV's released loss, from probabilities."""
        audio, visual, labels, lengths = batch
        valid = (torch.arange(SEGMENTS) < lengths[:, None]).float()
        mask = ((1 - valid[:, :, None] * valid[:, None, :]) * -1e10).repeat_interleave(NETWORK.heads, 0)
        probability = self.audio(audio, text[0], mask).sigmoid() * self.visual(visual, text[1], mask).sigmoid()
        weight = torch.where((labels.sum(1, keepdim=True) > 0).expand_as(labels), 5.0, 1.0)
        entropy = nn.functional.binary_cross_entropy(probability, labels, weight, reduction="none")
        loss: Tensor = (entropy.mean(2) * valid).sum() / valid.sum()
        return loss


def straightforward_epoch(weights: dict[str, Tensor], folder: Path, clips: Clips) -> float:
    """Seconds of an epoch; the files are written before."""
    model, text = Straightforward(weights).train(), (clips.text_audio, clips.text_visual)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-3, betas=(0.5, 0.999))
    loader = DataLoader(Files(folder, clips), BATCH, shuffle=True, num_workers=2)
    start = time.perf_counter()
    for batch in loader:
        loss = model.loss(batch, text)
        adamw.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        adamw.step()
    return time.perf_counter() - start


def our_epoch(clips: Clips, **params: Any) -> float:
    """Seconds of an epoch as the stage runs it, with four videos to select by."""
    settled = settle(Params(width=NETWORK.width, epochs=1, device="cpu", **params), {})
    few = torch.arange(4)
    start = time.perf_counter()
    trained(NETWORK, settled, clips, clips.batch(few))
    return time.perf_counter() - start


def check_losses(weights: dict[str, Tensor], clips: Clips) -> None:
    """Stop where both do not compute the same."""
    rows = torch.arange(8)
    batch = (clips.audio[rows], clips.visual[rows], clips.labels[rows].float(), clips.lengths[rows])
    ours = TemporalGenerator(NETWORK).eval()
    ours.load_state_dict(weights)
    # With gradients: without, torch's layers take another way, which has no use for such a mask and gives NaN.
    theirs = Straightforward(weights).eval().loss(batch, (clips.text_audio, clips.text_visual))
    torch.testing.assert_close(uwav_objective(ours, clips)(rows)["audio_visual"], theirs, rtol=1e-4, atol=1e-5)


def main(videos: int = VIDEOS) -> int:
    """Time all, print what each step brings, and say by the exit code whether the factor is reached."""
    clips = world(videos)
    torch.manual_seed(0)
    weights = TemporalGenerator(NETWORK).state_dict()
    check_losses(weights, clips)
    fast = fast_precision("cpu")
    seconds = {
        "in memory, without padding, cheap dropout (fp32)": our_epoch(clips),
        f"and --precision auto ({fast} here)": our_epoch(clips, precision="auto"),
        "and --batching length": our_epoch(clips, precision="auto", batching="length"),
    }
    with tempfile.TemporaryDirectory() as folder:
        plain = straightforward_epoch(weights, Path(folder), clips)
    ratios = [plain / one for one in seconds.values()]
    print(f"pretrain, an epoch over {videos} videos: straightforward {plain:.1f} s")
    for (name, one), ratio in zip(seconds.items(), ratios, strict=True):
        print(f"pretrain, {name}: {one:.1f} s, {ratio:.1f} times as fast")
    if fast == "fp32":
        print("pretrain: this processor has no instructions for bfloat16; the factor wanted is with them")
    print(f"pretrain: {ratios[1]:.1f} times as fast with --precision auto (at least {WANTED:.0f} wanted)")
    return 0 if ratios[1] >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
