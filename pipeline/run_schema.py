"""The JSON schema of a run's file, for editors: every stage with its inputs and parameters, what they mean, defaults.

What a schema cannot say (ids that differ, kinds that fit, an order that works) is checked when the file is read.
"""

from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.recipe import GIVEN, recipe_names
from avvp_pipe.stages.stage import Stage

__all__ = ["run_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ID = {"type": "string", "pattern": r"^[A-Za-z0-9-]+$", "description": "What later steps call this one."}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def run_schema() -> dict[str, Any]:
    """The schema, in JSON Schema draft 2020-12."""
    params = {name: _params(stage) for name, stage in STAGES.items()}
    return {
        "$schema": DIALECT,
        "title": "A run of avvp-pipe",
        "type": "object",
        "required": ["steps"],
        "additionalProperties": False,
        "properties": {
            "title": {"type": "string", "description": "For people."},
            "store": {"type": "string", "description": "Folder or URL of the artifacts."},
            "defaults": {
                "type": "object",
                "description": "Stage -> parameters of all its steps that do not say otherwise.",
                "additionalProperties": False,
                "properties": params,
            },
            "steps": {
                "type": "array",
                "minItems": 1,
                "items": {"anyOf": [*(_step(stage, params[name]) for name, stage in STAGES.items()), _recipe(params)]},
            },
        },
    }


def _step(stage: Stage, params: dict[str, Any]) -> dict[str, Any]:
    roles = {
        role: {"type": "string", "description": f"{reads.text} An earlier step's id, or {reads.kind}/NAME."}
        for role, reads in stage.reads.items()
    }
    needed = [role for role, reads in stage.reads.items() if reads.required]
    properties: dict[str, Any] = {
        "id": ID,
        "stage": {"const": stage.name, "description": stage.summary},
        "name": {"type": "string", "description": "What the artifact is called; made up from its inputs if left out."},
        "inputs": {"type": "object", "additionalProperties": False, "properties": roles, "required": needed},
        "params": params,
    }
    if stage.seeds:
        several = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
        properties["seeds"] = {"anyOf": [several, {"type": "string"}], "description": "The step once for each seed."}
    wanted = ["id", "stage", *(["inputs"] if needed else [])]
    return {"type": "object", "additionalProperties": False, "required": wanted, "properties": properties}


def _params(stage: Stage) -> dict[str, Any]:
    """Of one stage: type, meaning and default of each. Names may be written with dashes, too."""
    schema = TypeAdapter(stage.params).json_schema()
    found = {}
    for field in fields(stage.params):
        one = {**schema["properties"][field.name], "description": field.metadata["help"]}
        one.pop("title", None)
        found[field.name] = one
        if "_" in field.name:
            found[field.name.replace("_", "-")] = one
    inner = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    return {"type": "object", "additionalProperties": False, "properties": found, **inner}


def _recipe(params: dict[str, Any]) -> dict[str, Any]:
    given = {name.removeprefix("@"): {"type": "string", "description": f"{kind}/NAME or an earlier step's id."}
             for name, kind in GIVEN.items()}  # fmt: skip
    names = {"anyOf": [{"enum": list(recipe_names())}, {"type": "string", "pattern": r"\.(toml|ya?ml)$"}]}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["id", "recipe"],
        "properties": {
            "id": ID,
            "recipe": {**names, "description": "A recipe whose steps take this one's place."},
            "inputs": {"type": "object", "additionalProperties": False, "properties": given},
            "params": {"type": "object", "additionalProperties": False, "properties": params},
            "use": {**TEXTS, "description": "Step of the recipe -> what is taken instead."},
        },
    }
