"""Label quality: poolings and baselines in one run, classes, label rates, calibration, agreement of two sets."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.blocks import quality
from avvp_pipe.stages.blocks.calibration_error import expected_calibration_error
from avvp_pipe.stages.metrics import METRICS, Pooling, avvp_scores, class_scores, label_counts
from avvp_pipe.store import Artifact, Builder, Identity, Reference, Store, StoreError
from avvp_pipe.store.verify import verify
from tests import reference_metrics as reference
from tests.made import made
from tests.trees import Told

Labels = NDArray[np.bool_]
CLASSES = ("Bell", "Drum", "Flute")
SECONDS = 6


def dataset_of(folder: Path, clips: list[dict[str, Any]], classes: tuple[str, ...] = CLASSES) -> Store:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"id": f"c{row}", "path": f"{row}.mp4", "seconds": SECONDS} | clip for row, clip in enumerate(clips)]
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "classes.txt").write_text("\n".join(classes))
    params = {"source": str(folder / "clips.jsonl"), "classes": str(folder / "classes.txt")}
    run_step(Store(folder / "store"), Step("dataset", "d", params), progress=Told())
    return Store(folder / "store")


SEPARATE: dict[str, Any] = {"audio_events": [["Bell", 0, 3], ["Drum", 4, 5]], "visual_events": [["Bell", 1, 6]]}
CLIPS: list[dict[str, Any]] = [
    {"split": "train", "labels": ["Bell", "Flute"]},
    {"split": "train", "labels": ["Drum"]},
    {"split": "val", "labels": ["Bell", "Drum"], **SEPARATE},
    {"split": "val", "labels": ["Flute"], "audio_events": [["Flute", 0, 2]], "visual_events": [], "seconds": 4},
    {"split": "test", "labels": ["Bell"], **SEPARATE},
    {"split": "test", "labels": ["Drum", "Flute"], "audio_events": [], "visual_events": [["Drum", 0, 6]]},
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return dataset_of(tmp_path, CLIPS)


def predict(
    store: Store,
    name: str = "mine",
    *,
    kind: str = "labels",
    seed: int = 0,
    failed: tuple[int, ...] = (),
    hard: Mapping[str, Labels] | None = None,
    **attributes: Any,
) -> Artifact:
    """Labels drawn within the weak ones, or a parser's predictions anywhere."""
    dataset = store.get("dataset/d")
    rng, weak = np.random.default_rng(seed), dataset.array("weak")
    clips, segments = len(weak), dataset.facts("audio").shape[1]
    status = np.ones(clips, np.uint8)
    status[list(failed)] = 2
    valid = ((np.arange(segments) < dataset.array("lengths")[:, None]) & (status == 1)[:, None])[:, :, None]

    def fill(out: Builder) -> None:
        for text in ("video_ids", "splits"):
            out.put(text, dataset.strings(text))
        for array in ("weak", "lengths"):
            out.put(array, dataset.array(array))
        out.put("status", status)
        for modality in ("audio", "visual"):
            allowed = weak[:, None] if kind == "labels" else np.ones_like(weak)[:, None]
            soft = np.where(valid & allowed, rng.random((*valid.shape[:2], weak.shape[1])), 0).astype(np.float32)
            out.put(f"{modality}_hard", soft > 0.5 if hard is None else hard[modality])
            out.put(f"{modality}_{'soft' if kind == 'labels' else 'probs'}", soft)
        if kind == "parser":
            out.put("video_probs", np.zeros(weak.shape, np.float32))
        out.describe(**({"classes": list(dataset.attrs["classes"]), "method": "drawn"} | attributes))

    params = {"seed": seed, "failed": list(failed), "drawn": hard is None, "more": sorted(attributes)}
    return made(store, Reference(kind, name), Identity("pseudolabel", 1, params, {}), fill)


def evaluate(store: Store, predictions: str = "labels/mine", told: Told | None = None, **more: Any) -> Artifact:
    inputs = {"predictions": predictions, "dataset": "d"} | {
        name: more.pop(name) for name in ("against",) if name in more
    }
    return run_step(store, Step("evaluate", "s", more, inputs), progress=told or Told()).artifact


def of_split(store: Store, split: str) -> tuple[Any, Any]:
    dataset = store.get("dataset/d")
    return dataset, np.flatnonzero(np.array(dataset.strings("splits")) == split)


