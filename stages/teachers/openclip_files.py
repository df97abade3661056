"""What open_clip knows about a model before any network is built: configuration, tags, files. Imports no torch.

`weights` of a model is one of

    ""         the tag `openai`, for models that have it
    a tag      of open_clip for this model; its files lie in the Hugging Face cache or are missing
    a file     .safetensors, .bin, .pt, .pth: a state dict in open_clip's names
    a folder   `open_clip_config.json` and weights, as open_clip takes it after `local-dir:`; the name may be your own

Departures from open_clip (3.3):

* weights of a tag that were trained with the other GELU are refused, where there is a model with that GELU;
  open_clip warns;
* a file without a configuration beside it is normalised as the model's tags are, if they agree, else by OpenAI's mean
  and standard deviation; open_clip takes OpenAI's for every file, also for models whose tags all say otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avvp_pipe.stages.teachers.hub import HubFile
from avvp_pipe.stages.teachers.openclip_catalogue import (
    checked_config,
    clean_tag,
    is_quick,
    names,
    other_gelu,
    package,
    packaged,
    read_json,
    tags,
)

Numbers = tuple[float, ...]

CONFIG = "open_clip_config.json"
DEFAULT_TAG = "openai"
SAFE_WEIGHTS, PLAIN_WEIGHTS = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
FOLDER_WEIGHTS = (SAFE_WEIGHTS, "open_clip_pytorch_model.safetensors", PLAIN_WEIGHTS, "model.safetensors")
OPENAI_MEAN: Numbers = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Numbers = (0.26862954, 0.26130258, 0.27577711)
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
"""Whatever of these a tokenizer's repository holds."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
"""One of them must be there."""


@dataclass(frozen=True, slots=True)
class Files:
    """Everything an open_clip model is made of, on this machine."""

    config: Mapping[str, Any]
    mean: Numbers
    std: Numbers
    checkpoint: Path
    tokenizer: tuple[Path, ...]
    """open_clip's own vocabulary, or what a tokenizer of the hub consists of."""
    text_config: Path | None
    """config.json of a text tower that transformers builds."""

    @property
    def all(self) -> tuple[Path, ...]:
        """All files."""
        return (self.checkpoint, *self.tokenizer, *([self.text_config] if self.text_config else []))


def configuration(name: str, weights: str = "") -> Mapping[str, Any]:
    """open_clip's model configuration: `embed_dim`, `vision_cfg`, `text_cfg`. Reads no weights.

    Raises ValueError for a name open_clip does not have, and for a folder that is of another model.
    """
    folder = _folder(name, weights)
    if name not in names():
        if folder is None:
            near = [other for other in names() if name.lower() in other.lower()][:6] or ["ViT-B-32-quickgelu"]
            raise ValueError(
                f"no visual teacher {name!r}; there are tiny-clip, and open_clip's {len(names())} models, such as "
                f"ViT-L-14-quickgelu, {', '.join(near)}; `avvp-pipe models ls --all` lists them"
            )
        return checked_config(_document(folder)["model_cfg"], folder / CONFIG)
    own = packaged(name)
    if folder is not None:
        theirs = checked_config(_document(folder)["model_cfg"], folder / CONFIG)
        if differing := _differences(own, theirs):
            raise ValueError(
                f"{folder / CONFIG} is not of {name}: {differing}; give the name whose weights these are, "
                "or a name of your own"
            )
    return own


def locate(name: str, weights: str = "") -> Files:
    """All files of a model. Raises ValueError naming what is missing on this machine and what to do."""
    config = configuration(name, weights)
    folder, tag = _folder(name, weights), tag_of(name, weights)
    mean, std = _normalisation(name, weights)
    if folder is not None:
        checkpoint = _weights_in(folder)
    elif tag is not None:
        checkpoint = _required(name, weights, _weights_of(name, tag))
    else:
        checkpoint = Path(weights)
        _same_gelu_beside(name, config, checkpoint)
    tokenizer, text_config = _text_files(name, weights, config, folder)
    return Files(config, mean, std, checkpoint, tokenizer, text_config)


def hub_files(name: str, weights: str = "") -> tuple[HubFile, ...]:
    """What `models fetch` has to bring: weights of a tag, tokenizer and text configuration where a model has such.

    Raises ValueError for unknown names and tags.
    """
    config, tag = configuration(name, weights), tag_of(name, weights)
    found = [] if tag is None else [_weights_of(name, tag)]
    if _folder(name, weights) is None:
        if repo := config["text_cfg"].get("hf_tokenizer_name"):
            found += [HubFile(repo, VOCABULARIES), *(HubFile(repo, (file,), optional=True) for file in TOKENIZER_FILES)]
        if repo := config["text_cfg"].get("hf_model_name"):
            found.append(HubFile(repo, ("config.json",)))
    return tuple(found)


def tag_of(name: str, weights: str) -> str | None:
    """The tag that `weights` means, None where it is a file or folder.

    Raises ValueError naming the tags there are, and where a tag's GELU is not the model's.
    """
    known = tags().get(name, {})
    tag = clean_tag(weights or DEFAULT_TAG)
    if tag in known:
        _same_gelu(name, tag, bool(known[tag].get("quick_gelu")))
        return tag
    if weights and Path(weights).exists():
        return None
    if tag in tags().get(right := other_gelu(name), {}):
        raise ValueError(
            f"{tag!r} is a tag of {right}, whose GELU it was trained with; {name} has another: use {right}"
        )
    listed = f"open_clip has the tags {', '.join(known)}" if known else "open_clip has no weights for it"
    wanted = f"{weights!r} is neither a tag nor a file nor a folder" if weights else "it has no tag 'openai'"
    raise ValueError(f"no weights for {name}: {wanted}; {listed}; choose with --visual-weights TAG, FILE or FOLDER")


