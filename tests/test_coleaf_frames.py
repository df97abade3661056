"""CoLeaF on the frames themselves, as released, instead of their means over seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.blocks.stored import load_network
from avvp_pipe.stages.parsers.coleaf import CoLeaF, CoLeafNetwork
from avvp_pipe.stages.parsers.fitting import switched
from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import Store, StoreError
from tests.coleaf_world import SEGMENTS, coleaf, network, streams
from tests.parser_world import put_world, same_arrays, train, weights_of
from tests.trees import Told

FRAMES: dict[str, Any] = {"parser": "coleaf", "widths": "features", "switches": "visual_rows=frames"}


def with_frames(features: dict[str, Any], each: int = 2, *, alike: bool = False, lacking: int = 0) -> None:
    """Beside `visual` the frames of which it holds the means."""
    visual, lengths = features["visual"], np.isfinite(features["visual"][:, :, 0]).sum(axis=1)
    rng = np.random.default_rng(1)
    spread = rng.normal(size=(len(visual), visual.shape[1], each, visual.shape[2])) * (not alike)
    spread -= spread.mean(axis=2, keepdims=True)
    frames = (visual[:, :, None] + spread).reshape(len(visual), -1, visual.shape[2])
    features["native_visual"] = frames.astype(np.float32)
    features["native_visual_lengths"] = (lengths * each - lacking).astype(np.int32)


def test_frames_are_read_under_their_own_name_and_say_what_they_say_as_visual() -> None:
    given, model = streams(frames=2), coleaf(visual_rows="frames").eval()
    assert network(visual_rows="frames").widths() == {"audio": 5, "native_visual": 6, "motion": 4}
    same = coleaf().eval()
    same.load_state_dict(model.state_dict())
    named = {("native_visual" if name == "visual" else name): stream for name, stream in given.items()}
    lengths = torch.tensor([SEGMENTS, 2, 3, SEGMENTS])
    with torch.no_grad():
        for found, expected in zip(model(named, lengths), same(given, lengths), strict=True):
            torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="CoLeaF reads audio, native_visual, motion"):
        model(given)


def test_training_reads_the_frames_and_frames_alike_are_their_mean(tmp_path: Path) -> None:
    trained = {}
    for name, change in (("apart", with_frames), ("alike", lambda one: with_frames(one, alike=True))):
        store = Store(tmp_path / name)
        put_world(store, change=change, failed=(1,))
        trained[name] = {rows: train(store, **(FRAMES if rows else {**FRAMES, "switches": ""}))[0] for rows in (1, 0)}
    apart, alike = trained["apart"], trained["alike"]
    assert apart[1].attrs["streams"] == ["audio", "native_visual"]
    assert apart[0].attrs["streams"] == ["audio", "visual"]
    frames, means = ({name: one[rows].array("history/loss") for name, one in trained.items()} for rows in (1, 0))
    np.testing.assert_allclose(frames["alike"], means["alike"], rtol=1e-4)
    assert not np.allclose(frames["apart"], means["apart"], rtol=1e-4)
    assert same_arrays(weights_of(apart[0]), weights_of(alike[0])), "means are the same in both"


def test_streamed_frames_train_alike_and_a_stored_parser_reads_them_again(tmp_path: Path) -> None:
    stores = [Store(tmp_path / name) for name in ("held", "streamed")]
    for one in stores:
        put_world(one, change=with_frames)
    held, streamed = (
        train(one, **FRAMES, features_in=keeping)[0] for one, keeping in zip(stores, ("memory", "stream"), strict=True)
    )
    assert same_arrays(weights_of(held), weights_of(streamed))
    assert load_network(held, CoLeafNetwork, CoLeaF).network.visual_rows == "frames"
    inputs = {"parser": "parser/p", "features": "features/mine"}
    again = run_step(stores[0], Step("parse", "again", {"device": "cpu"}, inputs), progress=Told()).artifact
    for name in ("audio_probs", "visual_probs", "visual_hard", "video_probs"):
        np.testing.assert_allclose(again.array(name), held.array(name), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "has no native_visual; it has audio"),
        (
            lambda one: with_frames(one, lacking=1),
            r"frames that are as many in every second, but .* has 8 in 4 seconds",
        ),
    ],
)
def test_features_without_such_frames_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    put_world(Store(tmp_path), change=change)
    with pytest.raises(StoreError, match=message):
        train(Store(tmp_path), **FRAMES)


def test_rows_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match="visual_rows"):
        network(visual_rows="minutes")
    with pytest.raises(ParameterError, match="visual_rows"):
        switched("visual_rows=minutes", CoLeafNetwork())
