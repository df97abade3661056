"""Recipes: how labels or a parser of a published table row are made, as a file, with the numbers that were printed.

    pipeline/recipes/valor.toml -> Recipe: steps (stage, parameters, inputs) and published rows (split, metrics, source)

A recipe names no files and no artifacts: what it starts from is written `@dataset`, `@features`, `@parser-features`
(where a parser reads others than labels are made of), `@pretrain-dataset` and `@pretrain-features`, and given when it
is run; `@apart-from`, a dataset whose videos are kept out of pre-training, may be given. A step's other inputs are the
ids of earlier steps. Everything in a file is checked when it is read: stages, parameters, roles, kinds, metrics.
Published numbers stand as published; what is wrong with them is said beside them (`doubt`) and never mended.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.stages.stage import ParameterError, Reads, make_params

__all__ = [
    "GIVEN",
    "METRICS",
    "OPTIONAL",
    "Published",
    "Recipe",
    "RecipeStep",
    "read_recipe",
    "recipe_names",
    "type_error",
]

Record = TypeVar("Record")
METRICS = ("A", "V", "AV", "Type", "Event")
"""What tables print at both levels."""
GIVEN: Mapping[str, str] = {
    "@dataset": "dataset",
    "@features": "features",
    "@parser-features": "features",
    "@pretrain-dataset": "dataset",
    "@pretrain-features": "features",
    "@apart-from": "dataset",
}
"""What a recipe is given when it is run -> the kind of artifact."""
OPTIONAL = frozenset({"@apart-from"})
"""Those that need not be given; the inputs that name them are then left out."""
ENDING = ".toml"
FILE_LIMIT_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Published:
    """One row of a published table."""

    labels: str
    """What the table calls it."""
    split: Literal["val", "test"]
    source: str
    """Paper and table, or how else the numbers came into being."""
    segment: dict[str, float]
    """Metric -> F in percent, as printed; not all tables print all."""
    event: dict[str, float] = field(default_factory=dict)
    pooling: Literal["official", "micro", "class-macro"] = "official"
    dense: Literal["separate", "joint"] = "separate"
    """Of what the clips' seconds say: each modality, or only what is heard and seen at once (UnAV-100)."""
    doubt: str = ""
    """What speaks against the row, or against comparing with it; empty: nothing known."""


@dataclass(frozen=True, slots=True)
class RecipeStep:
    """One stage to run."""

    id: str
    stage: str
    inputs: dict[str, str]
    """Role -> something of GIVEN, or the id of an earlier step."""
    params: dict[str, Any] = field(default_factory=dict)
    """Those that differ from the stage's defaults, or are worth a reader's notice."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make the labels, or the parser, of one published row."""

    name: str
    title: str
    paper: str
    steps: tuple[RecipeStep, ...]
    dataset: str = ""
    """What the published numbers are for."""
    clips: dict[str, int] = field(default_factory=dict)
    """Split -> how many clips the published numbers are of; what is measured on others cannot be compared."""
    notes: tuple[str, ...] = ()
    compare_with: tuple[str, ...] = ()
    """Recipes of the package whose published rows this one is held against too."""
    published: tuple[Published, ...] = ()

    @property
    def given(self) -> tuple[str, ...]:
        """What it starts from, out of GIVEN."""
        used = {reference for step in self.steps for reference in step.inputs.values()}
        return tuple(name for name in GIVEN if name in used)


def recipe_names() -> tuple[str, ...]:
    """The recipes in the package."""
    folder = files("avvp_pipe.pipeline").joinpath("recipes")
    return tuple(sorted(one.name.removesuffix(ENDING) for one in folder.iterdir() if one.name.endswith(ENDING)))


def read_recipe(name: str) -> Recipe:
    """The recipe of that name in the package, or the one in a file whose name ends in .toml.

    Raises ParameterError for a name that is none, and naming the file, the key and what was wanted.
    """
    if name.endswith(ENDING):
        path = Path(name)
        if not path.is_file():
            raise ParameterError(f"{path} is not a file; the package has the recipes {', '.join(recipe_names())}")
        if path.stat().st_size > FILE_LIMIT_BYTES:
            raise ParameterError(f"{path} has {path.stat().st_size} bytes; a recipe of over {FILE_LIMIT_BYTES} is none")
        return _parsed(path.read_bytes(), path.stem, str(path))
    if name not in recipe_names():
        raise ParameterError(f"no recipe {name!r}{_hint(name, recipe_names())}")
    data = files("avvp_pipe.pipeline").joinpath("recipes", name + ENDING).read_bytes()
    return _parsed(data, name, name + ENDING)


