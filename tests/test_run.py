"""A whole run from one file: equal to the single commands, planned before it starts, interrupted and gone on with."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from avvp_pipe.pipeline.commands import command_line
from avvp_pipe.pipeline.run_config import read_config
from avvp_pipe.pipeline.run_steps import plan_run
from avvp_pipe.store import Store
from tests.small_world import files_of, small_world, write_video

Command = Callable[..., Any]
RUN = """\
defaults:
  extract: {visual_teacher: tiny-clip, audio_teacher: tiny-clap, workers: 0, device: cpu}
steps:
- {id: clips, stage: dataset, name: mine, params: {source: clips.jsonl}}
- {id: features, stage: extract, inputs: {dataset: clips}}
- {id: labels, stage: pseudolabel, inputs: {dataset: clips, features: features}, params: {method: video-labels}}
- id: parser
  stage: train-parser
  inputs: {dataset: clips, features: features, labels: labels}
  params: {parser: han, widths: features, targets: hard, width: 16, heads: 2, ffn: 16, layers: 1, epochs: 3}
"""
COMMANDS = """\
dataset --source clips.jsonl --name mine
extract --dataset mine --visual-teacher tiny-clip --audio-teacher tiny-clap --workers 0 --device cpu
pseudolabel --method video-labels --dataset mine --features mine
train-parser --dataset mine --features mine --labels mine-video-labels --parser han --widths features --targets hard
 --width 16 --heads 2 --ffn 16 --layers 1 --epochs 3
