"""A program that runs one step and kills itself with SIGKILL when so many checkpoints are written.

python die_in_training.py STORE CHECKPOINTS STEP, the step as JSON: stage, name, params, inputs.
"""

import json
import os
import signal
import sys

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Store
from avvp_pipe.store.builder import Builder


def main(root: str, checkpoints: int, step: Step) -> None:
    """Run, and die."""
    saved = 0

    def die(self: Builder) -> None:
        nonlocal saved
        saved += 1
        if saved == checkpoints:
            os.kill(os.getpid(), signal.SIGKILL)

    Builder.saved = die  # type: ignore[method-assign]
    run_step(Store(root), step, progress=Silent())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Step(**json.loads(sys.argv[3])))
