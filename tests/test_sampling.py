"""What is taken from a clip: VALOR's frames as the ffmpeg program dumps them, squares, and VALOR's pieces of sound."""

import importlib.util
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from avvp_pipe.stages.media import ClipError, Sampling, Status, decode_clip
from avvp_pipe.stages.media.audio import read_audio, read_whole_audio
from avvp_pipe.stages.media.dump import Timing, dumped_frames, read_timing, valor_grid
from avvp_pipe.stages.media.frames import linspace_indices, picked
from avvp_pipe.stages.media.quantise import as_float32, as_int16
from avvp_pipe.stages.media.resizes import crop, squares, stretch
from avvp_pipe.stages.media.segments import segment_bounds

RATE = 16000
WIDTH, HEIGHT, BLOCK = 64, 48, 16


@dataclass(frozen=True)
class Film:
    """A film whose pictures carry their number: 12 black or white blocks are its binary digits."""

    times: Sequence[int]
    base: Fraction
    name: str = "a.mp4"
    codec: str = "libx264"
    acodec: str = "aac"
    b_frames: int = 0
    sound_from: float = 0.0
    seconds: float = 3.0
    arate: int = RATE


def steady(rate: Fraction | int, seconds: float = 3.0, **more: Any) -> Film:
    return Film(range(int(seconds * rate)), 1 / Fraction(rate), seconds=seconds, **more)


def uneven(seed: int, unit: int = 90000, **more: Any) -> Film:
    """A variable rate: steps around 1/25 s, some far longer, some far shorter."""
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random(200) < 0.1, rng.uniform(0.1, 0.7, 200), rng.exponential(0.03, 200) + 0.004)
    times = np.concatenate([[0], np.cumsum(steps)])
    return Film(np.unique(np.round(times[times < 4] * unit).astype(int)).tolist(), Fraction(1, unit), seconds=4, **more)


def picture(number: int) -> NDArray[np.uint8]:
    digits = np.array([number >> digit & 1 for digit in range(12)], np.uint8).reshape(3, 4)
    return np.kron(255 * digits, np.ones((BLOCK, BLOCK), np.uint8))


def number_in(shown: NDArray[Any]) -> int:
    inner = shown.reshape(3, BLOCK, 4, BLOCK)[:, 4:12, :, 4:12].mean(axis=(1, 3)) > 127
    return sum(1 << digit for digit, bright in enumerate(inner.ravel()) if bright)


