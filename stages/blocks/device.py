"""Where tensors live, and how exactly they are computed with."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor


def torch_device(name: str) -> torch.device:
    """`auto` (cuda where there is one), `cpu` or `cuda:N`. Raises ValueError where there is no such device.

    >>> torch_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name} was asked for, but torch finds no CUDA device; use --device cpu or auto")
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name!r} is not a device; use auto, cpu or cuda:N") from error
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name!r} was asked for, and nothing here was tried on it; use auto, cpu or cuda:N")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name} was asked for, but torch finds {torch.cuda.device_count()}, from cuda:0 on")
    return found if found.type == "cuda" else torch.device("cpu")


Precision = Literal["fp32", "bf16", "fp16"]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def fast_precision(device: str) -> Literal["fp32", "bf16"]:
    """`bf16` where the device has instructions for it, else `fp32`. device: as for `torch_device`."""
    where = torch_device(device)
    if where.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    able = torch.cpu.get_capabilities()
    return "bf16" if able.get("amx_bf16") or able.get("avx512_bf16") else "fp32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Inside, matrix products are computed in this precision; weights, sums and what is stored stay float32."""
    return torch.autocast(device.type, HALF.get(precision, torch.bfloat16), enabled=precision in HALF)


def tensor_on(device: torch.device | str, array: NDArray[Any]) -> Tensor:
    """A tensor of its own with the array's values.

    numpy aligns memory to 16 bytes, wherever the heap happens to stand; torch to 64. Matrix products may differ in
    the last bit with alignment, so that sharing numpy's memory would make results depend on the length of a path.
    """
    return torch.from_numpy(array).clone().to(device)


@contextmanager
def exact_convolutions(device: str) -> Iterator[None]:
    """cuDNN would round the inputs of float32 convolutions to 10 bits (TF32); here it may not."""
    cudnn = torch.backends.cudnn
    if not device.startswith("cuda"):
        yield
        return
    with cudnn.flags(enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=True, allow_tf32=False):
        yield
