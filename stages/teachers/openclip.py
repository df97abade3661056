"""Any open_clip model as a teacher: the network of an installed configuration, weights from a file, no network.

    frames (B, S, S, 3) -> /255, minus mean, by std -> visual tower -> (B, D), L2-normalised
    texts -> the model's tokenizer -> text tower -> (P, D), L2-normalised

Agrees with `open_clip.create_model_and_transforms(name, pretrained=...)` and `encode_image(..., normalize=True)` on
frames that are S x S already: these are neither resized nor cropped here. What differs in choosing weights stands in
`openclip_files.py`; beyond it

* positional embeddings of another size are refused, where open_clip interpolates them;
* texts are embedded in fp32 whatever the precision: it is done once;
* half precision keeps the residual stream, all layer norms, patches and projections in fp32 and computes attention
  and MLPs in half: on ViT-L-14 with random weights and a hundredfold residual outlier the smallest cosine to fp32 was
  0.99998, against 0.9998 with the whole tower in bf16, for a tenth of the time more. Towers of other kinds are
  converted whole on a CPU, and run under autocast on a GPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avvp_pipe.stages.blocks.device import exact_convolutions, tensor_on
from avvp_pipe.stages.blocks.undrawn import undrawn
from avvp_pipe.stages.blocks.weights import load_arrays
from avvp_pipe.stages.teachers.checkpoint import read_state
from avvp_pipe.stages.teachers.openclip_files import Files, locate

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class OpenClip:
    """An image-text teacher."""

    name: str
    width: int
    image_size: int
    log_scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    model: Any
    tokenizer: Any
    device: str
    tower: "Tower"

    def images(self, frames: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames (B, S, S, 3) RGB, uint8 or float32 in grey levels 0 to 255 -> (B, D), L2-normalised.

        Raises ValueError for another shape or type.
        """
        side = self.image_size
        if frames.shape[1:] != (side, side, 3) or frames.dtype not in (np.uint8, np.float32):
            raise ValueError(
                f"{self.name} wants frames (B, {side}, {side}, 3) of uint8 or float32, came {frames.shape} of "
                f"{frames.dtype}; decode them with --frame-size {side}"
            )
        if len(frames) == 0:
            return np.zeros((0, self.width), np.float32)
        with torch.inference_mode(), exact_convolutions(self.device):
            found = self.tower(self._pixels(frames))
            return _array(nn.functional.normalize(found.float(), dim=-1))

    def texts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Prompts -> (P, D), L2-normalised, in fp32."""
        pieces = [list(prompts[start : start + TEXTS_AT_ONCE]) for start in range(0, len(prompts), TEXTS_AT_ONCE)]
        with torch.inference_mode():
            found = [
                _array(self.model.encode_text(self.tokenizer(one).to(self.device), normalize=True)) for one in pieces
            ]
        return np.concatenate(found) if found else np.zeros((0, self.width), np.float32)

    def _pixels(self, frames: NDArray[Any]) -> Tensor:
        """Frames -> (B, 3, S, S) float32 on the device, normalised as torchvision does it."""
        pixels = _moved(self.device, frames).permute(0, 3, 1, 2).contiguous().float().div_(255)
        mean, std = (torch.tensor(three, device=pixels.device).view(3, 1, 1) for three in (self.mean, self.std))
        return pixels.sub_(mean).div_(std)


@dataclass(frozen=True)
class Tower:
    """The visual tower in some precision: pixels (B, 3, S, S) float32 -> (B, D)."""

    module: Any
    dtype: torch.dtype = torch.float32
    """Of its input."""
    autocast: torch.dtype | None = None
    """On a GPU."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """Embed, not normalised."""
        with torch.autocast("cuda", self.autocast, enabled=self.autocast is not None):
            found: Tensor = self.module(pixels.to(self.dtype))
        return found


def load(name: str, weights: str = "", device: str = "cpu", precision: str = "fp32") -> OpenClip:
    """Load a teacher from files of this machine.

    Raises ValueError where something is missing or does not fit, and for fp16 on a CPU.
    """
    check_precision(precision, device)
    files = locate(name, weights)
    try:
        model = build(files)
        fill(model, read_state(files.checkpoint))
    except ValueError as error:
        raise ValueError(f"{files.checkpoint} as {name}: {error}") from error
    model.eval().requires_grad_(False).to(device)
    seer: Any = model
    return OpenClip(
        name=name,
        width=int(files.config["embed_dim"]),
        image_size=int(files.config["vision_cfg"].get("image_size", 224)),
        log_scale=float(seer.logit_scale.flatten()[0]),
        mean=files.mean,
        std=files.std,
        model=seer,
        tokenizer=tokenizer(files),
        device=device,
        tower=in_precision(seer.visual, precision, device),
    )


def check_precision(precision: str, device: str) -> None:
    """Refuse a precision that is not known, and fp16 on a CPU, where it is slower than fp32. Raises ValueError."""
    if precision != "fp32" and precision not in HALF:
        raise ValueError(f"no precision {precision!r}; there are fp32, {', '.join(HALF)}")
    if precision == "fp16" and device == "cpu":
        raise ValueError("--precision fp16 was asked for on a CPU, which computes it slowly; use bf16, or fp32")


def build(files: Files) -> nn.Module:
    """The network of a configuration, its weights still to be filled in. Raises ValueError where it makes none."""
    import open_clip

    config = {name: dict(part) if isinstance(part, Mapping) else part for name, part in files.config.items()}
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    if files.text_config is not None:
        config["text_cfg"] |= {"hf_model_name": str(files.text_config.parent), "hf_model_pretrained": False}
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    kind = open_clip.CLIP if not custom else open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        with undrawn():
            model: nn.Module = kind(**config)
    except Exception as error:  # whatever stumbles over a stranger's configuration: open_clip, timm or transformers
        told = " ".join(str(error).split())[:300]
        raise ValueError(f"open_clip makes no network of this configuration: {type(error).__name__}: {told}") from error
    return model


def fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill the network with the tensors of a checkpoint, under open_clip's names or older ones it converts.

    Raises ValueError naming the first that are missing, unexpected, of another shape or not finite.
    """
    from open_clip import convert
    from open_clip.model import convert_to_custom_text_state_dict

    named: dict[str, Tensor] = convert.convert_state_dict(model, dict(state))
    own = model.state_dict()
    if "positional_embedding" in named and "positional_embedding" not in own:
        named = convert_to_custom_text_state_dict(named)
    for scalar in ("logit_scale", "logit_bias"):
        if scalar in named and scalar in own and named[scalar].numel() == 1:
            named[scalar] = named[scalar].reshape(own[scalar].shape)
    for ids in [name for name in named if name.endswith("embeddings.position_ids") and name not in own]:
        del named[ids]  # transformers stopped keeping them in 4.31
    load_arrays(model, named)


