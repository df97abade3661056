"""Decoding only what the wanted pictures are made of gives them to the bit, or leaves the clip to another decoder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from avvp_pipe.stages.media import ClipError
from avvp_pipe.stages.media.h264 import frame_number, frame_number_bits, is_alone, units
from avvp_pipe.stages.media.packets import FilmPacket, Packets
from avvp_pipe.stages.media.probe import index_video
from avvp_pipe.stages.media.sparing import spared, wanted_by_group
from avvp_pipe.stages.media.video import decoders, read_frames

FRAMES, WIDTH, HEIGHT = 60, 64, 48

# Ways of x264 to make pictures of each other: which may be referred to, how far, in which order they are stored.
WAYS = {
    "every picture of the one before": "bframes=0:ref=1:scenecut=0",
    "of many before": "bframes=0:ref=8",
    "baseline": "bframes=0:cabac=0:8x8dct=0:weightp=0",
    "B frames that nothing is made of": "bframes=3:b-pyramid=none",
    "B frames of B frames, strict": "bframes=5:b-pyramid=strict:b-adapt=0",
    "B frames of B frames, far": "bframes=8:b-pyramid=normal:b-adapt=0:ref=5",
    "motion out of the neighbours": "bframes=3:direct=temporal",
    "weighted": "bframes=2:weightp=2:weightb=1",
    "slices, delimiters, timing": "bframes=3:slices=4:aud=1:pic-struct=1",
    "one group": "bframes=3:keyint=infinite",
    "groups of one picture": "keyint=1",
    "groups of two": "bframes=1:keyint=2:min-keyint=1",
    "groups of uneven length": "bframes=3:keyint=11:min-keyint=1:scenecut=80",
}


def scene(number: int) -> NDArray[np.uint8]:
    """A texture that moves and fades, with a cut every 17 pictures; (H, W, 3)."""
    texture = np.random.default_rng(number // 17).integers(0, 256, (HEIGHT, WIDTH, 3))
    faded = np.roll(texture, (number, 2 * number), axis=(0, 1)) * (1 - number % 17 / 30)
    return np.asarray(faded, np.uint8)


def film(path: Path, way: str, *, options: dict[str, str] | None = None) -> Path:
    """FRAMES scenes at 25 a second, and a moment of sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"x264-params": way, **(options or {})})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(FRAMES):
            container.mux(video.encode(av.VideoFrame.from_ndarray(scene(number), format="rgb24")))
        container.mux(video.encode(None))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        container.mux([*sound.encode(samples), *sound.encode(None)])
    return path


