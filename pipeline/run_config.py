"""A whole run as one file: which steps, on what, with which parameters, into which store.

    run.yaml -> RunConfig -> (pipeline/run_steps.py) -> steps, as the single commands take them

A step names a stage, or a recipe of the package whose steps take its place. Its inputs are ids of earlier steps, or
kind/name of what the store has. What it makes is called as its command would call it, unless it has a `name`. The
format is the one of recipes (`pipeline/recipe.py`), in YAML or TOML, with places filled in instead of left open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.recipe import read_recipe
from avvp_pipe.pipeline.seeds import seeds_of
from avvp_pipe.pipeline.tables import hint, read_table, record, table_of
from avvp_pipe.stages.stage import ParameterError

__all__ = ["RunConfig", "RunStep", "overridden", "read_config", "settled_document"]

MADE_FOR = "a run: keys `steps`, `store`, `defaults`, `title`; `avvp-pipe config init` writes one to start from"
OF_RECIPES = {"paper", "published", "compare_with", "clips", "dataset"}
"""Keys that a recipe has and a run has not."""


@dataclass(frozen=True, slots=True)
class RunStep:
    """One step of a run: a stage, or a recipe in its place."""

    id: str
    """Letters, digits and dashes; what later steps call it."""
    stage: str = ""
    recipe: str = ""
    """A recipe of the package or a file: its steps are known to later ones as ID.STEP."""
    name: str = ""
    """What the artifact is called; left out: as the stage's command would call it."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Role -> id of an earlier step, or kind/name. Of a recipe: what it is given, such as `dataset`."""
    params: dict[str, Any] = field(default_factory=dict)
    """Parameter -> value. Of a recipe: stage -> parameter -> value."""
    use: dict[str, str] = field(default_factory=dict)
    """Of a recipe: step -> what is taken instead of it."""
    seeds: tuple[int, ...] = ()
    """The step once for each, called NAME-seedN, and so what reads it."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A run as a file says it."""

    steps: tuple[RunStep, ...]
    title: str = ""
    store: str = ""
    """Folder or URL of the artifacts; left out: `--store`, else `artifacts`."""
    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage -> parameter -> value, for every step of the stage that does not say otherwise."""


def read_config(path: str, settings: Sequence[str] = ()) -> RunConfig:
    """The run in a file, changed by `settings` (see `overridden`).

    Raises ParameterError naming the file, the key, what was wanted and what is likely meant.
    """
    where = str(path)
    return _config(overridden(read_table(Path(path), what="run"), settings), where)


def config_of(text: str, settings: Sequence[str] = ()) -> RunConfig:
    """The same from the text of a YAML file."""
    return _config(overridden(table_of(text.encode(), ".yaml", "run"), settings), "run")


def _config(table: Mapping[str, Any], where: str) -> RunConfig:
    if foreign := OF_RECIPES & set(table):
        raise ParameterError(
            f"{where} has the key {min(foreign)!r} of a recipe; `avvp-pipe recipes run {where}` makes it, or a run "
            "names it in a step: `recipe: FILE`"
        )
    if "steps" not in table:
        missing = f"{where} has no `steps`; wanted {MADE_FOR}"
        raise ParameterError(missing if not table else f"{where}: unknown key {min(table)!r}; wanted {MADE_FOR}")
    steps = tuple(_step(one, f"{where}, step {place}") for place, one in enumerate(_list(table, where), start=1))
    config = record(RunConfig, {**table, "steps": steps}, where)
    for stage in config.defaults:
        if stage not in STAGES:
            raise ParameterError(f"{where}, defaults: no stage {stage!r}{hint(stage, STAGES)}")
    return replace(config, defaults={stage: _dashless(values) for stage, values in config.defaults.items()})


def _list(table: Mapping[str, Any], where: str) -> list[Any]:
    found = table["steps"]
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        raise ParameterError(f"{where}: `steps` should be a list, each with `- id:` and `stage:` or `recipe:`")
    return found


def _step(table: Mapping[str, Any], where: str) -> RunStep:
    place = f"{where} ({table['id']})" if isinstance(table.get("id"), str) else where
    given = {**table}
    if isinstance(given.get("seeds"), str):
        given["seeds"] = seeds_of(given["seeds"])
    for name in ("inputs", "params", "use"):
        if given.get(name, "") is None:  # `params:` with nothing below it
            del given[name]
    step = record(RunStep, given, place)
    if bool(step.stage) == bool(step.recipe):
        raise ParameterError(f"{place}: wanted either `stage:` or `recipe:`; stages are {', '.join(STAGES)}")
    if step.stage and step.stage not in STAGES:
        raise ParameterError(f"{place}: no stage {step.stage!r}{hint(step.stage, STAGES)}")
    if not step.id.replace("-", "").isalnum():
        raise ParameterError(f"{place}: the id {step.id!r} should be letters, digits and dashes")
    if (step.use and step.stage) or (step.recipe and (step.name or step.seeds)):
        raise ParameterError(f"{place}: `use` is for a recipe, `name` and `seeds` are for a stage")
    if step.seeds and not STAGES[step.stage].seeds:
        able = [stage.name for stage in STAGES.values() if stage.seeds]
        raise ParameterError(f"{place}: {step.stage} has no seeds; they are for {', '.join(able)}")
    if len(set(step.seeds)) < len(step.seeds):
        raise ParameterError(f"{place}: seeds should differ, but are {', '.join(map(str, step.seeds))}")
    return step if step.recipe else replace(step, params=_dashless(step.params))


def _dashless(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in params.items()}


def overridden(table: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The table with `settings` over it, each PLACE=VALUE:

    store=DIR                   a key of the file
    STAGE.PARAMETER=VALUE       a parameter of every step of that stage, over what the steps say
    ID.PARAMETER=VALUE          a parameter of one step
    steps.ID.KEY[.NAME]=VALUE   anything of one step: steps.parser.seeds=1,2,3

    Values stay text, which parameters turn into what they are; `null` is nothing.
    Raises ParameterError for what has another form, or names a step or stage that the file has not.

    >>> overridden({"steps": [{"id": "a", "stage": "calibrate"}]}, ["calibrate.mode=per-class"])["steps"]
    [{'id': 'a', 'stage': 'calibrate', 'params': {'mode': 'per-class'}}]
    """
    if not settings:
        return dict(table)
    steps = table.get("steps")
    if not isinstance(steps, list) or not all(isinstance(one, dict) for one in steps):
        return dict(table)  # what is wrong with it is told when it is read
    found = {**table, "steps": [dict(one) for one in steps]}
    for setting in settings:
        left, equals, text = setting.partition("=")
        path = left.split(".")
        if not equals or not all(path):
            raise ParameterError(f"--set {setting!r} is not PLACE=VALUE, such as --set calibrate.mode=class-agnostic")
        _put(found, path, None if text == "null" else text, setting)
    return found


