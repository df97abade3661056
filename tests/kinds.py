"""One real file of every kind that a folder of videos may hold. `docs/files.md` has the same rows.

A film shows, in each of its seconds, a grey of its own with a white upper left quarter, to a tone of 440 Hz.
"""

import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

SECONDS = 3
"""Asked of every file."""
LEVELS = (40, 90, 140, 190)
"""Grey of the seconds."""
DECODED = "decoded"

Samples = NDArray[np.float32]


def level(second: float) -> int:
    return LEVELS[min(int(second), len(LEVELS) - 1)]


def picture(second: float, width: int, height: int) -> NDArray[np.uint8]:
    """(H, W) as it is to be seen."""
    grey = np.full((height, width), level(second), np.uint8)
    grey[: height // 2, : width // 2] = 255
    return grey


def tone(seconds: float, rate: int) -> Samples:
    wave: Samples = (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)
    return wave


@dataclass(frozen=True)
class Sound:
    """One sound track."""

    codec: str = "aac"
    rate: int = 16000
    layout: str = "mono"
    seconds: float = SECONDS
    delay: float = 0.0
    shape: Callable[[Samples], Samples] = lambda wave: wave
    """Made of the tone."""


@dataclass(frozen=True)
class Film:
    """What `write` writes."""

    codec: str = "libx264"
    options: Mapping[str, str] = field(default_factory=dict)
    pixels: str = "yuv420p"
    size: tuple[int, int] = (64, 48)
    shown: Sequence[float] = tuple(k / 25 for k in range(SECONDS * 25))
    """Times of the frames."""
    turn: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda picture: picture
    """From the picture to be seen to the picture in the file."""
    sounds: Sequence[Sound] = (Sound(),)
    muxer: Mapping[str, str] = field(default_factory=dict)
    more: Callable[[Any], None] = lambda container: None
    """What else to put into the container."""


def steady(fps: float, seconds: float = SECONDS) -> list[float]:
    return [k / fps for k in range(round(seconds * fps))]


def write(path: Path, film: Film = Film()) -> Path:
    """Write a film; the ending of its name says in which container."""
    with av.open(str(path), "w", options=dict(film.muxer)) as container:
        video = _video_stream(container, film) if film.shown else None
        tracks: list[Any] = [
            container.add_stream(sound.codec, rate=sound.rate, layout=sound.layout) for sound in film.sounds
        ]
        for track in tracks:
            track.bit_rate = 64000  # some encoders have no rate of their own
        film.more(container)
        if video is not None:
            _write_pictures(container, video, film)
        for track, sound in zip(tracks, film.sounds, strict=True):
            _write_sound(container, track, sound)
    return path


def _video_stream(container: Any, film: Film) -> Any:
    steps = np.diff(film.shown)
    rate = round(1 / float(steps.min())) if len(steps) else 1
    video = container.add_stream(film.codec, rate=rate, options=dict(film.options))
    coded = film.turn(picture(0, *film.size))
    video.height, video.width = coded.shape
    video.pix_fmt = film.pixels
    if film.codec not in ("mpeg2video", "wmv2", "mpeg4"):  # those keep one rate
        video.codec_context.time_base = Fraction(1, 1200)
    return video


def _write_pictures(container: Any, video: Any, film: Film) -> None:
    base = video.codec_context.time_base or Fraction(1, round(video.base_rate or 25))
    for shown in film.shown:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(film.turn(picture(shown, *film.size))), format="gray")
        frame.pts, frame.time_base = round(shown / base), base
        container.mux(video.encode(frame))
    container.mux(video.encode(None))


def _write_sound(container: Any, track: Any, sound: Sound) -> None:
    wave = sound.shape(tone(sound.seconds, sound.rate))
    channels = av.AudioLayout(sound.layout).nb_channels
    for start in range(0, len(wave), 1000):
        piece = np.repeat(wave[None, start : start + 1000], channels, axis=0)
        samples = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout=sound.layout)
        samples.sample_rate, samples.time_base = sound.rate, Fraction(1, sound.rate)
        samples.pts = start + round(sound.delay * sound.rate)
        container.mux(track.encode(samples))
    container.mux(track.encode(None))


# Surgery on bytes.

FRONT = {"movflags": "faststart"}
"""The index before the pictures, as web sites deliver it."""
STRAIGHT = 1 << 16


