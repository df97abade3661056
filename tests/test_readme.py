"""The README keeps its word: its Python runs, its commands exist with the options it names, its values are true."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.label_world import world

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
PYTHON = [block for block in BLOCKS if "METHOD =" not in block]
COMMANDS = re.findall(r"^\$ avvp-pipe ([^#\n]*)", README, re.M)


def told(block: str) -> list[tuple[str, str]]:
    """Expressions whose comment begins with a Python value."""
    return re.findall(r"^([a-z][^#=\n]*?) +# ('[^']*'|\('.*?'\)|[0-9.]+)(?=[;\s]|$)", block, re.M)


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_in_the_readme_runs_and_its_comments_are_true(
    finished_demo: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, block: str
) -> None:
    (tmp_path / "demo").symlink_to(finished_demo.out)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block, names)
    values = told(block)
    assert values
    for expression, value in values:
        assert eval(expression, names) == eval(value), expression


def test_the_method_that_is_added_in_the_readme_labels_clips() -> None:
    (block,) = set(BLOCKS) - set(PYTHON)
    names: dict[str, Any] = {}
    exec(block, names)
    clips = world()
    found = names["METHOD"].labeller({}, {})(clips.evidence)
    for logits, truth in ((found.audio, clips.audio), (found.visual, clips.visual)):
        assert logits.shape == truth.shape
        assert np.nanmean(logits[truth]) > np.nanmean(logits[~truth]) + 0.1


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_in_the_readme_exist_with_the_options_they_name(avvp: Callable[..., Any], line: str) -> None:
    name, *words = line.split()
    subcommand = words[:1] if name in ("labels", "config") else []
    shown = avvp(name, *subcommand, "--help")
    assert shown.code == 0
    for word in words:
        if word.startswith("--"):
            assert word in shown.out, f"{name} has no {word}"


def test_every_command_is_named_in_the_readme(avvp: Callable[..., Any]) -> None:
    listed = re.findall(r"^  ([a-z-]+)  ", avvp("--help").out.partition("Stages:")[2], re.M)
    assert len(listed) > 10
    assert [name for name in listed if not re.search(rf"\b{name}\b", README)] == []
