"""What strangers call their clips and classes is shown, and never does anything to the terminal."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.store import Identity, Reference, Store
from avvp_pipe.store.release import release
from tests.made import made

NAMES = ["[red]Bell[/red]", "\x1b[31mDr\x07um\x1b]0;title\x07", "a\nb\u202e"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels of three clips, every name in them meant to do harm, and one of the two released."""
    root = tmp_path_factory.mktemp("hostile")

    def fill(builder: Any, value: float) -> None:
        builder.put("video_ids", [f"\x1b[2J[/b]{row}\n" for row in range(3)])
        builder.put("splits", ["tr[/]ain"] * 3)
        builder.put("weak", np.ones((3, 3), bool))
        builder.put("lengths", np.full(3, 10, np.int32))
        builder.put("status", np.ones(3, np.uint8))
        for modality in ("audio", "visual"):
            builder.put(f"{modality}_hard", np.full((3, 10, 3), value > 0.5))
            builder.put(f"{modality}_soft", np.full((3, 10, 3), value, np.float32))
            builder.put(f"{modality}_thresholds", np.zeros(3, np.float32))
        builder.describe(classes=NAMES, method="\x1b[31m[/]")

    for name, value in (("x", 0.75), ("y", 0.25)):
        identity = Identity("pse\x1b[1mudo[/nope]", 1, {"a\x1b[1m[/x]": f"\x1b[2J[/b]{name}"}, {}, {"s\x07": "d\x1b"})
        made(Store(root), Reference("labels", name), identity, partial(fill, value=value))
    release(Store(root).get("labels/x"), Store(root), root / "x.zarr.zip")
    return root


@pytest.mark.parametrize(
    "command",
    ["ls", "show labels/x", "show ROOT/x.zarr.zip", "verify", "diff labels/x labels/y", "lineage labels/x", "status",
     "gc --superseded --dry-run", "verify ROOT/x.zarr.zip", "lineage ROOT/x.zarr.zip", "show labels/\x1b[31m"],
)  # fmt: skip
def test_no_command_passes_control_characters_or_markup_on(avvp: Any, store: Path, command: str) -> None:
    ran = avvp(*(word.replace("ROOT", str(store)) for word in command.split(" ")), "--store", store)
    assert ran.code in (0, 1, 2)
    for text in (ran.out, ran.err):
        assert not re.search(r"[^\n\x20-\x7e\u00a0-\u1fff\u2010-\u2027\u2030-\u205e\u2070-\uffff]", text), text


def test_such_names_are_shown_spelled_out(avvp: Any, store: Path) -> None:
    shown = avvp("diff", "labels/x", "labels/y", "--store", store).out
    assert "[red]Bell[/red]" in shown
    assert r"\x1b[31mDr\x07um" in shown
    assert r"a\nb\u202e" in shown
