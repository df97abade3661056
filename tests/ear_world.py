"""A small parser of EAR and clips for it."""

from typing import Any

import torch
from torch import Tensor, nn

from avvp_pipe.stages.parsers.ear import Ear, Network

SMALL: dict[str, Any] = {
    "classes": 3, "width": 8, "heads": 2, "ffn": 12, "layers": 1, "dropout": 0.0, "event_width": 4,
    "audio_width": 5, "visual_width": 6, "motion_width": 0, "event_heads": 2,
}  # fmt: skip
Streams = dict[str, Tensor]


def network(**switches: Any) -> Network:
    return Network(**(SMALL | switches))


def ear(**switches: Any) -> Ear:
    torch.manual_seed(0)
    return Ear(network(**switches))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def streams(clips: int = 3, seconds: int = 5) -> Streams:
    return {"audio": noise(clips, seconds, 5), "visual": noise(clips, seconds, 6, seed=1)}


def fill(module: nn.Module, **values: Any) -> None:
    """Parameters by name, the others 0."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.as_tensor(values.get(name.replace(".", "_"), 0.0)).expand_as(parameter))
