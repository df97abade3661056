"""Label quality: poolings and baselines in one run, classes, label rates, calibration, agreement of two sets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.blocks import quality
from avvp_pipe.stages.blocks.calibration_error import expected_calibration_error
from avvp_pipe.stages.metrics import METRICS, Pooling, avvp_scores, class_scores, label_counts
from avvp_pipe.store import Store, StoreError
from avvp_pipe.store.verify import verify
from tests import reference_metrics as reference
from tests.scores_world import CLASSES, CLIPS, SECONDS, SEPARATE, Labels, dataset_of, evaluate, of_split, predict
from tests.trees import Told


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return dataset_of(tmp_path, CLIPS)


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
    again = avvp("show", "scores/mine", "--store", store.root, "--json").document
    told = set(document) - {"state", "reasons", "failures", "seconds"}
    assert told > {"artifact", "scores", "classes", "label_rates", "agreement"}
    assert {key: again[key] for key in told} == {key: document[key] for key in told}
