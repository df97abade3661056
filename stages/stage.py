"""What a stage is: a name, a version, what it reads, its parameters, and one function that runs it.

A stage's file holds a frozen `Params` record, pure functions on arrays, one `run`, and at its foot the
`STAGE` record. The runner (`pipeline/runner.py`) knows the rest: keys, caching, publishing.
"""

import dataclasses
import difflib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import Field

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact, Builder

T = TypeVar("T")

COUNT = Field(pattern=r"^(auto|\d{1,6})$", coerce_numbers_to_str=True)
"""Of a parameter that is a number or `auto`: `Annotated[str, COUNT]`."""
POSITIVE_COUNT = Field(pattern=r"^(auto|[1-9]\d{0,5})$", coerce_numbers_to_str=True)
"""The same, of one that cannot be 0."""


class ParameterError(ValueError):
    """A parameter is unknown or has a value out of its range."""


class Progress(Protocol):
    """Where a stage reports how far it is; the command line shows bars, tests show nothing."""

    def track(self, items: Iterable[T], *, total: int, label: str, done: int = 0) -> Iterator[T]:
        """Pass `items` through, counting them. `done`: how many an earlier, killed run had finished."""
        ...

    def note(self, message: str) -> None:
        """Tell the person something worth a line."""
        ...


class Silent:
    """A Progress that shows nothing."""

    def track(self, items: Iterable[T], *, total: int, label: str, done: int = 0) -> Iterator[T]:
        """Pass `items` through."""
        yield from items

    def note(self, message: str) -> None:
        """Say nothing."""


@contextmanager
def counted(progress: Progress, label: str, *, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show work that comes in uneven pieces: yields a function to be called with how much more is done."""
    shown = progress.track(range(done, total + 1), total=total, label=label, done=done)
    reached = next(shown, total)

    def tick(more: int) -> None:
        nonlocal reached
        for _ in range(more):
            reached = next(shown, total)

    try:
        yield tick
    finally:  # a bar that is still shown would write over what is said next
        if isinstance(shown, Generator):
            shown.close()


@contextmanager
def epochs(
    progress: Progress, label: str, total: int, *, saved: Callable[[], None]
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Show training: yields a function to be called with each epoch's record, whose `epoch` counts from 1.

    saved: called after each epoch, when its checkpoint is written.
    """
    shown = progress.track(range(total + 1), total=total, label=label)
    reached = next(shown, total)

    def tick(record: Mapping[str, float]) -> None:
        nonlocal reached
        saved()
        while reached < record["epoch"]:
            reached = next(shown, total)

    yield tick


def option(default: Any, text: str, *, panel: str = "Parameters") -> Any:
    """A parameter that changes results, with the help text that the command line shows for it, under `panel`."""
    return dataclasses.field(default=default, metadata={"help": text, "in_key": True, "panel": panel})


def outside_key(default: Any, text: str) -> Any:
    """A parameter that only changes speed, or says where files lie: it stays out of the artifact's key."""
    metadata = {"help": text, "in_key": False, "panel": "Places and speed (not in the key)"}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Reads:
    """One artifact that a stage reads."""

    kind: str
    """One of the store's kinds; `labels|parser` where either will do."""
    text: str
    """What it is for, as help text."""
    required: bool = True
    argument: bool = False
    """Whether it may also be given on the command line without the option's name."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that will do."""
        return tuple(self.kind.split("|"))


Inputs = Mapping[str, "Artifact"]


def no_sources(params: Any, inputs: Inputs) -> Mapping[str, str]:
    """Digests of nothing: the stage reads only artifacts."""
    return {}


def nowhere_else(params: Any, made: "Artifact") -> str:
    """Nothing: what the stage reads lies in the store."""
    return ""


def as_given(params: Any, inputs: Inputs) -> Any:
    """The parameters as they are."""
    return params


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the pipeline. `run(inputs, params, out, progress)` is the only part that meets the store."""

    name: str
    """As on the command line."""
    kind: str
    """Kind of the artifact it writes."""
    version: int
    """Raised by hand when results change; the history stands beside the STAGE record."""
    summary: str
    """For the help; lists of commands show the first sentence."""
    reads: Mapping[str, Reads]
    """Role -> artifact."""
    params: type
    """A frozen dataclass whose fields are made with `option` and `outside_key`."""
    run: Callable[[Inputs, Any, "Builder", Progress], None]
    sources: Callable[[Any, Inputs], Mapping[str, str]] = no_sources
    """Name -> digest of what the stage reads from outside the store."""
    settle: Callable[[Any, Inputs], Any] = as_given
    """Parameters that were left to the inputs, or to one another, filled in. Raises ValueError where they disagree."""
    moved: Callable[[Any, "Artifact"], str] = nowhere_else
    """Why an artifact of the right key is made anew all the same: in words, where its files are said to lie now."""
    retries: bool = False
    """Whether clips that failed can be tried again: `run` then finds the earlier artifact in `out.previous`."""
    seeds: bool = False
    """Whether one command can run it with several values of its parameter `seed`, an artifact each."""
    estimate: Callable[[Inputs, Any, Progress], Mapping[str, Any]] | None = None
    """What a dry run says of clips, bytes and time, from a measured sample."""
    shard_rows: int = 512
    """Clips in one shard: the unit of writing and of resuming."""
    example: str = ""
    """A command line for the help, or several, each below a line that says what it is for."""


def hint(came: str, known: Iterable[str]) -> str:
    """The end of a message: what is likely meant, or else what there is."""
    names = list(known)
    close = difflib.get_close_matches(came, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names) or 'none'}"


def make_params(stage: Stage, values: Mapping[str, Any]) -> Any:
    """The stage's parameters from plain values, checked. Strings are converted.

    Raises ParameterError naming the parameter, what was wanted and what came.
    """
    from pydantic import ValidationError

    known = [field.name for field in dataclasses.fields(stage.params)]
    for name in values:
        if name not in known:
            raise ParameterError(f"{stage.name} has no parameter {name!r}{hint(name, known)}")
    try:
        return _checker(stage.params).validate_python(dict(values))
    except ValidationError as error:
        problems = "; ".join(_problem(item) for item in error.errors())
        raise ParameterError(f"{stage.name}: {problems}") from None


@cache
def _checker(params: type) -> Any:
    """What checks values of these parameters; made once, since that takes milliseconds."""
    from pydantic import TypeAdapter

    return TypeAdapter(params)


def _problem(item: Any) -> str:
    if not item["loc"]:
        return str(item["msg"])
    said = item["msg"]
    if item["type"] == "string_pattern_mismatch":  # of COUNT or POSITIVE_COUNT
        said = f"wanted `auto` or a number{' above 0' if '[1-9]' in item['ctx']['pattern'] else ''}"
    return f"{item['loc'][0]} = {item['input']!r}: {said}"


def params_in_key(params: Any) -> dict[str, Any]:
    """The parameters that change results, as JSON-able values."""
    return {
        field.name: getattr(params, field.name)
        for field in dataclasses.fields(params)
        if field.metadata.get("in_key", True)
    }


def params_outside_key(params: Any) -> dict[str, Any]:
    """The parameters that change speed or say where files lie."""
    inside = params_in_key(params)
    return {name: value for name, value in dataclasses.asdict(params).items() if name not in inside}
