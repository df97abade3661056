"""What a person sees: progress on stderr, results on stdout, errors without tracebacks, exit codes."""

import json
import os
import sys
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


@dataclass(frozen=True, slots=True)
class Console:
    """How one command talks: `as_json` keeps stdout for one JSON document, `quiet` leaves out the progress."""

    as_json: bool = False
    quiet: bool = False

    def track(self, items: Iterable[T], *, total: int, label: str, done: int = 0) -> Iterator[T]:
        """Count `items` on stderr: a bar with rate and time left on a terminal, a line every tenth elsewhere."""
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

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=RichConsole(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, completed=done)
        for item in items:
            yield item
            progress.advance(task)


def _lines(items: Iterable[T], *, total: int, label: str, done: int) -> Iterator[T]:
    step = max(1, total // 10)
    for count, item in enumerate(items, start=done + 1):
        yield item
        if count % step == 0 or count == total:
            print(f"{label}: {count}/{total}", file=sys.stderr, flush=True)


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


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
    """Print a table on stdout; the first `left` columns are text, the others numbers.

    The title is a line of its own: one of the table would be broken to the table's width.
    """
    from rich import box
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        shown.add_column(column, justify="left" if index < left else "right", overflow="fold")
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

    return run
