"""Which teachers there are, and whether their files are on this machine. Imports no torch, goes to no network."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avvp_pipe.stages.teachers import TINY_CLAP, TINY_CLIP, is_audio
from avvp_pipe.stages.teachers.hub import HubFile
from avvp_pipe.stages.teachers.shipped import FOLDER, shipped_files

__all__ = ["DEFAULTS", "Model", "inventory", "model", "wanted_files"]

DEFAULTS = (("ViT-L-14-quickgelu", "openai"), ("HTSAT-tiny-fused", "630k-fusion-best"))
"""What VALOR and UWAV used."""


@dataclass(frozen=True, slots=True)
class Model:
    """A teacher with one set of weights."""

    name: str
    weights: str
    """A tag, "" for the pair that ships with the package."""
    kind: Literal["visual", "audio"]
    bytes: int
    """Of its files on this machine."""
    where: str
    """Folder of its weights, "" where they are missing."""
    missing: tuple[str, ...]
    """Files that it needs and that are not here."""


def wanted_files(name: str, weights: str = "") -> tuple[HubFile, ...]:
    """The files of the hub that a teacher needs. Raises ValueError for unknown names and tags."""
    if name in (TINY_CLIP, TINY_CLAP):
        return ()
    if is_audio(name):
        from avvp_pipe.stages.teachers import clap

        return tuple(_wanted(repo, file) for repo, file in clap.hub_files(name, weights))
    from avvp_pipe.stages.teachers.openclip_files import hub_files

    return hub_files(name, weights)


def model(name: str, weights: str = "") -> Model:
    """What is here of one teacher. Raises ValueError as `wanted_files`."""
    kind: Literal["visual", "audio"] = "audio" if is_audio(name) else "visual"
    if name in (TINY_CLIP, TINY_CLAP):
        return Model(name, weights, kind, _bytes(shipped_files(name)), str(FOLDER), ())
    places = [(file, file.cached()) for file in wanted_files(name, weights)]
    here = {path for _, path in places if path is not None}
    missing = tuple(str(file) for file, path in places if path is None and not file.optional)
    where = "" if missing or places[0][1] is None else str(places[0][1].parent)
    return Model(name, weights, kind, _bytes(here), where, missing)


def inventory(*, everything: bool = False) -> list[Model]:
    """The pair that ships, the defaults, and what is on this machine; `everything`: also all that could be fetched."""
    found = [model(TINY_CLIP), model(TINY_CLAP)]
    for name, weights in _fetchable():
        one = model(name, weights)
        if everything or not one.missing or (name, weights) in DEFAULTS:
            found.append(one)
    return found


def _fetchable() -> Iterator[tuple[str, str]]:
    """Every teacher with every tag; open_clip's only under the name whose GELU they were trained with."""
    from avvp_pipe.stages.teachers import clap
    from avvp_pipe.stages.teachers.openclip_catalogue import tags
    from avvp_pipe.stages.teachers.openclip_files import tag_of

    yield from DEFAULTS
    for name, known in sorted(tags().items()):
        for tag in known:
            try:
                tag_of(name, tag)
            except ValueError:  # the other GELU's, listed under that model
                continue
            if (name, tag) not in DEFAULTS:
                yield name, tag
    yield from ((name, tag) for tag, name in clap.CHECKPOINTS.items() if (name, tag) not in DEFAULTS)
    yield clap.PORT, clap.PORT_HUB


def _wanted(repo: str, file: str) -> HubFile:
    """A file of a CLAP: its weights in whichever form they are published, and what not every tokenizer has."""
    from avvp_pipe.stages.teachers.clap import PORT_WEIGHTS

    names = PORT_WEIGHTS if file in PORT_WEIGHTS else (file,)
    return HubFile(repo, names, optional=file in ("tokenizer_config.json", "special_tokens_map.json"))


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
