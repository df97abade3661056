"""What a person sees who gives the wrong thing: a message that says what was wanted, and the right exit code."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

WRONG_USE, FAILED = 2, 1


def manifest(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "clips.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def clip(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "path": f"{name}.mp4", "split": "train", "labels": ["Bell"], **fields}


def without(good: Path, path: Path, kind: str) -> None:
    """A copy of a video that has lost one kind of stream."""
    with av.open(str(good)) as source, av.open(str(path), "w") as target:
        kept = [stream for stream in source.streams if stream.type != kind]
        copies = {stream.index: target.add_stream_from_template(stream) for stream in kept}
        for packet in source.demux(kept):
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)


@pytest.fixture
def broken_clips(finished_demo: Any, tmp_path: Path) -> Path:
    good = next((finished_demo.out / "world" / "videos").glob("demo-*.mp4"))
    shutil.copy(good, tmp_path / "good.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is not a video\n")
    without(good, tmp_path / "silent.mp4", "audio")
    without(good, tmp_path / "blind.mp4", "video")
    return manifest(tmp_path, *(clip(name) for name in ("good", "missing", "empty", "text", "silent", "blind")))


def test_each_broken_clip_fails_with_its_code_the_others_go_on_and_the_exit_code_is_1(
    broken_clips: Path, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    store = ("--store", tmp_path / "store", "--json", "--quiet")
    assert avvp("dataset", "--source", broken_clips, "--name", "broken", *store).code == 0
    decoded = avvp("decode", "--dataset", "broken", "--frame-size", "64", "--sample-rate", "16000", *store)
    assert decoded.code == FAILED
    codes = {failure["video_id"]: failure["code"] for failure in decoded.document["failures"]}
    assert codes == {
        "missing": "missing-file",
        "empty": "empty-file",
        "text": "not-a-video",
        "silent": "no-audio-stream",
        "blind": "no-video-stream",
    }
    for failure in decoded.document["failures"]:
        assert f"{failure['video_id']}.mp4" in failure["message"]
        assert str(broken_clips.parent) not in failure["message"]
    tiny = ("--visual-teacher", "tiny-clip", "--audio-teacher", "tiny-clap")
    extracted = avvp("extract", "--media", "broken", "--dataset", "broken", *tiny, *store)
    assert extracted.code == FAILED
    assert extracted.document["failures"] == decoded.document["failures"]
    from avvp_pipe.store import Store

    features = Store(tmp_path / "store").get("features/broken")
    assert features.array("status").tolist() == [1, 2, 3, 4, 6, 5]
    assert np.isnan(features.array("visual")).all(axis=(1, 2)).tolist() == [False, True, True, True, True, True]


def test_released_labels_of_clips_that_failed_do_not_tell_where_the_videos_lay(
    broken_clips: Path, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    store = ("--store", tmp_path / "store", "--quiet")
    mine = ("--dataset", "broken", "--features", "broken")
    avvp("dataset", "--source", broken_clips, "--name", "broken", *store)
    avvp("extract", "--dataset", "broken", "--visual-teacher", "tiny-clip", "--audio-teacher", "tiny-clap", *store)
    avvp("pseudolabel", "--method", "video-labels", *mine, "--name", "broken", *store)
    ran = avvp("labels", "release", "labels/broken", "--out", tmp_path / "broken.zarr.zip", *store[:2])
    assert ran.code == 0, ran.err
    with zipfile.ZipFile(tmp_path / "broken.zarr.zip") as released:
        said = b"".join(map(released.read, released.namelist()))
    assert b"there is no file missing.mp4" in said
    assert str(broken_clips.parent).encode() not in said
    assert str(tmp_path).encode() not in said


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([clip("a", labels=["Bel"])], "line 1: unknown class 'Bel'; did you mean 'Bell'?"),
        ([clip("a"), clip("a")], "line 2: id 'a' stands in line 1 too; ids must differ"),
    ],
)
def test_a_label_file_with_an_unknown_class_or_a_doubled_id_is_refused(
    tmp_path: Path, avvp: Callable[..., Any], records: list[dict[str, Any]], message: str
) -> None:
    (tmp_path / "classes.txt").write_text("Bell\nDrum\n")
    source = manifest(tmp_path, *records)
    ran = avvp("dataset", "--source", source, "--classes", tmp_path / "classes.txt", "--store", tmp_path / "store")
    assert ran.code == WRONG_USE
    assert message in ran.err
    assert not list((tmp_path / "store").rglob("zarr.json"))


def test_a_store_that_cannot_be_written_is_reported_and_ends_with_1(tmp_path: Path, avvp: Callable[..., Any]) -> None:
    (tmp_path / "store").write_text("a file stands where the store should be")
    ran = avvp("dataset", "--source", manifest(tmp_path, clip("a")), "--store", tmp_path / "store", "--json")
    assert ran.code == FAILED
    assert "cannot write" in ran.err
    assert "cannot write" in ran.document["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("pseudolabel", "--method", "nonsense"),
            "'video-labels', 'zero-shot', 'valor', 'smooth', 'uwav', 'ear', 'stack'",
        ),
        (("pseudolabel", "--method", "valor"), "pseudolabel needs dataset"),
        (("calibrate", "--dataset", "labels/x", "--features", "x"), "where one of kind dataset is wanted"),
        (("extract", "--dataset", "nobody"), "no artifact dataset/nobody"),
        (("extract", "--dataset", "target", "--media", "nobody"), "no artifact media/nobody"),
        (("extract", "--dataset", "target", "--media", "target", "--visual-teacher", "huge"), "there are tiny-clip"),
        (("decode", "--dataset", "target", "--frame-size", "0"), "frame_size = 0: Input should be greater than"),
        (("pseudolabel", "--dataset", "target", "--features", "target", "--method", "valor"), "avvp-pipe calibrate"),
        (("pretrain", "--dataset", "target", "--features", "target", "--device", "cuda:99"), "cuda"),
        (("ls", "nothing"), "no artifacts of kind 'nothing'; there are dataset, media"),
        (("show", "labels"), "not an artifact reference"),
        (("dataset", "--source", "nowhere.csv"), "nowhere.csv"),
        (("dataset",), "give them as --source"),
        (("dataset", "--reader", "llp", "--source", "."), "lacks AVVP_dataset_full.csv"),
        (
            ("evaluate", "--dataset", "target", "--predictions", "features/target"),
            "one of labels or parser or predictions is wanted",
        ),
    ],
)
def test_wrong_use_says_what_was_wanted_and_ends_with_2(
    demo_copy: Any, avvp: Callable[..., Any], arguments: tuple[str, ...], message: str
) -> None:
    ran = avvp(*arguments, "--store", demo_copy.store)
    assert ran.code == WRONG_USE
    assert message in " ".join(ran.err.replace("│", " ").split())
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("words", "told"),
    [(["extract", "--nonsense"], "--nonsense"), (["nobody"], "nobody"), (["failures"], "reference")],
)
def test_a_command_line_that_is_wrong_is_one_json_document_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    from avvp_pipe.cli.main import main

    monkeypatch.setattr("sys.argv", ["avvp-pipe", *words, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == WRONG_USE
    assert told in json.loads(said.out)["error"]
    assert told in said.err


def test_a_command_that_is_interrupted_is_one_json_document_too(
    monkeypatch: pytest.MonkeyPatch, avvp: Callable[..., Any], tmp_path: Path
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("avvp_pipe.store.Store.artifacts", stopped)
    ran = avvp("ls", "--store", tmp_path, "--json")
    assert (ran.code, ran.document) == (130, {"error": "interrupted; run the same command again to go on"})


@pytest.mark.parametrize(("option", "wanted"), [("--workers=x", "a number"), ("--batch-size=0", "a number above 0")])
def test_a_count_that_is_none_is_told_in_words(avvp: Callable[..., Any], option: str, wanted: str) -> None:
    ran = avvp("extract", "--dataset", "nobody", option)
    assert ran.code == WRONG_USE
    assert f"wanted `auto` or {wanted}\n" in ran.err


def test_an_unknown_parameter_of_the_demo_is_refused_with_a_suggestion(
    tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    ran = avvp("demo", "--out", tmp_path, "--dry-run", "--set", "calibrate.mod=x")
    assert "calibrate has no parameter 'mod'; did you mean 'mode'?" in ran.out + ran.err
    for wrong in ("nothing", "calibrate.mod=x"):
        assert avvp("demo", "--out", tmp_path, "--set", wrong).code == WRONG_USE
    assert not list(tmp_path.iterdir())


STAGES = ("dataset", "decode", "extract", "pretrain", "calibrate", "pseudolabel", "train-parser", "evaluate")


def test_help_of_every_command_names_an_example(avvp: Callable[..., Any]) -> None:
    for name in STAGES:
        ran = avvp(name, "--help")
        assert ran.code == 0
        shown = " ".join(ran.out.split())
        assert f"Example: avvp-pipe {name}" in shown or ("Examples:" in shown and f"avvp-pipe {name} --" in shown)


def test_options_stand_under_what_they_are_for_and_what_all_commands_have_stands_last(
    avvp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = avvp("extract", "--help").out
    assert max(len(line) for line in shown.splitlines()) <= 80
    groups = re.split(r"^(\S[^\n]*):\n", shown.partition("Examples:")[2], flags=re.MULTILINE)
    options = {
        title: re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", text, flags=re.MULTILINE)
        for title, text in zip(groups[1::2], groups[2::2], strict=True)
    }
    assert list(options)[:2] == ["Inputs", "Parameters"]
    assert list(options)[-2:] == ["This run", "Output"]
    assert options["Inputs"] == ["--dataset", "--media"]
    assert options["Parameters"][:2] == ["--visual-teacher", "--audio-teacher"]
    assert options["This run"] == ["--name", "--store", "--dry-run", "--force", "--retry-failed"]
    assert options["Output"] == ["--json", "--verbose", "--quiet", "--help"]
    assert len(options) == 6


@pytest.mark.parametrize("name", STAGES)
def test_the_examples_in_the_help_can_be_typed(avvp: Callable[..., Any], name: str) -> None:
    from avvp_pipe.pipeline.catalogue import STAGES as CATALOGUE

    lines = [line for line in CATALOGUE[name].example.splitlines() if line.startswith("avvp-pipe ")]
    assert lines
    for line in lines:
        ran = avvp(*line.split()[1:], "--help")
        assert ran.code == 0, (line, ran.err)


def test_methods_offered_on_the_command_line_are_those_there_are() -> None:
    import typing

    from avvp_pipe.stages import calibrate, extract, pseudolabel
    from avvp_pipe.stages.generators import GENERATORS
    from avvp_pipe.stages.teachers import audio_facts, visual_facts

    offered = typing.get_args(typing.get_type_hints(pseudolabel.Params)["method"])
    calibrated = typing.get_args(typing.get_type_hints(calibrate.Params)["method"])
    assert set(offered) == set(GENERATORS)
    assert set(calibrated) == {name for name, method in GENERATORS.items() if method.calibrated}
    defaults = extract.Params()
    assert (visual_facts(defaults.visual_teacher).image_size, visual_facts(defaults.visual_teacher).width) == (224, 768)
    assert (audio_facts(defaults.audio_teacher).sample_rate, audio_facts(defaults.audio_teacher).width) == (48000, 512)
