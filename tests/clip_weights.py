"""Random weights for open_clip's architectures, made quickly, and folders that open_clip takes as `local-dir:`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

POOL = 1 << 20
SMALL: dict[str, Any] = {
    "embed_dim": 48,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 3, "width": 64, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
"""A ViT in small, with open_clip's own tokenizer."""


def random_state(model: nn.Module, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Weights under the model's names: matrices keep the size of what passes them, norms are near one."""
    pool = torch.randn(POOL, generator=torch.Generator().manual_seed(seed))
    found = {}
    for place, (name, tensor) in enumerate(model.state_dict().items()):
        if not tensor.is_floating_point():
            found[name] = torch.zeros_like(tensor)
            continue
        shifted = pool.roll(7919 * place)
        drawn = shifted.repeat(-(-tensor.numel() // POOL))[: tensor.numel()].view(tensor.shape)
        if name == "logit_scale":
            values = torch.full_like(tensor, 4.6)
        elif tensor.ndim < 2:
            values = 0.1 * drawn + (1.0 if name.endswith(("weight", "running_var", "gamma")) else 0.0)
            values = values.abs() if name.endswith("running_var") else values
        else:
            values = drawn * tensor[0].numel() ** -0.5
        found[name] = values.to(dtype).contiguous()
    return found


def local_folder(
    folder: Path,
    config: Mapping[str, Any] = SMALL,
    *,
    preprocess: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """`open_clip_config.json` and random weights."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    document = {"model_cfg": config, "preprocess_cfg": dict(preprocess or {})}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    custom = config.get("custom_text") or "hf_model_name" in config["text_cfg"]
    parts = {name: part for name, part in config.items() if name != "custom_text"}
    model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**parts)
    save_file(random_state(model, seed=seed), folder / "open_clip_model.safetensors")
    return folder


def cached_file(cache: Path, repo: str, name: str, content: bytes) -> Path:
    """Lay a file into a Hugging Face cache as the library does."""
    place = cache / f"models--{repo.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    path = place / "snapshots" / commit / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / "main").write_text(commit)
    path.write_bytes(content)
    return path
