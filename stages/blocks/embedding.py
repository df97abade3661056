"""Media in, embeddings out, one unit at a time: the same for one process, several, or a cluster.

    frames (n, T * k, S, S, 3) -> visual (n, T, Dv): the k of a second averaged and normalised again
    audio  (n, W) -> T pieces  -> audio  (n, T, Da)          whole sound -> audio_map (n, 64, 768), VALOR++'s input

Batches are cut from all segments that the dataset says there are, clips that failed included (as zeros, their rows are
NaN afterwards): which neighbours failed, were redone or were lost with a kill does not change a bit of a clip.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.clips.units import Unit
from avvp_pipe.stages.media.clip import Sampling
from avvp_pipe.stages.media.quantise import as_float32, as_int16
from avvp_pipe.stages.media.segments import segment_bounds
from avvp_pipe.store.status import Status

if TYPE_CHECKING:
    from avvp_pipe.stages.teachers import AudioTeacher, VisualTeacher

__all__ = ["Columns", "Embedder", "Embedding", "Tick", "load_embedder"]

MAP_SHAPE = (64, 768)
"""Of VALOR++'s feature map: 2 bands of frequency x 32 steps of time, and channels."""

Tick = Callable[[int], None]
"""Told how many more embeddings are done."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """How units are embedded, in plain values that can be sent to another process or machine."""

    visual_teacher: str
    audio_teacher: str
    sampling: Sampling
    visual_weights: str = ""
    audio_weights: str = ""
    precision: str = "fp32"
    audio_fill: str = "repeatpad"
    quantise: bool = True
    """Round samples to 16 bits, as laion_clap does with arrays, unless the media are 16 bits already."""
    audio_map: bool = False
    device: str = "cpu"
    batch_size: int = 16
    threads: int = 0
    """Of torch on a CPU; 0: as torch chooses. The last bits of results depend on it."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What embedding makes."""

    segments: int
    """T."""
    shapes: Mapping[str, tuple[int, ...]]
    """Array -> shape of one clip's row, float32."""
    visual_log_scale: float
    audio_log_scale: float


def load_embedder(recipe: Embedding) -> "Embedder":
    """Load both teachers. Raises ValueError where weights are missing, do not fit, or have no feature map."""
    import torch

    from avvp_pipe.stages.blocks.memory import keep_heap
    from avvp_pipe.stages.teachers import audio_teacher, visual_teacher

    keep_heap()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    placed: dict[str, str] = {"device": recipe.device, "precision": recipe.precision}
    seer = visual_teacher(recipe.visual_teacher, weights=recipe.visual_weights, **placed)
    hearer = audio_teacher(recipe.audio_teacher, weights=recipe.audio_weights, fill=recipe.audio_fill, **placed)
    if recipe.audio_map and not getattr(hearer, "has_maps", False):
        raise ValueError(f"--audio-map needs a teacher with VALOR++'s feature map (HTSAT-tiny…), not {hearer.name}")
    return Embedder(recipe, seer, hearer)


