"""A disk that is full costs a clear error and no artifact; with space again the same command goes on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

# Runs commands, each in a fork with little room: on a tmpfs that has this many bytes left (where it is in a mount
# namespace of its own), or with a limit on the size of files. Says how each ended and what the store then holds.
DRIVER = """
import dataclasses, hashlib, json, os, pathlib, resource, shutil, subprocess, sys, traceback
import av, torch, zarr, avvp_pipe.store.builder, avvp_pipe.store.labels
from avvp_pipe.cli.main import app
from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.store import Store

way, place, source = sys.argv[1:]
store = pathlib.Path(place) / "artifacts"
for name in ("decode", "extract"):
    STAGES[name] = dataclasses.replace(STAGES[name], shard_rows=4)

def sized(size):
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)

def leave(room):
    if way == "files":
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    else:
        filled = os.statvfs(place)
        sized((filled.f_blocks - filled.f_bfree) * filled.f_frsize + room)

def digests(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}

def child(command, room, err):
    os.dup2(err, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code = 99
    try:
        leave(room)
        code = app([*command, "--store", str(store)], standalone_mode=False) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

def told(command, room):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(command, room, writing)
    os.close(writing)
    with os.fdopen(reading) as file:
        err = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    hidden = [str(path) for path in store.rglob(".*") if path.name not in (".request.json", ".runs", ".digests.json")]
    return {
        "code": code, "err": err, "hidden": hidden,
        "artifacts": {str(one.reference): digests(one.path) for one in Store(store).artifacts()},
    }

if way == "tmpfs":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", place], check=True)
for kind, name in (("dataset", "target"), ("dataset", "pretrain"), ("features", "pretrain")):
    shutil.copytree(f"{source}/{kind}/{name}", store / kind / name)
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(told(*json.loads(line))), flush=True)
"""
COMMANDS = {
    "decode": (
        "decode", "--dataset", "target", "--frame-size", "64", "--sample-rate", "16000", "--audio-dtype", "int16",
        "--workers", "1",
    ),
    "pretrain": (
        "pretrain", "--dataset", "pretrain", "--features", "pretrain", "--width", "32", "--heads", "4", "--ffn", "64",
        "--layers", "2", "--epochs", "4",
    ),
}  # fmt: skip
KINDS = {"decode": "media", "pretrain": "generator"}
TOO_LITTLE = {
    ("tmpfs", "decode"): (0, 20_000, 300_000, 3_000_000),
    ("tmpfs", "pretrain"): (0, 20_000, 200_000),
    ("files", "decode"): (0, 1_000, 50_000),
    ("files", "pretrain"): (0, 1_000, 5_000),
}
"""Bytes of room, growing; what a shard needs lies between them."""
PLENTY = 100_000_000
Told = Callable[[str, str, int], dict[str, Any]]


def namespaces() -> list[list[str]]:
    """The ways to mount something that nobody else sees: as root, or as root of a user namespace."""
    return [["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]]


def mounting(folder: Path) -> list[str]:
    """The words before a command that let it mount; skips, and says so, where the machine allows no way."""
    for words in namespaces():
        with suppress(FileNotFoundError):
            trial = [*words, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
            if subprocess.run(trial, capture_output=True, check=False).returncode == 0:
                return words
    pytest.skip("no tmpfs can be mounted here, neither as root nor in a user namespace; the limit on files is tested")


@pytest.fixture(params=["tmpfs", "files"])
def disk(request: pytest.FixtureRequest, finished_demo: Any, tmp_path: Path) -> Iterator[tuple[str, Path, Told]]:
    """The way, the folder on the little disk, and `told(stage, name, room)` that runs a stage there."""
    place = tmp_path / "disk"
    place.mkdir()
    words = mounting(place) if request.param == "tmpfs" else []
    command = [*words, sys.executable, "-c", DRIVER, request.param, str(place), str(finished_demo.store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers, orders = process.stdout, process.stdin
        assert answers.readline() == "ready\n"

        def told(stage: str, name: str, room: int) -> dict[str, Any]:
            print(json.dumps([[*COMMANDS[stage], "--name", name], room]), file=orders, flush=True)
            return dict(json.loads(answers.readline()))

        yield request.param, place, told
        process.stdin.close()


def of_name(said: dict[str, Any], stage: str, name: str) -> list[Any]:
    return [files for one, files in said["artifacts"].items() if one.startswith(f"{KINDS[stage]}/{name}@")]


@pytest.mark.parametrize("stage", COMMANDS)
def test_a_full_disk_is_a_clear_error_and_with_space_the_command_goes_on(
    disk: tuple[str, Path, Told], stage: str
) -> None:
    way, place, told = disk
    whole = told(stage, "whole", PLENTY)
    assert whole["code"] == 0, whole["err"]
    for room in TOO_LITTLE[way, stage]:
        said = told(stage, "tight", room)
        assert said["code"] == 1, said["err"]
        assert "Traceback" not in said["err"]
        assert str(place / "artifacts") in said["err"]
        assert "is there space" in said["err"]
        assert said["artifacts"] == whole["artifacts"], "what is complete stays, and nothing else is seen"
    said = told(stage, "tight", PLENTY)
    assert said["code"] == 0, said["err"]
    assert of_name(said, stage, "tight") == of_name(whole, stage, "whole") != []
    assert said["hidden"] == []
