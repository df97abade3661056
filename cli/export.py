"""The command `export`: an artifact as files that others read."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from avvp_pipe.cli.console import FOUND_WRONG, Console, say

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

LayoutName = Literal["uwav", "valor", "valor++", "classic", "unav", "llp-csv", "label-studio"]
IdForm = Literal["auto", "whole", "youtube"]
SHOWN_FAILURES = 10


def run_export(
    artifact: "Artifact", layout: LayoutName, out: Path, *, ids: IdForm, any_width: bool, url: str, console: Console
) -> None:
    """Write the artifact's files and say what was written. Exits with 1 where failed clips have no files."""
    from avvp_pipe.store.layouts.export import failed_clips
    from avvp_pipe.store.layouts.folder import require_free, write_folder

    require_free(out)
    files = _files(artifact, layout, ids=ids, any_width=any_width, url=url)
    failed = failed_clips(artifact)
    count, size = write_folder(out, files)
    clips = len(artifact.strings("video_ids")) - len(failed)
    document = {
        "artifact": str(artifact.reference),
        "layout": layout,
        "out": str(out),
        "clips": clips,
        "files": count,
        "bytes": size,
        "failed": list(failed),
    }

    def shown() -> None:
        say(f"exported {clips} clips of {artifact.reference} to {out}: {count} files, {size} bytes")
        if failed:
            some = ", ".join(failed[:SHOWN_FAILURES]) + (", …" if len(failed) > SHOWN_FAILURES else "")
            say(f"  {len(failed)} clips failed when the artifact was made and are left out: {some}")

    console.result(document, shown)
    if failed:
        raise typer.Exit(FOUND_WRONG)


def _files(
    artifact: "Artifact", layout: LayoutName, *, ids: IdForm, any_width: bool, url: str
) -> Iterator[tuple[str, bytes]]:
    from avvp_pipe.store import StoreError
    from avvp_pipe.store.layouts.export import tree_files
    from avvp_pipe.store.layouts.label_studio import label_studio_files, require_labels
    from avvp_pipe.store.layouts.llp_csv import llp_tables
    from avvp_pipe.store.layouts.table import FEATURES, LABELS

    if layout in ("llp-csv", "label-studio"):
        require_labels(artifact)
        return llp_tables(artifact) if layout == "llp-csv" else label_studio_files(artifact, url=url)
    known = {"features": FEATURES, "labels": LABELS}.get(artifact.kind, {})
    if layout not in known:
        there = ", ".join(known) or "none"
        raise StoreError(f"no layout {layout!r} for {artifact.kind} such as {artifact.reference}; there is {there}")
    return tree_files(artifact, known[layout], ids=ids, any_width=any_width)