def write(folder: Path, film: Film) -> Path:
    path = folder / film.name
    options = {"bf": str(film.b_frames), "g": "12", "preset": "fast" if film.b_frames else "ultrafast", "crf": "10"}
    options = options if film.codec == "libx264" else {"g": "12", "x265-params": "log-level=none"}
    with av.open(str(path), "w") as container:
        video = container.add_stream(film.codec, rate=round(1 / film.base) if film.base > Fraction(1, 200) else 30)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.time_base, video.codec_context.options = film.base, options
        sound = container.add_stream(film.acodec, rate=film.arate, layout="mono")
        assert isinstance(sound, av.AudioStream)
        for number, moment in enumerate(film.times):
            frame = av.VideoFrame.from_ndarray(picture(number), format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = moment, film.base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        wave = (0.3 * np.sin(np.arange(int(film.seconds * film.arate)) / 10)).astype(np.float32)
        form, step = sound.codec_context.format.name, sound.codec_context.frame_size or 1024
        wave = (wave * 32767).astype(np.int16) if form == "s16" else wave
        for begin in range(0, len(wave), step):
            samples = av.AudioFrame.from_ndarray(wave[None, begin : begin + step].copy(), format=form, layout="mono")
            samples.sample_rate, samples.time_base = film.arate, Fraction(1, film.arate)
            samples.pts = begin + round(film.sound_from * film.arate)
            container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    return path


# --- the dump, against the program ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ffmpeg() -> tuple[Path, bool]:
    """The ffmpeg program that imageio-ffmpeg ships, and whether it counts durations in the old way."""
    found = importlib.util.find_spec("imageio_ffmpeg")
    assert found is not None, "the tests want the ffmpeg program: pip install -e '.[dev]'"
    assert found.origin is not None
    programs = sorted(Path(found.origin).parent.glob("binaries/ffmpeg-*"))
    assert programs, f"imageio-ffmpeg has no program for this machine beside {found.origin}"
    said = subprocess.run([programs[0], "-version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"ffmpeg version n?(\d+)", said)
    assert version is not None, said[:100]
    return programs[0], int(version.group(1)) < 7


def dump_by(program: Path, video: Path, folder: Path) -> list[int]:
    """VALOR's command; which of the film's pictures it wrote, one after the other."""
    folder.mkdir()
    command: list[str | Path] = [program, "-v", "error", "-i", video, "-r", "8", folder / "%06d.jpg"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    numbers = []
    for path in sorted(folder.iterdir()):
        with av.open(str(path)) as written:
            numbers.append(number_in(next(written.decode(video=0)).to_ndarray(format="gray")))
    return numbers


NTSC = Fraction(30000, 1001)
FILMS = {
    **{f"{rate} fps": steady(rate) for rate in (1, 5, 8, 10, 12, 15, 24, 25, 30, 50, 60)},
    "29.97 fps": steady(NTSC),
    "23.976 fps, B frames": steady(Fraction(24000, 1001), b_frames=2),
    "25 fps, B frames": steady(25, b_frames=2),
    "15 fps, B frames": steady(15, b_frames=2),
    "25 fps, 10.25 s": steady(25, 10.25),
    "sound begins late": steady(NTSC, sound_from=0.3, b_frames=2),
    "pictures begin late": Film(range(9, 80), Fraction(1, 25)),
    "variable": uneven(1),
    "variable, coarse clock": uneven(2, unit=600),
    "variable, pictures begin late": replace(uneven(3), times=[moment + 20000 for moment in uneven(3).times]),
    "mov": steady(25, name="a.mov", b_frames=2),
    "flv": steady(NTSC, name="a.flv", b_frames=2, arate=44100),
    "mkv, Opus": steady(NTSC, name="a.mkv", acodec="libopus", arate=48000, b_frames=2),
    "webm": steady(NTSC, name="a.webm", codec="libvpx-vp9", acodec="libopus", arate=48000),
    "HEVC": steady(24, codec="libx265"),
    "MPEG-4": steady(NTSC, codec="mpeg4"),
}


@pytest.mark.parametrize("kind", FILMS)
def test_the_dump_is_the_ffmpeg_programs_picture_by_picture(
    kind: str, tmp_path: Path, ffmpeg: tuple[Path, bool]
) -> None:
    program, old = ffmpeg
    video = write(tmp_path, FILMS[kind])
    wanted = dump_by(program, video, tmp_path / "dump")
    assert len(wanted) > 8
    assert dumped_frames(read_timing(video, old=old), old=old).tolist() == wanted


def test_variable_rates_with_b_frames_are_dumped_as_the_program_does(tmp_path: Path, ffmpeg: tuple[Path, bool]) -> None:
    program, old = ffmpeg
    for seed in range(4):
        video = write(tmp_path, uneven(seed, b_frames=2, name=f"{seed}.mp4"))
        wanted = dump_by(program, video, tmp_path / f"dump{seed}")
        assert dumped_frames(read_timing(video, old=old), old=old).tolist() == wanted


def test_a_clip_decoded_has_the_frames_valor_would_have_embedded(tmp_path: Path, ffmpeg: tuple[Path, bool]) -> None:
    program, old = ffmpeg
    video = write(tmp_path, steady(NTSC, 10.0, b_frames=2))
    dump = dump_by(program, video, tmp_path / "dump")
    valor = [dump[int(place)] for place in np.round(np.linspace(0, len(dump) - 1, 10))]
    rule = "linspace" if old else "linspace-7"
    clip = decode_clip(video, seconds=10, sampling=Sampling(frame_rule=rule, frame_size=WIDTH, sample_rate=RATE))
    assert clip.frame_indices.tolist() == valor
    pictures = [stretch(frame[None].repeat(1, 0), WIDTH)[0][:, :, 0] for frame in clip.frames]
    rows = np.round((np.arange(HEIGHT) + 0.5) * WIDTH / HEIGHT - 0.5).astype(int)
    assert [number_in(shown[rows]) for shown in pictures] == valor


# Written down from the programs 4.2.2 (old) and 9.0.2 (new; 7.0.2 gives the same): ten seconds at a constant rate,
# the number of pictures and the ten that VALOR's rule picks.
DUMPED = {
    1: (80, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    5: (80, [0, 5, 11, 16, 21, 27, 33, 38, 43, 49], [0, 5, 11, 16, 22, 27, 33, 38, 44, 49]),
    8: (80, [0, 9, 18, 26, 35, 44, 53, 61, 70, 79], [0, 9, 18, 26, 35, 44, 53, 61, 70, 79]),
    10: (82, [0, 9, 20, 32, 43, 54, 65, 77, 88, 99], [0, 9, 21, 32, 43, 54, 66, 77, 88, 99]),
    15: (82, [0, 13, 30, 47, 64, 81, 98, 115, 132, 148], [0, 14, 31, 48, 65, 82, 99, 116, 132, 149]),
    25: (82, [0, 24, 52, 80, 109, 137, 165, 193, 221, 249], [0, 24, 52, 80, 109, 137, 165, 193, 221, 249]),
    30: (82, [0, 29, 63, 97, 130, 164, 198, 232, 265, 299], [0, 29, 63, 97, 130, 164, 198, 232, 265, 299]),
    60: (82, [0, 59, 126, 194, 261, 329, 396, 464, 531, 599], [0, 59, 126, 194, 261, 329, 396, 464, 531, 599]),
}


def at_rate(rate: int, seconds: int = 10) -> Timing:
    count = rate * seconds
    return Timing(np.arange(count), np.ones(count, np.int64), Fraction(1, rate), Fraction(rate), 0)


@pytest.mark.parametrize("rate", DUMPED)
def test_both_generations_of_the_program_are_told_apart(rate: int) -> None:
    count, *generations = DUMPED[rate]
    for old, wanted in zip((True, False), generations, strict=True):
        dump = dumped_frames(at_rate(rate), old=old)
        assert len(dump) == count
        assert picked(dump, 10.0, 10, 1, 8).tolist() == wanted


@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=60))
def test_a_dump_goes_forward_and_keeps_to_the_clock(steps: list[float]) -> None:
    moments = np.concatenate([[0.0], np.cumsum(steps)[:-1]]).tolist()
    grid = valor_grid(moments, steps)
    assert (np.diff(grid) >= 0).all()
    assert len(grid) == 0 or (grid[0] == 0 and grid[-1] < len(steps))
    for place, frame in enumerate(grid):
        assert moments[frame] + steps[frame] >= place - 1.1 - 1e-6  # never further ahead than that
    assert abs(len(grid) - sum(steps)) <= 4.2  # and as many pictures as the film has eighths, but for its ends


# --- the rules ------------------------------------------------------------------------------------------------------


def test_a_clip_much_shorter_than_asked_keeps_each_frame_in_its_own_second(tmp_path: Path) -> None:
    video = write(tmp_path, steady(8, 8.75))  # 70 pictures; ten of them would come 0.96 s apart
    clip = decode_clip(video, seconds=10, sampling=Sampling(frame_size=16, sample_rate=RATE))
    assert clip.frame_indices.tolist() == [0, 9, 18, 26, 35, 44, 53, 61, 69, 69]


def test_a_clip_a_little_short_has_valors_own_picks(tmp_path: Path) -> None:
    video = write(tmp_path, steady(8, 9.75))  # 78 pictures
    clip = decode_clip(video, seconds=10, sampling=Sampling(frame_size=16, sample_rate=RATE))
    assert clip.frame_indices.tolist() == np.round(np.linspace(0, 77, 10)).astype(int).tolist()


def test_of_a_long_recording_the_seconds_asked_are_sampled_as_if_it_ended_there(tmp_path: Path) -> None:
    short, long = write(tmp_path, steady(25, 4)), write(tmp_path, steady(25, 20, name="long.mp4"))
    taken = [
        decode_clip(video, seconds=4, sampling=Sampling(frame_size=16, sample_rate=RATE)) for video in (short, long)
    ]
    assert taken[0].frame_indices.tolist() == taken[1].frame_indices.tolist()
    assert taken[1].frame_seconds[-1] < 4


@pytest.mark.parametrize("per_second", [1, 2, 3, 8])
def test_several_frames_a_second_come_second_by_second(tmp_path: Path, per_second: int) -> None:
    video = write(tmp_path, steady(24, 3))
    plain = Sampling(frame_size=16, sample_rate=RATE, frames_per_second=per_second)
    middles = decode_clip(video, seconds=3, sampling=replace(plain, frame_rule="centre"))
    by_hand = [(2 * part + 1) / (2 * per_second) for part in range(3 * per_second)]
    assert middles.frames.shape == (3 * per_second, 16, 16, 3)
    assert np.abs(middles.frame_seconds - by_hand).max() <= 1 / 48 + 1e-6
    assert np.floor(middles.frame_seconds).tolist() == np.repeat([0, 1, 2], per_second).tolist()
    spread = decode_clip(video, seconds=3, sampling=plain)
    dump = dumped_frames(read_timing(video))
    assert spread.frame_indices.tolist() == dump[linspace_indices(len(dump), 3 * per_second)].tolist()


def test_what_makes_no_sense_is_refused_by_name() -> None:
    for fault, wanted in (
        ({"frame_rule": "random"}, "no frame rule 'random'; there are linspace, linspace-7, centre"),
        ({"frame_dtype": "int8"}, "no frame dtype 'int8'; there are uint8, float32"),
        ({"audio_cut": "loose"}, "no audio cut 'loose'; there are exact, valor"),
        ({"resize": "squash"}, "no resize 'squash'; there are stretch, crop"),
        ({"frames_per_second": 0}, "wanted positive numbers"),
    ):
        with pytest.raises(ValueError, match=wanted):
            Sampling(**fault)


# --- squares --------------------------------------------------------------------------------------------------------

SHAPES = [(1, 1), (2, 2), (17, 33), (48, 64), (33, 17), (1, 90), (224, 224)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [1, 32, 224])
def test_stretch_keeps_what_lies_between_grey_levels_as_torch_does(shape: tuple[int, int], side: int) -> None:
    import torch
    from torch.nn.functional import interpolate

    frames = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    wanted = interpolate(planes, (side, side), mode="bilinear", antialias=False, align_corners=False)
    found = squares(frames, side, "stretch", "float32")
    assert found.dtype == np.float32
    assert np.abs(found - wanted.permute(0, 2, 3, 1).numpy()).max() < 2e-3
    assert np.array_equal(squares(frames, side, "stretch", "uint8"), np.rint(found).astype(np.uint8))


def mixed(lines: NDArray[Any], side: int) -> NDArray[np.float32]:
    """(n, ...) to (side, ...): of each new line the two old ones around its middle, by how near they are."""
    middle = np.maximum((np.arange(side) + 0.5) * (len(lines) / side) - 0.5, 0)
    first = np.minimum(middle.astype(int), len(lines) - 1)
    share = (middle - first).astype(np.float32).reshape(-1, *[1] * (lines.ndim - 1))
    one, other = (lines[at].astype(np.float32) for at in (first, np.minimum(first + 1, len(lines) - 1)))
    return np.asarray(one + (other - one) * share, np.float32)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(0, 99))
def test_stretch_mixes_rows_and_then_columns_whatever_it_leaves_out_or_does_in_parts(
    height: int, width: int, side: int, seed: int
) -> None:
    pictures = list(np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), np.uint8))
    wanted = [mixed(mixed(one, side).swapaxes(0, 1), side).swapaxes(0, 1) for one in pictures]
    assert np.array_equal(stretch(pictures, side, np.float32), wanted)
    assert np.array_equal(stretch(np.stack(pictures), side), np.rint(wanted).astype(np.uint8))