"""
MADE = ["dataset/mine", "features/mine", "labels/mine-video-labels", "parser/mine"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    small_world(folder, 6)
    (folder / "run.yaml").write_text(RUN)
    return folder


@pytest.fixture
def here(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(videos, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bytes_of(store: Path) -> Mapping[str, bytes]:
    found = {str(one.reference): files_of(one.path) for one in Store(store).artifacts()}
    return {f"{name}/{file}": data for name, files in found.items() for file, data in files.items()}


def test_a_run_makes_the_same_bytes_as_the_single_commands(avvp: Command, here: Path) -> None:
    ran = avvp("run", "run.yaml", "--store", "whole", "--json", "--quiet")
    assert (ran.code, [one["state"] for one in ran.document["steps"]]) == (0, ["built"] * 4), ran.err
    for line in COMMANDS.replace("\n ", " ").strip().splitlines():
        assert avvp(*line.split(), "--store", "single", "--quiet").code == 0, line
    whole, single = bytes_of(here / "whole"), bytes_of(here / "single")
    assert {name.partition("@")[0] for name in whole} == set(MADE)
    assert whole == single


def test_the_demos_run_is_the_demo_key_for_key(avvp: Command, demo_copy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo_copy.out.parent)
    wrote = avvp("config", "init", "--demo", "out", "--size", "tiny", "--out", "demo.yaml", "--json")
    assert wrote.document["written"] == ["demo.yaml"]
    ran = avvp("run", "demo.yaml", "--json", "--quiet")
    assert {one["state"] for one in ran.document["steps"]} == {"cached"}
    assert [one["artifact"] for one in ran.document["steps"]] == [
        one["artifact"] for one in demo_copy.document["artifacts"]
    ]
    assert [(one["method"], one["split"], one["segment"]) for one in ran.document["scores"]] == [
        (one["method"], one["split"], one["segment"]) for one in demo_copy.document["scores"]
    ]


def test_each_step_of_the_demos_run_is_cached_for_the_single_command_that_it_stands_for(
    avvp: Command, demo_copy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo_copy.out.parent)
    assert avvp("config", "init", "--demo", "out", "--size", "tiny", "--out", "demo.yaml").code == 0
    keys = {one["artifact"].partition("@")[0]: one["artifact"] for one in demo_copy.document["artifacts"]}
    planned = plan_run(read_config("demo.yaml"))
    assert len(planned) == len(keys) > 40
    for one in planned:
        words = shlex.split(command_line(one.step, Store(demo_copy.store)))[1:]
        (condition,) = avvp(*words, "--dry-run", "--json", "--quiet").document["steps"]
        assert (condition["artifact"], condition["state"]) == (keys[str(one.step.reference)], "cached")


def test_a_store_tells_the_run_that_made_it(avvp: Command, demo_copy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo_copy.out.parent)
    assert avvp("config", "init", "--of-store", "--store", "out/artifacts", "--out", "again.yaml").code == 0
    ahead = avvp("run", "again.yaml", "--dry-run", "--json").document
    assert (ahead["to_run"], ahead["cached"]) == (0, len(demo_copy.document["artifacts"]))


def test_a_dry_run_tells_what_would_run_why_how_long_and_how_large_and_writes_nothing(
    avvp: Command, here: Path
) -> None:
    before = sorted(path.name for path in here.rglob("*"))
    ahead = avvp("run", "run.yaml", "--dry-run", "--json", "--quiet").document
    assert sorted(path.name for path in here.rglob("*")) == before
    assert [one["state"] for one in ahead["steps"]] == ["missing"] * 4
    assert (ahead["to_run"], ahead["unknown"]) == (4, 2)
    assert [one["clips"] for one in ahead["steps"]] == [6, 6, None, None]
    assert ahead["steps"][1]["bytes"] > ahead["steps"][0]["bytes"] > 0
    assert avvp("dataset", "--source", "clips.jsonl", "--name", "mine", "--quiet").code == 0
    (dataset, features, *others) = avvp("run", "run.yaml", "--dry-run", "--json", "--quiet").document["steps"]
    assert (dataset["state"], dataset["seconds"]) == ("cached", None)
    assert features["clips"] == 6
    assert features["seconds"] > 0
    assert features["bytes"] > 0
    assert features["basis"].startswith("measured on ")
    assert {one["basis"] for one in others} == {"cannot be told before features/mine is made"}


def test_a_changed_parameter_reruns_what_hangs_on_it_and_the_figures_are_those_of_before(
    avvp: Command, here: Path
) -> None:
    assert avvp("run", "run.yaml", "--quiet").code == 0
    change = ("--set", "train-parser.epochs=2")
    *others, parser = avvp("run", "run.yaml", *change, "--dry-run", "--json").document["steps"]
    assert {one["state"] for one in others} == {"cached"}
    assert (parser["state"], parser["reasons"]) == ("stale", ["parameter epochs: 3 -> 2"])
    assert parser["basis"].startswith("as parser/mine@")
    assert parser["seconds"] > 0
    shown = avvp("run", "run.yaml", *change, "--dry-run").out
    assert "3 cached, 1 to run" in shown
    ran = avvp("run", "run.yaml", *change, "--json", "--quiet").document
    assert [one["state"] for one in ran["steps"]] == ["cached"] * 3 + ["built"]


def test_the_summary_tells_what_was_made_and_where_in_80_columns(avvp: Command, here: Path) -> None:
    ran = avvp("run", "run.yaml", "--store", "there")
    assert ran.code == 0
    assert all(f"{name}@" in ran.out for name in MADE)
    assert "4 built, 0 cached" in ran.out
    assert "everything is in there" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    document = avvp("run", "run.yaml", "--store", "there", "--json", "--quiet").document
    assert all(Path(one["path"]).is_dir() and one["bytes"] > 0 for one in document["steps"])


def test_clips_that_fail_end_the_run_with_1_and_are_tried_again_when_told(avvp: Command, here: Path) -> None:
    broken = here / "v002.mp4"
    broken.write_bytes(b"no video")
    ran = avvp("run", "run.yaml", "--json", "--quiet")
    assert (ran.code, [one["failures"] for one in ran.document["steps"]]) == (1, [0, 1, 0, 0])
    write_video(broken, 2, seconds=1)
    again = avvp("run", "run.yaml", "--retry-failed", "--json", "--quiet")
    assert (again.code, [one["failures"] for one in again.document["steps"]]) == (0, [0, 0, 0, 0])
    assert again.document["steps"][1]["state"] == "built"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ("--set", "steps.features.inputs.dataset=dataset/no"),
            "step 'features' reads dataset dataset/no, which no step",
        ),
        (("--set", "train-parser.epochs=-1"), "step 'parser': train-parser: epochs = '-1'"),
        (("--set", "dataset.source=no.jsonl"), "no.jsonl"),
        (("--force", "--retry-failed"), "give one of them"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(
    avvp: Command, here: Path, change: tuple[str, ...], told: str
) -> None:
    ran = avvp("run", "run.yaml", *change)
    assert (ran.code, told in ran.err, "Traceback" in ran.err) == (2, True, False), ran.err
    assert list(Store("artifacts").artifacts()) == []


def test_a_step_that_fails_is_named_and_what_came_before_it_stays(avvp: Command, here: Path) -> None:
    ran = avvp("run", "run.yaml", "--set", "steps.labels.params.method=zero-shot", "--quiet")
    assert ran.code == 2
    assert "labels/mine-zero-shot (step 3 of 4, pseudolabel)" in ran.err
    assert sorted(one.kind for one in Store("artifacts").artifacts()) == ["dataset", "features"]


@pytest.mark.parametrize("moment", ["extract, embeddings: ", "train-parser: "])
def test_an_interrupted_run_exits_with_130_verifies_and_goes_on_to_the_same_bytes(
    avvp: Command, here: Path, moment: str
) -> None:
    whole = ("run", "run.yaml", "--set", "train-parser.epochs=60")
    program = "from avvp_pipe.cli.start import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *whole, "--store", "cut", "--json"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert next((line for line in process.stderr if line.startswith(moment)), None)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    out, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (130, False), err
    assert "run the same command again" in json.loads(out)["error"]
    assert avvp("verify", "--store", "cut").code == 0
    assert "parser" not in {one.kind for one in Store("cut").artifacts()}
    assert avvp(*whole, "--store", "cut", "--quiet").code == 0
    assert avvp(*whole, "--store", "uncut", "--quiet").code == 0
    assert bytes_of(here / "cut") == bytes_of(here / "uncut")


def test_interrupted_while_it_is_being_imported_it_exits_with_130_too() -> None:
    code = (
        "import sys\n"
        "class Pressed:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'avvp_pipe.cli.main': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "from avvp_pipe.cli.start import main\n"
        "sys.argv.append('--json')\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (130, {"error": "interrupted"}, "interrupted\n")


def weak_table(folder: Path, *, dense: bool) -> Path:
    """The table that somebody with videos has: files, labels, and for some clips what happens when."""
    rows = [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]
    path = folder / "labels.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["File name", "Labels", *(("split", "audio_events", "visual_events", "seconds") if dense else ())]
        )
        for place, row in enumerate(rows):
            events = "".join(f"{label}@0-1;" for label in row["labels"])
            split = ("train", "val", "test")[place % 3]
            more = (split, events if split != "train" else "", "", row["seconds"]) if dense else ()
            table.writerow([row["path"], ", ".join(row["labels"]), *more])
    return path


@pytest.mark.parametrize("dense", [False, True])
def test_from_a_folder_of_videos_and_weak_labels_to_a_release_in_the_commands_that_init_names(
    avvp: Command, here: Path, dense: bool
) -> None:
    weak_table(here, dense=dense)
    wrote = avvp("config", "init", "--videos", ".", "--weak", "labels.csv", "--teachers", "tiny", "--out", "own.yaml",
                 "--seconds", "1", "--json")  # fmt: skip
    assert wrote.code == 0, wrote.err
    document = wrote.document
    assert document["written"] == ["own.yaml", "own.clips.jsonl"]
    assert any("seconds are labelled in 4" in note for note in document["notes"]) == dense
    assert any("no thresholds can be fitted" in note for note in document["notes"]) == (not dense)
    assert 3 <= len(document["next"]) <= 5
    for line in document["next"]:
        words = shlex.split(line)[1:]
        short = ("--set", "train-parser.epochs=1", "--quiet") if words[0] == "run" else ()
        ran = avvp(*words, *short)
        assert ran.code == 0, f"{line}: {ran.err}"
    name = "own-valor" if dense else "own-video-labels"
    assert Path(f"{name}.zarr.zip").is_file()
    assert avvp("verify", f"{name}.zarr.zip").code == 0
    assert not dense or Path("report.html").is_file()


def test_init_overwrites_nothing(avvp: Command, here: Path) -> None:
    weak_table(here, dense=False)
    line = ("config", "init", "--videos", ".", "--weak", "labels.csv")
    refused = avvp(*line, "--out", "run.yaml")
    assert (refused.code, "run.yaml is there already" in refused.err) == (2, True)
    assert (here / "run.yaml").read_text() == RUN
    (here / "own.clips.jsonl").write_text("mine")
    refused = avvp(*line, "--out", "own.yaml")
    assert (refused.code, (here / "own.yaml").exists()) == (2, False)
    assert (here / "own.clips.jsonl").read_text() == "mine"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("name,what\nv000,Bell\n", "wanted a column 'labels'"),
        ("video,labels\nother.mp4,Bell\n", "none of the 1 videos"),
        ("video,labels,split\nv000,Bell,trian\n", "line 2: split 'trian'; did you mean 'train'"),
        ("video,labels,seconds\nv000,Bell,long\n", "line 2: seconds should be a number"),
        ("video,labels,audio_events\nv000,Bell,Bell\n", "line 2: audio_events should be Class@onset-offset"),
        ("video,labels,split\nv000,Bell,train\nv000,Drum,val\n", "line 3: 'v000' stands in an earlier line"),
        ("video,labels\nv000\n", "line 2: not as many cells"),
        ("video,labels\n,Bell\n", "line 2: the cell of the video is empty"),
        ("", "the header has nothing"),
        ("video,labels\n", "lists no videos"),
    ],
)
def test_what_is_wrong_in_a_table_of_weak_labels_is_told_with_its_line(
    avvp: Command, here: Path, table: str, told: str
) -> None:
    (here / "labels.csv").write_text(table)
    ran = avvp("config", "init", "--videos", ".", "--weak", "labels.csv", "--out", "own.yaml")
    assert (ran.code, told in ran.err, (here / "own.yaml").exists()) == (2, True, False), ran.err


@pytest.mark.parametrize(
    ("table", "labels"),
    [
        ("filename\tevent_labels\nv000\tBell,Drum\n", ("Bell", "Drum")),
        ("video;labels\nv000.mp4;Bell|Drum\n", ("Bell", "Drum")),
        ("id,label\nv000,Bell\nv000,Drum\n", ("Bell", "Drum")),
        ("video,labels\nv000,\"['Bell', 'Drum']\"\n", ("Bell", "Drum")),
        ("\ufeffvideo,labels\nv000,Bell\nabsent,Drum\n", ("Bell",)),
    ],
)
def test_tables_are_read_as_people_have_them(avvp: Command, here: Path, table: str, labels: tuple[str, ...]) -> None:
    (here / "labels.csv").write_text(table)
    assert avvp("config", "init", "--videos", ".", "--weak", "labels.csv", "--out", "sub/own.yaml").code == 0
    first = json.loads((here / "sub" / "own.clips.jsonl").read_text().splitlines()[0])
    assert (first["id"], first["path"], tuple(first["labels"])) == ("v000", "../v000.mp4", labels)