def turned(matrix: tuple[int, int, int, int], **film: Any) -> Callable[[Path], Any]:
    """A film whose header tells a player to turn its pictures: a, b, c, d of ISO 14496-12, 6.2.2."""

    def make(path: Path) -> None:
        data = bytearray(write(path, Film(**film)).read_bytes())
        a, b, c, d = (STRAIGHT * value for value in matrix)
        at = data.index(b"tkhd") + 44  # version, flags, times, id, duration, reserved, layer, volume
        data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path.write_bytes(data)

    return make


def cut(share: float, muxer: Mapping[str, str] = FRONT) -> Callable[[Path], Any]:
    """A download that broke off; its pictures are noisy, and so take their usual share of a file."""

    def make(path: Path) -> None:
        noise = np.random.default_rng(0)

        def grained(seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return np.asarray(np.maximum(seen, 40) - noise.integers(0, 40, seen.shape, np.uint8), np.uint8)

        data = write(path, Film(turn=grained, muxer=muxer)).read_bytes()
        path.write_bytes(data[: int(share * len(data))])

    return make


def cut_in_the_index(path: Path) -> None:
    data = write(path, Film(muxer=FRONT)).read_bytes()
    path.write_bytes(data[: data.index(b"trak", data.index(b"trak") + 4) + 40])


def damaged(codec: str, kind: str) -> Callable[[Path], Any]:
    """Every packet of one kind of stream is overwritten with noise; the index is whole."""

    def make(path: Path) -> None:
        data = bytearray(write(path, Film(codec=codec, muxer=FRONT)).read_bytes())
        noise = np.random.default_rng(0)
        with av.open(str(path)) as container:
            packets = [(packet.pos, packet.size) for packet in container.demux() if packet.stream.type == kind]
        for at, size in packets[len(packets) // 3 :]:
            if at is not None and size:
                data[at : at + size] = noise.bytes(size)
        path.write_bytes(data)

    return make


def renamed_codec(path: Path) -> None:
    data = write(path).read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzzz"))


def cut_without_encoding(path: Path) -> None:
    """What `ffmpeg -ss 0.5 -c copy` makes of a film that is half a second longer: an edit list hides its beginning."""
    shown = steady(25, SECONDS + 0.5)
    longer = path.with_name("longer.mp4")
    grown = Film(shown=shown, options={"g": "100"}, turn=lambda seen: seen, sounds=(Sound(seconds=SECONDS + 0.5),))
    write(longer, grown)
    with av.open(str(longer)) as old, av.open(str(path), "w") as new:
        twins = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is None or packet.pts is None:
                continue
            shift = int(Fraction(1, 2) / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = twins[packet.stream_index]
            new.mux(packet)
    longer.unlink()


def png(width: int, height: int, bits: int) -> bytes:
    """A black picture with four channels: a few kilobytes that unpack to any size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    length = height * (1 + width * 4 * bits // 8)
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = block.compress(bytes(2**20)) + block.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    end = rest.compress(bytes(length % 2**20)) + rest.flush()
    check = struct.pack(">I", (length % 65521) << 16 | 1)
    packed = b"\x78\x01" + zeros * (length // 2**20) + end + check
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def bomb(path: Path) -> None:
    """Pictures within the limits, of 512 MiB each when unpacked."""
    data = png(8192, 8192, 16)
    with av.open(str(path), "w") as container:
        video = container.add_stream("png", rate=1)
        video.width = video.height = 8192
        video.pix_fmt = "rgba64be"
        sound = Sound()
        track = container.add_stream(sound.codec, rate=sound.rate, layout=sound.layout)
        container.start_encoding()
        for second in range(SECONDS):
            packet = av.Packet(data)
            packet.stream, packet.time_base = video, Fraction(1, 1)
            packet.pts = packet.dts = second
            packet.duration, packet.is_keyframe = 1, True
            container.mux(packet)
        _write_sound(container, track, sound)


def with_cover(container: Any) -> None:
    """A picture that belongs to the file, as music players show it."""
    from av.stream import Disposition

    cover = container.add_stream("mjpeg", rate=1)
    cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
    cover.disposition = Disposition.attached_pic
    container.start_encoding()
    frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24").reformat(format="yuvj420p")
    frame.pts = 0
    container.mux(cover.encode(frame))
    container.mux(cover.encode(None))


def with_subtitles(container: Any) -> None:
    words = container.add_mux_stream("subrip")
    container.start_encoding()
    packet = av.Packet(b"Not part of the picture.")
    packet.stream, packet.time_base = words, Fraction(1, 1000)
    packet.pts = packet.dts = 0
    packet.duration = 2000
    container.mux(packet)


def still(name: str) -> Callable[[Path], Any]:
    def make(path: Path) -> None:
        from PIL import Image

        pictures = [Image.fromarray(picture(second, 64, 48)) for second in range(SECONDS)]
        pictures[0].save(path, name, **({"save_all": True, "append_images": pictures[1:]} if name == "GIF" else {}))

    return make


def text(words: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(words)


def linked(path: Path) -> None:
    path.symlink_to(write(path.with_name("pointed-at.mp4")).name)


def unreadable(path: Path) -> None:
    write(path).chmod(0)


def of_some_size(words: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(words)


# What a decoder may do to its process; `treacherous_decoders` makes it so for files of these names.

HANGS, ABORTS, EATS = "hangs.mp4", "aborts.mp4", "eats.mp4"
PYAV_HANGS, PYAV_ABORTS = "pyav-hangs.mp4", "pyav-aborts.mp4"
"""Over the pictures, where the first try decodes them; the second one begins with decord."""

TREACHERY = f'''
import ctypes, os
import av
from avvp_pipe.stages.media import video

def hang():
    ctypes.PyDLL(None).pause()  # in C, and with Python's lock: no handler of a signal runs any more

def eat():
    eaten = [b"x" * 2**26 for _ in range(64)]  # 4 GiB
    hang()

DEEDS = {{"{HANGS}": hang, "{ABORTS}": os.abort, "{EATS}": eat}}
OVER_PICTURES = {{"{PYAV_HANGS}": hang, "{PYAV_ABORTS}": os.abort}}
open_, spared, names = av.open, video.spared, [""]

def opened(file, *rest, **more):
    names[0] = os.path.basename(str(file))
    DEEDS.get(names[0], lambda: None)()
    return open_(file, *rest, **more)

def sparing(*rest):
    OVER_PICTURES.get(names[0], lambda: None)()
    return spared(*rest)

av.open, video.spared = opened, sparing
'''


def treacherous_decoders(folder: Path) -> str:
    """A folder to put into PYTHONPATH: processes started after that meet PyAV as `TREACHERY` has it."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(TREACHERY)
    return str(folder)


@dataclass(frozen=True)
class Kind:
    """A kind of file: one row of the table in the docs, and one test."""

    name: str
    outcome: str
    make: Callable[[Path], Any]
    file: str = ".mp4"
    """Its name, or only its ending."""
    heard: Sequence[bool] = (True,) * SECONDS
    """In which seconds."""
    levels: Sequence[int] = LEVELS[:SECONDS]
    """Grey of the frames."""


def _film(**fields: Any) -> Callable[[Path], Any]:
    return lambda path: write(path, Film(**fields))


def _sound(**fields: Any) -> Callable[[Path], Any]:
    return lambda path: write(path, Film(sounds=(Sound(**fields),)))


QUIET = {"x265-params": "log-level=none"}

ORDINARY = (
    Kind("mp4: H.264 and AAC", DECODED, write),
    Kind("mov", DECODED, write, ".mov"),
    Kind("mkv", DECODED, write, ".mkv"),
    Kind("MPEG transport stream", DECODED, write, ".ts"),
    Kind("flv", DECODED, write, ".flv"),
    Kind("avi: MPEG-4 and MP3", DECODED, _film(codec="mpeg4", sounds=(Sound("libmp3lame"),)), ".avi"),
    Kind("mpg: MPEG-2 and MP2", DECODED, _film(codec="mpeg2video", sounds=(Sound("mp2", 44100),)), ".mpg"),
    Kind("asf: WMV and WMA", DECODED, _film(codec="wmv2", sounds=(Sound("wmav2", 44100),)), ".asf"),
    Kind(
        "webm: VP9 and Opus",
        DECODED,
        _film(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}, sounds=(Sound("libopus", 48000),)),
        ".webm",
    ),
    Kind("AV1", DECODED, _film(codec="libsvtav1", options={"preset": "12"}, size=(64, 64))),
    Kind("HEVC", DECODED, _film(codec="libx265", options=QUIET)),
    Kind("H.264 of 10 bits", DECODED, _film(pixels="yuv420p10le")),
    Kind("cut without encoding anew (edit list)", DECODED, cut_without_encoding, levels=(40, 90, 140)),
    Kind("a link to a film", DECODED, linked),
)

PICTURES = (
    Kind("variable frame rate", DECODED, _film(shown=[0, 0.1, 0.4, 0.6, 1.4, 1.45, 1.5, 2.2, 2.5, 2.9, 2.95])),
    Kind("1 frame a second", DECODED, _film(shown=steady(1))),
    Kind("120 frames a second", DECODED, _film(shown=steady(120))),
    Kind("turned by 90 degrees", DECODED, turned((0, 1, -1, 0), turn=lambda seen: np.rot90(seen))),
    Kind("turned by 180 degrees", DECODED, turned((-1, 0, 0, -1), turn=lambda seen: np.rot90(seen, 2))),
    Kind("turned by 270 degrees", DECODED, turned((0, -1, 1, 0), turn=lambda seen: np.rot90(seen, -1))),
    Kind("mirrored", DECODED, turned((-1, 0, 0, 1), turn=lambda seen: seen[:, ::-1])),
    Kind("odd size: 17x33", DECODED, _film(size=(17, 33), pixels="yuv444p")),
    Kind("tiny: 2x2", DECODED, _film(size=(2, 2), pixels="yuv444p")),
    Kind(
        "8K: 7680x4320",
        DECODED,
        _film(size=(7680, 4320), shown=steady(1), options={"preset": "ultrafast", "crf": "40"}),
    ),
    Kind("a side over 8192 pixels", "too-long", _film(size=(8208, 16), shown=steady(1))),
)

SOUND = (
    Kind("sound: 8 kHz, mono", DECODED, _sound(rate=8000)),
    Kind("sound: 44.1 kHz, stereo", DECODED, _sound(rate=44100, layout="stereo")),
    Kind("sound: 5.1 channels", DECODED, _sound(rate=48000, layout="5.1")),
    Kind("sound: digital silence", DECODED, _sound(shape=np.zeros_like), heard=(False,) * SECONDS),
    Kind("sound: clipped", DECODED, _sound(shape=lambda wave: np.sign(wave))),
    Kind("sound shorter than the pictures", DECODED, _sound(seconds=1), heard=(True, False, False)),
    Kind("sound longer than the pictures", DECODED, _sound(seconds=SECONDS + 2)),
    Kind("sound begins later", DECODED, _sound(seconds=2, delay=1), heard=(False, True, True)),
    Kind("several sound tracks", DECODED, _film(sounds=(Sound(), Sound(shape=np.zeros_like)))),
    Kind(
        "sound with values that are no numbers",
        "non-finite",
        _sound(codec="pcm_f32le", shape=lambda wave: np.full_like(wave, np.nan)),
        ".mkv",
    ),
    Kind("no sound", "no-audio-stream", _film(sounds=())),
    Kind("a sound track without sound", "corrupt", _sound(seconds=0), ".mkv"),
)

CONTENT = (
    Kind("subtitles inside", DECODED, _film(more=with_subtitles), ".mkv"),
    Kind("a film with a cover picture", DECODED, _film(more=with_cover)),
    Kind("music with a cover picture", "no-video-stream", _film(shown=(), more=with_cover)),
    Kind("sound only", "no-video-stream", _film(shown=())),
    Kind("an mp3", "not-a-video", _film(shown=(), sounds=(Sound("libmp3lame"),)), ".mp3"),
    Kind("a PNG", "not-a-video", still("PNG")),
    Kind("a GIF", "not-a-video", still("GIF"), ".gif"),
    Kind("a codec that FFmpeg does not know", "corrupt", renamed_codec),
    Kind("a bare H.264 stream", "not-a-video", _film(sounds=()), ".h264"),
)

LENGTHS = (
    Kind("60 s, of which 3 are wanted", DECODED, _film(shown=steady(5, 60), sounds=(Sound(seconds=60),))),
    Kind(
        "1 s shorter than asked",
        DECODED,
        _film(shown=steady(25, 2), sounds=(Sound(seconds=2),)),
        heard=(True, True, False),
        levels=(40, 90, 90),
    ),
    Kind("0.4 s", "too-short", _film(shown=steady(25, 0.4), sounds=(Sound(seconds=0.4),))),
    Kind("longer than an hour", "too-long", _film(shown=[0, 1, 2, 3700])),
)

DAMAGE = (
    Kind("nothing there", "missing-file", lambda path: None),
    Kind("no bytes", "empty-file", lambda path: path.touch()),
    Kind("random bytes", "not-a-video", lambda path: path.write_bytes(np.random.default_rng(0).bytes(20000))),
    Kind("zeros", "not-a-video", of_some_size(bytes(20000))),
    Kind("text", "not-a-video", text("this is not a video\n" * 100)),
    Kind("a web page", "not-a-video", text("<!DOCTYPE html><title>Video unavailable</title>")),
    Kind("cut off at 10 %, index at the end", "not-a-video", cut(0.1, {})),
    Kind("cut off at 50 %, index at the end", "not-a-video", cut(0.5, {})),
    Kind("cut off at 95 %, index at the end", "corrupt", cut(0.95, {})),
    Kind("cut off within the index", "corrupt", cut_in_the_index),
    Kind("cut off at 10 %, index in front", "corrupt", cut(0.1)),
    Kind("cut off at 50 %, index in front", "corrupt", cut(0.5)),
    Kind("cut off at 95 %, index in front", DECODED, cut(0.95)),
    Kind("pictures overwritten, index whole", "corrupt", damaged("libx264", "video")),
    Kind("sound overwritten, index whole", "corrupt", damaged("libx264", "audio")),
    Kind("pictures that unpack to more memory than allowed", "out-of-memory", bomb, ".mov"),
    Kind("the decoder takes more and more memory", "out-of-memory", write, EATS),
    Kind("the decoder hangs", "timeout", write, HANGS),
    Kind("the decoder aborts its process", "decoder-died", write, ABORTS),
    Kind("PyAV hangs over the pictures, decord does not", DECODED, write, PYAV_HANGS),
    Kind("PyAV aborts its process over the pictures, decord does not", DECODED, write, PYAV_ABORTS),
)

PATHS = (
    Kind("may not be read", "missing-file", unreadable),
    Kind("a folder", "not-a-video", lambda path: path.mkdir()),
    Kind("a named pipe", "not-a-video", os.mkfifo),
    Kind("a link to itself", "missing-file", lambda path: path.symlink_to(path.name)),
    Kind("a link to nothing", "missing-file", lambda path: path.symlink_to("nothing.mp4")),
    Kind("a link to a device", "not-a-video", lambda path: path.symlink_to("/dev/zero")),
    Kind("a name longer than names may be", "missing-file", lambda path: None, "a" * 300 + ".mp4"),
    Kind("a name that begins with -", DECODED, write, "-0A9sun15YA.mp4"),
    Kind("a name with a space", DECODED, write, "a clip.mp4"),
    Kind("a name with a colon", DECODED, write, "http:clip.mp4"),
    Kind("a name with a line break", DECODED, write, "a\nclip.mp4"),
    Kind("a name with %, *, ? or [", DECODED, write, "%03d*?[a].mp4"),
    Kind("a name beyond ASCII", DECODED, write, "ü ñ 視頻.mp4"),
    Kind("a playlist that points elsewhere", "not-a-video", text("#EXTM3U\n#EXTINF:3,\nmp4.mp4\n#EXT-X-ENDLIST\n")),
    Kind("a list of files for ffmpeg", "not-a-video", text("ffconcat version 1.0\nfile 'mp4.mp4'\n")),
    Kind("subtitles named .mp4", "not-a-video", text("1\n00:00:00,000 --> 00:00:02,000\nWords.\n\n")),
)

KINDS = {kind.name: kind for group in (ORDINARY, PICTURES, SOUND, CONTENT, LENGTHS, DAMAGE, PATHS) for kind in group}


def make(kind: Kind, folder: Path) -> Path:
    """Make the file in a folder of its own kind: names repeat in nothing but their ending."""
    own = folder / f"{list(KINDS).index(kind.name):02d}"
    own.mkdir()
    path = own / (f"clip{kind.file}" if kind.file.startswith(".") else kind.file)
    kind.make(path)
    return path