@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_one_grey_stays_that_grey_in_pictures_of_any_size(resize: str) -> None:
    for shape in [*SHAPES, (2, 1000), (1000, 2), (4320, 8192)]:
        frames = np.full((1, *shape, 3), 77, np.uint8)
        for dtype in ("uint8", "float32"):
            found = squares(frames, 64, resize, dtype)
            assert found.shape == (1, 64, 64, 3)
            assert (found == 77).all()


def test_crop_of_a_very_long_picture_is_the_middle_of_the_whole_picture_resized() -> None:
    from PIL import Image

    frame = np.random.default_rng(0).integers(0, 256, (4, 200, 3), np.uint8)
    whole = np.asarray(Image.fromarray(frame).resize((800, 16), Image.Resampling.BICUBIC))
    found = crop(frame[None], 16)[0].astype(int)
    assert np.abs(found - whole[:, 392:408]).max() <= 1
    assert np.array_equal(squares(frame[None], 16, "crop", "float32")[0], found.astype(np.float32))


# --- sound ----------------------------------------------------------------------------------------------------------


def test_seconds_cut_exactly_are_seconds() -> None:
    assert segment_bounds(480000, 10, rate=48000, cut="exact") == [(t * 48000, (t + 1) * 48000) for t in range(10)]


def test_valors_tenths_of_ten_seconds_are_seconds_too() -> None:
    bounds = segment_bounds(480000, 10, rate=48000, cut="valor")
    assert bounds == segment_bounds(480000, 10, rate=48000, cut="exact")


