"""Names for artifacts that nobody named."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avvp_pipe.stages.stage import Stage
from avvp_pipe.store import parse_reference


def default_name(stage: Stage, params: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The name of the first input, with the method where the stage has one; a dataset is named for its source.

    What is imported is called so, lest it takes the name of what the project's own stages make.

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
    method = f"imported-{params['layout']}" if "layout" in params else params.get("method")
    return base if method is None or base.endswith(f"-{method}") else f"{base}-{method}"
