"""Making a report and writing its page: as large as asked at most, whole or not at all."""

import os
import tempfile
from pathlib import Path

from avvp_pipe.pipeline.report.gather import Wanted, gather, with_clips
from avvp_pipe.pipeline.report.records import Report
from avvp_pipe.pipeline.report.render import VIEWER_BYTES, render
from avvp_pipe.stages.stage import Progress
from avvp_pipe.store import Store

__all__ = ["make_report", "write_page"]


def make_report(store: Store, wanted: Wanted, *, made: str, progress: Progress) -> Report:
    """Gather the report; its clips and their pictures get the room that the rest of the page leaves.

    Raises StoreError and ParameterError as `gather` does.
    """
    report, subjects = gather(store, wanted, made=made)
    room = wanted.max_bytes - len(render(report).encode("utf-8")) - VIEWER_BYTES
    return with_clips(store, report, subjects, wanted, room_bytes=room, progress=progress)


def write_page(path: Path, report: Report) -> int:
    """Render the report and put it at `path`, in place of what is there; returns its bytes. Raises OSError."""
    page = render(report).encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(page)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return len(page)