def test_valors_tenths_of_a_little_more_share_or_leave_out_a_sample() -> None:
    # 480512 / 10 = 48051.2: pieces of 48051, from 0, 48051.2, 96102.4, 144153.6, 192204.8, 240256, 288307.2, ...
    begins = [0, 48051, 96102, 144154, 192205, 240256, 288307, 336358, 384410, 432461]
    bounds = segment_bounds(480512, 10, rate=48000, cut="valor")
    assert bounds == [(begin, begin + 48051) for begin in begins]
    assert 480000 // 48051 == 9  # copies that fill CLAP's ten seconds; a second of zeros remains
    assert 480000 // 48000 == 10


@given(st.integers(1, 60), st.integers(0, 10**6))
def test_valors_pieces_are_equally_long_and_lie_within_the_sound(segments: int, more: int) -> None:
    samples = segments + more
    bounds = segment_bounds(samples, segments, rate=48000, cut="valor")
    assert {end - begin for begin, end in bounds} == {samples // segments}
    assert bounds[0][0] == 0
    assert bounds[-1][1] <= samples
    for (_, end), (begin, _) in pairwise(bounds):
        assert -1 <= begin - end <= 1


def test_sound_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="480000 or more samples"):
        segment_bounds(479999, 10, rate=48000, cut="exact")
    with pytest.raises(ValueError, match="10 or more samples"):
        segment_bounds(9, 10, rate=48000, cut="valor")
    with pytest.raises(ValueError, match="no audio cut 'fine'"):
        segment_bounds(480000, 10, rate=48000, cut="fine")