def _put(table: dict[str, Any], path: list[str], value: Any, setting: str) -> None:
    steps: list[dict[str, Any]] = table["steps"]
    ids = [str(one.get("id")) for one in steps]
    if len(path) == 1 and path[0] != "steps":
        table[path[0]] = value
    elif path[0] == "steps" and len(path) in (3, 4):
        if path[1] not in ids:
            raise ParameterError(f"--set {setting}: there is no step {path[1]!r}{hint(path[1], ids)}")
        _into(steps[ids.index(path[1])], path[2:], value, setting)
    elif len(path) == 2 and path[0] in STAGES:
        reached = [one for one in steps if one.get("stage") == path[0]]
        for one in reached:
            _into(one, ["params", path[1]], value, setting)
        recipes = [one for one in steps if one.get("recipe") and path[0] in _stages(str(one["recipe"]))]
        for one in recipes:
            _into(one, ["params", path[0]], {**_table_in(one, "params").get(path[0], {}), path[1]: value}, setting)
        if not reached and not recipes:
            raise ParameterError(f"--set {setting} changes nothing: no step runs {path[0]}")
    elif len(path) == 2 and path[0] in ids:
        _into(steps[ids.index(path[0])], ["params", path[1]], value, setting)
    else:
        raise ParameterError(f"--set {setting}: no stage and no step {path[0]!r}{hint(path[0], [*ids, *STAGES])}")


def _stages(recipe: str) -> set[str]:
    return {step.stage for step in read_recipe(recipe).steps}


def _into(step: dict[str, Any], path: list[str], value: Any, setting: str) -> None:
    """Put a value at KEY or KEY.NAME of one step."""
    if len(path) == 1:
        step[path[0]] = value
        return
    inner = _table_in(step, path[0])
    name = path[1].replace("-", "_") if path[0] == "params" and not step.get("recipe") else path[1]
    same = [one for one in inner if one.replace("-", "_") == name.replace("-", "_")]
    step[path[0]] = {**{one: kept for one, kept in inner.items() if one not in same}, name: value}


def _table_in(step: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = step.get(key) or {}
    if not isinstance(found, dict):
        raise ParameterError(f"step {step.get('id')!r}: `{key}` should hold keys with values")
    return found


def settled_document(config: RunConfig) -> dict[str, Any]:
    """A run as plain values for a file, without what is empty."""
    document: dict[str, Any] = {"title": config.title, "store": config.store, "defaults": config.defaults}
    steps = []
    for one in config.steps:
        values = {name: getattr(one, name) for name in RunStep.__slots__}
        steps.append({name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v or name == "id"})
    return {**{name: value for name, value in document.items() if value}, "steps": steps}
