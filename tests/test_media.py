"""Decoding: which frames, which samples, and what becomes of clips that are broken in one way or another."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from avvp_pipe.stages.media import ClipError, DecodedClip, Sampling, Status, Task, decode_clip, decode_clips
from avvp_pipe.stages.media.frames import linspace_indices, nearest_frames
from avvp_pipe.stages.media.quantise import as_float32, as_int16
from avvp_pipe.stages.media.resizes import crop, stretch

RATE = 16000
SMALL = Sampling(frame_size=32, sample_rate=RATE)


def write_clip(
    path: Path, *, times: list[float] | None, tone: NDArray[np.float32] | None, layout: str = "mono"
) -> Path:
    """An mp4 whose frame k is grey level 5 * k, shown at times[k]; `tone` is its sound at RATE."""
    with av.open(str(path), "w", format="mp4") as container:
        # Both streams are declared before anything is written, as mp4 wants it.
        video = container.add_stream("libx264", rate=30, options={"crf": "1"}) if times else None
        sound = container.add_stream("aac", rate=RATE, layout=layout) if tone is not None else None
        if video is not None and times is not None:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
            for index, shown in enumerate(times):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * index, np.uint8), format="rgb24")
                frame.pts, frame.time_base = round(shown * 1000), Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if sound is not None and tone is not None:
            channels = 2 if layout == "stereo" else 1
            for start in range(0, len(tone), 1024):
                piece = np.repeat(tone[None, start : start + 1024], channels, axis=0)
                samples = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout=layout)
                samples.sample_rate, samples.pts, samples.time_base = RATE, start, Fraction(1, RATE)
                container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return path


def sine(seconds: float, pitch: float = 440.0) -> NDArray[np.float32]:
    wave: NDArray[np.float32] = (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * RATE)) / RATE)).astype(
        np.float32
    )
    return wave


STEADY = [k / 8 for k in range(40)]


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("media") / "clip.mp4", times=STEADY, tone=sine(5))


def shown_index(frame: NDArray[np.uint8]) -> int:
    return round(float(frame.mean()) / 5)


def test_valors_indices_are_those_of_its_code() -> None:
    assert linspace_indices(80, 10).tolist() == [0, 9, 18, 26, 35, 44, 53, 61, 70, 79]
    assert linspace_indices(82, 10).tolist() == [0, 9, 18, 27, 36, 45, 54, 63, 72, 81]


@given(st.integers(1, 60))
def test_valors_pictures_lie_each_in_its_own_second(segments: int) -> None:
    assert (linspace_indices(8 * segments, segments) // 8).tolist() == list(range(segments))


@given(
    shown=st.lists(st.floats(0, 20), min_size=1, max_size=30, unique=True).map(sorted),
    wanted=st.lists(st.floats(0, 20), min_size=1, max_size=10),
)
def test_the_frame_chosen_is_the_nearest_in_time(shown: list[float], wanted: list[float]) -> None:
    chosen = nearest_frames(np.array(wanted), np.array(shown))
    for time_wanted, index in zip(wanted, chosen, strict=True):
        nearest = min(abs(time_shown - time_wanted) for time_shown in shown)
        assert abs(shown[index] - time_wanted) <= nearest + 1e-5


def test_the_frames_decoded_are_the_frames_named(clip_file: Path) -> None:
    clip = decode_clip(clip_file, seconds=5, sampling=SMALL)
    assert clip.frames.shape == (5, 32, 32, 3)
    assert [shown_index(frame) for frame in clip.frames] == clip.frame_indices.tolist()
    assert np.allclose(clip.frame_seconds, clip.frame_indices / 8, atol=1e-3)


def test_frames_of_a_variable_rate_are_chosen_by_when_they_are_shown(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.2, 0.3, 1.4, 1.6, 2.5, 2.9]
    path = write_clip(tmp_path / "a.mp4", times=times, tone=sine(3))
    clip = decode_clip(path, seconds=3, sampling=Sampling(frame_rule="centre", frame_size=32, sample_rate=RATE))
    assert clip.frame_indices.tolist() == [3, 4, 6]
    assert clip.frame_seconds.tolist() == pytest.approx([0.3, 1.4, 2.5], abs=2e-3)
    assert [shown_index(frame) for frame in clip.frames] == [3, 4, 6]


def test_a_tone_keeps_its_pitch_and_level(clip_file: Path) -> None:
    audio = decode_clip(clip_file, seconds=5, sampling=SMALL).audio
    spectrum = np.abs(np.fft.rfft(audio[RATE : 3 * RATE]))
    assert np.argmax(spectrum) / 2 == 440
    assert np.sqrt(np.mean(audio[RATE : 3 * RATE] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_two_equal_channels_are_as_loud_as_one(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", times=STEADY, tone=sine(5), layout="stereo")
    audio = decode_clip(path, seconds=5, sampling=SMALL).audio
    assert np.abs(audio).max() == pytest.approx(0.5, rel=0.05)


def test_sound_that_ends_early_is_padded_and_the_padding_is_told(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", times=STEADY, tone=sine(3))
    clip = decode_clip(path, seconds=5, sampling=SMALL)
    assert clip.audio.shape == (5 * RATE,)
    assert 2 * RATE - 2048 <= clip.padded_samples <= 2 * RATE
    assert not clip.audio[-clip.padded_samples :].any()


def test_stretch_is_torchs_bilinear_without_antialias() -> None:
    import torch
    from torch.nn.functional import interpolate

    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    wanted = interpolate(planes, (32, 32), mode="bilinear", antialias=False, align_corners=False)
    found = torch.from_numpy(stretch(frames, 32)).permute(0, 3, 1, 2).float()
    assert (wanted - found).abs().max() <= 0.501


def test_crop_keeps_proportions_and_the_centre() -> None:
    frames = np.zeros((1, 64, 128, 3), np.uint8)
    frames[:, :, 32:96] = 255
    assert crop(frames, 32).shape == (1, 32, 32, 3)
    assert crop(frames, 32)[0, :, 2:-2].min() > 250


def test_int16_samples_come_back_as_they_were() -> None:
    audio = np.array([0.0, 0.25, -0.5, 1.5], np.float32)
    assert as_float32(as_int16(audio)) == pytest.approx([0.0, 0.25, -0.5, 1.0], abs=1e-4)


def broken_file(folder: Path, kind: str, good: Path) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("this is not a video\n" * 100)
    elif kind == "random":
        path.write_bytes(np.random.default_rng(0).bytes(20000))
    elif kind == "cut":
        path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "silent":
        write_clip(path, times=STEADY, tone=None)
    elif kind == "blind":
        write_clip(path, times=None, tone=sine(5))
    return path


BROKEN = {
    "missing": Status.MISSING_FILE,
    "empty": Status.EMPTY_FILE,
    "text": Status.NOT_A_VIDEO,
    "random": Status.NOT_A_VIDEO,
    "cut": Status.NOT_A_VIDEO,
    "folder": Status.NOT_A_VIDEO,
    "pipe": Status.NOT_A_VIDEO,
    "silent": Status.NO_AUDIO_STREAM,
    "blind": Status.NO_VIDEO_STREAM,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_clip_fails_with_its_own_code_and_names_the_file(tmp_path: Path, clip_file: Path, kind: str) -> None:
    path = broken_file(tmp_path, kind, clip_file)
    with pytest.raises(ClipError, match=str(path)) as caught:
        decode_clip(path, seconds=5, sampling=SMALL)
    assert caught.value.status == BROKEN[kind]


def test_a_broken_clip_among_others_costs_only_itself_and_order_is_kept(tmp_path: Path, clip_file: Path) -> None:
    paths = [clip_file, broken_file(tmp_path, "text", clip_file), clip_file]
    tasks = [Task(row, path, 5) for row, path in enumerate(paths)]
    results = list(decode_clips(tasks, SMALL, workers=2, timeout_seconds=60))
    assert [task.row for task, _ in results] == [0, 1, 2]
    assert [isinstance(found, DecodedClip) for _, found in results] == [True, False, True]
    here = list(decode_clips(tasks, SMALL, workers=0, timeout_seconds=60))
    for (_, apart), (_, inside) in zip(results, here, strict=True):
        if isinstance(apart, DecodedClip) and isinstance(inside, DecodedClip):
            assert np.array_equal(apart.frames, inside.frames)
            assert np.array_equal(apart.audio, inside.audio)


# VALOR's dump of it by the ffmpeg programs 4.2.2, 7.0.2 and 9.0.2 has 82 pictures; of these 0 9 18 27 36 45 54 63 72 81
# show the frames below, found by comparing every picture with every frame.
DUMPED = [0, 29, 63, 96, 130, 164, 197, 231, 265, 298]


@pytest.mark.real_data
def test_the_real_clip_gives_ten_frames_at_the_documented_times_and_480000_samples(real_data: Path) -> None:
    path = real_data / "llp" / "BjCEufrlXm4.mp4"
    clip = decode_clip(path, seconds=10, sampling=Sampling())
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1).mean(axis=0)
    shown = np.array([moment for moment, _ in frames if moment is not None])
    shown = shown - shown[0]
    assert clip.frame_indices.tolist() == DUMPED
    assert np.allclose(clip.frame_seconds, shown[DUMPED], atol=1e-3)
    assert clip.frames.shape == (10, 224, 224, 3)
    for found, index in zip(clip.frames, DUMPED, strict=True):
        wanted = stretch(np.asarray(frames[index][1], np.uint8)[None], 224)[0]
        assert np.abs(found.astype(int) - wanted).mean() < 1.0
    assert clip.audio.shape == (480000,)
    assert np.isfinite(clip.audio).all()
    assert np.abs(clip.audio).max() == pytest.approx(np.abs(sound).max(), rel=0.02)
    assert np.sqrt(np.mean(clip.audio**2)) == pytest.approx(float(np.sqrt(np.mean(sound**2))), rel=0.01)
