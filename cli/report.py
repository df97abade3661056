"""The command `report`: one HTML page about labels, scores, parsers, with a viewer of clips."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avvp_pipe.cli.console import Console, guarded, say
from avvp_pipe.cli.options import DEFAULT_STORE_PATH, AsJson, Quiet, StorePath, Verbose
from avvp_pipe.pipeline.report import CLIPS, MAX_BYTES

if TYPE_CHECKING:
    from avvp_pipe.pipeline.report.records import Report


@guarded
def report(
    references: Annotated[
        list[str],
        typer.Argument(help="Labels, scores, thresholds, parsers …; a dataset brings all that was made of it."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The HTML file to write; replaced where it is there.")],
    clips: Annotated[int, typer.Option("--clips", min=0, help="At most so many clips in the viewer.")] = CLIPS,
    max_bytes: Annotated[
        int, typer.Option("--max-bytes", min=100_000, help="Of the file; pictures get what labels leave.")
    ] = MAX_BYTES,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Small pictures of the clips, where frames are at hand.")
    ] = True,
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", help="Show this recipe's published numbers beside the scores; repeatable."),
    ] = None,
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write one HTML page that needs no network: scores, classes, training, data quality, origin, and the clips.

    Example: avvp-pipe report dataset/mine --out report.html
    """
    from avvp_pipe.pipeline.report.gather import Wanted
    from avvp_pipe.pipeline.report.write import make_report, write_page
    from avvp_pipe.stages.stage import ParameterError
    from avvp_pipe.store import Store

    if out.is_dir():
        raise ParameterError(f"{out} is a folder; give the file to write, such as {out / 'report.html'}")
    console = Console(as_json=json, quiet=quiet)
    wanted = Wanted(tuple(references), clips, max_bytes, pictures, tuple(recipe or ()))
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    found = make_report(Store(store), wanted, made=made, progress=console)
    size = write_page(out, found)
    document = report_document(out, size, found)
    console.result(document, lambda: _print(document))


def report_document(out: Path, size: int, found: "Report") -> dict[str, Any]:
    """The JSON of a report that was written."""
    lacking = Counter(reason for reason in found.pictures.reasons if reason)
    return {
        "report": str(out),
        "bytes": size,
        "artifacts": [reference for _, reference in found.shown],
        "clips": 0 if found.clips is None else len(found.clips.video_ids),
        "pictures": sum(bool(strip) for strip in found.pictures.strips),
        "without_pictures": dict(lacking),
        "notes": list(found.notes),
    }


def _print(document: dict[str, Any]) -> None:
    say(f"{document['report']}: {document['bytes'] / 1e6:.1f} MB, {document['clips']} clips")
    for reason, count in document["without_pictures"].items():
        say(f"  {count} clips without pictures: {reason}")
    for note in document["notes"]:
        say(f"  {note}")
