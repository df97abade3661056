"""In which precision a stage computes, settled from what was asked for. No torch at import."""

from typing import Literal, TypeVar

__all__ = ["settled_precision"]

Asked = TypeVar("Asked", bound=str)


def settled_precision(asked: Asked, device: str) -> Asked | Literal["fp32", "bf16"]:
    """What `asked` comes to on a device: itself, or for `auto` bf16 where the device has instructions for it.

    device: as for `torch_device`. Raises ValueError for fp16 where there is no CUDA: processors compute it slowly, and
    gradients lose what is small.

    >>> settled_precision("bf16", "cpu")
    'bf16'
    """
    if asked == "auto":
        from avvp_pipe.stages.blocks.device import fast_precision

        return fast_precision(device)
    if asked == "fp16":
        from avvp_pipe.stages.blocks.device import torch_device

        if (where := torch_device(device)).type != "cuda":
            raise ValueError(
                f"--precision fp16 is for CUDA, and --device {device} is {where.type}; use --precision auto, which is "
                "bf16 where this machine has instructions for it, or fp32"
            )
    return asked
