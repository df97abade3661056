"""Artifacts of format 1 stay readable, and format 1 stays what it is. The fixtures were written once, and stay.

`labels-format-1.zarr.zip` is a release of `made_labels(clips=4)`, `features-format-1.zarr.zip` the packed artifact of
`rows` (tests/made.py), both as of version 0.1.0.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from avvp_pipe.store import Artifact, Reference, Store, load_labels
from avvp_pipe.store.metadata import FORMAT
from avvp_pipe.store.places.zipped import open_zip
from avvp_pipe.store.release import release, verify_release
from avvp_pipe.store.verify import verify
from tests.made import IDENTITY, PLACE, made, made_labels, rows

FIXTURES = Path(__file__).with_name("fixtures")


def packed_features() -> Artifact:
    return Artifact(open_zip(FIXTURES / "features-format-1.zarr.zip"), Reference("features", "mine", IDENTITY.key))


def test_the_format_is_the_first() -> None:
    assert FORMAT == 1, "a new format needs fixtures of its own, and format 1 must still be read"


def test_labels_of_format_1_are_read_and_verified() -> None:
    labels = load_labels(FIXTURES / "labels-format-1.zarr.zip")
    assert verify_release(FIXTURES / "labels-format-1.zarr.zip").findings == ()
    assert labels.artifact.attrs["format"] == 1
    assert labels.video_ids == tuple(f"clip{row:07d}_0_10" for row in range(4))
    assert labels.classes == ("Bell", "Drum", "Flute")
    assert labels.audio_logits[0, 0] == pytest.approx([-2.3250308, -0.21879166, -1.245911], abs=1e-6)
    assert labels.audio_thresholds.tolist() == [0.0, -np.inf, 0.0]
    np.testing.assert_array_equal(labels.audio_hard, labels.audio_logits > 0)


def test_features_of_format_1_are_read_and_verified() -> None:
    features = packed_features()
    assert verify(features).findings == ()
    np.testing.assert_array_equal(features.array("visual"), np.arange(6400, dtype=np.float32).reshape(40, 10, 16))
    assert features.rows("visual", 39)[9, 15] == 6399


def test_what_is_written_today_is_laid_out_as_in_format_1(tmp_path: Path) -> None:
    """Names of files and the metadata of every array: what other programs that read artifacts rely on."""
    store = Store(tmp_path / "store")
    today = made(store, PLACE, IDENTITY, rows), made_labels(store, clips=4)
    pinned = packed_features(), load_labels(FIXTURES / "labels-format-1.zarr.zip").artifact
    for now, then in zip(today, pinned, strict=True):
        assert list(now.place.names()) == list(then.place.names())
        for name in then.place.names():
            if name.endswith("/zarr.json"):
                assert json.loads(now.place.read(name)) == json.loads(then.place.read(name)), name
        assert set(then.attrs) - {"release", "prompts", "lineage"} == set(now.attrs)
    release(today[1], store, tmp_path / "again.zarr.zip")
