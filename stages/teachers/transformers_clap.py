"""transformers' port of CLAP behind the interface of teachers: its own feature extractor, tokenizer and model.

Source: transformers, `ClapModel.get_audio_features` and `get_text_features`, called as documented; the folder is what
`save_pretrained` writes or a repository holds. Departures:

* Unfused models only: the feature extractor marks a random item of a batch as longer for the fused ones.
* Pieces longer than the extractor's 10 s are refused; it crops them at random.
* Weights that the files do not hold are an error; transformers would draw them and warn.
* Below float32 on a CPU the audio branch is converted but for its batch norm; the spectrogram is always float32.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from avvp_pipe.stages.blocks.device import exact_convolutions, tensor_on
from avvp_pipe.stages.teachers.clap import PORT, port_config

__all__ = ["TransformersClap", "load_port"]

AT_ONCE = 16
PROMPTS_AT_ONCE = 64
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
REMADE = ("position_ids", "relative_position_index")
"""Buffers that older checkpoints hold and transformers makes itself."""
_QUIET = threading.Lock()


@dataclass(frozen=True)
class TransformersClap:
    """An unfused ClapModel."""

    name: str
    width: int
    sample_rate: int
    log_scale: float
    longest: int
    model: Any
    extractor: Any
    tokenizer: Any
    device: str
    dtype: torch.dtype
    fill: str
    has_maps: bool = False

    def sounds(self, pieces: NDArray[np.float32] | Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Pieces (B, L), or B arrays of 1 to `longest` samples in [-1, 1] -> (B, D) float32, L2-normalised.

        Raises ValueError for an empty or longer piece.
        """
        every = [np.asarray(piece, np.float32) for piece in pieces]
        for piece in every:
            if piece.ndim != 1 or not 0 < len(piece) <= self.longest:
                raise ValueError(
                    f"pieces of 1 to {self.longest} samples are wanted, one-dimensional, and one of shape "
                    f"{piece.shape} came; cut longer sound first (transformers itself would cut it at random)"
                )
        rows = [self._embedded(every[start : start + AT_ONCE]) for start in range(0, len(every), AT_ONCE)]
        return np.concatenate(rows) if rows else np.zeros((0, self.width), np.float32)

    def texts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Prompts -> (P, D) float32, L2-normalised; in float32 whatever the precision."""
        rows = [np.zeros((0, self.width), np.float32)]
        longest = self.model.config.text_config.max_position_embeddings - 2
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            some = list(prompts[start : start + PROMPTS_AT_ONCE])
            tokens = self.tokenizer(some, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            with torch.inference_mode():
                rows.append(_array(self.model.get_text_features(**tokens.to(self.device))))
        return np.concatenate(rows)

    def _embedded(self, pieces: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        found = self.extractor(
            list(pieces),
            sampling_rate=self.sample_rate,
            padding=self.fill,
            truncation="rand_trunc",
            return_tensors="np",
        )
        mel = tensor_on(self.device, np.asarray(found["input_features"], np.float32))
        lower_on_cuda = self.device.startswith("cuda") and self.dtype != torch.float32
        lower = torch.autocast("cuda", self.dtype) if lower_on_cuda else nullcontext()
        with torch.inference_mode(), exact_convolutions(self.device), lower:
            return _array(self.model.get_audio_features(input_features=mel))


def load_port(folder: Path, *, weights: Path, device: str, precision: str, fill: str) -> TransformersClap:
    """Load an unfused CLAP from a folder that transformers wrote. Raises ValueError where the files do not make one."""
    port_config(folder)
    model, extractor, tokenizer = _parts(folder, weights)
    if extractor.truncation == "fusion":
        raise ValueError(
            f"{folder} has the feature extractor of a fused CLAP (truncation: fusion); use an unfused model"
        )
    dtype = DTYPES[precision]
    model = model.float().eval().requires_grad_(False).to(device)
    if not device.startswith("cuda") and dtype != torch.float32:
        _lower(model, dtype)
    rate = int(extractor.sampling_rate)
    return TransformersClap(
        name=PORT,
        width=int(model.config.projection_dim),
        sample_rate=rate,
        log_scale=float(model.logit_scale_a),
        longest=int(extractor.nb_max_samples),
        model=model,
        extractor=extractor,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        fill=fill,
    )


def _parts(folder: Path, weights: Path) -> tuple[Any, Any, Any]:
    """Model, feature extractor and tokenizer, from the folder alone and without a word on the terminal."""
    from transformers import ClapModel, ClapProcessor

    with _quiet():
        try:
            processor = ClapProcessor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            model, said = ClapModel.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=weights.suffix == ".safetensors",
                weights_only=True,
                attn_implementation="eager",  # a configuration may name others, also such as are fetched
                torch_dtype=torch.float32,  # likewise
                output_loading_info=True,
            )
        except Exception as error:  # transformers raises what its many readers raise
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ValueError(f"{folder} cannot be loaded as a CLAP: {reason}; fetch it again") from error
    beyond = [key for key in said["unexpected_keys"] if not key.endswith(REMADE)]
    for what, keys in (("lacks", said["missing_keys"]), ("has beyond the model's", beyond)):
        if keys := sorted(key for key in keys if not key.endswith(REMADE)):
            raise ValueError(f"{weights} does not fit the configuration beside it: it {what} {', '.join(keys[:3])}")
    if wrong := [key for key, tensor in model.state_dict().items() if not bool(torch.isfinite(tensor).all())]:
        raise ValueError(f"{weights} is damaged: {wrong[0]} holds values that are not finite; fetch it again")
    return model, processor.feature_extractor, processor.tokenizer


def _lower(model: Any, dtype: torch.dtype) -> None:
    model.audio_model.to(dtype)
    model.audio_projection.to(dtype)
    norm = model.audio_model.audio_encoder.batch_norm.float()
    norm.register_forward_hook(lambda _, __, out: out.to(dtype))


def _array(found: Any) -> NDArray[np.float32]:
    """Features, or in transformers 5 the record around them, as normalised rows on the CPU."""
    tensor: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return np.asarray(functional.normalize(tensor.float(), dim=-1).cpu().numpy(), dtype=np.float32)


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers reports and draws bars while it loads; put back as it was afterwards."""
    from transformers.utils import logging

    with _QUIET:
        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
