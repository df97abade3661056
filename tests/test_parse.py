"""`parse`: a stored parser over features of any clips, or from video files to a table in one command."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import Artifact, Builder, Identity, Reference, Store, StoreError
from avvp_pipe.store.layouts.predictions_csv import COLUMNS, write_table
from avvp_pipe.store.verify import verify
from tests.made import made
from tests.small_world import TINY, write_video
from tests.trees import Told, make_dataset

SECONDS = {"a": 4, "b": 4, "c": 3, "d": 4, "e": 2, "f": 4}
SMALL = {"widths": "features", "width": 8, "heads": 2, "ffn": 12, "layers": 1, "epochs": 1, "warmup": 0}
SAID = ("video_probs", "audio_probs", "visual_probs", "audio_hard", "visual_hard")
MODALITIES = ("audio", "visual")


def features(
    store: Store, name: str = "mine", *, audio: int = 5, classes: list[str] | None = None, failed: tuple[int, ...] = ()
) -> Artifact:
    """Of the clips of `dataset/clips`, drawn; NaN beyond a clip's end and in clips that failed."""
    dataset = store.get("dataset/clips")
    clips, segments, _ = dataset.facts("audio").shape
    rng, lengths = np.random.default_rng(0), dataset.array("lengths")
    status = np.ones(clips, np.uint8)
    status[list(failed)] = 4
    gone = (np.arange(segments) >= lengths[:, None]) | (status != 1)[:, None]

    def fill(out: Builder) -> None:
        for text in ("video_ids", "splits"):
            out.put(text, dataset.strings(text))
        out.put("lengths", lengths)
        out.put("weak", dataset.array("weak") if classes is None else np.ones((clips, len(classes)), bool))
        out.put("status", status)
        for stream, width in (("audio", audio), ("visual", 6)):
            drawn = rng.standard_normal((clips, segments, width)).astype(np.float32)
            out.put(stream, np.where(gone[:, :, None], np.float32("nan"), drawn))
        out.describe(classes=list(dataset.attrs["classes"]) if classes is None else classes)

    identity = Identity("drawn", 1, {"audio": audio, "classes": classes, "failed": list(failed)}, {})
    return made(store, Reference("features", name), identity, fill)