@dataclass(frozen=True, slots=True)
class Embedder:
    """Both teachers, ready."""

    recipe: Embedding
    seer: "VisualTeacher"
    hearer: "AudioTeacher"

    def texts(self, prompts: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, NDArray[np.float32]]:
        """Event texts of every prompt set: text_visual/SET (C, Dv) and text_audio/SET (C, Da), L2-normalised."""
        found = {f"text_visual/{name}": self.seer.texts(texts["visual"]) for name, texts in prompts.items()}
        return found | {f"text_audio/{name}": self.hearer.texts(texts["audio"]) for name, texts in prompts.items()}

    def columns(self, segments: int) -> Columns:
        """What `unit` makes of clips of up to so many segments."""
        per_second = self.recipe.sampling.frames_per_second
        shapes: dict[str, tuple[int, ...]] = {
            "visual": (segments, self.seer.width),
            "audio": (segments, self.hearer.width),
        }
        if per_second > 1:
            shapes["visual_frames"] = (segments, per_second, self.seer.width)
        if self.recipe.audio_map:
            shapes["audio_map"] = MAP_SHAPE
        return Columns(segments, shapes, self.seer.log_scale, self.hearer.log_scale)

    def unit(self, media: Unit, lengths: NDArray[np.int32], segments: int, tick: Tick = lambda more: None) -> Unit:
        """Embed a unit of media. lengths: (n,) seconds of its clips. Rows of clips that failed are NaN."""
        exists = np.arange(segments) < lengths[:, None]
        good = media.arrays["status"] == Status.OK
        arrays: dict[str, NDArray[Any]] = {
            name: np.full((len(lengths), *shape), np.nan, np.float32)
            for name, shape in self.columns(segments).shapes.items()
        }
        if good.any():
            self._see(media, exists, good, arrays, tick)
            self._hear(media, lengths, exists, good, arrays, tick)
            for array in arrays.values():
                array[~good] = np.nan
        else:
            tick(2 * int(exists.sum()))
        arrays["status"] = media.arrays["status"]
        return Unit(media.rows, arrays, media.failures)

    def _see(
        self, media: Unit, exists: NDArray[np.bool_], good: NDArray[np.bool_], arrays: dict[str, Any], tick: Tick
    ) -> None:
        per_second, side = self.recipe.sampling.frames_per_second, self.seer.image_size
        frames = media.arrays["frames"]
        frames = frames.reshape(*exists.shape, per_second, *frames.shape[2:])[exists]
        needed = np.repeat(np.broadcast_to(good[:, None], exists.shape)[exists], per_second)
        flat = fit_frames(frames.reshape(-1, *frames.shape[2:]), side)
        seen = self._batched(self.seer.images, flat, needed, tick, per_second)
        seen = seen.reshape(-1, per_second, self.seer.width)
        arrays["visual"][exists] = seen[:, 0] if per_second == 1 else _mean_direction(seen)
        if per_second > 1:
            arrays["visual_frames"][exists] = seen

    def _hear(
        self,
        media: Unit,
        lengths: NDArray[np.int32],
        exists: NDArray[np.bool_],
        good: NDArray[np.bool_],
        arrays: dict[str, Any],
        tick: Tick,
    ) -> None:
        waves = self._samples(media)
        cut, rate = self.recipe.sampling.audio_cut, self.recipe.sampling.sample_rate
        pieces: list[NDArray[np.float32]] = []
        for wave, samples, seconds in zip(waves, media.arrays["audio_samples"], lengths, strict=True):
            bounds = segment_bounds(int(samples) or int(seconds) * rate, int(seconds), rate=rate, cut=cut)
            pieces += [wave[begin:end] for begin, end in bounds]
        pieces = at_rate(pieces, rate, self.hearer.sample_rate)
        alike = len({len(piece) for piece in pieces}) == 1
        needed = np.broadcast_to(good[:, None], exists.shape)[exists]
        heard = self._batched(self.hearer.sounds, np.stack(pieces) if alike else pieces, needed, tick)
        arrays["audio"][exists] = heard
        if self.recipe.audio_map:
            for row in np.flatnonzero(good):
                whole = waves[row, : int(media.arrays["audio_samples"][row])]
                arrays["audio_map"][row] = self.hearer.maps(whole[None])[0]  # type: ignore[attr-defined]

    def _samples(self, media: Unit) -> NDArray[np.float32]:
        audio = media.arrays["audio"]
        if self.recipe.quantise and audio.dtype != np.int16:
            audio = as_int16(audio)
        return as_float32(audio)

    def _batched(
        self,
        embed: Callable[[Any], NDArray[np.float32]],
        items: Any,
        needed: NDArray[np.bool_],
        tick: Tick,
        of: int = 1,
    ) -> NDArray[np.float32]:
        """Embed in batches that begin at fixed places; one in which nothing is needed is left out, as NaN.

        `tick` is told once for every `of` items. Raises ValueError where an embedding is not finite.
        """
        found: NDArray[np.float32] | None = None
        size = self.recipe.batch_size
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            if needed[start : start + size].any():
                embedded = embed(batch)
                if not np.isfinite(embedded[needed[start : start + size]]).all():
                    raise ValueError(
                        f"a teacher's embeddings in {self.recipe.precision} are not finite; "
                        "in fp16 numbers may grow too large: use --precision bf16 or fp32"
                    )
                if found is None:
                    found = np.full((len(items), embedded.shape[1]), np.nan, np.float32)
                found[start : start + size] = embedded
            tick((start + len(batch)) // of - start // of)
        assert found is not None, "nothing was needed"
        return found


def _mean_direction(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M, k, D) unit vectors -> (M, D), their mean at length 1."""
    mean = vectors.mean(axis=1)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True).clip(min=1e-12), np.float32)


def fit_frames(frames: NDArray[Any], side: int) -> NDArray[Any]:
    """Resize square frames (M, S, S, 3) to the teacher's (M, side, side, 3), bilinear with antialias.

    Frames that were decoded at the teacher's size, as they should be, come back untouched.
    """
    if frames.shape[1:3] == (side, side):
        return frames
    import torch
    from torch.nn.functional import interpolate

    moved = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    resized = interpolate(moved, (side, side), mode="bilinear", antialias=True, align_corners=False)
    if frames.dtype == np.uint8:
        resized = resized.round().clamp(0, 255).byte()
    return np.asarray(resized.permute(0, 2, 3, 1).contiguous().numpy())


def at_rate(pieces: list[NDArray[np.float32]], rate: int, wanted: int) -> list[NDArray[np.float32]]:
    """Resample pieces to the teacher's rate with torchaudio's windowed sinc, each by itself."""
    if rate == wanted:
        return pieces
    import torch
    from torchaudio.functional import resample

    found = []
    for piece in pieces:
        resampled = resample(torch.from_numpy(piece.copy()), rate, wanted)
        found.append(np.asarray(resampled.numpy()[: max(len(piece) * wanted // rate, 1)], np.float32))
    return found
