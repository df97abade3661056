"""Every command: JSON as documented, an example in its help, errors without tracebacks, colours only where wanted."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main

from avvp_pipe.cli.console import guarded, human_seconds
from avvp_pipe.cli.main import app
from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.commands import command_line, step_of
from avvp_pipe.store import Store
from tests.small_world import TINY

Command = Callable[..., Any]
ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
PROGRAM: Any = typer.main.get_command(app)
STORE = "--store out/artifacts"


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield " ".join(path), command
    for name, one in getattr(command, "commands", {}).items():
        yield from walk(one, (*path, name))


COMMANDS = dict(walk(PROGRAM))


def documented() -> dict[str, tuple[set[str], set[str]]]:
    """Command -> keys that its JSON always has, and those that it may have (written with a question mark)."""
    found = {}
    for names, keys in re.findall(r"^\| ((?:`[a-z -]+`(?:, )?)+) \| (.*?) \|", PAGE, re.M):
        always = set(re.findall(r"`([$\w]+)`(?!\?)", keys))
        for name in re.findall(r"`([a-z -]+)`", names):
            found[name] = (always, set(re.findall(r"`(\w+)`\?", keys)))
    return found


DOCUMENTED = documented()
SAMPLES: dict[str, list[str]] = {
    "import-features": [f"import-features --dataset target --layout uwav --source . --dry-run {STORE}"],
    "import-generator": [f"import-generator --source x.pt --dry-run {STORE}"],
    "import-labels": [f"import-labels --dataset target --layout uwav --source . --dry-run {STORE}"],
    "import-parser": [f"import-parser --source x.pt --dataset target --dry-run {STORE}"],
    "import-thresholds": [f"import-thresholds --source . --dataset target --dry-run {STORE}"],
    "simulate": [f"simulate --dataset target {STORE}"],
    "denoise": [f"denoise --labels uwav --parser hard --dry-run {STORE}"],
    "parse": [f"parse --parser hard --features target {STORE}"],
    "ls": [f"ls {STORE}", "ls --store nowhere"],
    "show": [f"show labels/uwav {STORE}", f"show scores/labels-uwav {STORE}"],
    "status": [f"status {STORE}"],
    "export": [f"export labels/uwav --layout uwav --out tree {STORE}"],
    "failures": [f"failures features/target {STORE}"],
    "merge": [f"merge features/split --dry-run {STORE}", f"merge features/split {STORE}"],
    "overlap": [f"overlap target pretrain {STORE}"],
    "verify": [f"verify labels/uwav {STORE}"],
    "diff": [f"diff labels/uwav labels/valor {STORE}", f"diff thresholds/uwav thresholds/valor {STORE}"],
    "lineage": [f"lineage labels/uwav {STORE}"],
    "tag": [f"tag labels/uwav paper {STORE}"],
    "gc": [f"gc --superseded --dry-run {STORE}"],
    "compare": [f"compare labels/uwav labels/valor --resamples 100 {STORE}"],
    "report": [f"report labels/uwav --out report.html {STORE}"],
    "run": ["run demo.yaml"],
    "doctor": ["doctor"],
    "demo": ["demo --out out --size tiny"],
    "render": ["render --out out/world --size tiny"],
    "labels release": [f"labels release labels/uwav --out uwav.zarr.zip {STORE}"],
    "labels adopt": ["labels adopt uwav.zarr.zip --name theirs --store adopted"],
    "config show": ["config show demo.yaml"],
    "config schema": ["config schema"],
    "config init": ["config init --demo out --size tiny --out demo.yaml"],
    "recipes ls": ["recipes ls"],
    "recipes show": ["recipes show valor"],
    "recipes run": [f"recipes run video-labels --dataset target --features target {STORE}"],
    "models ls": ["models ls"],
    "models fetch": ["models fetch --dry-run"],
}
ONE_OF: dict[str, str] = {
    "dataset": "dataset/target", "decode": "media/target", "extract": "features/target",
    "pretrain": "generator/pretrain", "calibrate": "thresholds/uwav", "pseudolabel": "labels/uwav",
    "train-parser": "parser/hard", "evaluate": "scores/labels-uwav",
}  # fmt: skip
"""Stages that the demo runs: an artifact of each, whose command is typed again."""
ORDER = ["config init", "labels release"]
"""Commands whose files others read."""


@pytest.fixture(scope="module")
def said(finished_demo: Any, tmp_path_factory: pytest.TempPathFactory, avvp: Command) -> dict[str, list[Any]]:
    """What every command says with --json, on a copy of the demo."""
    import os
    import shutil

    here, before = tmp_path_factory.mktemp("commands"), Path.cwd()
    (here / "out").mkdir()
    shutil.copytree(finished_demo.store, here / "out" / "artifacts")
    (here / "out" / "world").symlink_to(finished_demo.out / "world")
    os.chdir(here)
    try:
        store, found = Store("out/artifacts"), {}
        for part in ("1/2", "2/2"):  # of which `merge` makes a whole
            made = ("extract", "--dataset", "target", "--media", "target", *TINY, "--name", "split", "--shard", part)
            assert avvp(*made, "--store", "out/artifacts", "--quiet").code == 0
        again = {stage: [command_line(step_of(store.get(one), store), store)[10:]] for stage, one in ONE_OF.items()}
        samples = {**again, **SAMPLES}
        for name in sorted(samples, key=lambda one: one not in ORDER):
            found[name] = [avvp(*shlex.split(line), "--json") for line in samples[name]]
        return found
    finally:
        os.chdir(before)


def test_every_command_is_documented_and_tried() -> None:
    assert set(DOCUMENTED) == set(COMMANDS)
    assert set(SAMPLES) | set(ONE_OF) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_json_has_the_documented_keys(said: dict[str, list[Any]], name: str) -> None:
    always, sometimes = DOCUMENTED[name]
    if name in STAGES and "--dry-run" in SAMPLES.get(name, [""])[0]:  # what would have to be trained or fetched first
        always, sometimes = {"steps", "estimate"}, set()
    for ran in said[name]:
        assert ran.code in (0, 1), ran.err
        keys = set(ran.document)
        assert (always - keys, keys - always - sometimes) == (set(), set())


@pytest.mark.parametrize("name", STAGES)
def test_json_of_a_dry_run_is_the_same_for_every_stage(avvp: Command, finished_demo: Any, name: str) -> None:
    store = Store(finished_demo.store)
    line = SAMPLES[name][0] if name in SAMPLES else command_line(step_of(store.get(ONE_OF[name]), store), store)[10:]
    line = line.replace("out/artifacts", str(finished_demo.store)).replace(" --dry-run", "")
    ran = avvp(*shlex.split(line), "--dry-run", "--json")
    assert (ran.code, set(ran.document)) == (0, {"steps", "estimate"}), ran.err
    assert all(set(one) == {"artifact", "stage", "state", "reasons"} for one in ran.document["steps"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_an_example_and_verbose(name: str) -> None:
    options = {option for one in COMMANDS[name].params for option in one.opts}
    assert options >= {"--json", "--verbose"}
    examples = re.findall(r"avvp-pipe ([a-z-]+(?: [a-z]+)?)", COMMANDS[name].help.partition("xample")[2])
    assert any(one.startswith(name) for one in examples), COMMANDS[name].help


WRONG = [
    "show labels/nothing", "show nonsense", "show labels/UWAV@", "ls wrong", "run nowhere.yaml", "run README.md",
    "config show nowhere.toml", "config init", "config init --videos no --weak no.csv", "compare labels/a", "compare",
    "dataset --source nowhere.jsonl", "dataset", "extract --dataset mine", "calibrate --dataset a --features b",
    "pretrain --dataset x --features y --epochs no", "recipes show nothing", "recipes run valor", "verify no.zip",
    "lineage labels/x", "tag labels/x y", "diff labels/x labels/y", "failures features/x", "overlap a b",
    "labels release labels/x --out x.zarr.zip", "labels adopt no.zip --name x", "export labels/x --layout uwav --out t",
    "merge features/x --from nowhere", "demo --out d --set x=y", "report labels/x --out r.html",
    "parse nowhere.mp4 --parser x", "gc labels/x", "models fetch nothing",
    "import-labels --dataset x --layout uwav --source no", "import-parser --source no.pt --dataset x",
]  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_told_without_a_traceback_also_as_json(
    avvp: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = avvp(*line.split())
    assert ran.code in (1, 2)
    assert ran.err.strip()
    assert "Traceback" not in ran.err + ran.out
    told = avvp(*line.split(), "--json")
    assert told.code == ran.code
    if "Usage:" not in told.err:  # of a wrong command line the entry point tells, see below
        assert set(told.document) >= {"error"}


def test_verbose_shows_the_traceback(avvp: Command, tmp_path: Path) -> None:
    line = ("show", "labels/nothing", "--store", tmp_path)
    assert "Traceback" in avvp(*line, "--verbose").err
    assert "Traceback" not in avvp(*line).err


def test_a_fault_of_the_program_is_one_line_too_and_says_how_to_see_more(capsys: pytest.CaptureFixture[str]) -> None:
    @guarded
    def broken(*, json: bool = False, verbose: bool = False) -> None:
        raise KeyError("nobody thought of this")

    for verbose in (False, True):
        with pytest.raises(typer.Exit) as ended:
            broken(json=True, verbose=verbose)
        out, err = capsys.readouterr()
        assert ended.value.exit_code == 1
        assert "nobody thought of this" in out
        assert ("Traceback" in err, "--verbose" in err) == (verbose, not verbose)


def numpy_asks() -> object:
    return np.empty(2**55, np.uint8)


def torch_asks() -> object:
    import torch

    return torch.empty(2**55, dtype=torch.uint8)


def a_gpu_asks() -> object:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")  # there is none to ask here


@pytest.mark.parametrize("ask", [numpy_asks, torch_asks, a_gpu_asks])
def test_too_little_memory_is_told_with_what_to_do(
    capsys: pytest.CaptureFixture[str], ask: Callable[[], object]
) -> None:
    @guarded
    def large(*, json: bool = False, verbose: bool = False) -> None:
        ask()

    with pytest.raises(typer.Exit) as ended:
        large()
    err = capsys.readouterr().err
    assert ended.value.exit_code == 1
    assert "not enough memory" in err
    assert "--batch-size" in err
    assert "fault" not in err


def program(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    code = "from avvp_pipe.cli.start import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_a_wrong_command_line_is_one_json_document_at_the_entry_point() -> None:
    done = program("ls", "--nonsense", "--json")
    assert done.returncode == 2
    assert "--nonsense" in done.stdout
    assert "Traceback" not in done.stderr


def test_no_color_is_obeyed_on_a_terminal(finished_demo: Any) -> None:
    import os
    import pty

    def shown(**environment: str) -> bytes:
        ours, theirs = pty.openpty()
        code = "from avvp_pipe.cli.start import main; main()"
        words = [sys.executable, "-c", code, "ls", "--store", str(finished_demo.store)]
        with subprocess.Popen(words, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", **environment}):
            os.close(theirs)
            found = b""
            while True:
                try:
                    found += os.read(ours, 65536)
                except OSError:
                    break
        os.close(ours)
        return found

    coloured = re.compile(rb"\x1b\[[0-9;]*(3[0-7]|9[0-7])[0-9;]*m")
    plain = shown(NO_COLOR="1")
    assert b"labels/uwav" in plain
    assert not coloured.search(plain)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_commands_and_options(shell: str) -> None:
    environment = {"_AVVP_PIPE_COMPLETE": f"complete_{shell}", "COMP_WORDS": "avvp-pipe cal", "COMP_CWORD": "1"}
    typed = {"_TYPER_COMPLETE_ARGS": "avvp-pipe cal", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    code = "import sys; sys.argv = ['avvp-pipe']; from avvp_pipe.cli.main import app; app(prog_name='avvp-pipe')"
    import os

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment, **typed},
        check=False,
    )
    assert "calibrate" in done.stdout, done.stderr


def test_tables_of_the_demo_fit_80_columns(demo_copy: Any, avvp: Command) -> None:
    ran = avvp("demo", "--out", demo_copy.out, "--size", "tiny", "--quiet")
    lines = ran.out.splitlines()
    assert len(lines) > 30
    assert max(map(len, lines[:-2])) <= 80


def test_long_steps_tell_rate_and_time_left_where_nobody_watches(avvp: Command, demo_copy: Any) -> None:
    ran = avvp("pretrain", "--dataset", "pretrain", "--features", "pretrain", "--width", "32", "--heads", "4", "--ffn",
               "64", "--layers", "1", "--epochs", "3", "--warmup", "1", "--name", "x",
               "--store", demo_copy.store)  # fmt: skip
    lines = [line for line in ran.err.splitlines() if line.startswith("pretrain: ")]
    assert len(lines) == 3
    assert all(
        re.fullmatch(r"pretrain: \d/3, ([\d.]+/s|[\d.]+ \w+ each), [\d.]+ \w+ (left|in all)", one) for one in lines
    )


def test_help_and_its_time_do_not_need_what_is_heavy() -> None:
    heavy = ["torch", "zarr", "av", "yaml", "rich.table", "jinja2"]
    code = f"import sys; from avvp_pipe.cli.main import app; print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_status_of_a_store_with_parsers_does_not_import_torch(finished_demo: Any) -> None:
    code = (
        "import sys\nfrom avvp_pipe.cli.main import app\n"
        f"app(['status', '--json', '--store', {str(finished_demo.store)!r}], standalone_mode=False)\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    told = []
    for _ in range(2):  # the first may have to settle what no run in this cache has settled yet
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        told.append(done.stderr.split()[-1])
    assert told[-1] == "False"


def test_times_are_told_as_people_plan_with_them() -> None:
    assert [human_seconds(one) for one in (0.04, 119, 121, 10_000)] == ["0.0 s", "119.0 s", "2 min", "2.8 h"]
