"""Reaching a Ray cluster: one that runs, or one of this machine for the time of a run; and what its nodes have."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import ray

__all__ = ["connected", "decoding_places", "teacher_places"]

QUIET_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # What CUDA_VISIBLE_DEVICES says stays as it is in tasks without a GPU; else Ray warns that this will be so.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
KNOCK_SECONDS = 20.0


@contextmanager
def connected() -> Iterator[None]:
    """Connect to RAY_ADDRESS, or to the cluster that `ray start` began here, or begin one and end it.

    Where this process is connected already, that is used and left alone. Raises ConnectionError where the cluster
    does not answer, ValueError where RAY_ADDRESS is no address of a cluster.
    """
    if ray.is_initialized():
        with redirect_stdout(sys.stderr):
            yield
        return
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with redirect_stdout(sys.stderr):  # stdout is for results, and Ray tells there which nodes it lost
        try:
            _begin()
            if main and handler is not None:  # Ray's own would end in an abort
                signal.signal(signal.SIGTERM, handler)
            yield
        finally:
            ray.shutdown()


def _begin() -> None:
    address = os.environ.get("RAY_ADDRESS", "")
    if "://" in address:
        raise ValueError(
            f"RAY_ADDRESS={address} is for Ray's client, which sends everything through one connection; run avvp-pipe "
            "on a node of the cluster (ray job submit does) with RAY_ADDRESS=host:port, or unset"
        )
    known = _last_started() if address in ("", "auto") else address
    try:
        if known not in ("", "local"):
            _knock(known)
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ray.exceptions.RaySystemError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at {known or address or 'this machine'} ({error}); set RAY_ADDRESS to one that "
            "runs, or to `local` for one of this machine; after a crash, `ray stop` clears what is left"
        ) from error


def _last_started() -> str:
    """Address of the cluster that `ray start` began on this machine, where Ray keeps it; "" if there is none."""
    try:
        return Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster").read_text().strip()
    except OSError:
        return ""


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would go on trying for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"RAY_ADDRESS={address} is not host:port, auto or local")
    socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()


def _nodes() -> list[dict[str, Any]]:
    every: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in every if node["Alive"]]


def teacher_places(*, cuda: bool) -> list[str]:
    """Ids of the nodes where a teacher belongs: a node once for each GPU, or, on CPUs, once."""
    if cuda:
        return [node["NodeID"] for node in _nodes() for _ in range(int(node["Resources"].get("GPU", 0)))]
    return [node["NodeID"] for node in _nodes() if node["Resources"].get("CPU", 0) >= 1]


def decoding_places() -> int:
    """Processors of the cluster that Ray gives to tasks."""
    return sum(int(node["Resources"].get("CPU", 0)) for node in _nodes())
