"""Stage `pretrain`: what it learns from, what it leaves out, its switches, and that it can be killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.blocks.device import Precision, fast_precision
from avvp_pipe.stages.generators.ear import Across, Combine
from avvp_pipe.stages.generators.pretraining import (
    Asymmetric,
    Objective,
    audio_visual_f,
    ear_objective,
    uwav_objective,
)
from avvp_pipe.stages.generators.pretraining_clips import Clips, shared_with
from avvp_pipe.stages.generators.uwav import Network, TemporalGenerator, audio_visual_loss
from avvp_pipe.stages.metrics import avvp_scores
from avvp_pipe.stages.pretrain import EAR_DEFAULTS, Params, network_of, settle, trained
from avvp_pipe.stages.stage import ParameterError, Silent
from avvp_pipe.store import Reference, Store, StoreError
from tests.label_world import AUDIO_WIDTH, VISUAL_WIDTH, Noting, stored
from tests.pretraining_world import SMALL, clips, pretrained, put, weights_of

BATCHES = 4
"""An epoch's, of SMALL."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store with the small clips; each test's artifacts have names of their own."""
    found = Store(tmp_path_factory.mktemp("pretraining"))
    put(found, clips())
    return found


# --- stop and resume


RUNS: dict[str, dict[str, Any]] = {
    "uwav": {"method": "uwav", "layers": 1},
    "ear": {"method": "ear", "layers": 1, "batching": "length"},
    "uwav-bf16": {"method": "uwav", "precision": "bf16", "layers": 1},
}


# Imports everything once and forks for each training, which starts with nothing computed yet.
DRIVER = """
import json, os, signal, sys
import torch, zarr, avvp_pipe.stages.generators.pretraining_clips
from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.generators.uwav import TemporalGenerator
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Store

forward, seen = TemporalGenerator.forward, 0

def child(name, params, last):
    def counting(self, *given):
        global seen
        seen += self.training
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(self, *given)

    TemporalGenerator.forward = counting
    step = Step("pretrain", name, params, {"dataset": "dense", "features": "mine"})
    run_step(Store(sys.argv[1]), step, progress=Silent())

