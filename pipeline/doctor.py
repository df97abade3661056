"""What of this machine's setting is missing for the stages to run, and what mends it."""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["Check", "examine", "family_problem"]

PATIENCE_SECONDS = 120
FREE_BYTES = 5 * 1024**3
TORCH_TO_VISION = 15
"""torchvision 0.(n + 15) is of the family of torch 2.n; torchaudio is called as torch is."""
IMPORTS = {
    "torch": ("import torch, torchvision, torchaudio; torchvision.ops.nms", "pip install -e ."),
    "open_clip": ("import open_clip", "pip install open_clip_torch"),
    "decord": ("import torch, decord", "pip install decord==0.6.0"),
    "PyAV": ("import av", "pip install av"),
    "laion_clap": (
        "from avvp_pipe.stages.teachers.laion_import import clap_module; clap_module()",
        "pip install laion_clap==1.1.7",
    ),
    "transformers": ("from transformers import ClapModel", "pip install transformers"),
}
"""Tried in a process of their own, and in another one after an import that crashed it or hung."""
MARK = "avvp-pipe-import "
TRY_IMPORTS = f"""
import json, sys
for name, code in json.loads(sys.argv[1]):
    try:
        exec(code, {{}})
        said = ""
    except BaseException as error:
        said = f"{{type(error).__name__}}: {{error}}"
    print({MARK!r} + json.dumps([name, said]), flush=True)
"""
SHOW_CUDA = (
    "import torch; n = torch.cuda.device_count() if torch.cuda.is_available() else 0; "
    "print(', '.join(torch.cuda.get_device_name(i) for i in range(n)))"
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    found: str
    mend: str = ""
    """The command or step that mends it, "" where nothing is wrong."""
    needed: bool = True
    """Whether `extract` with its defaults needs it."""

    @property
    def state(self) -> str:
        """ok, missing, or note: for something that only some need."""
        return "ok" if self.ok else "missing" if self.needed else "note"


def examine() -> list[Check]:
    """Look at everything; takes some seconds, most of it imports. Goes to no network."""
    with ThreadPoolExecutor(2) as pool:
        imports, cuda = pool.submit(_imports), pool.submit(_cuda)
        first, rest = [_python(), _family()], [*_teachers(), *_folders(), _bf16(), _ray(), _offline()]
        return [*first, *imports.result(), *rest, cuda.result()]


def family_problem(torch: str, torchvision: str, torchaudio: str) -> str:
    """What is wrong with three versions installed side by side, "" where they are of one family.

    >>> family_problem("2.11.0+cpu", "0.26.0+cpu", "2.11.0+cpu")
    ''
    >>> family_problem("2.13.0+cpu", "0.26.0", "2.11.0")
    'torch 2.13 wants torchvision 0.28 and torchaudio 2.13'
    """
    (major, minor), vision, audio = (_release(one) for one in (torch, torchvision, torchaudio))
    if vision != (0, minor + TORCH_TO_VISION) or audio != (major, minor):
        wanted = f"torchvision 0.{minor + TORCH_TO_VISION} and torchaudio {major}.{minor}"
        return f"torch {major}.{minor} wants {wanted}"
    builds = {one.partition("+")[2] for one in (torch, torchvision, torchaudio)} - {""}
    return f"their builds differ: {', '.join(sorted(builds))}" if len(builds) > 1 else ""


def _release(text: str) -> tuple[int, int]:
    numbers = text.split("+")[0].split(".")
    return int(numbers[0]), int(numbers[1])


def _python() -> Check:
    ok = (3, 11) <= sys.version_info[:2] < (3, 13)
    return Check("python", ok, platform.python_version(), "" if ok else "install Python 3.11 or 3.12, and this in it")


def _family() -> Check:
    names = ("torch", "torchvision", "torchaudio")
    try:
        versions = [version(name) for name in names]
    except PackageNotFoundError as error:
        return Check("torch family", False, f"{error.name} is not installed", "pip install -e .")
    found = ", ".join(f"{name} {one}" for name, one in zip(names, versions, strict=True))
    problem = family_problem(*versions)
    if not problem:
        return Check("torch family", True, found)
    return Check("torch family", False, f"{found}: {problem}", "pip install -e . (all three from one index)")


def _run(code: str, *arguments: str) -> tuple[str, str]:
    """What a program printed, and how it ended where it did not end well."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    try:
        ran = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=PATIENCE_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(errors="replace"), f"took more than {PATIENCE_SECONDS} s"
    return ran.stdout.decode(errors="replace"), f"the process ended with {ran.returncode}" if ran.returncode else ""


def _imports() -> list[Check]:
    left, checks = {name: code for name, (code, _) in IMPORTS.items()}, []
    while left:
        printed, ended = _run(TRY_IMPORTS, json.dumps(list(left.items())))
        tried = [line.removeprefix(MARK) for line in printed.splitlines() if line.startswith(MARK)]
        found = [*(json.loads(line) for line in tried), *([[next(iter(left)), ended]] if not tried else [])]
        for name, said in found:
            del left[name]
            checks.append(Check(f"import {name}", not said, said or "works", IMPORTS[name][1] if said else ""))
    return checks


def _cuda() -> Check:
    found = _run(SHOW_CUDA)[0].strip()
    mend = "nothing to do on a machine without an NVIDIA GPU; with one, install its driver and a CUDA build of torch"
    return Check("CUDA", bool(found), found or "torch finds no device: extraction runs on the CPU", mend, needed=False)


def _teachers() -> Iterator[Check]:
    """Weights of what `extract` takes by default."""
    from avvp_pipe.stages import extract
    from avvp_pipe.stages.teachers.inventory import model

    defaults = extract.Params()
    for name in (defaults.visual_teacher, defaults.audio_teacher):
        found = model(name)
        if found.missing:
            yield Check(
                f"weights {name}",
                False,
                f"not on this machine: {', '.join(found.missing)}",
                f"avvp-pipe models fetch {name}",
            )
        else:
            yield Check(f"weights {name}", True, f"{found.bytes / 1e6:.0f} MB in {found.where}")


def _folders() -> Iterator[Check]:
    from avvp_pipe.stages.teachers.hub import cache_place
    from avvp_pipe.store import cache_folder

    for name, variable, folder in (
        ("cache", "AVVP_PIPE_CACHE", cache_folder()),
        ("weights cache", "HF_HOME", cache_place()),
    ):
        there = next(one for one in (folder, *folder.parents) if one.exists())
        writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
        found = f"{folder}" if writable else f"{folder} cannot be written to"
        yield Check(f"{name} folder", writable, found, "" if writable else f"name another in {variable}")
        yield _space(name, there, variable)


def _space(name: str, folder: Path, variable: str) -> Check:
    free = shutil.disk_usage(folder).free
    ok = free >= FREE_BYTES
    mend = "" if ok else f"make room, or name a folder on another disk in {variable}"
    return Check(f"{name} space", ok, f"{free / 1e9:.1f} GB free", mend, needed=False)


def _bf16() -> Check:
    try:
        flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    except OSError:
        return Check("bf16 on CPU", False, "unknown on this system", "try --precision bf16 and compare", needed=False)
    found = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    text = ", ".join(found) or "this processor has no instructions for it: --precision bf16 is slower than fp32"
    return Check("bf16 on CPU", bool(found), text, "" if found else "leave --precision at fp32", needed=False)


def _ray() -> Check:
    there = importlib.util.find_spec("ray") is not None
    found = f"ray {version('ray')}" if there else "not installed: --executor ray cannot be used"
    return Check("ray", there, found, "" if there else 'pip install "avvp-pipe[ray]"', needed=False)


def _offline() -> Check:
    from avvp_pipe.stages.teachers.hub import is_offline

    offline = is_offline()
    found = "set: models fetch will not go to the hub" if offline else "not set; nothing but models fetch goes online"
    return Check("HF_HUB_OFFLINE", not offline, found, "unset it to fetch weights" if offline else "", needed=False)