def test_samples_are_quantised_by_laion_claps_formula() -> None:
    audio = np.random.default_rng(0).uniform(-1.5, 1.5, 10000).astype(np.float32)
    clipped = np.clip(audio, a_min=-1.0, a_max=1.0)
    assert np.array_equal(as_int16(audio), (clipped * 32767.0).astype(np.int16))  # laion_clap, float32_to_int16
    every = np.arange(-32767, 32768).astype(np.int16)
    assert np.array_equal(as_float32(every), (every / 32767.0).astype(np.float32))  # laion_clap, int16_to_float32


def write_sound(path: Path, wave: NDArray[Any], rate: int, **more: Any) -> Path:
    """A film of one grey with this sound (channels, samples) as it is; delay: of the sound in s."""
    form, layout = more.get("form", "s16"), "stereo" if len(wave) == 2 else "mono"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream(more.get("codec", "pcm_s16le"), rate=rate, layout=layout)
        assert isinstance(sound, av.AudioStream)
        for number in range(int(25 * more.get("seconds", 3))):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32), 90, np.uint8), format="gray").reformat(
                format="yuv420p"
            )
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        flat = np.ascontiguousarray(wave.T.reshape(1, -1))
        samples = av.AudioFrame.from_ndarray(flat, format=form, layout=layout)
        samples.sample_rate, samples.time_base = rate, Fraction(1, rate)
        samples.pts = round(more.get("delay", 0.0) * rate)
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    return path


def noise(count: int, channels: int = 1) -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(-9000, 9000, (channels, count)).astype(np.int16)


def test_the_whole_sound_is_every_sample_of_the_file_whenever_it_begins(tmp_path: Path) -> None:
    wave = noise(3 * RATE + 1234)
    path = write_sound(tmp_path / "a.mkv", wave, RATE, delay=0.4)
    assert np.array_equal(read_whole_audio(path, seconds=3, rate=RATE), wave[0] / np.float32(32768))
    on_the_clock, padded = read_audio(path, seconds=3, rate=RATE)
    assert padded == pytest.approx(0.4 * RATE, abs=16)
    assert not on_the_clock[: int(0.39 * RATE)].any()


def test_sound_at_another_rate_is_librosas_to_the_sample(tmp_path: Path) -> None:
    import librosa

    wave = noise(3 * 44100 + 321, channels=2)
    path = write_sound(tmp_path / "a.mkv", wave, 44100)
    native = (wave / np.float32(32768)).astype(np.float32)
    wanted = librosa.resample(librosa.to_mono(native), orig_sr=44100, target_sr=48000)
    found = read_whole_audio(path, seconds=3, rate=48000)
    assert len(found) == int(np.ceil((3 * 44100 + 321) * 48000 / 44100))
    assert np.array_equal(found, wanted)


