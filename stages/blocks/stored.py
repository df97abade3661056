"""A trained network in an artifact: its sizes as attributes, its weights as arrays, its history as a table."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.weights import checked

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact, Builder

N = TypeVar("N", bound=nn.Module)
WEIGHTS = "weights/"
HISTORY = "history/"


def put_network(
    out: "Builder", network: Any, state: Mapping[str, Tensor], history: Sequence[Mapping[str, float]]
) -> None:
    """Store the record `network` (a frozen dataclass), the weights, and one history array per quantity.

    history: one mapping an epoch; a quantity that an epoch lacks is NaN there.
    """
    out.describe(network=dataclasses.asdict(network))
    for name, tensor in state.items():
        out.put(WEIGHTS + name, tensor.detach().cpu().numpy())
    for name in sorted({name for epoch in history for name in epoch}):
        out.put(HISTORY + name, np.array([epoch.get(name, np.nan) for epoch in history], np.float64))


def load_network(artifact: "Artifact", record: type, build: Callable[[Any], N]) -> N:
    """Build the network that the artifact describes and fill in its weights, ready to be run.

    record: the frozen dataclass of its sizes; build: the module made from one. Raises ValueError where the
    weights do not fit.
    """
    with torch.device("meta"):  # first values would be drawn for nothing
        module = build(record(**artifact.attrs["network"]))
    names = [name for name in artifact.array_names() if name.startswith(WEIGHTS)]
    wanted = module.state_dict()
    found = checked(wanted, {name.removeprefix(WEIGHTS): artifact.array(name) for name in names})
    module.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in found.items()}, assign=True)
    return module.eval()
