"""laion_clap's model classes, taken from the installed package at once, without network and without its side effects.

`import laion_clap` asks the hub for three tokenizers, prints, unpickles a table and puts its folder on `sys.path`.
None of that is needed for the model: its inner package `clap_module` is loaded from its place instead, under the
name that laion_clap itself imports it by, so that both may live in one process.
"""

import importlib.util
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from avvp_pipe.stages.blocks.undrawn import undrawn

__all__ = ["ROBERTA", "clap_module", "empty_clap"]

ROBERTA = {
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
"""What the hub's `roberta-base` changes of transformers' RobertaConfig."""
INNER = "clap_module"
_ONE_AT_A_TIME = threading.RLock()


def clap_module() -> ModuleType:
    """laion_clap's package of models. Raises ValueError where laion_clap is not installed."""
    with _ONE_AT_A_TIME:
        if INNER in sys.modules:
            return sys.modules[INNER]
        return _loaded(_spec())


def empty_clap(model: str, *, fused: bool) -> tuple[nn.Module, dict[str, Any]]:
    """laion_clap's CLAP of this configuration (`HTSAT-tiny` …) with a RoBERTa, and its `audio_cfg`.

    Nothing is drawn: weights hold whatever was in memory, torch's generator stays as it was, and the text branch is
    on the meta device. A strict `load_state_dict(..., assign=True)` must follow. (Drawn weights take 4 to 16 s.)
    """
    factory = _sub(clap_module(), "factory")
    config = deepcopy(factory._MODEL_CONFIGS[model])
    config["text_cfg"]["model_type"] = "roberta"
    config |= {"enable_fusion": fused, "fusion_type": "aff_2d" if fused else "None"}
    with _ONE_AT_A_TIME, _local_and_undrawn() as models:
        module: nn.Module = models.CLAP(**config)
    return module.eval(), dict(config["audio_cfg"])


def _spec() -> ModuleSpec:
    found = importlib.util.find_spec("laion_clap")
    if found is None or found.origin is None:
        raise ValueError("laion_clap is wanted for this teacher, and is not installed; pip install laion_clap==1.1.7")
    folder = Path(found.origin).parent / INNER
    inner = importlib.util.spec_from_file_location(
        INNER, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if inner is None or inner.loader is None:
        raise ValueError(f"laion_clap's models are wanted at {folder}, and are not there; install laion_clap==1.1.7")
    return inner


def _loaded(spec: ModuleSpec) -> ModuleType:
    module = importlib.util.module_from_spec(spec)
    sys.modules[INNER] = module
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Importing from timm", FutureWarning)
            spec.loader.exec_module(module)  # type: ignore[union-attr]  # checked where it was made
    except BaseException:
        for name in [one for one in sys.modules if one == INNER or one.startswith(f"{INNER}.")]:
            del sys.modules[name]
        raise
    return module


def _sub(package: ModuleType, name: str) -> Any:
    return sys.modules[f"{package.__name__}.{name}"]


@contextmanager
def _local_and_undrawn() -> Iterator[Any]:
    """`clap_module.model` whose RoBERTa comes from ROBERTA instead of the hub; it is put back."""
    from transformers import RobertaConfig, RobertaModel

    def from_pretrained(_: str) -> Any:
        with torch.device("meta"):
            return RobertaModel(RobertaConfig(**ROBERTA))

    models = _sub(clap_module(), "model")
    kept = models.RobertaModel
    models.RobertaModel = SimpleNamespace(from_pretrained=from_pretrained)
    try:
        with warnings.catch_warnings(), undrawn():
            warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming release", UserWarning)
            yield models
    finally:
        models.RobertaModel = kept
