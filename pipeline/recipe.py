"""Recipes: how labels or a parser of a published table row are made, as a file, with the numbers that were printed.

    pipeline/recipes/valor.toml -> Recipe: steps (stage, parameters, inputs) and published rows (split, metrics, source)

A recipe names no files and no artifacts: what it starts from is written `@dataset`, `@features`, `@parser-features`
(where a parser reads others than labels are made of), `@threshold-dataset` (where thresholds are fitted to the same
clips read otherwise: `--joint each`), `@pretrain-dataset` and `@pretrain-features`, and given when it is run;
`@apart-from`, a dataset whose videos are kept out of pre-training, may be given. A step's other inputs are the ids of
earlier steps. Everything in a file is checked when it is read: stages, parameters, roles, kinds, metrics.
Published numbers stand as published; what is wrong with them is said beside them (`doubt`) and never mended.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.tables import ENDINGS, hint, read_table, record, table_of
from avvp_pipe.stages.stage import ParameterError, Reads, make_params

__all__ = [
    "COLEAF_METRICS",
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

METRICS = ("A", "V", "AV", "Type", "Event")
"""What tables print at both levels."""
COLEAF_METRICS = ("Ao", "Vo", "Typeo", "Evento")
"""What CoLeaF's tables print besides: of what is heard alone and seen alone, which silence scores highly in."""
GIVEN: Mapping[str, str] = {
    "@dataset": "dataset",
    "@features": "features",
    "@parser-features": "features",
    "@threshold-dataset": "dataset",
    "@pretrain-dataset": "dataset",
    "@pretrain-features": "features",
    "@apart-from": "dataset",
}
"""What a recipe is given when it is run -> the kind of artifact."""
OPTIONAL = frozenset({"@apart-from"})
"""Those that need not be given; the inputs that name them are then left out."""
ENDING = ".toml"
"""Of those in the package."""


@dataclass(frozen=True, slots=True)
class Published:
    """One row of a published table."""

    labels: str
    """What the table calls it."""
    split: Literal["val", "test"]
    source: str
    """Paper and table, or how else the numbers came into being."""
    segment: dict[str, float] = field(default_factory=dict)
    """Metric -> F in percent, as printed; not all tables print all."""
    event: dict[str, float] = field(default_factory=dict)
    accuracy: float | None = None
    """Percent of all seconds, background being a class (AVE)."""
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
    """The recipe of that name in the package, or the one in a file whose name ends in .toml, .yaml or .yml.

    Raises ParameterError for a name that is none, and naming the file, the key and what was wanted.
    """
    if name.endswith(ENDINGS):
        path = Path(name)
        if not path.is_file():
            raise ParameterError(f"{path} is not a file; the package has the recipes {', '.join(recipe_names())}")
        return _parsed(read_table(path, what="recipe"), path.stem, str(path))
    if name not in recipe_names():
        raise ParameterError(f"no recipe {name!r}{hint(name, recipe_names())}")
    return _parsed(_shipped(name), name, name + ENDING)


def _shipped(name: str) -> dict[str, Any]:
    return table_of(files("avvp_pipe.pipeline").joinpath("recipes", name + ENDING).read_bytes(), ENDING, name + ENDING)


def _parsed(table: dict[str, Any], name: str, where: str) -> Recipe:
    steps = tuple(record(RecipeStep, one, f"{where}, steps") for one in _tables(table, "steps", where))
    rows = tuple(record(Published, one, f"{where}, published") for one in _tables(table, "published", where))
    if "name" in table:
        raise ParameterError(f"{where} has a key `name`; a recipe is called what its file is called")
    recipe = record(Recipe, {**table, "name": name, "steps": steps, "published": rows}, where)
    _check_steps(recipe.steps, where)
    for row in recipe.published:
        _check_row(row, where)
    theirs = (row for other in recipe.compare_with for row in _rows_of(other, where))
    return replace(recipe, published=(*recipe.published, *theirs))


def _rows_of(name: str, where: str) -> tuple[Published, ...]:
    """The rows that a recipe of the package has itself."""
    if name not in recipe_names():
        raise ParameterError(f"{where}, compare_with: no recipe {name!r}{hint(name, recipe_names())}")
    return tuple(record(Published, one, name + ENDING) for one in _shipped(name).get("published", []))


def _tables(table: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ParameterError(f"{where}: `{key}` should be tables, each begun by [[{key}]]")
    return found


def _check_steps(steps: tuple[RecipeStep, ...], where: str) -> None:
    kinds = dict(GIVEN)
    if not steps:
        raise ParameterError(f"{where} has no steps; each begins with [[steps]]")
    for step in steps:
        place = f"{where}, step {step.id!r}"
        if step.id in kinds or not step.id.replace("-", "").isalnum():
            raise ParameterError(f"{place}: ids are letters, digits and dashes, and differ")
        if step.stage not in STAGES:
            raise ParameterError(f"{place}: no stage {step.stage!r}{hint(step.stage, list(STAGES))}")
        stage = STAGES[step.stage]
        try:
            make_params(stage, step.params)
        except ParameterError as error:
            raise ParameterError(f"{place}: {error}") from None
        for role, came in step.inputs.items():
            if role not in stage.reads:
                raise ParameterError(f"{place}: {stage.name} reads no {role!r}{hint(role, list(stage.reads))}")
            _check_input(stage.reads[role], came, kinds, f"{place}, {role}")
        lacking = [role for role, reads in stage.reads.items() if reads.required and role not in step.inputs]
        if lacking:
            raise ParameterError(f"{place}: {stage.name} needs the input {lacking[0]}")
        kinds[step.id] = stage.kind


def _check_input(reads: Reads, came: str, kinds: Mapping[str, str], place: str) -> None:
    if came not in kinds:
        raise ParameterError(f"{place}: {came!r} is no earlier step and not given{hint(came, list(kinds))}")
    if came in OPTIONAL and reads.required:
        raise ParameterError(f"{place}: {came!r} need not be given, but this input is always needed")
    if kinds[came] not in reads.kinds:
        raise ParameterError(f"{place}: {came!r} is of kind {kinds[came]}; wanted {' or '.join(reads.kinds)}")


def _check_row(row: Published, where: str) -> None:
    known = METRICS + COLEAF_METRICS
    levels = ("segment", "event")
    told: dict[tuple[str, ...], float] = {
        (level, metric): value for level in levels for metric, value in getattr(row, level).items()
    }
    for _, metric in told:
        if metric not in known:
            raise ParameterError(f"{where}, published: no metric {metric!r}{hint(metric, known)}")
    accuracy: dict[tuple[str, ...], float] = {} if row.accuracy is None else {("accuracy",): row.accuracy}
    for name, value in {**told, **accuracy}.items():
        if not 0 <= value <= 100:
            raise ParameterError(f"{where}, published: {' '.join(name)} = {value}; wanted percent, 0 to 100")
    if not told and not accuracy:
        raise ParameterError(f"{where}, published: {row.labels!r} has no number; wanted segment, event or accuracy")


def type_error(scores: Mapping[str, float]) -> float | None:
    """By how much a printed Type misses the mean of the printed A, V and AV; None where it cannot be told.

    Tables print one decimal, so that up to 0.1 is rounding.

    >>> round(type_error({"A": 57.3, "V": 64.3, "AV": 54.3, "Type": 59.9}), 2)  # PPL, event level, as printed
    1.27
    """
    parts = [scores[metric] for metric in ("A", "V", "AV") if metric in scores]
    return scores["Type"] - sum(parts) / 3 if len(parts) == 3 and "Type" in scores else None
