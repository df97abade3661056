"""Weights of a network as plain arrays, for storing, and under the names of released checkpoints.

A trained thing is stored as one array per parameter; nothing is ever unpickled.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["checked", "load_arrays", "renamed", "rounded", "state_arrays"]

Value = TypeVar("Value")
M = TypeVar("M", bound=nn.Module)


def state_arrays(module: nn.Module) -> dict[str, NDArray[Any]]:
    """Copy every parameter and buffer of the module: name -> array, on the CPU, in the module's precision."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def load_arrays(module: nn.Module, arrays: Mapping[str, NDArray[Any] | Tensor]) -> None:
    """Fill the module with arrays under its own names, all or nothing. Raises ValueError as `checked` does."""
    module.load_state_dict(checked(module.state_dict(), arrays))


def checked(wanted: Mapping[str, Tensor], arrays: Mapping[str, NDArray[Any] | Tensor]) -> dict[str, Tensor]:
    """The arrays as tensors, held against a network's own state, which may be on the meta device.

    Raises ValueError naming what is missing, unexpected, of another shape, whole where it should have fractions (or
    the other way round), or not finite.
    """
    _same_names(wanted, arrays)
    found = {name: _tensor(value) for name, value in arrays.items()}
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"weight {name!r} has shape {tuple(tensor.shape)}, but this network wants "
                f"{tuple(wanted[name].shape)}; build it with the sizes the weights were made with"
            )
        if tensor.is_floating_point() != wanted[name].is_floating_point():
            raise ValueError(f"weight {name!r} is of {tensor.dtype}, but this network wants {wanted[name].dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"weight {name!r} holds values that are not finite; the file is damaged")
    return found


def rounded(module: M, dtype: torch.dtype) -> M:
    """A copy whose matrices are rounded once, as autocast would round them anew in every call; same outputs there."""
    lower = {
        id(weight): nn.Parameter(weight.detach().to(dtype), weight.requires_grad)
        for part in module.modules()
        if not isinstance(part, nn.LayerNorm)
        for weight in part.parameters(recurse=False)
    }
    return copy.deepcopy(module, lower)  # which takes these as copied already


def renamed(state: Mapping[str, Value], prefixes: Mapping[str, str]) -> dict[str, Value]:
    """Give entries other names by replacing the beginning of each: prefixes maps theirs to ours.

    Where several prefixes fit, the longest counts.  Raises ValueError for names that none fits and for
    prefixes that fit nothing.

    >>> renamed({"fc.weight": 1, "fc.bias": 2}, {"fc.": "classifier."})
    {'classifier.weight': 1, 'classifier.bias': 2}
    """
    ours: dict[str, Value] = {}
    unused, unknown = set(prefixes), []
    for name, value in state.items():
        fitting = [prefix for prefix in prefixes if name.startswith(prefix)]
        if not fitting:
            unknown.append(name)
            continue
        prefix = max(fitting, key=len)
        unused.discard(prefix)
        ours[prefixes[prefix] + name.removeprefix(prefix)] = value
    if unknown or unused:
        raise ValueError(
            f"these are not the weights this network was released with: {_some(unknown)} unexpected, "
            f"{_some(sorted(unused))} missing; check which method and inputs the file belongs to"
        )
    return ours


def _same_names(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    if missing or unexpected:
        raise ValueError(
            f"the weights do not fit this network: {_some(missing)} missing, {_some(unexpected)} unexpected; "
            "build it with the sizes and switches the weights were made with"
        )


def _some(names: list[str]) -> str:
    """The first names and how many more."""
    shown = ", ".join(names[:3]) or "nothing"
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _tensor(value: NDArray[Any] | Tensor) -> Tensor:
    """A tensor of its own: arrays read from a store may be read-only, and are aligned as numpy likes it."""
    return value.detach() if isinstance(value, Tensor) else torch.tensor(value)
