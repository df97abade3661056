"""The CLAP teachers by name: what each takes and gives, which files it needs, and where they are looked for.

LAION's own package (`laion_clap`), with HTSAT and RoBERTa:

    HTSAT-tiny-fused   630k-fusion-best (default; VALOR's and UWAV's), 630k-audioset-fusion-best
    HTSAT-tiny         630k-best (default), 630k-audioset-best
    HTSAT-base         music_speech_audioset_epoch_15_esc_89.98 (default), music_speech_epoch_15_esc_89.25,
                       music_audioset_epoch_15_esc_90.14

and transformers' port (`transformers-clap`, unfused models only). Nothing here imports torch or goes to the network:
files come from the local Hugging Face cache, or from where `weights` points.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avvp_pipe.stages.teachers.hub import cached

if TYPE_CHECKING:
    from avvp_pipe.stages.teachers import AudioTeacher

__all__ = ["CHECKPOINTS", "LAION", "NAMES", "Laion", "facts", "files", "hub_files", "load"]


@dataclass(frozen=True)
class Laion:
    """A model of laion_clap: its configuration there, whether it fuses, and the checkpoint taken unless told."""

    config: str
    fused: bool
    default: str


LAION = {
    "HTSAT-tiny-fused": Laion("HTSAT-tiny", True, "630k-fusion-best"),
    "HTSAT-tiny": Laion("HTSAT-tiny", False, "630k-best"),
    "HTSAT-base": Laion("HTSAT-base", False, "music_speech_audioset_epoch_15_esc_89.98"),
}
CHECKPOINTS = {
    "630k-fusion-best": "HTSAT-tiny-fused",
    "630k-audioset-fusion-best": "HTSAT-tiny-fused",
    "630k-best": "HTSAT-tiny",
    "630k-audioset-best": "HTSAT-tiny",
    "music_speech_audioset_epoch_15_esc_89.98": "HTSAT-base",
    "music_speech_epoch_15_esc_89.25": "HTSAT-base",
    "music_audioset_epoch_15_esc_90.14": "HTSAT-base",
}
"""Tags, and the name each belongs to. They lie in HUB as TAG.pt."""
PORT = "transformers-clap"
NAMES = (*LAION, PORT)
HUB = "lukewys/laion_clap"
ROBERTA_HUBS = ("roberta-base", "FacebookAI/roberta-base")
"""One repository under two names; the first is laion_clap's."""
TOKENIZER = ("vocab.json", "merges.txt")
PORT_HUB = "laion/clap-htsat-unfused"
PORT_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
PORT_REST = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    *TOKENIZER,
)
ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
JSON_BYTES = 1 << 20


def facts(name: str, weights: str = "") -> tuple[int, int]:
    """Samples a second that it takes, and the width of its embeddings. Reads no weights.

    Raises ValueError for an unknown name; for `transformers-clap` also where its configuration is missing.
    """
    if name in LAION:
        return 48_000, 512
    folder = _port_folder(_known(name), weights)
    config = port_config(folder)
    return _sampling_rate(folder), int(config.get("projection_dim", 512))


def files(name: str, weights: str = "") -> tuple[Path, ...]:
    """Every file that its embeddings depend on: the checkpoint first, then tokenizer and configuration.

    Raises ValueError where one is missing, with the command that brings it.
    """
    if name not in LAION:
        return _port_files(_port_folder(_known(name), weights), weights)
    checkpoint = _checkpoint(name, weights)
    beside = tuple(checkpoint.parent / one for one in TOKENIZER)
    if weights not in CHECKPOINTS and weights and all(one.is_file() for one in beside):
        return (checkpoint, *beside)
    for hub in ROBERTA_HUBS:
        found = [path for one in TOKENIZER if (path := cached(hub, one))]
        if len(found) == len(TOKENIZER) and found[0].parent == found[1].parent:
            return (checkpoint, *found)
    raise ValueError(
        f"{name} wants RoBERTa's tokenizer, {' and '.join(TOKENIZER)} of {ROBERTA_HUBS[0]}, and has them neither in "
        f"the local cache nor beside {checkpoint}; run: {_fetch(name)}"
    )


def hub_files(name: str, weights: str = "") -> list[tuple[str, str]]:
    """(repository, file) of what `files` looks for in the local cache, to be fetched; none for files of one's own."""
    if name in LAION:
        tag = _tag(name, weights)
        checkpoint = [(HUB, f"{tag}.pt")] if tag else []
        return checkpoint + [(ROBERTA_HUBS[0], one) for one in TOKENIZER]
    if _known(name) and Path(weights).is_dir() and weights:
        return []
    repository = weights or PORT_HUB
    rest = ("config.json", "preprocessor_config.json", "tokenizer_config.json", "special_tokens_map.json", *TOKENIZER)
    return [(repository, one) for one in (*rest, PORT_WEIGHTS[1])]


