"""Names for artifacts that nobody named, and for the parts of one."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avvp_pipe.stages.clips.parts import Part, part_of
from avvp_pipe.stages.stage import Stage
from avvp_pipe.store import parse_reference


def default_name(stage: Stage, params: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The name of the first input, with the method where the stage has one; a dataset is named for its source.

    What is imported or simulated is called so, lest it takes the name of what the project's own stages make.

    >>> from avvp_pipe.pipeline.catalogue import STAGES
    >>> default_name(STAGES["pseudolabel"], {"method": "uwav"}, {"dataset": "dataset/llp"})
    'llp-uwav'
    >>> default_name(STAGES["import-labels"], {"layout": "uwav"}, {"dataset": "dataset/llp"})
    'llp-imported-uwav'
    """
    if inputs:
        first = next(inputs[role] for role in stage.reads if role in inputs)
        base = parse_reference(first, kind=None if "/" in first else stage.reads[next(iter(inputs))].kinds[0]).name
    else:
        base = Path(str(params.get("source", stage.name))).stem.lower() or stage.name
    method = params.get("method")
    if stage.name == "simulate":
        method = "simulated"
    elif "layout" in params:
        method = f"imported-{params['layout']}"
    return base if method is None or base.endswith(f"-{method}") else f"{base}-{method}"


def step_name(stage: Stage, given: str | None, params: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """What a step's artifact is called: as given, or by `default_name`; a part has its place in its name.

    Raises ValueError for a --shard that is none.

    >>> from avvp_pipe.pipeline.catalogue import STAGES
    >>> step_name(STAGES["extract"], None, {"shard": "2/4"}, {"dataset": "dataset/llp"})
    'llp.2-of-4'
    """
    return part_name(given or default_name(stage, params, inputs), str(params.get("shard") or ""))


def part_name(name: str, shard: str) -> str:
    """The name of the part `shard` of what is called `name`, which may have it already.

    >>> part_name("llp", "2/4"), part_name("llp.2-of-4", "2/4"), part_name("llp", "")
    ('llp.2-of-4', 'llp.2-of-4', 'llp')
    """
    part = part_of(shard)
    suffix = f".{part.index}-of-{part.count}" if shard else ""
    return name if name.endswith(suffix) else name + suffix


def part_called(name: str, *, whole: str) -> Part | None:
    """Which part of `whole` something called `name` is, if it is one.

    >>> part_called("llp.2-of-4", whole="llp"), part_called("llp-uwav", whole="llp")
    (Part(index=2, count=4), None)
    """
    found = re.fullmatch(r"([1-9]\d{0,5})-of-([1-9]\d{0,5})", name.removeprefix(f"{whole}."))
    if not found or not name.startswith(f"{whole}.") or int(found[1]) > int(found[2]):
        return None
    return Part(int(found[1]), int(found[2]))