def from_the_start(path: Path) -> list[NDArray[Any]]:
    """Every frame, in the order of their times: the slow, sure way."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def read(path: Path, chosen: Sequence[int], first: str = "sparing") -> tuple[NDArray[Any], str]:
    """The frames and who delivered them."""
    with decoders(first) as choice:
        return read_frames(path, index_video(path), np.array(chosen, np.intp), np.asarray), choice.delivered


@pytest.mark.parametrize("way", WAYS)
def test_however_pictures_are_made_of_each_other_the_wanted_ones_are_those_of_a_whole_decoding(
    way: str, tmp_path: Path
) -> None:
    path = film(tmp_path / "a.mp4", WAYS[way])
    truth = from_the_start(path)
    assert len(truth) == FRAMES
    random = np.random.default_rng(0)
    choices = [[0], [FRAMES - 1], range(FRAMES), range(0, FRAMES, 6)]
    choices += [np.sort(random.choice(FRAMES, 3, replace=False)).tolist() for _ in range(8)]
    for chosen in choices:
        found, delivered = read(path, chosen)
        assert delivered == "sparing"
        assert all(np.array_equal(frame, truth[at]) for frame, at in zip(found, chosen, strict=True))


@pytest.mark.parametrize("way", [way for way in WAYS if "keyint" not in WAYS[way]])
def test_the_numbers_of_frames_count_the_pictures_that_others_are_made_of(way: str, tmp_path: Path) -> None:
    packets = index_video(film(tmp_path / "a.mp4", f"{WAYS[way]}:keyint=infinite:scenecut=0")).packets
    assert packets.held is not None
    count, every = 0, []
    for packet in packets.held.packets:
        parts = units(memoryview(packet), packets.prefix)
        assert frame_number(parts, packets.number_bits) == count % 2**packets.number_bits
        every.append(is_alone(parts))
        count += not every[-1]
    assert any(every) == ("bframes=0" not in WAYS[way])


@pytest.mark.parametrize("name", ["a.mov", "a.mkv"])
def test_other_containers_of_such_films_are_read_as_sparingly(name: str, tmp_path: Path) -> None:
    path = film(tmp_path / name, WAYS["B frames of B frames, far"])
    truth, chosen = from_the_start(path), [3, 19, 20, 59]
    found, delivered = read(path, chosen)
    assert delivered == "sparing"
    assert all(np.array_equal(frame, truth[at]) for frame, at in zip(found, chosen, strict=True))


def test_what_no_wanted_picture_is_made_of_is_left_out(tmp_path: Path) -> None:
    def decoded(way: str, frames: list[int]) -> int:
        index = index_video(film(tmp_path / "a.mp4", way))
        return len(list(spared(index.packets, index.ticks[frames])))

    in_tens = "keyint=10:min-keyint=10:scenecut=0:bframes=0"
    assert decoded(in_tens, [23]) == 4  # 20 21 22 23
    assert decoded(in_tens, [20, 39]) == 11
    by_twos = "keyint=infinite:scenecut=0:b-adapt=0:bframes=2:b-pyramid=none"  # I b b P b b P ...
    assert decoded(by_twos, [30]) == 11
    assert decoded(by_twos, [30, 31]) == 13  # the P behind it and the b itself
    assert decoded(by_twos, list(range(FRAMES))) == FRAMES


def test_pictures_in_fields_are_left_to_a_whole_decoding(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", "interlaced=1:bframes=2:tff=1", options={"flags": "+ildct+ilme"})
    truth, chosen = from_the_start(path), [2, 31]
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    found, delivered = read(path, chosen)
    assert delivered == "pyav"
    assert all(np.array_equal(frame, truth[at]) for frame, at in zip(found, chosen, strict=True))


def test_a_film_too_large_to_be_held_is_decoded_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mp4", WAYS["weighted"])
    monkeypatch.setattr("avvp_pipe.stages.media.packets.HELD_BYTES", 1000)
    found, delivered = read(path, [7])
    assert delivered == "pyav"
    assert np.array_equal(found[0], from_the_start(path)[7])


def test_packets_that_have_been_decoded_are_not_decoded_again(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", WAYS["weighted"])
    index, chosen = index_video(path), np.array([7])
    with decoders("sparing") as choice:
        taken = []
        for wanted in ("sparing", "pyav"):
            taken.append(read_frames(path, index, chosen, np.asarray))
            assert choice.delivered == wanted
    assert np.array_equal(taken[0], taken[1])


# --- damage ---------------------------------------------------------------------------------------------------------


def places(path: Path) -> list[tuple[int, int]]:
    """Where each packet of the film lies in the file, in the order of their times, and how long it is."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return [(int(packet.pos or 0), packet.size) for packet in sorted(packets, key=lambda one: one.pts or 0)]


def overwritten(path: Path, frame: int, seed: int, *, behind: int = 0) -> Path:
    """A copy in which the packet of a frame is noise, but for its first bytes."""
    data = bytearray(path.read_bytes())
    at, size = places(path)[frame]
    data[at + behind : at + size] = np.random.default_rng(seed).bytes(size - behind)
    copy = path.with_name(f"{frame}-{seed}.mp4")
    copy.write_bytes(data)
    return copy