def load(
    name: str, weights: str = "", device: str = "cpu", precision: str = "fp32", fill: str = "repeatpad"
) -> "AudioTeacher":
    """Load one. Raises ValueError as `files` does, for an unknown precision or fill, and where weights do not fit."""
    if fill not in ("repeatpad", "pad"):
        raise ValueError(f"fill must be repeatpad or pad, and is {fill!r}")
    if precision not in ("fp32", "bf16", "fp16"):
        raise ValueError(f"precision must be fp32, bf16 or fp16, and is {precision!r}")
    if precision == "fp16" and not device.startswith("cuda"):
        raise ValueError(f"fp16 wants a CUDA device, and the device is {device}; use bf16 or fp32")
    needed = files(name, weights)
    if name in LAION:
        from avvp_pipe.stages.teachers.laion import load_laion

        return load_laion(name, needed, device=device, precision=precision, fill=fill)
    from avvp_pipe.stages.teachers.transformers_clap import load_port

    return load_port(needed[0].parent, weights=needed[0], device=device, precision=precision, fill=fill)


def port_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a transformers CLAP.

    Raises ValueError for a fused one, and where other files than those of `files` would decide what is loaded.
    """
    config = _json(folder / "config.json")
    elsewhere = [key for key in ("transformers_weights", "quantization_config") if config.get(key) is not None]
    if (folder / "adapter_config.json").exists():  # of the package peft
        elsewhere.append("adapter_config.json")
    if elsewhere:
        raise ValueError(f"{folder} holds {elsewhere[0]}; wanted one whole CLAP, its weights in {PORT_WEIGHTS[0]}")
    if dict(config.get("audio_config") or {}).get("enable_fusion"):
        raise ValueError(
            f"{folder} is a fused CLAP, and transformers' port of those marks a random item of each batch as longer "
            "than 10 s, so that embeddings depend on chance; use HTSAT-tiny-fused, or an unfused model"
        )
    return config


def _known(name: str) -> str:
    if name != PORT:
        raise ValueError(f"no CLAP teacher {name!r}; there are {', '.join(NAMES)}")
    return name


def _fetch(name: str, weights: str = "") -> str:
    return f"avvp-pipe models fetch {name}" + (f" --weights {weights}" if weights else "")


def _tag(name: str, weights: str) -> str:
    """The tag that `weights` is, "" where it names a file or folder. Raises ValueError for another model's tag."""
    tag = weights or LAION[name].default
    if tag not in CHECKPOINTS:
        return ""
    if CHECKPOINTS[tag] != name:
        raise ValueError(f"{tag} holds weights of {CHECKPOINTS[tag]}, and {name} was asked for; use {CHECKPOINTS[tag]}")
    return tag


def _checkpoint(name: str, weights: str) -> Path:
    tag = _tag(name, weights)
    if tag:
        found = cached(HUB, f"{tag}.pt")
        if found is None:
            raise ValueError(
                f"the weights {tag} of {name} ({HUB}) are not on this machine; run: {_fetch(name, weights)}, "
                "or name a checkpoint of your own: --audio-weights FILE"
            )
        return found
    place = Path(weights)
    if place.is_dir():
        inside = sorted(one for one in place.iterdir() if one.suffix in ENDINGS and one.is_file())
        if len(inside) != 1:
            came = ", ".join(one.name for one in inside) or "none"
            raise ValueError(f"one checkpoint ({', '.join(ENDINGS)}) is wanted in {place}, came {came}; name the file")
        return inside[0]
    if not place.is_file():
        tags = ", ".join(tag for tag, owner in CHECKPOINTS.items() if owner == name)
        raise ValueError(f"{weights!r} is neither a tag of {name} ({tags}) nor a file; give one as --audio-weights")
    return place


def _port_folder(name: str, weights: str) -> Path:
    if weights and Path(weights).is_dir():
        return Path(weights)
    repository = weights or PORT_HUB
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(
            f"{name} wants a folder that transformers wrote or a repository OWNER/NAME, and {weights!r} is neither"
        )
    found = cached(repository, "config.json")
    if found is None:
        raise ValueError(
            f"{repository} is not on this machine; run: {_fetch(name, weights)}, "
            "or name a folder that transformers wrote: --audio-weights FOLDER"
        )
    return found.parent


def _port_files(folder: Path, weights: str) -> tuple[Path, ...]:
    port_config(folder)
    _sampling_rate(folder)
    checkpoint = [folder / one for one in PORT_WEIGHTS if (folder / one).is_file()]
    rest = tuple(folder / one for one in PORT_REST if (folder / one).is_file())
    names = {one.name for one in rest}
    missing = [] if checkpoint else [" or ".join(PORT_WEIGHTS)]
    if "tokenizer.json" not in names and not names.issuperset(TOKENIZER):
        missing.append("a tokenizer (tokenizer.json, or vocab.json and merges.txt)")
    if missing:
        lacks = " and ".join(missing)
        raise ValueError(f"{folder} lacks {lacks}; run: {_fetch(PORT, weights)}, or complete the folder")
    return (checkpoint[0], *rest)


def _sampling_rate(folder: Path) -> int:
    own, whole = folder / "preprocessor_config.json", folder / "processor_config.json"
    if not own.is_file() and not whole.is_file():
        raise ValueError(f"{folder} lacks preprocessor_config.json; run: {_fetch(PORT)}, or complete the folder")
    record = _json(own) if own.is_file() else dict(_json(whole).get("feature_extractor") or {})
    return int(record.get("sampling_rate", 48_000))


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > JSON_BYTES:
            raise ValueError(f"{file} is larger than {JSON_BYTES} bytes, which no configuration is")
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise ValueError(f"{file} is wanted, and cannot be read: {error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}; fetch it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} should hold a JSON object, and holds a {type(found).__name__}; fetch it again")
    return found
