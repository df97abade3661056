"""Files of model repositories: looked up in the Hugging Face cache of this machine, and, if asked, brought into it.

Looking up never goes to the network, whatever `HF_HUB_OFFLINE` says. Only `fetch` does, and nothing but
`avvp-pipe models fetch` calls it. Where the cache lies is huggingface_hub's matter (`HF_HOME`, `HF_HUB_CACHE`).
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avvp_pipe.store.integrity import digest_of_file

SHA256 = re.compile(r"[0-9a-f]{64}")


class FetchError(OSError):
    """A file could not be brought here: no network, no such file, no permission, no space."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file wanted from a repository: the first of `names` that is there; none of them is no error if optional."""

    repo: str
    names: tuple[str, ...]
    optional: bool = False

    def cached(self) -> Path | None:
        """Where it lies on this machine, None where it does not."""
        for name in self.names:
            if (found := cached(self.repo, name)) is not None:
                return found
        return None

    def known_absent(self) -> bool:
        """Whether it is optional, and the hub said earlier that there is no such file."""
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

        return self.optional and all(try_to_load_from_cache(self.repo, one) is _CACHED_NO_EXIST for one in self.names)

    def __str__(self) -> str:
        return f"{self.names[0]} of {self.repo}"


def cached(repo: str, name: str) -> Path | None:
    """A file of a repository's main branch in the local cache, None where it is not. Never goes to the network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, name)
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


def cache_place() -> Path:
    """The folder of the local cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def is_offline() -> bool:
    """Whether this machine was told to leave the hub alone (`HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`)."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return bool(HF_HUB_OFFLINE)


def refuse_offline(wanted: Sequence[HubFile]) -> None:
    """Raise FetchError where something is missing and this machine was told to leave the hub alone."""
    missing = [str(one) for one in wanted if not one.optional and one.cached() is None]
    if missing and is_offline():
        raise FetchError(
            f"HF_HUB_OFFLINE is set, and this machine lacks {', '.join(missing)}; unset it and run the command "
            f"again, or copy the files from a machine that has them to {cache_place()}"
        )


def fetch(wanted: HubFile, *, quiet: bool = False) -> Path | None:
    """Bring a file into the local cache, going on where an earlier try broke off; None for an optional one not there.

    A file whose name in the cache is its sha256, as that of weights is, is held against it. Raises FetchError.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if quiet:
        disable_progress_bars()
    for name in wanted.names:
        try:
            path = Path(hf_hub_download(wanted.repo, name))
        except RemoteEntryNotFoundError:
            continue
        except RepositoryNotFoundError as error:
            raise FetchError(
                f"the hub shows no repository {wanted.repo}: it is gone, or private and wants a login (`hf auth login`)"
            ) from error
        except Exception as error:  # whatever the HTTP library of this huggingface_hub raises, with its words
            raise FetchError(_failed(wanted, error)) from error
        check_blob(path)
        return path
    if wanted.optional:
        return None
    raise FetchError(f"{wanted.repo} was reached but holds no {' or '.join(wanted.names)}; wanted one of them")


def check_blob(path: Path) -> None:
    """Hold a cached file against the sha256 it is named by, where it is; remove it and raise FetchError if they differ.

    huggingface_hub checks sizes only.
    """
    blob = path.resolve()
    if SHA256.fullmatch(blob.name) and (found := digest_of_file(blob)) != blob.name:
        blob.unlink()
        path.unlink(missing_ok=True)
        raise FetchError(f"{path.name} came damaged: sha256 {found}, wanted {blob.name}; removed it, fetch it again")


def _failed(wanted: HubFile, error: Exception) -> str:
    cause = error.__cause__ or error
    reason = " ".join(str(cause).split())[:300].rstrip(".") or type(cause).__name__
    endpoint = os.environ.get("HF_ENDPOINT", "the hub")
    return (
        f"could not fetch {wanted} from {endpoint}: {reason}. Check the network (or a proxy, or a mirror in "
        f"HF_ENDPOINT) and free space in {cache_place()}, and run the command again: it goes on where it stopped. "
        "On another machine fetched files can be copied there with the folder."
    )
