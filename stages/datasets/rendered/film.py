"""From a script to pictures and sound, and from those to an mp4 file."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.datasets.rendered.cast import CHARACTERS
from avvp_pipe.stages.datasets.rendered.looks import SIDE, backdrop, frame_of, lookalike_of, sprite_of
from avvp_pipe.stages.datasets.rendered.script import Happening, Script
from avvp_pipe.stages.datasets.rendered.sounds import RATE, burst, hum, sound_of, soundalike_of

FPS = 8
FADE_SAMPLES = 320
PEAK = 0.9
GONE_SHARE = 0.2
"""Drop-outs that leave no trace; in the others something stands before the object, or noise drowns the sound."""


def pictures(script: Script, random: np.random.Generator) -> NDArray[np.uint8]:
    """All frames of a clip: (seconds * FPS, SIDE, SIDE, 3) uint8."""
    behind = backdrop(random)
    seen = [one for one in script.happenings if one.sense == "seen"]
    sprites = [(lookalike_of if one.lookalike else sprite_of)(CHARACTERS[one.name], random) for one in seen]
    gone = [bool(random.random() < GONE_SHARE) for _ in seen]
    frames = np.empty((script.seconds * FPS, SIDE, SIDE, 3), np.uint8)
    for index in range(len(frames)):
        second = index // FPS
        # A drop-out covers the object, or takes it out of the picture.
        there = [
            number
            for number, one in enumerate(seen)
            if one.onset <= second < one.offset and not (second in one.dropped and gone[number])
        ]
        frames[index] = frame_of(
            behind,
            [sprites[number] for number in there],
            [second in seen[number].dropped for number in there],
            seconds=index / FPS,
            random=random,
        )
    return frames


def soundtrack(script: Script, random: np.random.Generator) -> NDArray[np.float32]:
    """The waveform of a clip: (seconds * RATE,) float32 in [-1, 1]."""
    track = hum(script.seconds * RATE, random) * float(random.uniform(0.05, 0.15))
    for one in script.happenings:
        if one.sense == "heard":
            track[one.onset * RATE : one.offset * RATE] += _voice(one, random)
    return np.asarray(track * (PEAK / max(float(np.abs(track).max()), PEAK)), np.float32)


def _voice(one: Happening, random: np.random.Generator) -> NDArray[np.float32]:
    samples = (one.offset - one.onset) * RATE
    make = soundalike_of if one.lookalike else sound_of
    wave = make(CHARACTERS[one.name], samples, random) * np.float32(random.uniform(0.12, 0.35))
    for second in one.dropped:
        part = slice((second - one.onset) * RATE, (second - one.onset + 1) * RATE)
        wave[part] = 0
        if random.random() >= GONE_SHARE:
            wave[part] = burst(RATE, random) * np.float32(random.uniform(0.25, 0.45))
    fade = np.linspace(0, 1, FADE_SAMPLES, dtype=np.float32)
    wave[:FADE_SAMPLES] *= fade
    wave[-FADE_SAMPLES:] *= fade[::-1]
    return wave


def write_mp4(path: Path, frames: NDArray[np.uint8], audio: NDArray[np.float32]) -> None:
    """Write H.264 at FPS and AAC mono at RATE; the file appears whole, and the same input gives the same bytes."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with av.open(str(part), "w", format="mp4") as container:
        # One thread: with more, x264's bytes depend on their timing.
        video = container.add_stream("libx264", rate=FPS, options={"preset": "superfast", "crf": "20", "threads": "1"})
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        sound.bit_rate = 48000
        for index, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        for start in range(0, len(audio), sound.frame_size or 1024):
            chunk = audio[None, start : start + (sound.frame_size or 1024)]
            samples = av.AudioFrame.from_ndarray(np.ascontiguousarray(chunk), format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = RATE, start, Fraction(1, RATE)
            container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    part.replace(path)