def test_one_run_gives_three_poolings_each_with_both_baselines(store: Store) -> None:
    mine = predict(store)
    made_scores = evaluate(store)
    assert [one["split"] for one in made_scores.attrs["scores"]] == ["val", "test"]
    for one in made_scores.attrs["scores"]:
        dataset, rows = of_split(store, one["split"])
        truth = [dataset.array(name)[rows] for name in ("audio", "visual")]
        everywhere = np.repeat(dataset.array("weak")[rows][:, None], SECONDS, axis=1)
        sets = {
            "of": [mine.array(f"{name}_hard")[rows] for name in ("audio", "visual")],
            "video_labels": [everywhere, everywhere],
            "nothing": [np.zeros_like(everywhere)] * 2,
        }
        lengths = dataset.array("lengths")[rows]
        poolings: tuple[Pooling, ...] = ("official", "micro", "class-macro")
        for pooling in poolings:
            for name, pair in sets.items():
                wanted = avvp_scores(pair[0], pair[1], truth[0], truth[1], lengths, pooling=pooling)
                assert one["pooled"][pooling][name] == wanted
        plain = reference.official_scores(sets["of"][0], sets["of"][1], truth[0], truth[1], lengths)
        for level in ("segment", "event"):
            assert one["of"][level] == pytest.approx(plain[level])
    assert verify(made_scores).findings == ()


def test_the_chosen_pooling_comes_first(store: Store) -> None:
    predict(store)
    for pooling in ("micro", "official"):
        found = evaluate(store, pooling=pooling)
        one = found.attrs["scores"][0]
        assert one["of"] == one["pooled"][pooling]["of"]
        assert one["nothing"] == one["pooled"][pooling]["nothing"]
        assert found.array("scores")[0, 0].tolist() == [one["of"]["segment"][metric] for metric in METRICS]
    assert one["pooled"]["micro"]["of"] != one["of"]


def test_scores_by_class_are_those_of_the_evaluator(store: Store) -> None:
    mine = predict(store)
    found = evaluate(store)
    dataset, rows = of_split(store, "test")
    arguments: list[Any] = [mine.array(f"{name}_hard")[rows] for name in ("audio", "visual")]
    arguments += [dataset.array(name)[rows] for name in ("audio", "visual")]
    arguments.append(dataset.array("lengths")[rows])
    wanted = class_scores(*arguments)
    for level, name in enumerate(("segment", "event")):
        for place, view in enumerate(quality.VIEWS):
            f = quality.precision_recall_f(found.array("class_counts")[1, level, place])[2]
            np.testing.assert_allclose(f, wanted[name][view])


