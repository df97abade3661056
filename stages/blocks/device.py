"""Where tensors live."""

import torch


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
