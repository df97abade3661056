"""One builder at a time: a file lock in a folder, a lease in a bucket. Either says who holds it.

A file lock ends with its process, however that ends. A lease is an object that its holder renews; one that nobody
renewed for PATIENCE_SECONDS by the clock of who waits, or whose process was on this machine and is gone, is taken over.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from avvp_pipe.store.errors import StoreError, StoreWriteError
from avvp_pipe.store.places import Place
from avvp_pipe.store.places.bucket import Bucket
from avvp_pipe.store.places.folder import Folder

__all__ = ["Holder", "file_lock", "is_held", "is_ours", "lease", "ourselves"]

BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 45.0
POLL_SECONDS = 0.5
ABANDONED_SECONDS = 600.0
"""By wall clocks, which may differ; used to decide what may be cleared away, not who may build."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who builds."""

    host: str
    pid: int
    since: str
    """ISO 8601, UTC."""
    home: str = ""
    """Where the pid means something: this start of the machine, this space of processes. Hosts may share a name."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since[:19].replace('T', ' ')} UTC"


def ourselves() -> Holder:
    """This process, from now on."""
    return Holder(platform.node(), os.getpid(), datetime.now(UTC).isoformat(), _home())


def _home() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def read_holder(data: bytes) -> Holder | None:
    """The holder in a lock's bytes, None where they are not whole."""
    try:
        record = json.loads(data)
        return Holder(str(record["host"]), int(record["pid"]), str(record["since"]), str(record.get("home", "")))
    except (ValueError, KeyError, TypeError):
        return None


@contextmanager
def file_lock(path: Path, note: Path, waiting: Callable[[Holder | None], None]) -> Iterator[None]:
    """Hold the lock file `path`; `note` says who does. `waiting` is called once where somebody else holds it.

    The file goes when the lock does, so nothing is left behind but by a killed process, and that lock is free.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting(_noted(note))
        lock.acquire(poll_interval=0.05)
    try:
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps(asdict(ourselves())))
        yield
    finally:
        note.unlink(missing_ok=True)
        path.unlink(missing_ok=True)  # while we hold it: who waits for this very file sees that it has no name any more
        lock.release()


def _noted(note: Path) -> Holder | None:
    with suppress(OSError):
        return read_holder(note.read_bytes())
    return None


def is_held(place: Place, name: str) -> bool:
    """Whether the lock `name` is a living process's. A lease counts as one unless its last beat is long past."""
    if isinstance(place, Folder):
        return _is_locked(place.path / name)
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        data = place.read(name)
        age = time.time() - json.loads(data)["beat"] / 1e9
        return age < ABANDONED_SECONDS and not _is_dead_here(read_holder(data))
    return False


def _is_locked(path: Path) -> bool:
    from filelock import FileLock, Timeout

    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


@contextmanager
def lease(bucket: Bucket, name: str, waiting: Callable[[Holder | None], None]) -> Iterator[None]:
    """Hold the object `name`, renewing it from a thread. `waiting` is called once where somebody else holds it.

    It can be lost all the same, to another machine while this one is asleep: who writes asks `is_ours` before.
    """
    tag = _acquire(bucket, name, waiting)
    over = threading.Event()
    mine = [tag]
    beat = threading.Thread(target=_renew, args=(bucket, name, mine, over), daemon=True)
    beat.start()
    try:
        yield
    finally:
        over.set()
        beat.join()
        if bucket.tag(name) == mine[0]:
            bucket.remove(name)


def is_ours(bucket: Bucket, name: str) -> bool:
    """Whether this process still holds the lease `name`."""
    with suppress(FileNotFoundError):
        holder = read_holder(bucket.read(name))
        return holder is not None and (holder.home, holder.pid) == (_home(), os.getpid())
    return False


def _acquire(bucket: Bucket, name: str, waiting: Callable[[Holder | None], None]) -> str:
    told, watched, since = False, "", 0.0
    while True:
        if tag := bucket.create(name, _lease_bytes()):
            return tag
        current = bucket.tag(name)
        if current is None:
            continue
        with suppress(FileNotFoundError):
            holder = read_holder(bucket.read(name))
            if current != watched:
                watched, since = current, time.monotonic()
            if time.monotonic() - since > PATIENCE_SECONDS or _is_dead_here(holder):
                if tag := bucket.replace(name, _lease_bytes(), current):
                    return tag
            elif not told:
                told = True
                waiting(holder)
        time.sleep(POLL_SECONDS)


def _is_dead_here(holder: Holder | None) -> bool:
    if holder is None or holder.home != _home():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _lease_bytes() -> bytes:
    return json.dumps({**asdict(ourselves()), "beat": time.time_ns()}).encode()


def _renew(bucket: Bucket, name: str, mine: list[str], over: threading.Event) -> None:
    while not over.wait(BEAT_SECONDS):
        with suppress(StoreError, StoreWriteError, FileNotFoundError):
            # A beat that fails is tried again; PATIENCE_SECONDS allow for several.
            mine[0] = bucket.replace(name, _lease_bytes(), mine[0]) or mine[0]