def tokenizer(files: Files) -> Any:
    """What turns texts into tokens (P, context): open_clip's own, or the hub's from local files."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    text = files.config["text_cfg"]
    options: dict[str, Any] = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
    if "hf_tokenizer_name" not in text:
        return SimpleTokenizer(**options)
    place, closed = str(files.tokenizer[0].parent), {"trust_remote_code": False, "local_files_only": True}
    try:
        return HFTokenizer(place, tokenizer_mode=text.get("tokenizer_mode"), **options, **closed)
    except Exception as error:  # transformers raises what its many readers raise
        raise ValueError(f"{place} cannot be read as a tokenizer: {' '.join(str(error).split())[:300]}") from error


def in_precision(visual: nn.Module, precision: str, device: str) -> Tower:
    """The tower as it is, or changed in place to compute in half precision, as said at the head."""
    half = HALF.get(precision)
    if half is None:
        return Tower(visual)
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    if isinstance(visual, VisionTransformer):
        blocks = list(visual.transformer.resblocks)
        if all(type(block) is ResidualAttentionBlock for block in blocks):
            for block in blocks:
                _halve(block, half)
            return Tower(visual)
    if device != "cpu":
        return Tower(visual, autocast=half)
    return Tower(visual.to(half), dtype=half)


def _halve(block: Any, half: torch.dtype) -> None:
    """Attention and MLP in half; sums in fp32, because torch adds fp32 and half as fp32."""
    block.attn.to(half)
    block.mlp.to(half)
    for norm in (block.ln_1, block.ln_2):
        norm.register_forward_hook(lambda _module, _inputs, found: found.to(half))


def _moved(device: str, frames: NDArray[Any]) -> Tensor:
    """A copy of the frames on the device; to a GPU through pinned memory, while the host goes on."""
    if not device.startswith("cuda"):
        return tensor_on(device, _writable(frames))
    return torch.from_numpy(_writable(frames)).pin_memory().to(device, non_blocking=True)


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    """Torch takes arrays that may be written to, with strides that are not negative."""
    return np.require(array, requirements=["C", "W"])


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)
