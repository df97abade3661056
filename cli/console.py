"""What a person sees: progress on stderr, results on stdout, errors without tracebacks, exit codes."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import typer

from avvp_pipe.stages.clips.failures import TooManyFailuresError
from avvp_pipe.store import StoreError, StoreWriteError

T = TypeVar("T")

DONE = 0
FOUND_WRONG = 1
"""Finished with failures, or something could not be done."""
WRONG_USE = 2
INTERRUPTED = 130
MISUSED: Any = typer.BadParameter.__base__
"""What a wrong command line raises: click's, or the one of a typer that brings its own."""


@dataclass(frozen=True, slots=True)
class Console:
    """How one command talks: `as_json` keeps stdout for one JSON document, `quiet` leaves out the progress."""

    as_json: bool = False
    quiet: bool = False

    def track(self, items: Iterable[T], *, total: int, label: str, done: int = 0) -> Iterator[T]:
        """Count `items` on stderr, with rate and time left: a bar on a terminal, a line every tenth elsewhere."""
        if self.quiet:
            yield from items
        elif sys.stderr.isatty():
            yield from _bar(items, total=total, label=label, done=done)
        else:
            yield from _lines(items, total=total, label=label, done=done)

    def note(self, message: str) -> None:
        """One line on stderr."""
        if not self.quiet:
            print(plain(message, keep="\n"), file=sys.stderr, flush=True)

    def result(self, document: Mapping[str, Any], shown: Callable[[], None]) -> None:
        """Print the result: `document` as JSON, or what `shown` prints."""
        if self.as_json:
            print(json.dumps(document, indent=1, allow_nan=False))
        else:
            shown()


def _bar(items: Iterable[T], *, total: int, label: str, done: int) -> Iterator[T]:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=RichConsole(stderr=True), transient=True) as progress:
        task = progress.add_task(plain(label), total=total, completed=done, rate="")
        for count, item in enumerate(items, start=1):
            yield item
            progress.update(task, advance=1, rate=_rate(count, time.monotonic() - started))


def _lines(items: Iterable[T], *, total: int, label: str, done: int) -> Iterator[T]:
    step, started = max(1, total // 10), time.monotonic()
    for count, item in enumerate(items, start=done + 1):
        yield item
        if count % step == 0 or count == total:
            seconds = time.monotonic() - started
            left = seconds / (count - done) * (total - count)
            more = f", {human_seconds(left)} left" if count < total else f", {human_seconds(seconds)} in all"
            told = f"{label}: {count}/{total}, {_rate(count - done, seconds)}{more}"
            print(plain(told), file=sys.stderr, flush=True)


def _rate(count: int, seconds: float) -> str:
    """How fast it goes: a second, or where it is slower than that, each.

    >>> _rate(30, 2.0), _rate(3, 60.0)
    ('15.0/s', '20.0 s each')
    """
    if count >= seconds:
        return f"{count / seconds:.1f}/s" if seconds > 0 else ""
    return f"{human_seconds(seconds / count)} each"


def human_seconds(seconds: float) -> str:
    """Time as people plan with it.

    >>> human_seconds(7.25), human_seconds(400), human_seconds(9000), human_seconds(400_000)
    ('7.2 s', '7 min', '2.5 h', '4.6 days')
    """
    for size, unit, digits in ((86_400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.1f} s"


def _tell_fault(error: Exception, options: Mapping[str, Any]) -> None:
    """Of too little memory, what to do; of what nobody thought of, one line, and how to see more."""
    lacking = _lacks_memory(error)
    if lacking:
        asked = str(error).partition("\n")[0].rpartition("Allocator: ")[2].rstrip(".")
        told = (
            f"there is not enough memory: {asked}. Take fewer clips at a time (--batch-size, --train-batch, "
            "--features-in stream) or fewer --workers, or another --device; the same command goes on"
        )
    else:
        told = f"{type(error).__name__}: {error} (a fault of avvp-pipe; nothing that was finished is lost)"
    if options.get("verbose"):
        traceback.print_exc()
    elif not lacking:
        told += "; --verbose shows where, for a report"
    if options.get("json"):
        print(json.dumps({"error": told}))
    print(plain(f"error: {told}", keep="\n"), file=sys.stderr)


def _lacks_memory(error: Exception) -> bool:
    """Whether Python, numpy, or torch on a processor or GPU could not have the memory that was asked for.

    Torch's errors are known by name and words: to name their types it would have to be imported.
    """
    words = type(error).__name__ == "RuntimeError" and "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or words


def plain(text: str, *, keep: str = "") -> str:
    r"""Text as a terminal can be given it: what would move the cursor or change colours is spelled out.

    Names of clips and classes come from strangers. keep: control characters that are meant.

    >>> print(plain("\x1b[31mDog"))
    \x1b[31mDog
    """
    spelled = (one if one.isprintable() or one in keep else one.encode("unicode_escape").decode() for one in text)
    return "".join(spelled)


def say(text: str = "") -> None:
    """Print lines of a result on stdout."""
    print(plain(text, keep="\n"))


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, widest: int | None = None
) -> None:
    """Print a table on stdout; the first `left` columns are text, the others numbers. widest: of columns of text.

    The title is a line of its own: one of the table would be broken to the table's width.
    """
    from rich import box
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        text = index < left
        width = widest if text else None
        shown.add_column(column, justify="left" if text else "right", overflow="fold", max_width=width)
    for row in rows:
        shown.add_row(*(Text(plain(cell)) for cell in row))
    # Where nobody watches, lines are not broken: the reader may be a program.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    out = RichConsole(width=width, highlight=False)
    if title:
        out.print(Text(plain(title), style="italic"), soft_wrap=True)
    out.print(shown)
    print()


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a command raises into a message on stderr and an exit code; `verbose=True` adds the traceback."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt:
            told = "interrupted; run the same command again to go on"
            if options.get("json"):
                print(json.dumps({"error": told}))
            print(told, file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (ValueError, OSError, TooManyFailuresError) as error:
            if options.get("verbose"):
                traceback.print_exc()
            if options.get("json"):
                print(json.dumps({"error": str(error)}))
            print(plain(f"error: {error}", keep="\n"), file=sys.stderr)
            failed = isinstance(error, StoreWriteError | TooManyFailuresError) or (
                isinstance(error, OSError) and not isinstance(error, StoreError | FileNotFoundError)
            )
            raise typer.Exit(FOUND_WRONG if failed else WRONG_USE) from None
        except (typer.Exit, typer.Abort, MISUSED):
            raise
        except Exception as error:
            _tell_fault(error, options)
            raise typer.Exit(FOUND_WRONG) from None

    return run
