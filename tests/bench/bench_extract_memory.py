"""Memory that extraction straight from videos takes, of 100 clips and of 400: it must not grow with the dataset.

Peak of the extracting process and of its largest decoding process, each by itself, in a process of its own for each
size. Eight small videos stand for all clips; frames are 224 x 224 in float32, so that 300 clips more, were they kept,
would be 200 MB. The promise, a line; exits 1 where it is broken:

- at most 10 % more of 400 clips than of 100.

    python tests/bench/bench_extract_memory.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
small_world = import_module("small_world")

FEW, MANY, FILES = 100, 400, 8
ALLOWED = 1.10

EXTRACT = """
import os, sys, threading, time
from pathlib import Path
from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Store

def fields(status):
    return dict(line.split(":", 1) for line in status.read_text().splitlines())

def most(status):
    return int(fields(status)["VmHWM"].split()[0]) * 1024

def watch():  # the peak that the kernel keeps of each process that this one started
    global decoding
    while True:
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                if int(fields(status)["PPid"]) == os.getpid():
                    decoding = max(decoding, most(status))
            except (OSError, KeyError):
                pass
        time.sleep(0.2)

decoding = 0
threading.Thread(target=watch, daemon=True).start()
store = Store(sys.argv[1])
run_step(store, Step("dataset", "mine", {"source": sys.argv[2]}), progress=Silent())
params = {"visual_teacher": "tiny-clip", "audio_teacher": "tiny-clap", "frame_size": 224, "frame_dtype": "float32"}
done = run_step(store, Step("extract", "mine", {**params, "workers": "2"}, {"dataset": "mine"}), progress=Silent())
assert not done.failures, done.failures
print(most(Path("/proc/self/status")), decoding)
"""


def peaks(work: Path, clips: int) -> tuple[int, int]:
    """Bytes at most, of the process that embeds and of the largest one that decodes."""
    work.mkdir()
    for seed in range(FILES):
        small_world.write_video(work / f"v{seed}.mp4", seed, seconds=1)
    manifest = small_world.write_manifest(work, [f"v{row % FILES}.mp4" for row in range(clips)], [1] * clips)
    command = [sys.executable, "-c", EXTRACT, str(work / "store"), str(manifest)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    embedding, decoding = (int(word) for word in said.split())
    return embedding, decoding


def main() -> int:
    """Measure, print a line each, and say by the exit code whether the promise is kept."""
    kept = True
    with tempfile.TemporaryDirectory(prefix="avvp-bench-") as folder:
        measured = [peaks(Path(folder) / str(clips), clips) for clips in (FEW, MANY)]
    for what, few, many in zip(("embedding", "decoding"), *measured, strict=True):
        print(
            f"extract, memory of the {what} process: {few / 2**20:.0f} MiB of {FEW} clips, {many / 2**20:.0f} MiB of "
            f"{MANY}, {many / few:.2f} times (at most {ALLOWED:.2f} wanted)"
        )
        kept &= many <= ALLOWED * few
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
