"""LAION's CLAP behind the interface of teachers: HTSAT listens, RoBERTa reads.

Source: laion_clap 1.1.7, `CLAP_Module.get_audio_embedding_from_data` and `get_text_embedding`. Departures:

* The whole batch goes through at once, and only as far as the embedding needs (`laion_audio.py`).
* Samples are taken as they come. laion_clap rounds numpy input to 16 bits first; whoever cuts the sound does that.
* Pieces above 480,000 samples are refused; laion_clap crops them at random.
* Checkpoints are read without unpickling, strictly, and nothing is asked of the hub.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avvp_pipe.stages.blocks.device import tensor_on
from avvp_pipe.stages.teachers.checkpoint import read_state
from avvp_pipe.stages.teachers.clap import LAION
from avvp_pipe.stages.teachers.laion_audio import AudioBranch, audio_branch, filled, resampled
from avvp_pipe.stages.teachers.laion_import import ROBERTA, empty_clap

__all__ = ["LaionClap", "load_laion", "read_checkpoint", "roberta_tokenizer"]

TOKENS = 77
"""Of a text; shorter ones are padded, longer ones cut."""
AT_ONCE = {"cpu": 5, "cuda": 64}
"""Pieces in one pass. On two cores 2 to 10 take the same time each, and activations grow with the number."""
PROMPTS_AT_ONCE = 64
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
POSITIONS = "text_branch.embeddings.position_ids"
FUSION = "audio_branch.patch_embed.mel_conv2d.weight"
PATCHES = "audio_branch.patch_embed.proj.weight"
TOKENIZER_BYTES = 1 << 26


@dataclass(frozen=True)
class LaionClap:
    """A CLAP of laion_clap."""

    name: str
    width: int
    sample_rate: int
    log_scale: float
    model: Any
    audio: AudioBranch
    tokenizer: Any
    device: str
    fill: str

    @cached_property
    def has_maps(self) -> bool:
        """Whether `maps` gives VALOR++'s (64, 768): HTSAT-tiny only."""
        return LAION[self.name].config == "HTSAT-tiny"

    def sounds(self, pieces: NDArray[np.float32] | Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Pieces (B, L), or B arrays of 1 to 480,000 samples in [-1, 1] -> (B, 512) float32, L2-normalised.

        A piece that holds NaN gets NaN, and no other does. Raises ValueError for an empty or longer piece.
        """
        every = [np.asarray(piece, np.float32) for piece in pieces]
        step = AT_ONCE[self.device.partition(":")[0]]
        rows = [self._run(self.audio.embed, filled(every[i : i + step], self.fill)) for i in range(0, len(every), step)]
        return np.concatenate(rows) if rows else np.zeros((0, self.width), np.float32)

    def maps(self, waves: NDArray[np.float32]) -> NDArray[np.float32]:
        """Waves (B, n), one clip each -> (B, 64, 768) float32 before pooling, for VALOR++.

        The clip is brought to 480,000 samples by nearest index. 2 coarse frequency bins x 32 time steps,
        frequency-major, not normalised. Raises ValueError where the model has other maps.
        """
        if not self.has_maps:
            raise ValueError(f"maps of 64 x 768 are wanted, and {self.name} has none; use HTSAT-tiny-fused")
        step = AT_ONCE[self.device.partition(":")[0]]
        rows = [self._run(self.audio.maps, resampled(waves[i : i + step])) for i in range(0, len(waves), step)]
        return np.concatenate(rows) if rows else np.zeros((0, 64, 768), np.float32)

    def texts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Prompts -> (P, 512) float32, L2-normalised; in float32 whatever the precision."""
        rows = [np.zeros((0, self.width), np.float32)]
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            found = self.tokenizer.encode_batch(list(prompts[start : start + PROMPTS_AT_ONCE]))
            tokens = {
                "input_ids": torch.tensor([one.ids for one in found]),
                "attention_mask": torch.tensor([one.attention_mask for one in found]),
            }
            with torch.inference_mode():
                rows.append(_array(self.model.get_text_embedding(tokens)))
        return np.concatenate(rows)

    def _run(self, what: Any, waves: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return _array(what(tensor_on(self.device, waves)))


def load_laion(name: str, files: Sequence[Path], *, device: str, precision: str, fill: str) -> LaionClap:
    """Load a model of LAION from its checkpoint, `vocab.json` and `merges.txt`.

    Raises ValueError where the checkpoint is damaged, holds more than tensors, or is another model's.
    """
    checkpoint, vocabulary, merges = files
    tokenizer = roberta_tokenizer(vocabulary, merges)
    state = read_checkpoint(checkpoint)
    _check_name(name, checkpoint, state)
    model, config = empty_clap(LAION[name].config, fused=LAION[name].fused)
    _check_keys(name, checkpoint, state, model)
    model.load_state_dict({key: _own(tensor) for key, tensor in state.items()}, strict=True, assign=True)
    _finish_text_branch(model)
    model = model.requires_grad_(False).to(device)
    audio = audio_branch(model, config, fused=LAION[name].fused, device=device, dtype=DTYPES[precision])
    scale = float(state["logit_scale_a"])
    return LaionClap(name, 512, int(config["sample_rate"]), scale, model, audio, tokenizer, device, fill)


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by laion_clap's names, on the CPU, read from the file when used.

    Takes what `read_state` takes, also where numpy's scalars lie beside the tensors, as in LAION's own files; drops
    RoBERTa's position ids, which newer transformers make themselves. Raises ValueError.
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            state = read_state(file)
    except ValueError as error:
        raise ValueError(f"{file} {error}") from error
    state.pop(POSITIONS, None)
    return state


class _Ignored:
    """Stands in for numpy's scalars and dtypes, which LAION's checkpoints hold beside the tensors; keeps nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


_HARMLESS: list[Any] = [
    (_Ignored, f"{module}.{name}")
    for module, name in (
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy", "dtype"),
        ("numpy.dtypes", "Float64DType"),
    )
]


def _own(tensor: Tensor) -> Tensor:
    """A copy off the file, in float32 where it is floating."""
    return tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)


def _check_name(name: str, file: Path, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError, with the right name, where the tensors are another model's."""
    theirs = _name_of(state)
    if theirs and theirs != name:
        known = f"use {theirs}" if theirs in LAION else "which is not supported"
        raise ValueError(f"{file} holds weights of {theirs}, and {name} was asked for; {known}")


def _check_keys(name: str, file: Path, state: Mapping[str, Tensor], model: Any) -> None:
    """Raise ValueError, with the first wrong keys, where the tensors are not this model's, or not finite."""
    wanted = model.state_dict()
    for said, wrong in (
        ("lacks", [key for key in wanted if key not in state]),
        ("has beyond the model's", [key for key in state if key not in wanted]),
        ("has in another shape", [key for key in wanted if key in state and wanted[key].shape != state[key].shape]),
    ):
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise ValueError(f"{file} does not fit {name}: it {said} {', '.join(wrong[:3])}{more}")
    for key, tensor in state.items():
        if tensor.is_floating_point() != wanted[key].is_floating_point():
            raise ValueError(f"{file} does not fit {name}: {key} is of {tensor.dtype}, wanted {wanted[key].dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{file} is damaged: {key} holds values that are not finite; fetch it again")
    indices = [key for key in wanted if key.endswith("relative_position_index")]
    if changed := [key for key in indices if not torch.equal(wanted[key], state[key])]:
        raise ValueError(f"{file} does not fit {name}: it has other positions in {changed[0]}")


def _name_of(state: Mapping[str, Tensor]) -> str:
    """The model that the tensors belong to, "" where it cannot be told."""
    if PATCHES not in state:
        return ""
    size = {96: "tiny", 128: "base", 256: "large"}.get(len(state[PATCHES]), "")
    return f"HTSAT-{size}" + ("-fused" if FUSION in state else "") if size else ""


def _finish_text_branch(model: Any) -> None:
    """Give the text branch what no checkpoint holds: where tokens stand, and that they are all of one type."""
    embeddings = model.text_branch.embeddings
    embeddings.position_ids = torch.arange(ROBERTA["max_position_embeddings"])[None]
    embeddings.token_type_ids = torch.zeros_like(embeddings.position_ids)
    left = [key for key, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    if left:
        raise RuntimeError(f"transformers keeps {left[0]} outside the checkpoint; this version of it is not known here")


def roberta_tokenizer(vocabulary: Path, merges: Path) -> Any:
    """RoBERTa's byte-level BPE from its two files, padding and cutting to 77 tokens as laion_clap does.

    Raises ValueError where the files are damaged or not RoBERTa's.
    """
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

    for file in (vocabulary, merges):
        if file.stat().st_size > TOKENIZER_BYTES:
            raise ValueError(f"{file} is larger than {TOKENIZER_BYTES} bytes, which no tokenizer of RoBERTa is")
    try:
        words, pairs = models.BPE.read_file(str(vocabulary), str(merges))
        special = [words[one] for one in ("<s>", "<pad>", "</s>")]
        tokenizer = Tokenizer(models.BPE(words, pairs))
    except KeyError as error:
        raise ValueError(f"{vocabulary} lacks RoBERTa's token {error}; name RoBERTa's tokenizer") from error
    except Exception as error:  # tokenizers raises nothing more precise
        raise ValueError(f"{vocabulary} and {merges} are not a tokenizer's: {error}; fetch them again") from error
    if special != [0, 1, 2] or max(words.values()) >= ROBERTA["vocab_size"]:
        size = ROBERTA["vocab_size"]
        raise ValueError(f"{vocabulary} is not RoBERTa's, which numbers <s>, <pad>, </s> 0, 1, 2 and has {size} tokens")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    named = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in named if one in words])
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=TOKENS)
    return tokenizer


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)
