"""Decoding keeps time: odd containers, odd clocks and odd frame orders give the frame and the sound of the moment."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avvp_pipe.stages.media import ClipError, Sampling, Status, decode_clip
from avvp_pipe.stages.media.dump import read_timing
from avvp_pipe.stages.media.frames import centre_times, nearest_frames, picked, seen_in_time
from avvp_pipe.stages.media.probe import index_video
from avvp_pipe.stages.media.resizes import crop, stretch
from avvp_pipe.stages.media.video import decoders, read_frames

RATE = 16000
SMALL = Sampling(frame_size=32, sample_rate=RATE)
STEADY = [k * 40 for k in range(75)]
REORDERED = {"preset": "medium", "bf": "3", "g": "12"}


def write(path: Path, *, codec: str = "libx264", options: Mapping[str, str] = REORDERED, **more: Any) -> Path:
    """A film of 3 s at 25 fps, frame k of grey level 3 * k, with a tone.

    shown: times of the frames in ms; sound: samples; delay: of the sound in s; holes: s without sound; acodec, muxer.
    """
    sound = more.get("sound", sine(3))
    with av.open(str(path), "w", options=more.get("muxer", {})) as container:
        video = container.add_stream(codec, rate=1000)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        video.codec_context.options = dict(options)
        audio = container.add_stream(more.get("acodec", "aac"), rate=RATE, layout="mono")
        assert isinstance(audio, av.AudioStream)
        for index, shown in enumerate(more.get("shown", STEADY)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 3 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = shown, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, len(sound), 1024):
            if any(begin <= start / RATE < end for begin, end in more.get("holes", ())):
                continue
            samples = av.AudioFrame.from_ndarray(
                sound[None, start : start + 1024], format=more.get("sformat", "fltp"), layout="mono"
            )
            samples.sample_rate, samples.time_base = RATE, Fraction(1, RATE)
            samples.pts = start + round(more.get("delay", 0.0) * RATE)
            container.mux(audio.encode(samples))
        container.mux(audio.encode(None))
    return path


def sine(seconds: float) -> NDArray[np.float32]:
    tone: NDArray[np.float32] = (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE)) / RATE)).astype(
        np.float32
    )
    return tone


def cut_without_encoding(source: Path, target: Path, seconds: float) -> Path:
    """What `ffmpeg -ss SECONDS -c copy` makes: frames before the cut stay in the file, hidden by an edit list."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        twins = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is None or packet.pts is None:
                continue
            shift = int(seconds / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = twins[packet.stream_index]
            new.mux(packet)
    return target


def all_frames(path: Path) -> list[tuple[float, NDArray[Any]]]:
    """Every frame as a player shows it: its time on the file's clock, and its pixels. The slow, sure way."""
    with av.open(str(path)) as container:
        return [(float(frame.time or 0), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def odd_film(folder: Path, kind: str) -> Path:
    x264 = {**REORDERED, "x264-params": "open-gop=1:scenecut=0"}
    if kind == "edit list":
        return cut_without_encoding(write(folder / "whole.mp4"), folder / "cut.mp4", 0.9)
    if kind == "MPEG-4 with B frames":
        return write(folder / "a.mp4", codec="mpeg4", options={"bf": "2", "g": "12"})
    if kind == "HEVC":
        return write(folder / "a.mp4", codec="libx265", options={"x265-params": "log-level=none:keyint=12"})
    if kind == "open GOP":
        return write(folder / "a.mp4", options=x264)
    if kind == "intra refresh":
        return write(folder / "a.mp4", options={**REORDERED, "x264-params": "intra-refresh=1"})
    if kind == "avi":  # knows no presentation times, so no B frames here
        return write(folder / "a.avi", codec="mpeg4", options={"g": "12"})
    return write(folder / f"a.{kind}")


PLAIN = ["mp4", "mov", "mkv"]
ODD = ["ts", "avi", "flv", "edit list", "open GOP", "intra refresh", "MPEG-4 with B frames", "HEVC"]


@pytest.mark.parametrize("first", ["sparing", "decord", "pyav"])
@pytest.mark.parametrize("kind", PLAIN + ODD)
def test_every_frame_asked_for_is_the_frame_a_player_shows_then(tmp_path: Path, kind: str, first: str) -> None:
    path = odd_film(tmp_path, kind)
    truth = all_frames(path)
    index = index_video(path)
    assert index.seekable == (kind in PLAIN)
    assert index.shown_seconds + index.start_seconds == pytest.approx([moment for moment, _ in truth], abs=1e-6)
    chosen = np.linspace(0, len(truth) - 1, 10).round().astype(np.intp)
    with decoders(first) as choice:
        frames = read_frames(path, index, chosen, np.asarray)
    assert choice.delivered == (first if kind in PLAIN else "pyav")
    assert all(np.array_equal(found, truth[at][1]) for found, at in zip(frames, chosen, strict=True))


def test_of_two_frames_equally_near_the_earlier_is_taken_at_every_second() -> None:
    at_25_fps = np.arange(250) / 25
    assert nearest_frames(centre_times(10), at_25_fps).tolist() == [12 + 25 * second for second in range(10)]


def test_a_single_frame_stands_for_every_second() -> None:
    assert nearest_frames(centre_times(2), np.array([0.0])).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("duration", "last"), [(9.97, 79), (10.0, 79), (10.25, 81), (10.028, 79), (60.0, 79), (9.25, 73), (8.6, 79)]
)
def test_valors_picks_span_a_dump_near_the_seconds_asked_and_no_more_than_those_of_any_other(
    duration: float, last: int
) -> None:
    shown = np.arange(round(duration * 8)) / 8
    dump = np.arange(seen_in_time(shown, duration, 10))  # of a film of 8 frames a second
    picks = picked(dump, duration, 10, 1, 8)
    assert picks[-1] == min(last, len(dump) - 1)
    assert picks[1] == round(last / 9)


def test_crop_is_clips_own_preprocessing() -> None:
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    rng = np.random.default_rng(0)
    for shape in [(48, 65), (65, 48), (40, 40), (33, 127)]:
        frame = rng.integers(0, 256, (*shape, 3), np.uint8)
        clips = Compose([Resize(32, interpolation=InterpolationMode.BICUBIC), CenterCrop(32)])
        assert np.array_equal(crop(frame[None], 32)[0], np.asarray(clips(Image.fromarray(frame))))


def test_stretch_is_the_weighted_mean_of_four_pixels() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (7, 10, 3), np.uint8)
    slow = np.zeros((5, 5, 3))
    for y in range(5):
        for x in range(5):
            down, across = max((y + 0.5) * 7 / 5 - 0.5, 0), max((x + 0.5) * 10 / 5 - 0.5, 0)
            top, left = int(down), int(across)
            for row, of_row in ((top, 1 - down + top), (min(top + 1, 6), down - top)):
                for column, of_column in ((left, 1 - across + left), (min(left + 1, 9), across - left)):
                    slow[y, x] += of_row * of_column * frame[row, column]
    assert np.abs(stretch(frame[None], 5)[0] - slow).max() <= 0.5 + 1e-4


def onset(audio: NDArray[np.float32]) -> float:
    """When the tone begins, in seconds."""
    return float(np.argmax(np.abs(audio) > 0.05)) / RATE


def test_sound_that_begins_later_than_the_pictures_is_heard_later(tmp_path: Path) -> None:
    clip = decode_clip(write(tmp_path / "a.mp4", sound=sine(2.5), delay=0.5), seconds=3, sampling=SMALL)
    assert onset(clip.audio) == pytest.approx(0.5, abs=0.03)  # the encoder primes itself with 21 ms
    assert clip.frame_seconds[0] == 0
    assert not clip.audio[: RATE // 3].any()


def test_pictures_that_begin_later_than_the_sound_are_shown_later(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", shown=[moment + 400 for moment in STEADY], sound=sine(3.4))
    clip = decode_clip(path, seconds=3, sampling=Sampling(frame_rule="centre", frame_size=32, sample_rate=RATE))
    assert clip.frame_indices.tolist() == [2, 27, 52]  # 0.48 or 0.52 s: the earlier of two equally near
    assert clip.frame_seconds.tolist() == pytest.approx([0.48, 1.48, 2.48], abs=2e-3)
    assert onset(clip.audio) < 0.01


def test_a_hole_in_the_sound_is_silence_and_what_follows_keeps_its_place(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mkv",
        acodec="pcm_s16le",
        sound=(sine(3) * 32767).astype(np.int16),
        sformat="s16",
        holes=[(1.0, 2.0)],
    )
    clip = decode_clip(path, seconds=3, sampling=SMALL)
    assert clip.padded_samples == pytest.approx(RATE, abs=1024)
    assert not clip.audio[int(1.1 * RATE) : int(1.9 * RATE)].any()
    assert np.corrcoef(clip.audio[int(2.1 * RATE) :], sine(3)[int(2.1 * RATE) :])[0, 1] > 0.99


def test_the_tone_is_not_shifted_by_resampling(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", acodec="pcm_s16le", sound=(sine(3) * 32767).astype(np.int16), sformat="s16")
    audio = decode_clip(path, seconds=3, sampling=Sampling(frame_size=32, sample_rate=48000)).audio
    ideal = 0.5 * np.sin(2 * np.pi * 440 * np.arange(3 * 48000) / 48000)
    assert np.abs(audio - ideal)[480:-480].max() < 2e-3


def test_sound_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    sound = sine(3)
    sound[RATE] = np.nan
    path = write(tmp_path / "a.mkv", acodec="pcm_f32le", sformat="flt", sound=sound)
    with pytest.raises(ClipError) as caught:
        decode_clip(path, seconds=3, sampling=SMALL)
    assert caught.value.status == Status.NON_FINITE


def test_a_clip_a_little_short_repeats_its_last_frame_and_one_far_too_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    clip = decode_clip(path, seconds=4, sampling=SMALL)
    assert clip.frame_indices[-1] == 74
    assert clip.padded_samples > 0.9 * RATE
    with pytest.raises(ClipError) as caught:
        decode_clip(path, seconds=5, sampling=SMALL)
    assert caught.value.status == Status.TOO_SHORT


def test_of_a_long_recording_the_first_seconds_are_taken(tmp_path: Path) -> None:
    clip = decode_clip(write(tmp_path / "a.mp4"), seconds=1, sampling=SMALL)
    assert clip.frame_indices.tolist() == [0]
    assert (clip.audio.shape, clip.padded_samples) == ((RATE,), 0)


def test_a_download_that_broke_off_is_corrupt_rather_than_short(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", muxer={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ClipError, match="breaks off") as caught:
        decode_clip(path, seconds=3, sampling=SMALL)
    assert caught.value.status == Status.CORRUPT


def test_damaged_packets_are_corrupt(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.mp4", muxer={"movflags": "faststart"}).read_bytes())
    data[len(data) // 2 :] = np.random.default_rng(0).bytes(len(data) - len(data) // 2)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with pytest.raises(ClipError) as caught:
        decode_clip(path, seconds=3, sampling=SMALL)
    assert caught.value.status == Status.CORRUPT


@pytest.mark.parametrize(
    "text",
    [
        "1\n00:00:00,000 --> 00:00:02,000\nFFmpeg takes this for subtitles.\n\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile a.mp4\n",
    ],
    ids=["subtitles", "playlist", "list of files"],
)
def test_text_that_ffmpeg_would_open_is_no_video(tmp_path: Path, text: str) -> None:
    write(tmp_path / "a.mp4")
    path = tmp_path / "text.mp4"
    path.write_text(text)
    with pytest.raises(ClipError) as caught:
        decode_clip(path, seconds=3, sampling=SMALL)
    assert caught.value.status == Status.NOT_A_VIDEO


def test_a_film_beyond_the_limits_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", shown=[0, 3_700_000])
    with pytest.raises(ClipError, match="up to 3600 s") as caught:
        decode_clip(path, seconds=3, sampling=SMALL)
    assert caught.value.status == Status.TOO_LONG


def test_pictures_that_begin_hours_behind_the_sound_are_refused(tmp_path: Path) -> None:
    late = [3_700_000 + shown for shown in STEADY]
    path = write(tmp_path / "a.mkv", shown=late, muxer={"live": "1"})  # whose header says no duration
    with pytest.raises(ClipError, match="up to 3600 s") as caught:
        decode_clip(path, seconds=3, sampling=SMALL)
    assert caught.value.status == Status.TOO_LONG
    with pytest.raises(ClipError, match="a frame that begins late or stays for 3703 s"):
        read_timing(path)  # its dump would have thirty thousand pictures, and no bound


def test_a_title_in_other_letters_than_utf8_does_not_matter(tmp_path: Path) -> None:
    whole, titled = odd_film(tmp_path, "avi"), tmp_path / "titled.avi"
    with av.open(str(whole)) as old, av.open(str(titled), "w") as new:
        new.metadata["title"] = "Cafe Noir"
        twins = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = twins[packet.stream_index]
                new.mux(packet)
    data = titled.read_bytes()
    assert data.count(b"Cafe Noir") == 1
    titled.write_bytes(data.replace(b"Cafe Noir", b"Caf\xe9 Noir"))
    found = decode_clip(titled, seconds=3, sampling=SMALL)
    assert np.array_equal(found.frames, decode_clip(whole, seconds=3, sampling=SMALL).frames)


@pytest.mark.parametrize("name", ["-0A9sun15YA.mp4", "a:b.mp4", "ü ñ.mp4"])
def test_odd_names_are_ordinary_files(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.mp4").rename(tmp_path / name)
    assert decode_clip(Path(name), seconds=3, sampling=SMALL).frames.shape == (3, 32, 32, 3)


def test_an_unknown_rule_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no frame rule 'random'; there are linspace, linspace-7, centre"):
        Sampling(frame_rule="random")


@pytest.mark.real_data
def test_the_real_clips_frames_are_pyavs_pixel_by_pixel_at_indices_worked_out_by_hand(real_data: Path) -> None:
    # Its frames last 384 of 11488 ticks a second, 0.2674 of a picture of VALOR's dump (8 a second), which runs ahead of
    # its clock: frame i becomes picture p where p - i * 0.2674 is at most 1.1 + 0.2674 and no earlier frame is in time.
    # That is i = ceil((p - 1.3674) / 0.2674) for p = 9 18 27 36 45 54 63 72 81:
    # 28.54, 62.20, 95.86, 129.51, 163.17, 196.82, 230.48, 264.14, 297.79.
    by_hand = [0, 29, 63, 96, 130, 164, 197, 231, 265, 298]
    path = real_data / "llp" / "BjCEufrlXm4.mp4"
    clip = decode_clip(path, seconds=10, sampling=Sampling())
    assert clip.frame_indices.tolist() == by_hand
    assert clip.frame_seconds == pytest.approx([frame * 384 / 11488 for frame in by_hand], abs=1e-9)
    truth = all_frames(path)
    index = index_video(path)
    assert index.seekable
    wanted = np.stack([truth[frame][1] for frame in by_hand])
    for first in ("sparing", "decord", "pyav"):
        with decoders(first) as choice:
            frames = read_frames(path, index, np.array(by_hand, np.intp), np.asarray)
        assert choice.delivered == first
        assert np.array_equal(frames, wanted)
    assert np.array_equal(clip.frames, stretch(wanted, 224))
    assert clip.padded_samples == 0