def test_sound_beyond_full_scale_is_clipped_only_for_valor(tmp_path: Path) -> None:
    loud = (1.6 * np.sin(np.arange(3 * RATE) / 20)).astype(np.float32)[None]
    path = write_sound(tmp_path / "a.mkv", loud, RATE, codec="pcm_f32le", form="flt")
    assert np.abs(read_whole_audio(path, seconds=3, rate=RATE)).max() == 1
    assert np.abs(read_audio(path, seconds=3, rate=RATE)[0]).max() > 1.59


def test_sound_much_longer_than_asked_is_taken_for_the_seconds_asked(tmp_path: Path) -> None:
    def counted(seconds: float) -> int:
        path = write_sound(tmp_path / "a.mkv", noise(int(seconds * RATE)), RATE, seconds=seconds)
        clip = decode_clip(path, seconds=3, sampling=Sampling(frame_size=16, sample_rate=RATE, audio_cut="valor"))
        assert clip.padded_samples == 0
        return len(clip.audio)

    assert counted(3.4) == int(3.4 * RATE)
    assert counted(3.5) == 3 * RATE
    assert counted(8.0) == 3 * RATE
    assert counted(2.5) == int(2.5 * RATE)


def test_samples_that_are_no_numbers_are_not_hidden_by_16_bits(tmp_path: Path) -> None:
    wave = np.zeros((1, 3 * RATE), np.float32)
    wave[0, RATE] = np.nan
    path = write_sound(tmp_path / "a.mkv", wave, RATE, codec="pcm_f32le", form="flt")
    with pytest.raises(ClipError) as caught:
        read_whole_audio(path, seconds=3, rate=RATE)
    assert caught.value.status == Status.NON_FINITE


# --- the real clip --------------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_the_real_clip_is_dumped_as_the_program_does_in_82_pictures(
    real_data: Path, tmp_path: Path, ffmpeg: tuple[Path, bool]
) -> None:
    program, old = ffmpeg
    video = real_data / "llp" / "BjCEufrlXm4.mp4"
    raw = ["-r", "8", "-f", "image2pipe", "-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    dumped = subprocess.run([program, "-v", "error", "-i", video, *raw], capture_output=True, check=True).stdout
    pictures = np.frombuffer(dumped, np.uint8).reshape(-1, 360, 320)
    with av.open(str(video)) as container:
        frames = np.stack([frame.to_ndarray() for frame in container.decode(video=0)])
    dump = dumped_frames(read_timing(video, old=old), old=old)
    assert len(dump) == len(pictures) == 82
    assert np.array_equal(frames[dump], pictures)
    clip = decode_clip(video, seconds=10)
    assert clip.frame_indices.tolist() == dump[[0, 9, 18, 27, 36, 45, 54, 63, 72, 81]].tolist()


@pytest.mark.real_data
def test_the_real_clips_sound_is_cut_as_valor_did(real_data: Path) -> None:
    video = real_data / "llp" / "BjCEufrlXm4.mp4"
    # 441,344 samples at 44.1 kHz are ceil(441344 * 48000 / 44100) = ceil(480374.15) at 48 kHz. A tenth is 48037.5,
    # so pieces have 48,037 and begin at 0, 48037.5, 96075, ..., halves to even. 480000 // 48037 = 9 copies for CLAP.
    clip = decode_clip(video, seconds=10, sampling=Sampling(audio_cut="valor"))
    assert (clip.audio.shape, clip.padded_samples) == ((480375,), 0)
    begins = [0, 48038, 96075, 144112, 192150, 240188, 288225, 336262, 384300, 432338]
    bounds = segment_bounds(480375, 10, rate=48000, cut="valor")
    assert bounds == [(begin, begin + 48037) for begin in begins]
    assert 480000 // 48037 == 9


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_real_clips_sound_is_what_librosa_loads(
    real_data: Path, tmp_path: Path, ffmpeg: tuple[Path, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    import librosa

    (tmp_path / "ffmpeg").symlink_to(ffmpeg[0])
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    video = real_data / "llp" / "BjCEufrlXm4.mp4"
    wanted, _ = librosa.load(video, sr=48000)
    found = read_whole_audio(video, seconds=10, rate=48000)
    if ffmpeg[1]:  # later programs leave out the last 363 samples, which the file's edit list does not show
        assert found.shape == wanted.shape
    assert np.abs(found[: len(wanted)] - wanted)[:-100].max() <= 1 / 32768
