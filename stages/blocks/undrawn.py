"""Building networks whose weights come from a file: drawing random ones first would take seconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["undrawn"]


class _Undrawn(TorchFunctionMode):
    """Leaves memory as it is where a module would draw its first weights: 5 s of it for ViT-L-14."""

    drawing = frozenset((Tensor.normal_, Tensor.uniform_, Tensor.erfinv_))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self.drawing or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def undrawn() -> Iterator[None]:
    """Build networks without drawing their weights; all of them must be filled afterwards. Buffers are as ever."""
    with _Undrawn():
        yield