for name, params in json.loads(sys.argv[2]).items():
    for last in json.loads(sys.argv[3]):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(name, params, last)
                code = 0
            finally:
                os._exit(code)
        print(name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_killed_in_the_first_a_middle_and_the_last_epoch_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for place, moments in (
        (undisturbed, [0]),
        # Each process counts its own batches: the second goes on where the first began, the third after one epoch,
        # the last after two.
        (killed, [2, BATCHES + 3, BATCHES + 1, 0]),
    ):
        put(Store(place), clips())
        runs = {name: {**SMALL, **params} for name, params in RUNS.items()}
        command = [sys.executable, "-c", DRIVER, str(place), json.dumps(runs), json.dumps(moments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        codes = [-signal.SIGKILL] * (len(moments) - 1) + [0]
        assert ended.stdout == "".join(f"{name} {code}\n" for name in RUNS for code in codes), ended.stderr[-3000:]
    for name, params in RUNS.items():
        whole, resumed = (Store(place).find(Reference("generator", name)) for place in (undisturbed, killed))
        assert whole is not None
        assert resumed is not None
        assert len(whole.array("history/loss")) == SMALL["epochs"]
        assert weights_of(resumed) == weights_of(whole), name
        assert resumed.attrs["method"] == params["method"]


# --- switches


SWITCHES: dict[str, Any] = {
    "projections": False, "scales": "none", "positions": "sinusoidal", "attend": "segment", "identical_layers": False,
    "present_weight": 1.0, "clip_norm": 0.1, "dropout": 0.1, "batching": "length", "precision": "bf16",
    "weight_decay": 0.5, "method": "ear", "learning_rate": 1e-2,
}  # fmt: skip
EAR_SWITCHES: dict[str, Any] = {
    "audio_similarity": 0.3, "visual_similarity": 0.3, "migrate_across": "batch", "audio_weight": 1.0,
    "visual_weight": 1.0, "unimodal_present_weight": 5.0, "combine": "min", "present_weight": 1.0, "scales": "exp",
}  # fmt: skip


def test_every_switch_changes_what_is_learnt() -> None:
    seen, learnt = {}, small_clips()
    # A shared cosine so low that labels migrate among these few clips.
    recipes = {
        "uwav": (SWITCHES, {}),
        "ear": (EAR_SWITCHES, {"method": "ear", "audio_similarity": 0.5, "visual_similarity": 0.5}),
    }
    for method, (switches, always) in recipes.items():
        for name, value in {"seed": Params().seed, **switches}.items():
            params = settle(Params(**{**SMALL, "epochs": 1, **always, name: value}), {})
            network = network_of(params, learnt, (3.2912, 4.6052))
            fitted = trained(network, params, learnt, learnt)
            seen[method, name] = b"".join(one.numpy().tobytes() for one in fitted.last.values())
    assert len(set(seen.values())) == len(seen) == len(SWITCHES) + len(EAR_SWITCHES) + 2, "two switches do the same"


def test_the_same_parameters_give_the_same_weights_and_a_trained_network_learns(store: Store) -> None:
    first, second = (pretrained(store, name, epochs=12, train_batch=4, dropout=0.0) for name in ("once", "again"))
    assert first.key == second.key
    assert weights_of(first) == weights_of(second)
    history = first.array("history/loss")
    assert history[-1] < 0.8 * history[0]


def test_ears_history_tells_its_four_terms_and_uwavs_its_one(store: Store) -> None:
    ear, uwav = (set(pretrained(store, name, method=name, epochs=1).array_names()) for name in ("ear", "uwav"))
    assert {f"history/{term}" for term in ("audio_dynamic", "visual_dynamic", "audio", "visual", "val_AV")} <= ear
    assert {"history/audio_visual", "history/val_AV"} <= uwav
    assert "history/audio_dynamic" not in uwav


def test_switches_of_ear_are_refused_with_uwav_and_filled_in_with_ear() -> None:
    assert settle(Params(), {}) == Params()
    settled = settle(Params(method="ear", combine="min"), {})
    assert {name: getattr(settled, name) for name in EAR_DEFAULTS} == {**EAR_DEFAULTS, "combine": "min"}
    value: Any
    for name, value in EAR_DEFAULTS.items():
        message = rf"--{name.replace('_', '-')} .* uwav has no use for it"
        with pytest.raises(ParameterError, match=message):
            settle(Params(**{name: value}), {})
    with pytest.raises(ParameterError, match=r"--apart-from-splits test .*give a dataset as --apart-from"):
        settle(Params(apart_from_splits="test"), {})


def test_ears_switches_have_the_same_defaults_and_choices_wherever_they_stand() -> None:
    switches = Asymmetric()
    assert {name: getattr(switches, name) for name in EAR_DEFAULTS} == EAR_DEFAULTS
    assert {one.name for one in fields(Asymmetric)} == {*EAR_DEFAULTS, "present_weight"}
    assert switches.present_weight == Params().present_weight
    hints = get_type_hints(Params)
    for name, choices in (("combine", Combine), ("migrate_across", Across)):
        assert get_args(get_args(hints[name])[0]) == get_args(choices)


def test_auto_precision_is_settled_to_what_this_machine_is_fast_at_and_stands_in_the_key(store: Store) -> None:
    wanted = fast_precision("cpu")
    assert settle(Params(precision="auto", device="cpu"), {}).precision == wanted
    keys = {
        precision: pretrained(store, "p", epochs=1, precision=precision).key for precision in ("auto", "fp32", "bf16")
    }
    assert keys["auto"] == keys[wanted]
    assert keys["fp32"] != keys["bf16"]


# --- what is learnt from


def names_of(one: Any, split: str) -> list[str]:
    return [name for name, its in zip(one.video_ids, one.splits, strict=True) if its == split]


def youtube(count: int) -> tuple[str, ...]:
    return tuple(f"video{row:06d}_{row}_{row + 10}" for row in range(count))


@pytest.fixture
def leaking(tmp_path: Path) -> Store:
    """UnAV-like clips, and dataset/target, which shares videos 1 (val), 3 (test), 5 (train) and 17 (val)."""
    found, one = Store(tmp_path / "store"), clips()
    put(found, replace(one, video_ids=youtube(24)))
    shared = [f"video{row:06d}_90_100" for row in (1, 3, 5, 17)] + ["another0000_0_10"]
    other = replace(clips().rows(np.arange(5)), video_ids=tuple(shared), splits=("val", "test", "train", "val", "test"))
    stored(found, other, name="target")
    return found


def test_clips_of_the_other_datasets_videos_are_left_out_counted_and_told(leaking: Store) -> None:
    for splits, train, val in ((None, 2, 1), ("test", 1, 0), ("train, val,test", 3, 1)):
        progress = Noting()
        given = {} if splits is None else {"apart_from_splits": splits}
        made = pretrained(leaking, "apart", epochs=1, progress=progress, inputs={"apart_from": "target"}, **given)
        assert made.attrs["left_out"] == {"train": train, "val": val}
        assert made.attrs["clips"] == {"train": 16 - train, "val": 8 - val}
        assert progress.notes == [
            f"left out, because {made_reference(leaking)} has clips of the same videos: {train} of train, {val} of val"
        ]
    alone = pretrained(leaking, "all", epochs=1)
    assert alone.attrs["left_out"] == {"train": 0, "val": 0}
    assert alone.attrs["clips"] == {"train": 16, "val": 8}


def made_reference(store: Store) -> str:
    found = store.find(Reference("dataset", "target"))
    assert found is not None
    return str(found.reference)


def test_what_is_left_out_has_no_part_in_the_weights(leaking: Store, tmp_path: Path) -> None:
    apart = pretrained(leaking, "apart", inputs={"apart_from": "target"})
    without = Store(tmp_path / "without")
    one = replace(clips(), video_ids=youtube(24))
    put(without, one.rows([row for row in range(24) if row not in (1, 3, 17)]))
    assert weights_of(apart) == weights_of(pretrained(without, "without"))
    assert weights_of(apart) != weights_of(pretrained(leaking, "all"))


def test_splits_that_are_not_there_and_leaving_everything_out_are_errors(leaking: Store) -> None:
    with pytest.raises(StoreError, match=r"no clips in split 'dev' to stay apart from; it has test, train, val"):
        pretrained(leaking, "x", inputs={"apart_from": "target"}, apart_from_splits="val,dev")
    with pytest.raises(StoreError, match=r"every labelled clip of split 'train'.*apart from fewer splits"):
        pretrained(leaking, "x", inputs={"apart_from": "dense"}, apart_from_splits="train")


@pytest.mark.real_data
def test_real_llp_and_ave_share_the_recorded_numbers_of_videos_with_unavs_training_split(
    real_data: Path, tmp_path: Path
) -> None:
    database = json.loads((real_data / "unav" / "unav100_annotations.json").read_text())["database"]
    train = [name for name, video in database.items() if video["subset"] == "train"]
    store = Store(tmp_path)
    for reader, splits, expected in (
        ("llp", "test", 11),
        ("llp", "val", 15),
        ("llp", "val,test", 26),
        ("ave", "test", 20),
    ):
        step = Step("dataset", reader, {"reader": reader, "source": str(real_data / reader)}, {})
        other = run_step(store, step, progress=Silent()).artifact
        assert shared_with(train, other, splits.split(",")).sum() == expected


def test_failed_clips_and_clips_without_labelled_seconds_are_not_learnt_from(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, clips(failed=(0, 5, 20)))
    assert pretrained(store, epochs=1).attrs["clips"] == {"train": 14, "val": 7}
    unlabelled = Store(tmp_path / "unlabelled")
    put(unlabelled, clips(), dense=0)
    with pytest.raises(StoreError, match=r"no clip of split 'train' .* has its seconds labelled; pretrain needs them"):
        pretrained(unlabelled)


def test_features_that_are_not_finite_are_refused_by_the_clips_name(tmp_path: Path) -> None:
    one = clips()
    one.features["audio"][3, 0, 2] = np.nan
    store = Store(tmp_path)
    put(store, one)
    with pytest.raises(StoreError, match=f"audio features of {one.video_ids[3]} that are NaN or infinite in second 0"):
        pretrained(store)


def test_heads_that_do_not_divide_the_width_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="does not divide"):
        pretrained(store, "heads", heads=3)


# --- objectives


def small_clips() -> Clips:
    one = clips()
    audio, visual, text_audio, text_visual = (
        torch.from_numpy(one.features[name]) for name in ("audio", "visual", "text_audio", "text_visual")
    )
    labels, lengths = torch.from_numpy(one.audio & one.visual), torch.from_numpy(one.lengths).long()
    return Clips(audio, visual, labels, lengths, text_audio, text_visual)


def small_model(**switches: Any) -> TemporalGenerator:
    torch.manual_seed(0)
    sizes = {name: SMALL[name] for name in ("width", "heads", "ffn", "layers")}
    widths = {"audio_width": AUDIO_WIDTH, "visual_width": VISUAL_WIDTH}
    return TemporalGenerator(Network(**{**sizes, **widths, "dropout": 0.0, **switches}))


def test_cutting_a_batch_to_its_longest_clip_changes_no_term() -> None:
    whole, model = small_clips(), small_model()
    rows = whole.lengths.argsort()[:6]
    assert whole.lengths[rows].max() < whole.audio.shape[1]
    arrays = (whole.audio[rows], whole.visual[rows], whole.text_audio, whole.text_visual, whole.lengths[rows])
    heard, seen = model(*arrays)
    uncut = audio_visual_loss(heard, seen, whole.labels[rows], whole.lengths[rows])
    torch.testing.assert_close(uwav_objective(model, whole)(rows)["audio_visual"], uncut)


def test_ears_objective_is_the_asymmetric_loss_of_both_branches() -> None:
    from avvp_pipe.stages.generators.ear import asymmetric_loss, migrated_labels

    whole, model = small_clips(), small_model()
    rows, switches = torch.arange(9), Asymmetric(audio_similarity=0.5, visual_similarity=0.4, combine="mean")
    b = whole.batch(rows)
    dynamic = model(b.audio, b.visual, b.text_audio, b.text_visual, b.lengths)
    static = [
        scale * torch.nn.functional.normalize(features, dim=2) @ text.T
        for scale, features, text in ((3.2912, b.audio, b.text_audio), (4.6052, b.visual, b.text_visual))
    ]
    migrated = [
        migrated_labels(features, b.labels, b.lengths, threshold=threshold)
        for features, threshold in ((b.audio, 0.5), (b.visual, 0.4))
    ]
    assert any((each > b.labels).any() for each in migrated)
    expected = asymmetric_loss(
        dynamic, (static[0], static[1]), b.labels, (migrated[0], migrated[1]), b.lengths, combine="mean"
    )
    terms = ear_objective(model, whole, switches)(rows)
    assert terms.keys() == expected.keys()
    for name, value in terms.items():
        torch.testing.assert_close(value, expected[name])


def ears(model: TemporalGenerator, whole: Clips, *, precision: Precision) -> Objective:
    return ear_objective(model, whole, Asymmetric(), precision=precision)


@pytest.mark.parametrize("objective", [uwav_objective, ears])
def test_bf16_rounds_the_loss_and_gradient_a_little(objective: Any) -> None:
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for precision in ("fp32", "bf16"):
        model = small_model()
        loss = sum(objective(model, small_clips(), precision=precision)(torch.arange(16)).values())
        loss.backward()
        gradients = [one.grad for one in model.parameters()]
        assert all(one is not None and one.dtype == torch.float32 and one.isfinite().all() for one in gradients)
        found[precision] = loss.detach(), torch.cat([one.flatten() for one in gradients if one is not None])
    (exact, exact_gradient), (rounded, rounded_gradient) = found["fp32"], found["bf16"]
    assert exact != rounded
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0)
    assert torch.nn.functional.cosine_similarity(rounded_gradient, exact_gradient, dim=0) > 0.98


def test_selection_is_the_f_of_the_product_at_one_half_whatever_the_groups() -> None:
    whole = small_clips()
    model = small_model(scales="exp").eval()
    called, truth = torch.zeros_like(whole.labels), whole.labels
    with torch.no_grad():
        for clip, length in enumerate(whole.lengths.tolist()):
            alone = (whole.audio[clip : clip + 1, :length], whole.visual[clip : clip + 1, :length])
            heard, seen = model(*alone, whole.text_audio, whole.text_visual, whole.lengths[clip : clip + 1])
            called[clip, :length] = (heard.sigmoid() * seen.sigmoid() >= 0.5)[0]
        found = audio_visual_f(model, whole)
    arrays = (called.numpy(), called.numpy(), truth.numpy(), truth.numpy())
    assert 0 < found < 100
    assert found == avvp_scores(*arrays, lengths=whole.lengths.numpy())["segment"]["AV"]
