"""How things sound: five voices (strike, tone, sweep, clicks, noise), each class with its own pitch and rate."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.datasets.rendered.cast import Character, Voice

RATE = 16000
"""Samples a second."""

Wave = NDArray[np.float32]


def sound_of(character: Character, samples: int, random: np.random.Generator) -> Wave:
    """The character's voice for `samples` samples, of about unit loudness; pitch and rate a little off each time."""
    return _voiced(character, samples, random, shift=float(random.uniform(0.96, 1.04)))


def soundalike_of(character: Character, samples: int, random: np.random.Generator) -> Wave:
    """Something of the character's voice at another pitch, which is of no class."""
    shift = float(random.choice([random.uniform(0.72, 0.85), random.uniform(1.18, 1.35)]))
    return _voiced(character, samples, random, shift=shift)


def hum(samples: int, random: np.random.Generator) -> Wave:
    """What is always there: soft noise, stronger at low pitch."""
    white = random.standard_normal(samples + 31, np.float32)
    smooth = np.convolve(white, np.full(32, 1 / 32, np.float32), "valid") * 4
    return np.asarray(smooth + 0.3 * white[:samples], np.float32)


def burst(samples: int, random: np.random.Generator) -> Wave:
    """Loud broadband noise that nothing is heard through."""
    return random.standard_normal(samples, np.float32)


def _voiced(character: Character, samples: int, random: np.random.Generator, *, shift: float) -> Wave:
    time = np.arange(samples, dtype=np.float32) / RATE
    rate = character.rate_hz * float(random.uniform(0.9, 1.1))
    wave = _VOICES[character.voice](time, character.low_hz * shift, character.high_hz * shift, rate, random)
    loudness = float(np.sqrt(np.mean(wave**2))) or 1.0
    return np.asarray(wave / loudness, np.float32)


def _strike(time: Wave, low: float, high: float, rate: float, random: np.random.Generator) -> Wave:
    since = (time + random.uniform(0, 1 / rate)) % (1 / rate)
    return np.asarray(
        np.exp(-since * (2 + rate * 2)) * (np.sin(2 * np.pi * low * time) + 0.6 * np.sin(2 * np.pi * high * time)),
        np.float32,
    )


def _tone(time: Wave, low: float, high: float, rate: float, random: np.random.Generator) -> Wave:
    swell = 1 + 0.6 * np.sin(2 * np.pi * rate * time + random.uniform(0, 6))
    return np.asarray(swell * (np.sin(2 * np.pi * low * time) + 0.7 * np.sin(2 * np.pi * high * time)), np.float32)


def _sweep(time: Wave, low: float, high: float, rate: float, random: np.random.Generator) -> Wave:
    pitch = low + (high - low) * (0.5 + 0.5 * np.sin(2 * np.pi * rate * time + random.uniform(0, 6)))
    turned = 2 * np.pi * np.cumsum(pitch) / RATE
    return np.asarray(np.sin(turned) + 0.3 * np.sin(2 * turned), np.float32)


def _clicks(time: Wave, low: float, high: float, rate: float, random: np.random.Generator) -> Wave:
    since = (time + random.uniform(0, 1 / rate)) % (1 / rate)
    return np.asarray(
        np.exp(-since * 60) * (np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time)), np.float32
    )


def _noise(time: Wave, low: float, high: float, rate: float, random: np.random.Generator) -> Wave:
    spectrum = np.fft.rfft(random.standard_normal(len(time), np.float32))
    pitch = np.fft.rfftfreq(len(time), 1 / RATE)
    spectrum[(pitch < low) | (pitch > high)] = 0
    swell = 1 + 0.8 * np.sin(2 * np.pi * rate * time + random.uniform(0, 6))
    return np.asarray(np.fft.irfft(spectrum, len(time)) * swell, np.float32)


_VOICES: dict[Voice, Callable[[Wave, float, float, float, np.random.Generator], Wave]] = {
    "strike": _strike,
    "tone": _tone,
    "sweep": _sweep,
    "clicks": _clicks,
    "noise": _noise,
}
