"""Whoever types the commands of a page from its first to its last gets what they promise.

Each page in a folder of its own, on the demo's videos in the forms of LLP, UnAV-100 and AVE (`walk_world.py`), with the
embedded teachers. Networks are small and trained for one epoch, which the pages do not say; all else is typed as it
stands. All pages share a store, so that what one has made another finds.
"""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_command
from tests.test_docs import PAGES, blocks
from tests.walk_world import make_world, put_generator, put_parser

SIZES = {"width": 16, "heads": 2, "ffn": 16, "layers": 1, "epochs": 1}
SMALL = " ".join(f"--{name} {value}" for name, value in SIZES.items())


def small(stage: str) -> str:
    """The same, for a stage of a recipe."""
    return " ".join(f"--set {stage}.{name}={value}" for name, value in SIZES.items())


ADDED = {
    "config init ": "--teachers tiny",
    "extract ": "--visual-teacher tiny-clip --audio-teacher tiny-clap",
    "pretrain ": f"{SMALL} --warmup 0",
    "train-parser ": SMALL,
    "recipes run .* --pretrain-": small("pretrain"),
    "recipes run parser-": small("train-parser"),
}
"""How a line begins -> what is typed besides, since nothing of real size is at hand."""
NOT_TYPED = {
    "models fetch": "it goes to the hub; tests/test_models.py has a hub of its own",
    "extract --dataset llp --executor ray": "it begins a cluster, as tests/test_ray.py does",
}
FILES = {"docs/labels.md": put_generator, "docs/parsers.md": put_parser}
"""Pages that have a `checkpoint_best.pt` -> whose it is."""


def typed(page: str) -> list[str]:
    """The command lines in the page's blocks, without those that end in dots, and without what is not typed."""
    lines = [line for block in blocks(PAGES[page]) for line in block.splitlines()]
    told = [re.sub(r" +#.*", "", found[1]) for line in lines if (found := re.match(r"(?:\$ )?avvp-pipe (.+)", line))]
    return [line for line in told if line not in NOT_TYPED and not line.endswith("…")]


STORES = ("first", "second", "third", "fourth")
LLP = ("dataset --reader llp --source annotations --videos videos --name llp", "extract --dataset llp")
AVE = ("dataset --reader ave --source AVE --videos ave-videos --name ave", "extract --dataset ave")
OTHERS = ("dataset --source others.jsonl --classes classes.txt --name others", "extract --dataset others")
LABELS = tuple(
    line
    for line in typed("docs/labels.md")
    if re.match("dataset|extract|pretrain|calibrate|pseudolabel", line)
    and not re.search("released|denoise|stack", line)
)


def trained(name: str) -> str:
    return f"train-parser --dataset llp --features llp --targets weak --reweight none --mixup none --name {name}"


def classic(dataset: str, name: str) -> str:
    return f"import-features --dataset {dataset} --layout classic --source classic --name {name}"


BEFORE = {
    "extract --dataset llp --shard 1/4 --store /mnt/first": [f"{LLP[0]} --store /mnt/{store}" for store in STORES],
    "merge features/llp --store /mnt/first --from /mnt/second --from /mnt/third --from /mnt/fourth": [
        f"extract --dataset llp --shard {number}/4 --store /mnt/{STORES[number - 1]}" for number in (3, 4)
    ],
    'extract --dataset llp --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"': LLP[:1],
    "overlap llp unav ave": AVE[:1],
    "train-parser --dataset llp --features llp --labels llp-uwav --name llp-uwav": [
        *LABELS, *OTHERS, *AVE, classic("llp", "llp-classic"), classic("ave", "ave-motion"),
    ],
    "report dataset/mine --out report.html": ["dataset --source clips.jsonl --name mine"],
    "compare labels/llp-valor labels/llp-uwav": LABELS,
    "compare parser/a-seed1 parser/a-seed2 parser/b-seed1 parser/b-seed2": [
        f"{trained('a')} --seeds 1,2", f"{trained('b')} --layers 2 --seeds 1,2",
    ],
    'compare --group "ours=parser/x,parser/y" --group theirs=parser/z --against theirs --latex': [
        f"{trained(name)} --seed {seed}" for seed, name in enumerate("xyz")
    ],
}  # fmt: skip
"""A line -> what its page takes for granted there."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the pages are walked; the directory and the environment of before come back."""
    folder, before, told = tmp_path_factory.mktemp("walk"), Path.cwd(), dict(os.environ)
    os.environ |= {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4", "AVVP_PIPE_STORE": str(folder / "store")}
    yield folder
    os.chdir(before)
    os.environ.clear()
    os.environ |= told


def type_line(line: str, place: Path) -> str:
    """Type it, after what it takes for granted. Returns what went wrong, "" where nothing did."""
    wrong = [type_line(earlier, place) for earlier in BEFORE.get(line, ())]
    more = [words for pattern, words in ADDED.items() if re.match(pattern, line)]
    told = " ".join((line.replace("/mnt/", f"{place}/mnt/"), *more))
    ran = run_command(*shlex.split(os.path.expandvars(told)))
    return "".join(wrong) + (f"$ avvp-pipe {told}\n{ran.err}" if ran.code else "")


@pytest.mark.parametrize("page", [page for page in PAGES if typed(page)])
def test_the_commands_of_a_page_run_in_the_order_in_which_they_stand(
    page: str, place: Path, finished_demo: Any, tmp_path: Path
) -> None:
    make_world(tmp_path, finished_demo.out / "world")
    if page in FILES:
        FILES[page](tmp_path)
    os.chdir(tmp_path)
    wrong = "".join(type_line(line, place) for line in typed(page))
    assert not wrong, wrong