@given(
    arrays(bool, (2, 3, 4, 2)), arrays(bool, (3, 2)), arrays(bool, (3, 4)), arrays(bool, 3)
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_tallies_and_agreement_count_every_cell_once(pair: Labels, weak: Labels, valid: Labels, known: Labels) -> None:
    first, second = pair
    tally = quality.tally_counts(first, second, weak, valid, known)
    agreement = quality.agreement_counts(first, second, valid[:, :, None])
    for column in range(2):
        plain = dict.fromkeys(quality.TALLY, 0)
        table = dict.fromkeys(("both", "first", "second", "neither"), 0)
        for clip in range(3):
            for second_of_clip in range(4):
                if not valid[clip, second_of_clip]:
                    continue
                one, other = first[clip, second_of_clip, column], second[clip, second_of_clip, column]
                table["both" if one and other else "first" if one else "second" if other else "neither"] += 1
                plain["named" if weak[clip, column] else "outside"] += 1 if weak[clip, column] else int(one)
                plain["labelled"] += int(one and weak[clip, column])
                plain["known"] += int(weak[clip, column] and known[clip])
                plain["true"] += int(weak[clip, column] and known[clip] and other)
        assert dict(zip(quality.TALLY, tally[:, column].tolist(), strict=True)) == plain
        assert agreement[:, column].tolist() == list(table.values())


def plain_kappa(both: int, first: int, second: int, neither: int) -> float:
    """From the definition, with the raters' answers written out one by one."""
    one = [1] * both + [1] * first + [0] * second + [0] * neither
    other = [1] * both + [0] * first + [1] * second + [0] * neither
    cells = len(one)
    observed = sum(a == b for a, b in zip(one, other, strict=True)) / cells
    chance = sum(one.count(value) / cells * other.count(value) / cells for value in (0, 1))
    return (observed - chance) / (1 - chance)


@given(st.lists(st.integers(0, 30), min_size=4, max_size=4))
def test_kappa_is_cohens(counts: list[int]) -> None:
    both, first, second, neither = counts
    share, kappa = quality.agreement_of(np.array(counts))
    if not sum(counts):
        assert np.isnan(share)
        assert np.isnan(kappa)
    elif first + second == 0 and 0 in (both, neither):
        assert float(share) == 1
        assert np.isnan(kappa)
    else:
        assert kappa == pytest.approx(plain_kappa(*counts), abs=1e-12)
        assert -1 <= kappa <= share <= 1


def test_a_set_agrees_with_itself_and_its_opposite_is_told(store: Store) -> None:
    mine = predict(store)
    valid = (np.arange(SECONDS) < mine.array("lengths")[:, None])[:, :, None]
    opposite = {name: ~mine.array(f"{name}_hard") & valid for name in ("audio", "visual")}
    predict(store, "opposite", kind="parser", hard=opposite)
    cells = int(valid.sum()) * len(CLASSES)
    same = evaluate(store, against="labels/mine").array("agreement")
    assert same[0].sum(axis=(1, 2)).tolist() == [cells, cells]
    assert not same[:, :, 1:3].any()
    other = evaluate(store, against="parser/opposite").array("agreement")
    assert not other[0][:, [0, 3]].any(), "in every cell, of clips without dense labels too, one of both labels it"
    weak = mine.array("weak")[:, None]
    assert other[1].sum(axis=(1, 2)).tolist() == [int((valid & weak).sum())] * 2


def test_clips_that_failed_in_either_set_do_not_count(store: Store) -> None:
    predict(store, failed=(0, 4))
    predict(store, "others", failed=(5,), seed=1)
    told = Told()
    found = evaluate(store, told=told, against="labels/others")
    test = found.attrs["scores"][1]
    assert (test["clips"], test["left_out"]) == (1, 1)
    assert "test: 1 clips failed" in told.text
    assert found.attrs["agreement"]["clips"] == 3
    assert found.array("agreement")[0].sum(axis=(1, 2)).tolist() == [(6 + 6 + 4) * 3] * 2
    assert found.array("tally")[0][:, 1].sum() == 2 * 6, "of the two training clips one failed"


def test_label_rates_tell_what_is_labelled_of_the_named_seconds(store: Store) -> None:
    mine = predict(store, kind="parser")
    found = evaluate(store, "parser/mine")
    assert found.strings("tally_splits") == ("train", "val", "test")
    dataset, rows = of_split(store, "val")
    labelled, true = quality.label_rates(found.array("tally")[1, 0])
    bell = CLASSES.index("Bell")
    assert true[bell] == pytest.approx(3 / 6)
    assert labelled[bell] == mine.array("audio_hard")[2, :, bell].mean()
    assert true[CLASSES.index("Flute")] == pytest.approx(2 / 4), "the clip has four seconds"
    outside = mine.array("audio_hard")[rows] & ~dataset.array("weak")[rows][:, None]
    assert found.array("tally")[1, 0, 2].sum() == outside.sum() > 0
    assert np.isnan(quality.label_rates(found.array("tally")[0, 0])[1]).all(), "nobody knows what is true in training"


@pytest.mark.parametrize(("kind", "attributes"), [("labels", {}), ("labels", {"weak_filter": "none"}), ("parser", {})])
def test_calibration_error_is_taken_over_the_cells_a_label_can_be_in(
    store: Store, kind: str, attributes: dict[str, Any]
) -> None:
    mine = predict(store, kind=kind, **attributes)
    (one, _) = evaluate(store, f"{kind}/mine").attrs["scores"]
    dataset, rows = of_split(store, "val")
    soft = mine.array("visual_soft" if kind == "labels" else "visual_probs")[rows]
    weak = dataset.array("weak")[rows] if kind == "labels" and not attributes else None
    wanted = expected_calibration_error(
        soft, dataset.array("visual")[rows], weak=weak, lengths=dataset.array("lengths")[rows]
    )
    assert one["calibration_error"]["visual"] == pytest.approx(wanted)


def test_of_joint_labels_av_alone_is_scored_of_the_product_of_both(tmp_path: Path) -> None:
    joint = {"labels": ["Bell", "Drum"], "events": [["Bell", 0, 2.5], ["Drum", 3, 6]]}
    clips = [{"split": split, **joint} for split in ("train", "train", "val")]
    store = dataset_of(tmp_path, [*clips, {"split": "val", "labels": ["Bell", "Drum"], **SEPARATE}])
    mine = predict(store)
    found = evaluate(store)
    scores = found.attrs["scores"]
    kinds = [(one["split"], one["dense"], one["clips"]) for one in scores]
    assert kinds == [("train", "joint", 2), ("val", "separate", 1), ("val", "joint", 1)]
    called = (mine.array("audio_hard") & mine.array("visual_hard"))[:2]
    truth = store.get("dataset/d").array("audio_visual")[:2]
    wanted = reference.official_scores(called, called, truth, truth)
    for level in ("segment", "event"):
        assert scores[0]["of"][level] == {"AV": pytest.approx(wanted[level]["AV"])}
        assert set(scores[1]["of"][level]) == set(METRICS)
    assert 0 < scores[0]["of"]["segment"]["AV"] < 100
    known = ~np.isnan(found.array("scores"))
    assert known.sum(axis=2).tolist() == [[1, 1], [9, 9], [1, 1]]
    assert not found.array("class_counts")[0, :, :2].any()
    np.testing.assert_array_equal(
        found.array("class_counts")[0], quality.class_counts(label_counts(called, called, truth, truth, None))
        * np.array([0, 0, 1])[None, :, None, None],
    )  # fmt: skip
    assert verify(found).findings == ()


def test_large_sets_are_read_in_blocks_with_the_same_result(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    predict(store)
    predict(store, "others", seed=3)
    whole = evaluate(store, against="labels/others")
    arrays_of_whole = {name: whole.array(name) for name in ("tally", "agreement")}
    monkeypatch.setattr("avvp_pipe.store.rows.block_rows", lambda *arrays: 2)
    step = Step("evaluate", "s", {}, {"predictions": "labels/mine", "dataset": "d", "against": "labels/others"})
    again = run_step(store, step, progress=Told(), force=True).artifact
    for name, array in arrays_of_whole.items():
        assert array.any()
        np.testing.assert_array_equal(again.array(name), array)


def test_without_dense_labels_two_sets_can_still_be_compared(tmp_path: Path) -> None:
    store = dataset_of(tmp_path, [{"split": "train", "labels": ["Bell"]}, {"split": "test", "labels": ["Drum"]}])
    predict(store)
    with pytest.raises(StoreError, match="--against"):
        evaluate(store)
    found = evaluate(store, against="labels/mine")
    assert found.attrs["scores"] == []
    assert found.array("agreement").any()
    assert verify(found).findings == ()


def test_sets_of_other_clips_or_classes_are_refused(tmp_path: Path, store: Store) -> None:
    predict(store)
    swapped = predict(store, "swapped", classes=["Drum", "Bell", "Flute"])
    with pytest.raises(StoreError, match="the same in another order"):
        evaluate(store, str(swapped.reference))
    with pytest.raises(StoreError, match="the same in another order"):
        evaluate(store, against=str(swapped.reference))
    dataset_of(tmp_path, CLIPS[:3])
    with pytest.raises(StoreError, match="cover different clips"):
        evaluate(store)


@pytest.mark.parametrize(("row", "seconds"), [(3, 5), (0, 8)])
def test_sets_made_for_other_lengths_are_refused(tmp_path: Path, store: Store, row: int, seconds: int) -> None:
    predict(store)
    changed = [clip | ({"seconds": seconds} if place == row else {}) for place, clip in enumerate(CLIPS)]
    assert changed != CLIPS
    dataset_of(tmp_path, changed)
    with pytest.raises(StoreError, match=r"labels/mine@.* is of clips of other lengths than dataset/d@"):
        evaluate(store)
    predict(store, "fitting", seed=1)
    assert evaluate(store, "labels/fitting").attrs["scores"]
    with pytest.raises(StoreError, match=r"labels/mine@.* is of clips of other lengths"):
        evaluate(store, "labels/fitting", against="labels/mine")


def test_the_origin_of_the_labels_is_carried_on(store: Store, avvp: Callable[..., Any]) -> None:
    predict(store, origin="simulation")
    assert evaluate(store).attrs["origin"] == "simulation"
    assert "clips.jsonl" in evaluate(store).attrs["annotations"]
    ran = avvp("evaluate", "labels/mine", "--dataset", "d", "--name", "s", "--store", store.root)
    assert "origin of the labels: simulation" in ran.out


def test_the_command_takes_what_to_score_without_an_option(store: Store, avvp: Callable[..., Any]) -> None:
    predict(store)
    where = ("--dataset", "d", "--store", store.root, "--json")
    bare, named = (avvp("evaluate", *words, *where) for words in (("labels/mine",), ("--predictions", "labels/mine")))
    assert bare.code == 0, bare.err
    assert bare.document["artifact"] == named.document["artifact"]
    twice = avvp("evaluate", "labels/mine", "--predictions", "labels/mine", *where)
    assert (twice.code, "given twice" in twice.err) == (2, True)
    none = avvp("evaluate", *where)
    assert (none.code, "--predictions" in none.err) == (2, True)


def test_what_is_printed_fits_80_columns_and_the_json_holds_every_class(store: Store, avvp: Callable[..., Any]) -> None:
    predict(store)
    predict(store, "others", seed=5)
    line = ("evaluate", "labels/mine", "--dataset", "d", "--against", "labels/others", "--store", store.root)
    shown = avvp(*line).out
    for title in ("test, 2 clips, segment-level F", "in other poolings", "by class", "agreement with", "video labels"):
        assert title in shown
    assert max(map(len, shown.splitlines())) <= 80
    document = avvp(*line, "--json").document
    assert [one["split"] for one in document["classes"]] == ["val", "test"]
    bell = document["classes"][0]["classes"][0]
    assert (bell["class"], set(bell["A"])) == ("Bell", {"P", "R", "F", "event_F"})
    assert {one["split"] for one in document["label_rates"]} == {"train", "val", "test"}
    agreement = document["agreement"]["named"]["audio"]
    assert -1 <= agreement["kappa"] <= agreement["equal"] <= 1
    assert len(agreement["classes"]) == 3
    assert "test, 2 clips, segment-level F" in avvp("show", "scores/mine", "--store", store.root).out


@pytest.fixture(scope="module")
def llp_scores(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Scores of the video-label baseline on the real annotations."""
    store = Store(tmp_path_factory.mktemp("llp"))
    params = {"reader": "llp", "source": str(real_data / "llp")}
    dataset = run_step(store, Step("dataset", "d", params), progress=Told()).artifact
    everywhere = np.repeat(dataset.array("weak")[:, None], 10, axis=1)
    predict(store, hard={"audio": everywhere, "visual": everywhere})
    return evaluate(store)


@pytest.mark.real_data
def test_video_labels_on_llp_score_as_published(llp_scores: Artifact, real_data: Path) -> None:
    known = json.loads((real_data / "llp" / "llp_video_label_baseline.json").read_text())["2024"]
    assert [(one["split"], one["clips"]) for one in llp_scores.attrs["scores"]] == [("val", 649), ("test", 1200)]
    for one in llp_scores.attrs["scores"]:
        assert one["of"] == one["video_labels"]
        for row in ("video_labels", "nothing"):
            official = known[one["split"]]["predict_nothing" if row == "nothing" else row]["official"]
            for level, prefix in (("segment", "Seg"), ("event", "Evt")):
                for metric in METRICS[:5]:
                    assert round(one[row][level][metric], 4) == official[f"{prefix}-{metric}"]
    # VALOR (NeurIPS 2023), Table 3, micro: 80.08, 67.21, 59.45.
    micro = llp_scores.attrs["scores"][0]["pooled"]["micro"]["of"]["segment"]
    assert [round(micro[metric], 3) for metric in ("A", "V", "AV")] == [80.075, 67.213, 59.447]
    macro = llp_scores.attrs["scores"][0]["pooled"]["class-macro"]["of"]["segment"]
    assert [round(macro[metric], 2) for metric in ("A", "V", "AV")] == [81.58, 77.86, 68.34]


@pytest.mark.real_data
def test_shares_of_true_seconds_on_llp_are_those_counted_by_hand(llp_scores: Artifact) -> None:
    # Seconds of LLP's validation clips with the class in the weak label, counted from the files with another program.
    places = {name: index for index, name in enumerate(llp_scores.attrs["classes"])}
    val = llp_scores.strings("tally_splits").index("val")
    shares = {
        modality: quality.label_rates(llp_scores.array("tally")[val, place])
        for place, modality in enumerate(("audio", "visual"))
    }
    wanted = {("audio", "Frying_(food)"): 0.97, ("audio", "Accordion"): 0.97, ("audio", "Helicopter"): 0.91,
              ("visual", "Blender"): 0.97, ("visual", "Dog"): 0.93, ("visual", "Chicken_rooster"): 0.90,
              ("visual", "Speech"): 0.11}  # fmt: skip
    for (modality, name), share in wanted.items():
        labelled, true = shares[modality]
        assert labelled[places[name]] == 1
        assert true[places[name]] == pytest.approx(share, abs=0.005), name
