"""How much faster extraction with full-size teachers is than the straightforward way, side by side in one run.

ViT-L-14-quickgelu and HTSAT-tiny-fused with random weights, from checkpoint files, on this processor; ten-second clips
of 320 x 240. Each side runs in processes of its own (`by_hand.py`, `by_stage.py`), warm, in turns; the best turn
counts. The promises, each a line; exits 1 where one is broken:

- `extract` in bf16 at least 3 times as many clips a second as the straightforward way in fp32, where the processor has
  AMX or AVX512-bf16; in fp32 no fewer;
- both give the same features, to the smallest cosine said;
- ten frames of a clip decoded at least 2.5 times as fast as VALOR did it, clip after clip: pictures dumped at 8 a
  second with the ffmpeg program, ten of them read back. Both may use all processors, and both are the mean over a turn.
  The start of our processes is timed, and shared by the clips of a turn: fewer than any data set has. With the sound
  on both sides (librosa's on theirs) the ratio is printed beside it.

Where the time goes is printed for both sides. The clip is LLP's one at AVVP_REAL_DATA, or one that is made here.

    python tests/bench/bench_extract.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avvp_pipe.stages.media.clip import DecodedClip, Sampling, decode_clip
from avvp_pipe.stages.media.gather import worker_count
from avvp_pipe.stages.media.pool import Task, decode_clips
from avvp_pipe.stages.media.resizes import squares
from avvp_pipe.stages.media.workers import in_processes

CLIPS = 6
TURNS = ("hand", "bf16", "fp32", "hand", "bf16")
DECODE_TURNS, DECODES, DUMPS = 4, 192, 12
SECONDS = 10
PROCESSORS = worker_count("auto")
FASTER = {"fp32": 1.0, "bf16": 3.0}
COSINE = {"fp32": 0.99999, "bf16": 0.999}
DECODED_FASTER = 2.5
DUMP_FPS = 8
SWIFT_FLAGS = {"amx_bf16", "avx512_bf16"}


def test_clip(folder: Path) -> Path:
    """LLP's clip, or one of the same size, rate and length made here."""
    real = Path(os.environ.get("AVVP_REAL_DATA", "")) / "llp" / "BjCEufrlXm4.mp4"
    return real.resolve() if real.is_file() else made_clip(folder / "clip.mp4")


