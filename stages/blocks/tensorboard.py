"""Training curves for TensorBoard, beside the history that the artifact keeps. Its package is an optional extra."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from avvp_pipe.stages.stage import ParameterError

__all__ = ["curves"]


@contextmanager
def curves(folder: str, run: str) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A function to be called with each epoch's record, whose numbers go to `folder/run`; "" writes nothing.

    A run that goes on after a kill adds its epochs to the same curves. Raises ParameterError where the package is
    missing.
    """
    if not folder:
        yield lambda record: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ParameterError(
            "--tensorboard needs the package tensorboard; install it with pip install 'avvp-pipe[tensorboard]', or "
            "leave the option out: the history is in the artifact in any case"
        ) from None

    with SummaryWriter(str(Path(folder) / run)) as writer:

        def draw(record: Mapping[str, float]) -> None:
            for name, value in record.items():
                if name != "epoch":
                    writer.add_scalar(name, value, int(record["epoch"]))
            writer.flush()

        yield draw
