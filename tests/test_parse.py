"""`parse`: a stored parser over features of any clips, or from video files to a table in one command."""

import dataclasses
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
from tests.parse_world import SAID, SMALL, table
from tests.small_world import write_video
from tests.trees import Told, make_dataset

SECONDS = {"a": 4, "b": 4, "c": 3, "d": 4, "e": 2, "f": 4}
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
