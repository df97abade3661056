"""What open_clip knows of its models: their names, configurations and the tags of their weights. Imports no torch."""

import __future__

import ast
import copy
import json
import re
import runpy
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MAX_CONFIG_BYTES = 1_000_000
MAX_SIDE = 4096
"""Pixels of a frame's side in a configuration that is not open_clip's own."""
TOKENIZER_OPTIONS = frozenset({"clean", "language", "strip_sep_token"})
"""What such a configuration may ask of a tokenizer. Through others transformers runs code of the folder."""


@cache
def names() -> tuple[str, ...]:
    """The models open_clip has a configuration of."""
    return tuple(sorted(path.stem for path in (package() / "model_configs").glob("*.json") if _whole(read_json(path))))


@cache
def tags() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Model -> tag -> what open_clip knows of these weights: `hf_hub`, `mean`, `std`, `quick_gelu`.

    open_clip keeps them in code, in a file that imports torch. Only the file's assignments and loops are run.
    """
    path = package() / "pretrained.py"
    tree = ast.parse(path.read_text())
    kept = (ast.Assign, ast.For, ast.Expr, ast.FunctionDef)
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    # Annotations stay unevaluated: what they name is not imported.
    code = compile(tree, str(path), "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
    space: dict[str, Any] = {"copy": copy, **runpy.run_path(str(package() / "constants.py"))}
    exec(code, space)
    return dict(space["_PRETRAINED"])


def clean_tag(tag: str) -> str:
    """A tag as open_clip spells it.

    >>> clean_tag("LAION2B-s32b_b82k")
    'laion2b_s32b_b82k'
    """
    return tag.lower().replace("-", "_")


def packaged(name: str) -> dict[str, Any]:
    """open_clip's own configuration of one of `names()`."""
    return read_json(package() / "model_configs" / f"{name}.json")


def is_quick(config: Mapping[str, Any]) -> bool:
    """Whether a configuration computes QuickGELU, x * sigmoid(1.702 x), in place of GELU.

    >>> is_quick({"embed_dim": 1})
    False
    """
    return bool(config.get("quick_gelu", False))


def other_gelu(name: str) -> str:
    """What the same model with the other GELU is called; "" where there is none.

    >>> other_gelu("ViT-L-14"), other_gelu("ViT-L-14-quickgelu"), other_gelu("ViT-B-16-SigLIP")
    ('ViT-L-14-quickgelu', 'ViT-L-14', '')
    """
    other = f"{name}-quickgelu" if name == name.removesuffix("-quickgelu") else name.removesuffix("-quickgelu")
    return other if other in names() and is_quick(packaged(other)) != is_quick(packaged(name)) else ""


def package() -> Path:
    """The folder open_clip is installed in. Raises ValueError without it."""
    found = find_spec("open_clip")
    if found is None or found.origin is None:
        raise ValueError("open_clip is not installed; install it with: pip install open_clip_torch")
    return Path(found.origin).parent


def read_json(path: Path) -> dict[str, Any]:
    """JSON of an object. Raises ValueError naming the file."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"larger than {MAX_CONFIG_BYTES} bytes")
        document = json.loads(path.read_text())
        if not isinstance(document, dict):
            raise ValueError(f"an object was wanted, {type(document).__name__} came")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as a configuration of open_clip: {error}") from error
    return document


def _whole(config: Mapping[str, Any]) -> bool:
    return all(part in config for part in ("embed_dim", "vision_cfg", "text_cfg"))


def checked_config(config: Any, path: Path) -> dict[str, Any]:
    """A stranger's model configuration: it holds what is read of it, and asks for nothing beyond its folder.

    Raises ValueError naming the file.
    """
    sound = isinstance(config, dict) and _whole(config) and isinstance(config["embed_dim"], int)
    sound = sound and all(isinstance(config[part], dict) for part in ("vision_cfg", "text_cfg"))
    side = config["vision_cfg"].get("image_size", 224) if sound else None
    if not isinstance(side, int) or not 0 < side <= MAX_SIDE:
        raise ValueError(
            f"{path}: model_cfg must hold embed_dim, vision_cfg and text_cfg, with one image_size up to {MAX_SIDE}"
        )
    options = config["text_cfg"].get("tokenizer_kwargs", {})
    if not isinstance(options, dict) or not options.keys() <= TOKENIZER_OPTIONS:
        raise ValueError(f"{path}: tokenizer_kwargs may hold {', '.join(sorted(TOKENIZER_OPTIONS))}, came {options!r}")
    if not re.fullmatch(r"[\w.-]+", str(timm := config["vision_cfg"].get("timm_model_name", "none"))):
        raise ValueError(f"{path}: timm_model_name must be a model of timm's own, came {timm!r}; nothing is fetched")
    return dict(config)