def _folder(name: str, weights: str) -> Path | None:
    """The folder that `weights` names, None where it names none."""
    if not weights or clean_tag(weights) in tags().get(name, {}) or not Path(weights).is_dir():
        return None
    if not (Path(weights) / CONFIG).is_file():
        raise ValueError(f"{weights} is a folder without {CONFIG}; wanted one that open_clip takes as local-dir:")
    return Path(weights)


def _document(folder: Path) -> dict[str, Any]:
    document = read_json(folder / CONFIG)
    return document if "model_cfg" in document else {"model_cfg": document}


def _differences(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Where two configurations differ in what decides the visual network, "" where they do not."""
    flat = [
        {**dict(one["vision_cfg"]), "embed_dim": one["embed_dim"], "quick_gelu": is_quick(one)} for one in (own, theirs)
    ]
    keys = sorted({*flat[0], *flat[1]} - {"timm_model_pretrained"})
    told = [
        f"{key} {flat[1].get(key)}, wanted {flat[0].get(key)}" for key in keys if flat[0].get(key) != flat[1].get(key)
    ]
    return "; ".join(told[:3])


def _same_gelu(name: str, tag: str, trained_with_quick: bool) -> None:
    right = other_gelu(name)
    if right and is_quick(packaged(name)) != trained_with_quick:
        kinds = ("QuickGELU", "GELU") if trained_with_quick else ("GELU", "QuickGELU")
        raise ValueError(f"the weights {tag!r} were trained with {kinds[0]}, {name} computes {kinds[1]}: use {right}")


def _same_gelu_beside(name: str, config: Mapping[str, Any], checkpoint: Path) -> None:
    """For a file, all that can be known of its GELU is a configuration that lies beside it."""
    beside = checkpoint.parent / CONFIG
    if beside.is_file():
        theirs = checked_config(_document(checkpoint.parent)["model_cfg"], beside)
        if differing := _differences(config, theirs):
            raise ValueError(f"{checkpoint} is not of {name}: {beside} says {differing}; give the name it belongs to")


def _normalisation(name: str, weights: str) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation of pixels in [0, 1]: of the tag, of a configuration, or as said at the head."""
    folder, tag = _folder(name, weights), tag_of(name, weights)
    if tag is not None:
        record = tags()[name][tag]
        return tuple(record["mean"]), tuple(record["std"])
    place = folder or Path(weights).parent
    if (place / CONFIG).is_file():
        given = _document(place).get("preprocess_cfg") or {}
        return _three(given.get("mean", OPENAI_MEAN), place), _three(given.get("std", OPENAI_STD), place)
    known = {(tuple(record["mean"]), tuple(record["std"])) for record in tags().get(name, {}).values()}
    return known.pop() if len(known) == 1 else (OPENAI_MEAN, OPENAI_STD)


def _three(numbers: Any, place: Path) -> Numbers:
    sound = isinstance(numbers, list | tuple) and len(numbers) == 3
    if not sound or not all(isinstance(one, int | float) for one in numbers):
        raise ValueError(f"{place / CONFIG}: mean and std must be three numbers, came {numbers!r}")
    return tuple(float(one) for one in numbers)


def _weights_of(name: str, tag: str) -> HubFile:
    repo, _, file = str(tags()[name][tag]["hf_hub"]).rpartition("/")
    if not file:
        return HubFile(repo, (SAFE_WEIGHTS, PLAIN_WEIGHTS))
    stem, dot, ending = file.rpartition(".")
    return HubFile(repo, (f"{stem}.safetensors", file) if ending in ("bin", "pth") and dot else (file,))


def _weights_in(folder: Path) -> Path:
    for file in FOLDER_WEIGHTS:
        if (folder / file).is_file():
            return folder / file
    raise ValueError(f"{folder} holds no weights; wanted one of {', '.join(FOLDER_WEIGHTS)}")


def _required(name: str, weights: str, wanted: HubFile) -> Path:
    found = wanted.cached()
    if found is None:
        asked = f"{name} --weights {weights}" if weights and not Path(weights).exists() else name
        raise ValueError(
            f"{name}: {wanted} is missing on this machine; bring it with `avvp-pipe models fetch {asked}`, "
            "or name a file: --visual-weights FILE"
        )
    return found


def _text_files(
    name: str, weights: str, config: Mapping[str, Any], folder: Path | None
) -> tuple[tuple[Path, ...], Path | None]:
    """Tokenizer files, and the configuration of a text tower that transformers builds."""
    text = config["text_cfg"]
    text_config = None
    if repo := text.get("hf_model_name"):
        text_config = _required(name, weights, HubFile(repo, ("config.json",)))
    repo = text.get("hf_tokenizer_name")
    if not repo:
        return (package() / "bpe_simple_vocab_16e6.txt.gz",), text_config
    place = folder or _required(name, weights, HubFile(repo, VOCABULARIES)).parent
    present = tuple(place / file for file in TOKENIZER_FILES if (place / file).is_file())
    if not any(path.name in VOCABULARIES for path in present):
        raise ValueError(f"{place} holds no tokenizer for {name}; wanted one of {', '.join(VOCABULARIES)}")
    return present, text_config