def test_noise_where_a_wanted_picture_comes_from_is_never_passed_over(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", "keyint=infinite:scenecut=0:bframes=0:ref=1")
    for seed in range(40):
        damaged = overwritten(path, 20, seed, behind=4)  # the length of the first unit is whole, and its kind is noise
        with pytest.raises(ClipError, match="cannot be decoded"):
            read(damaged, [30])


def test_noise_where_no_wanted_picture_comes_from_does_not_matter(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", "keyint=20:min-keyint=20:scenecut=0:bframes=0")
    truth = from_the_start(path)
    for frame in (5, 38, 55):
        found, delivered = read(overwritten(path, frame, 0, behind=4), [25])
        assert delivered == "sparing"
        assert np.array_equal(found[0], truth[25])


def unit(head: int, body: bytes = b"\x88", *, length: int | None = None) -> bytes:
    body = bytes([head]) + body
    return (len(body) if length is None else length).to_bytes(4, "big") + body


ALONE, SLICE, IDR, INFO, SETTINGS = 0x01, 0x41, 0x65, 0x06, 0x68


@pytest.mark.parametrize(
    ("packet", "alone"),
    [
        (unit(ALONE), True),
        (unit(INFO) + unit(ALONE) + unit(ALONE), True),
        (unit(0x09) + unit(ALONE) + unit(0x0C), True),
        (unit(SLICE), False),
        (unit(ALONE) + unit(SLICE), False),
        (unit(IDR), False),
        (unit(SETTINGS) + unit(ALONE), False),  # settings hold for others too
        (unit(INFO), False),  # no picture in it: who knows what it is
        (b"", False),
        (unit(0x81), False),  # a bit that is never set
    ],
)
def test_only_a_picture_that_no_other_is_made_of_can_be_left_out(packet: bytes, alone: bool) -> None:
    assert is_alone(units(memoryview(packet), 4)) is alone


@pytest.mark.parametrize(
    "packet",
    [
        unit(ALONE, length=1),  # something behind its end
        unit(ALONE, length=9),  # its end behind the packet's
        unit(ALONE) + b"\0\0",
        bytes(20),
    ],
)
def test_packets_that_are_not_whole_are_refused(packet: bytes) -> None:
    with pytest.raises(ValueError, match="not whole"):
        units(memoryview(packet), 4)


@given(st.binary(max_size=60), st.sampled_from([1, 2, 4]), st.integers(4, 16))
def test_any_bytes_can_be_asked_about(packet: bytes, prefix: int, number_bits: int) -> None:
    try:
        parts = units(memoryview(packet), prefix)
        assert sum(min(len(part), 20) + prefix for part in parts) <= len(packet)
        is_alone(parts)
        assert 0 <= frame_number(parts, number_bits) < 2**number_bits
    except ValueError:
        pass
    assert 0 <= frame_number_bits(packet) <= 40 or len(packet) > 12


@given(st.lists(st.integers(0, 100), max_size=12, unique=True).map(sorted), st.lists(st.integers(0, 99), max_size=12))
def test_wanted_frames_are_counted_by_the_key_packet_before_them(keys: list[int], wanted: list[int]) -> None:
    packets = tuple(FilmPacket(key, key, 1, hidden=False, key=True, afresh=True) for key in keys)
    by_hand = [0] * (len(keys) + 1)
    for tick in wanted:
        by_hand[sum(key <= tick for key in keys)] += 1
    assert wanted_by_group(replace(NOTHING, film=packets), np.array(wanted, np.int64)) == by_hand


NOTHING = Packets(
    film=(),
    width=0,
    height=0,
    time_base=None,  # type: ignore[arg-type]
    base_rate=None,
    guessed_rate=None,
    container="",
    prefix=4,
    number_bits=4,
    start_microseconds=0,
    lasts_microseconds=0,
    begins=(),
    first_sound=0.0,
    last_sound=0.0,
    held=None,
)