def _parsed(data: bytes, name: str, where: str) -> Recipe:
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except ValueError as error:
        raise ParameterError(f"{where} is not TOML ({error})") from None
    steps = tuple(_record(RecipeStep, one, f"{where}, steps") for one in _tables(table, "steps", where))
    rows = tuple(_record(Published, one, f"{where}, published") for one in _tables(table, "published", where))
    if "name" in table:
        raise ParameterError(f"{where} has a key `name`; a recipe is called what its file is called")
    recipe = _record(Recipe, {**table, "name": name, "steps": steps, "published": rows}, where)
    _check_steps(recipe.steps, where)
    for row in recipe.published:
        _check_row(row, where)
    theirs = (row for other in recipe.compare_with for row in _rows_of(other, where))
    return replace(recipe, published=(*recipe.published, *theirs))


def _rows_of(name: str, where: str) -> tuple[Published, ...]:
    """The rows that a recipe of the package has itself."""
    if name not in recipe_names():
        raise ParameterError(f"{where}, compare_with: no recipe {name!r}{_hint(name, recipe_names())}")
    table = tomllib.loads(files("avvp_pipe.pipeline").joinpath("recipes", name + ENDING).read_text("utf-8"))
    return tuple(_record(Published, one, name + ENDING) for one in table.get("published", []))


def _tables(table: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ParameterError(f"{where}: `{key}` should be tables, each begun by [[{key}]]")
    return found


def _record(kind: type[Record], table: Mapping[str, Any], where: str) -> Record:
    """A record from plain values. Raises ParameterError for unknown keys and for values of other types."""
    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise ParameterError(f"{where}: unknown key {key!r}{_hint(key, known)}")
    try:
        return TypeAdapter(kind).validate_python(dict(table))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'record'}: {one['msg']}" for one in error.errors())
        raise ParameterError(f"{where}: {problems}") from None


def _check_steps(steps: tuple[RecipeStep, ...], where: str) -> None:
    kinds = dict(GIVEN)
    if not steps:
        raise ParameterError(f"{where} has no steps; each begins with [[steps]]")
    for step in steps:
        place = f"{where}, step {step.id!r}"
        if step.id in kinds or not step.id.replace("-", "").isalnum():
            raise ParameterError(f"{place}: ids are letters, digits and dashes, and differ")
        if step.stage not in STAGES:
            raise ParameterError(f"{place}: no stage {step.stage!r}{_hint(step.stage, list(STAGES))}")
        stage = STAGES[step.stage]
        try:
            make_params(stage, step.params)
        except ParameterError as error:
            raise ParameterError(f"{place}: {error}") from None
        for role, came in step.inputs.items():
            if role not in stage.reads:
                raise ParameterError(f"{place}: {stage.name} reads no {role!r}{_hint(role, list(stage.reads))}")
            _check_input(stage.reads[role], came, kinds, f"{place}, {role}")
        lacking = [role for role, reads in stage.reads.items() if reads.required and role not in step.inputs]
        if lacking:
            raise ParameterError(f"{place}: {stage.name} needs the input {lacking[0]}")
        kinds[step.id] = stage.kind


def _check_input(reads: Reads, came: str, kinds: Mapping[str, str], place: str) -> None:
    if came not in kinds:
        raise ParameterError(f"{place}: {came!r} is no earlier step and not given{_hint(came, list(kinds))}")
    if came in OPTIONAL and reads.required:
        raise ParameterError(f"{place}: {came!r} need not be given, but this input is always needed")
    if kinds[came] not in reads.kinds:
        raise ParameterError(f"{place}: {came!r} is of kind {kinds[came]}; wanted {' or '.join(reads.kinds)}")


def _check_row(row: Published, where: str) -> None:
    for level in ("segment", "event"):
        for metric, value in getattr(row, level).items():
            if metric not in METRICS:
                raise ParameterError(f"{where}, published: no metric {metric!r}{_hint(metric, METRICS)}")
            if not 0 <= value <= 100:
                raise ParameterError(f"{where}, published: {level} {metric} = {value}; wanted percent, 0 to 100")


def type_error(scores: Mapping[str, float]) -> float | None:
    """By how much a printed Type misses the mean of the printed A, V and AV; None where it cannot be told.

    Tables print one decimal, so that up to 0.1 is rounding.

    >>> round(type_error({"A": 57.3, "V": 64.3, "AV": 54.3, "Type": 59.9}), 2)  # PPL, event level, as printed
    1.27
    """
    parts = [scores[metric] for metric in ("A", "V", "AV") if metric in scores]
    return scores["Type"] - sum(parts) / 3 if len(parts) == 3 and "Type" in scores else None


def _hint(came: str, known: Any) -> str:
    close = difflib.get_close_matches(came, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