def made_clip(path: Path, width: int = 320, height: int = 240) -> Path:
    """Ten seconds of H.264 at 30 fps, a moving pattern under noise, and of stereo AAC at 44.1 kHz."""
    import av

    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as file:
        video, audio = file.add_stream("libx264", rate=30), file.add_stream("aac", rate=44100, layout="stereo")
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for index in range(30 * SECONDS):
            waves = 128 + 90 * np.sin((x[..., None] + index * np.array([1, 2, 3])) / 20 + y[..., None] / 30)
            noisy = (waves + random.integers(-15, 16, waves.shape)).clip(0, 255).astype(np.uint8)
            picture = av.VideoFrame.from_ndarray(noisy, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 30)
            file.mux(video.encode(picture))
        for start in range(0, 44100 * SECONDS, 1024):
            sound = random.normal(0, 0.1, (2, 1024)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
            file.mux(audio.encode(frame))
        file.mux([*video.encode(None), *audio.encode(None)])
    return path


def in_process(script: str, *arguments: object) -> None:
    """Run a script beside this one; what it says is shown only if it fails."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).parent / script), *map(str, arguments)]
    ran = subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")


def one_turn(script: str, out: Path, *arguments: object) -> dict[str, float]:
    """Run one side; its features stay in `out`. Returns seconds a clip, all and by what they were spent on."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    in_process(script, *arguments, out)
    spent: Mapping[str, float] = json.loads((out / "seconds.json").read_text())
    return {what: seconds / CLIPS for what, seconds in spent.items()}


def shares(spent: Mapping[str, float]) -> str:
    """What the time went on, in percent.

    >>> shares({"all": 4.0, "CLIP": 3.0, "CLAP": 0.8})
    'CLIP 75 %, CLAP 20 %, rest 5 %'
    """
    parts = {what: seconds for what, seconds in spent.items() if what != "all"}
    parts["rest"] = spent["all"] - sum(parts.values())
    return ", ".join(f"{what} {100 * seconds / spent['all']:.0f} %" for what, seconds in parts.items())


def smallest_cosine(ours: Path, theirs: Path) -> float:
    """Over all seconds of all clips, both modalities."""
    cosines = []
    for file in sorted(theirs.glob("*.npz")):
        with np.load(ours / file.name) as one, np.load(file) as other:
            cosines += [float((one[name] * other[name]).sum(-1).min()) for name in ("visual", "audio")]
    return min(cosines)


def extraction(work: Path, clip: Path, costs: dict[str, float]) -> list[bool]:
    """Both sides in turns."""
    weights = (work / "visual.safetensors", work / "audio.pt")
    os.environ["AVVP_PIPE_CACHE"] = str(work / "cache")  # digests of the weights
    in_process("by_hand.py", *weights)
    turns: dict[str, list[dict[str, float]]] = {side: [] for side in TURNS}
    for side in TURNS:
        if side == "hand":
            turns[side].append(one_turn("by_hand.py", work / side, *weights, clip, CLIPS))
        else:
            told = json.dumps(parameters(*weights, side))
            turns[side].append(one_turn("by_stage.py", work / side, clip, CLIPS, told))
    best = {side: min(spent, key=lambda one: one["all"]) for side, spent in turns.items()}
    for precision in ("fp32", "bf16"):
        costs |= {f"{what} {precision}": PROCESSORS * best[precision][what] for what in ("CLIP", "CLAP")}
    costs["straightforward"] = PROCESSORS * best["hand"]["all"]
    print(f"extract, straightforward, fp32: {best['hand']['all']:.2f} s a clip; {shares(best['hand'])}")
    return [judged(precision, best[precision], best["hand"], work) for precision in ("fp32", "bf16")]


def parameters(visual: Path, audio: Path, precision: str) -> dict[str, str]:
    """Of `extract`, so that it takes the frames and the sound that by_hand.py takes."""
    return {
        "visual_teacher": "ViT-L-14-quickgelu",
        "audio_teacher": "HTSAT-tiny-fused",
        "visual_weights": str(visual),
        "audio_weights": str(audio),
        "precision": precision,
        "frame_rule": "centre",
        "resize": "crop",
        "device": "cpu",
    }


def judged(precision: str, ours: Mapping[str, float], theirs: Mapping[str, float], work: Path) -> bool:
    """Say and judge one precision: its speed and its features."""
    ratio, cosine = theirs["all"] / ours["all"], smallest_cosine(work / precision, work / "hand")
    promised = precision == "fp32" or swift_bf16()
    wanted = f"{FASTER[precision]:g} wanted" if promised else "no AMX, no AVX512-bf16: nothing wanted"
    print(
        f"extract, {precision}: {ours['all']:.2f} s a clip, {ratio:.1f} times as fast ({wanted}); smallest cosine "
        f"{cosine:.6f} ({COSINE[precision]:g} wanted); {shares(ours)}"
    )
    return cosine >= COSINE[precision] and (ratio >= FASTER[precision] or not promised)


def swift_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices in hardware."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and bool(SWIFT_FLAGS & set(info.read_text().split()))


def decoding(work: Path, clip: Path, costs: dict[str, float]) -> bool:
    """Many clips by the decoding processes of `decode`, and one after the other by the program, in turns."""
    tasks = [Task(row, clip, SECONDS) for row in range(DECODES)]

    def ours() -> None:
        found = [one for _, one in decode_clips(tasks, Sampling(), workers=PROCESSORS, timeout_seconds=60.0)]
        assert all(isinstance(one, DecodedClip) for one in found), found

    def ours_without_sound() -> None:
        beside = import_module("pictures")
        calls = [(clip,)] * DECODES
        workers = {"workers": PROCESSORS, "prepare": beside.prepare}
        found = in_processes(beside.pictures, calls, timeout_seconds=60.0, **workers)
        assert all(isinstance(one, np.ndarray) for one in found)

    librosa = program_beside(work)
    taken: list[list[float]] = [[], [], [], []]
    for _ in range(DECODE_TURNS):
        taken[0].append(seconds(ours) / DECODES)
        taken[1].append(seconds(lambda: [dumped(clip, work / "dump") for _ in range(DUMPS)]) / DUMPS)
        taken[2].append(seconds(lambda: [librosa.load(clip, sr=48_000) for _ in range(DUMPS)]) / DUMPS)
        taken[3].append(seconds(ours_without_sound) / DECODES)
    one, dump, sound, silent = map(min, taken)
    alone, resize = in_this_process(clip)
    costs["decode"], costs["decode 1280 x 720"] = alone, in_this_process(made_clip(work / "large.mp4", 1280, 720))[0]
    print(
        f"decode, ten frames: ours {silent:.3f} s a clip with {PROCESSORS} processes, their start shared by {DECODES}, "
        f"ffmpeg's dump read back {dump:.3f} s, {dump / silent:.2f} times as fast ({DECODED_FASTER:g} wanted); "
        f"with the sound {one:.3f} s "
        f"({alone:.3f} s in one process, resize {100 * resize / alone:.0f} % of it) against {dump + sound:.3f} s with "
        f"librosa's, {(dump + sound) / one:.1f} times"
    )
    return dump >= DECODED_FASTER * silent


def program_beside(work: Path) -> Any:
    """librosa, with the ffmpeg program where it looks for it, and without its warnings about that."""
    (work / "bin").mkdir()
    (work / "bin" / "ffmpeg").symlink_to(import_module("imageio_ffmpeg").get_ffmpeg_exe())
    os.environ["PATH"] = f"{work / 'bin'}{os.pathsep}{os.environ['PATH']}"
    warnings.simplefilter("ignore")
    return import_module("librosa")


def in_this_process(clip: Path) -> tuple[float, float]:
    """Seconds to decode a clip without other processes, and how much of it went on making frames small."""
    resizing, taken = [], []

    def watched(*arguments: Any) -> NDArray[Any]:
        start = time.perf_counter()
        found = squares(*arguments)
        resizing.append(time.perf_counter() - start)
        return found

    with mock.patch("avvp_pipe.stages.media.clip.squares", watched):
        for _ in range(2 * DECODE_TURNS):
            taken.append(seconds(lambda: decode_clip(clip, seconds=SECONDS)))
    return min(taken), sum(resizing) / len(taken)


def dumped(clip: Path, folder: Path) -> list[NDArray[np.uint8]]:
    """VALOR's way to ten pictures: all of 8 a second written as JPEG files, ten of them read."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", str(clip), "-r", str(DUMP_FPS)]
    subprocess.run([*command, str(folder / "%06d.jpg")], check=True)
    files = sorted(folder.iterdir())
    return [np.asarray(Image.open(files[at])) for at in np.round(np.linspace(0, len(files) - 1, SECONDS)).astype(int)]


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> int:
    """Measure, print a line each, and say by the exit code whether all promises are kept."""
    with tempfile.TemporaryDirectory(prefix="avvp-bench-") as folder:
        work = Path(folder)
        clip = test_clip(work)
        costs: dict[str, float] = {}
        kept = [decoding(work, clip, costs), *extraction(work, clip, costs)]
    print(f"cost, core-seconds a clip: {', '.join(f'{what} {seconds:.3g}' for what, seconds in costs.items())}")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
