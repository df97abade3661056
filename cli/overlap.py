"""`avvp-pipe overlap`: which videos datasets share, split by split."""

from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avvp_pipe.cli.console import Console, guarded, say, table
from avvp_pipe.cli.options import DEFAULT_STORE_PATH, AsJson, StorePath, Verbose

if TYPE_CHECKING:
    from avvp_pipe.stages.datasets.overlap import Overlap
    from avvp_pipe.store import Artifact


@guarded
def overlap(
    references: Annotated[
        list[str], typer.Argument(metavar="DATASET", help="Two datasets or more: dataset/NAME, or NAME.")
    ],
    list_ids: Annotated[bool, typer.Option("--list", help="Name the videos, too.")] = False,
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Count the videos that the splits of datasets share, by YouTube id; the seconds cut out of them may differ.

    Pre-training on videos of the set that is scored is a leak: `pretrain` can leave them out.
    Example: avvp-pipe overlap dataset/llp dataset/unav
    """
    from avvp_pipe.store import Store, StoreError
    from avvp_pipe.store.opening import open_artifact

    opened = Store(store)
    artifacts = [open_artifact(reference, opened, kind="dataset") for reference in references]
    names = [str(one.reference) for one in artifacts]
    if len({*names}) < 2 or len({*names}) < len(names):
        raise StoreError(f"overlap holds two datasets or more against each other, each once; got {', '.join(names)}")
    found = [(one, other, _shared(one, other)) for one, other in combinations(artifacts, 2)]
    document = {"overlaps": [_row(a, b, pair, list_ids) for a, b, pairs in found for pair in pairs]}

    def shown() -> None:
        for one, other, pairs in found:
            _print(one, other, pairs)
            for pair in pairs if list_ids else ():
                for video in pair.videos:
                    say(f"{video}  {pair.split} of {one.name}, {pair.other_split} of {other.name}")

    Console(as_json=json).result(document, shown)


def _shared(one: "Artifact", other: "Artifact") -> "tuple[Overlap, ...]":
    from avvp_pipe.stages.datasets.overlap import ids_by_split, shared_videos

    mine, theirs = (ids_by_split(each.strings("video_ids"), each.strings("splits")) for each in (one, other))
    return shared_videos(mine, theirs)


def _row(one: "Artifact", other: "Artifact", pair: "Overlap", list_ids: bool) -> dict[str, Any]:
    row = {"of": str(one.reference), "split": pair.split, "with": str(other.reference), "other_split": pair.other_split}
    return row | {"videos": len(pair.videos)} | ({"ids": list(pair.videos)} if list_ids else {})


def _print(one: "Artifact", other: "Artifact", pairs: "tuple[Overlap, ...]") -> None:
    """One table: rows are splits of `one`, columns those of `other`."""
    counts = {(pair.split, pair.other_split): len(pair.videos) for pair in pairs}
    rows = list(dict.fromkeys(split for split, _ in counts))
    columns = list(dict.fromkeys(split for _, split in counts))
    lines = [(f"{one.name} {row}", *(str(counts[row, column]) for column in columns)) for row in rows]
    columns_of = [f"{other.name} {split}" for split in columns]
    say(f"videos that {one.name} and {other.name} share")  # as a title it would be broken to the table's width
    table("", ("", *columns_of), lines)
