"""Where tensors live."""

from typing import Any

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
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name!r} is not a device; use auto, cpu or cuda:N") from error


def tensor_on(device: torch.device | str, array: NDArray[Any]) -> Tensor:
    """A tensor of its own with the array's values.

    numpy aligns memory to 16 bytes, wherever the heap happens to stand; torch to 64. Matrix products may differ in
    the last bit with alignment, so that sharing numpy's memory would make results depend on the length of a path.
    """
    return torch.from_numpy(array).clone().to(device)