def train(store: Store, name: str, parser: str, **params: Any) -> Artifact:
    inputs = {"dataset": "dataset/clips", "features": "features/mine"}
    given = {"parser": parser, "targets": "weak", **SMALL, **params}
    return run_step(store, Step("train-parser", name, given, inputs), progress=Told()).artifact


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two trained parsers."""
    store = make_dataset(tmp_path_factory.mktemp("trained"), SECONDS)
    features(store)
    train(store, "uwav", "uwav-clip-clap")
    train(store, "ear", "ear")
    return Path(str(store.root))


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Store:
    shutil.copytree(trained, tmp_path / "store")
    return Store(tmp_path / "store")


def parse(store: Store, parser: str = "uwav", of: str = "mine", **params: Any) -> Artifact:
    step = Step("parse", "p", params, {"parser": f"parser/{parser}", "features": f"features/{of}"})
    return run_step(store, step, progress=Told()).artifact


# Over features.


@pytest.mark.parametrize("parser", ["uwav", "ear"])
def test_over_its_own_features_a_parser_says_what_it_said_after_training(store: Store, parser: str) -> None:
    trained, said = store.get(f"parser/{parser}"), parse(store, parser)
    for name in SAID:
        np.testing.assert_allclose(said.array(name), trained.array(name), rtol=1e-6, atol=1e-7)
    assert said.array("audio_probs").any()
    for name in ("classes", "method", "parser", "gate"):
        assert said.attrs[name] == trained.attrs[name]
    assert np.array_equal(said.array("weak"), store.get("dataset/clips").array("weak"))
    assert verify(said).findings == ()


def decided(said: Artifact, gate: float | None, threshold: float) -> list[bool]:
    """Whether stored decisions, heard and seen, are those of a rule applied to what is stored."""
    clip = said.array("video_probs") > (-1.0 if gate is None else gate)
    there = (np.arange(4) < said.array("lengths")[:, None])[:, :, None] & clip[:, None]
    return [
        bool(np.array_equal(said.array(f"{one}_hard"), (said.array(f"{one}_probs") > threshold) & there))
        for one in MODALITIES
    ]


def test_decisions_are_the_methods_own_or_as_told_and_are_recorded(store: Store) -> None:
    own = parse(store)
    assert own.provenance["params"] == {"gate": "global", "gate_threshold": 0.5, "threshold": 0.5, "compare": "above"}
    assert decided(own, 0.5, 0.5) == [True, True]
    middle = float(np.median(own.array("audio_probs")[0]))
    free = parse(store, gate="none", threshold=middle)
    assert decided(free, None, middle) == [True, True]
    assert not np.array_equal(free.array("audio_hard"), own.array("audio_hard"))
    assert free.attrs["gate"] == {"gate": "none", "gate_threshold": 0.5, "threshold": middle, "strict": True}
    strict_gate = parse(store, gate_threshold=1.0)
    assert not strict_gate.array("audio_hard").any()
    assert len({own.key, free.key, strict_gate.key}) == 3
    assert parse(store, gate="global", compare="above").key == own.key


def test_equality_passes_where_told(store: Store) -> None:
    exact = float(parse(store, gate="none").array("audio_probs")[0, 0, 0])
    above, reached = (parse(store, gate="none", threshold=exact, compare=how) for how in ("above", "at-least"))
    assert (above.array("audio_hard")[0, 0, 0], reached.array("audio_hard")[0, 0, 0]) == (False, True)


def test_clips_that_failed_keep_their_status_and_say_nothing(store: Store) -> None:
    features(store, "lame", failed=(1,))
    said, whole = parse(store, of="lame"), parse(store)
    assert said.array("status").tolist() == [1, 4, 1, 1, 1, 1]
    for name in SAID:
        assert not said.array(name)[1].any()
        np.testing.assert_array_equal(np.delete(said.array(name), 1, 0), np.delete(whole.array(name), 1, 0))
    beyond = np.arange(4) >= said.array("lengths")[:, None]
    assert not said.array("audio_probs")[beyond].any()
    assert verify(said).findings == ()


def test_features_of_other_classes_are_parsed_into_the_parsers(store: Store) -> None:
    features(store, "strange", classes=["Rain", "Wind"])
    said = parse(store, of="strange")
    assert said.attrs["classes"] == store.get("parser/uwav").attrs["classes"]
    assert "weak" not in said
    assert said.array("audio_probs").shape[2] == len(said.attrs["classes"]) != 2
    assert verify(said).findings == ()


class Killed(Told):
    """Stops after the first shard."""

    def track(self, items: Any, *, total: int, label: str, done: int = 0) -> Iterator[Any]:
        for count, item in enumerate(items):
            if count:
                raise KeyboardInterrupt
            yield item


def test_a_killed_run_goes_on_at_its_shard_to_the_same_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "parse", dataclasses.replace(STAGES["parse"], shard_rows=2))
    inputs = {"parser": "parser/uwav", "features": "features/mine"}
    with pytest.raises(KeyboardInterrupt):
        run_step(store, Step("parse", "killed", {}, inputs), progress=Killed())
    assert store.find(Reference("predictions", "killed")) is None
    again = run_step(store, Step("parse", "killed", {}, inputs), progress=Told()).artifact
    assert again.digest == run_step(store, Step("parse", "whole", {}, inputs), progress=Told()).artifact.digest


def test_predictions_are_scored_as_those_that_the_parser_stored(store: Store) -> None:
    parse(store)
    scores = [
        run_step(
            store, Step("evaluate", "s", {}, {"predictions": one, "dataset": "dataset/clips"}), progress=Told()
        ).artifact.attrs
        for one in ("predictions/p", "parser/uwav")
    ]
    assert scores[0]["scores"] == scores[1]["scores"]
    assert scores[0]["scores"][0]["split"] == "val"
    assert (scores[0]["what"], scores[1]["what"]) == ("predictions", "parser")


def test_predictions_of_other_classes_are_not_scored(store: Store, tmp_path: Path) -> None:
    parse(store)
    other = make_dataset(tmp_path / "other", SECONDS, classes=("Rain", "Wind"))
    shutil.copytree(Path(str(other.root)) / "dataset", Path(str(store.root)) / "dataset", dirs_exist_ok=True)
    with pytest.raises(StoreError, match="different classes"):
        run_step(
            store,
            Step("evaluate", "s", {}, {"predictions": "predictions/p", "dataset": "dataset/clips"}),
            progress=Told(),
        )


@pytest.mark.parametrize(
    ("parser", "of", "params", "error", "message"),
    [
        ("uwav", "wide", {}, StoreError, r"does not fit parser uwav-clip-clap, which reads audio of 5 numbers"),
        ("nobody", "mine", {}, StoreError, "parser/nobody"),
        ("uwav", "nothing", {}, StoreError, "features/nothing"),
        ("uwav", "mine", {"gate": "video"}, ParameterError, "gate = 'video'"),
        ("uwav", "mine", {"threshold": 1.5}, ParameterError, "threshold = 1.5"),
        ("old", "mine", {}, StoreError, "does not say which parser it is"),
        ("torn", "mine", {}, StoreError, "holds no parser uwav-clip-clap that can be run"),
        ("ave", "mine", {"gate": "none"}, ParameterError, "background as a class of its own"),
    ],
)
def test_what_cannot_be_parsed_says_why_and_leaves_nothing(
    store: Store, parser: str, of: str, params: dict[str, Any], error: type[Exception], message: str
) -> None:
    features(store, "wide", audio=9)
    good = store.get("parser/uwav").described
    for name, more in (("old", {"parser": None}), ("torn", {}), ("ave", {"background": True})):
        identity = Identity("train-parser", 1, {"which": name}, {})
        described = {key: value for key, value in {**good, **more}.items() if value is not None}
        made(store, Reference("parser", name), identity, lambda out, told=described: out.describe(**told))  # type: ignore[misc]
    with pytest.raises(error, match=message):
        parse(store, parser, of, **params)
    assert store.find(Reference("predictions", "p")) is None


def test_a_parser_without_predictions_is_sound_but_has_nothing_to_score(store: Store) -> None:
    trained = store.get("parser/uwav")
    weights = {name: trained.array(name) for name in trained.array_names() if name.startswith("weights/")}

    def fill(out: Builder) -> None:
        out.describe(**trained.described)
        for name, array in weights.items():
            out.put(name, array)

    alien = made(store, Reference("parser", "alien"), Identity("import-parser", 1, {}, {}), fill)
    assert verify(alien).findings == ()
    inputs = {"predictions": "parser/alien", "dataset": "dataset/clips"}
    with pytest.raises(StoreError, match="run it with `avvp-pipe parse`"):
        run_step(store, Step("evaluate", "s", {}, inputs), progress=Told())
    assert np.array_equal(parse(store, "alien").array("audio_probs"), parse(store).array("audio_probs"))


# The table.


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_line_for_every_second_class_and_modality(store: Store, tmp_path: Path) -> None:
    features(store, "lame", failed=(1,))
    said, path = parse(store, of="lame"), tmp_path / "out.csv"
    path.write_text("what stood there")
    names, classes = said.strings("video_ids"), said.attrs["classes"]
    assert write_table(said, path) == (sum(SECONDS.values()) - 4) * len(classes) * 2
    lines = table(path)
    assert tuple(lines[0]) == COLUMNS == ("video_id", "second", "class", "modality", "probability", "on")
    assert {line["video_id"] for line in lines} == set(SECONDS) - {"b"}
    keys = [tuple(line[one] for one in COLUMNS[:4]) for line in lines]
    assert len(set(keys)) == len(keys)
    for line in lines:
        at = names.index(line["video_id"]), int(line["second"]), classes.index(line["class"])
        assert float(line["probability"]) == pytest.approx(said.array(f"{line['modality']}_probs")[at], abs=1e-6)
        assert bool(int(line["on"])) == said.array(f"{line['modality']}_hard")[at]


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_made(
    store: Store, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    common = ("--parser", "uwav", "--features", "mine", "--store", store.root, "--quiet")
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "no" / "out.csv", "is not there")):
        ran = avvp("parse", *common, "--csv", path)
        assert ran.code == 2
        assert message in ran.err
    assert [one for one in store.artifacts() if one.kind == "predictions"] == []


def test_the_command_parses_features_and_writes_the_table(
    store: Store, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    common = ("--parser", "parser/uwav", "--features", "features/mine", "--store", store.root, "--quiet")
    plain = avvp("parse", *common, "--gate", "none", "--json").document
    with_table = avvp("parse", *common, "--gate", "none", "--csv", tmp_path / "o.csv", "--json").document
    assert plain["artifact"] == with_table["artifact"]
    assert (plain["state"], with_table["state"]) == ("built", "cached")
    assert with_table["lines"] == len(table(tmp_path / "o.csv")) > 0


# From videos.


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory, avvp: Callable[..., Any]) -> Path:
    """Two videos, and a parser that was trained on what the embedded teachers make of them, decoded beforehand."""
    folder = tmp_path_factory.mktemp("filmed")
    (folder / "videos").mkdir()
    for row, (name, seconds) in enumerate((("one", 2.0), ("two", 1.0))):
        write_video(folder / "videos" / f"{name}.mp4", row, seconds=seconds)
    lines = [
        {"id": name, "path": f"videos/{name}.mp4", "split": "train", "labels": labels, "seconds": seconds}
        for name, labels, seconds in (("one", ["Bell", "Drum"], 2), ("two", ["Drum"], 1))
    ]
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    common = ("--name", "own", "--store", folder / "store", "--quiet")
    assert avvp("dataset", "--source", folder / "clips.jsonl", *common).code == 0
    assert avvp("decode", "--dataset", "own", "--frame-rule", "centre", "--workers", "1", *common).code == 0
    ran = avvp("extract", "--dataset", "own", "--media", "own", *TINY, "--stored-as", "float16", *common)
    assert ran.code == 0, ran.err
    small = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    ran = avvp("train-parser", "--dataset", "own", "--features", "own", "--targets", "weak", *map(str, small), *common)
    assert ran.code == 0, ran.err
    return folder


def from_videos(filmed: Path, avvp: Callable[..., Any], *words: Any) -> Any:
    return avvp(
        "parse", "--parser", "own", *words, "--set", "extract.workers=1", "--store", filmed / "store", "--quiet"
    )


def test_a_folder_of_videos_becomes_a_table_as_the_parsers_own_features_were_made(
    filmed: Path, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    ran = from_videos(filmed, avvp, filmed / "videos", "--csv", tmp_path / "out.csv", "--json")
    assert ran.code == 0, ran.err
    store = Store(filmed / "store")
    own, new = store.get("parser/own"), store.get(ran.document["artifact"])
    assert new.name == "parse-videos"
    assert new.strings("video_ids") == ("one", "two")
    assert new.array("lengths").tolist() == [2, 1]
    for name in SAID:  # the same videos, extracted anew: bit by bit the same features, so nearly the same predictions
        np.testing.assert_allclose(new.array(name), own.array(name), rtol=1e-6, atol=1e-7)
    made_of, trained_on = store.get("features/parse-videos"), store.get("features/own")
    assert made_of.provenance["params"] == trained_on.provenance["params"]
    chosen = {name: made_of.provenance["params"][name] for name in ("stored_as", "frame_rule", "frame_size")}
    assert chosen == {"stored_as": "float16", "frame_rule": "centre", "frame_size": 224}  # not the teacher's 64
    np.testing.assert_array_equal(made_of.array("visual"), trained_on.array("visual"))
    lines = table(tmp_path / "out.csv")
    assert len(lines) == 3 * 2 * 2
    assert [line["video_id"] for line in lines[:: 2 * 2]] == ["one", "one", "two"]
    again = from_videos(filmed, avvp, filmed / "videos", "--csv", tmp_path / "again.csv", "--json").document
    assert [one["state"] for one in again["steps"]] == ["cached"] * 3
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()


def test_a_file_that_is_no_video_fails_alone(filmed: Path, tmp_path: Path, avvp: Callable[..., Any]) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    video = filmed / "videos" / "two.mp4"
    ran = from_videos(filmed, avvp, tmp_path / "text.mp4", video, "--csv", tmp_path / "out.csv", "--json")
    assert ran.code == 1
    assert [(one["video_id"], one["code"]) for one in ran.document["failures"]] == [("text", "not-a-video")]
    assert {line["video_id"] for line in table(tmp_path / "out.csv")} == {"two"}
    said = Store(filmed / "store").get(ran.document["artifact"])
    assert said.array("status").tolist() == [4, 1]


def test_seconds_are_counted_from_the_beginning_when_asked(
    filmed: Path, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    video = filmed / "videos" / "one.mp4"
    ran = from_videos(filmed, avvp, video, "--seconds", "1", "--csv", tmp_path / "out.csv")
    assert ran.code == 0, ran.err
    assert {line["second"] for line in table(tmp_path / "out.csv")} == {"0"}


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(filmed: Path, avvp: Callable[..., Any]) -> None:
    before = {str(one.reference) for one in Store(filmed / "store").artifacts()}
    ran = from_videos(filmed, avvp, filmed / "videos", "--name", "never", "--dry-run", "--json")
    assert ran.code == 0, ran.err
    steps = [(one["stage"], one["artifact"].partition("@")[0]) for one in ran.document["steps"]]
    assert steps == [("dataset", "dataset/never"), ("extract", "features/never"), ("parse", "predictions/never")]
    assert {str(one.reference) for one in Store(filmed / "store").artifacts()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{videos}/nobody.mp4"], "there is no file or folder"),
        (["{empty}"], "holds no files that end in"),
        (["{videos}/one.mp4", "{twin}/one.mp4"], "called by their files' names"),
        (["{videos}", "--features", "own"], "both videos and --features"),
        (["--csv", "out.csv"], "wants videos to parse, or --features"),
        (["--features", "own", "--seconds", "3"], "are for parsing videos"),
        (["{videos}", "--set", "extract.visual-teacher=ViT-B-32"], "not by ViT-B-32"),
        (["{videos}", "--set", "calibrate.method=valor"], "dataset, extract and parse only"),
        (["{videos}", "--parser", "nobody"], "nobody"),
        (["{videos}", "--threshold", "2"], "threshold = 2.0"),
    ],
)
def test_wrong_use_is_told_before_anything_is_extracted(
    filmed: Path, tmp_path: Path, avvp: Callable[..., Any], words: list[str], message: str
) -> None:
    places = {"videos": filmed / "videos", "empty": tmp_path / "empty", "twin": tmp_path / "twin"}
    for place in ("empty", "twin"):
        places[place].mkdir()
    shutil.copy(filmed / "videos" / "one.mp4", places["twin"])
    before = {str(one.reference) for one in Store(filmed / "store").artifacts()}
    ran = from_videos(filmed, avvp, *(word.format(**places) for word in words), "--name", "wrong")
    assert ran.code == 2
    assert message in ran.err
    after = {str(one.reference) for one in Store(filmed / "store").artifacts()} - before
    assert {one for one in after if not one.startswith("dataset/")} == set()


def test_a_parser_of_features_from_elsewhere_asks_for_features(
    store: Store, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    write_video(tmp_path / "a.mp4", 0)
    ran = avvp("parse", tmp_path / "a.mp4", "--parser", "uwav", "--store", store.root, "--quiet")
    assert ran.code == 2
    assert "`drawn` made and not `extract`" in ran.err
    assert "--features features/NAME" in ran.err
    good = store.get("parser/uwav").described
    made(store, Reference("parser", "alien"), Identity("import-parser", 1, {}, {}), lambda out: out.describe(**good))
    ran = avvp("parse", tmp_path / "a.mp4", "--parser", "alien", "--store", store.root, "--quiet")
    assert ran.code == 2
    assert "it was imported" in ran.err


@pytest.mark.real_data
def test_the_real_clip_goes_from_mp4_to_csv_in_one_command(
    filmed: Path, real_data: Path, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    ran = from_videos(filmed, avvp, real_data / "llp" / "BjCEufrlXm4.mp4", "--csv", tmp_path / "real.csv", "--json")
    assert ran.code == 0, ran.err
    lines = table(tmp_path / "real.csv")
    assert len(lines) == 10 * 2 * 2
    assert {line["video_id"] for line in lines} == {"BjCEufrlXm4"}
    assert {line["class"] for line in lines} == {"Bell", "Drum"}
    assert all(0 < float(line["probability"]) < 1 for line in lines)
    assert ran.document["lines"] == len(lines)
