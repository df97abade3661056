"""The straightforward way from videos to features, bench_extract.py's other side, in a process of its own.

Clip after clip: decode (decord and PyAV, in this process, the frame nearest to the middle of each second), ten frames
through open_clip's documented calls in fp32, ten seconds through laion_clap's `get_audio_embedding_from_data`, one .npz
file a clip. Not timed: loading both models, and ten frames and sounds before the first clip.

The same calls make the checkpoints for both sides: ViT-L-14-quickgelu and HTSAT-tiny-fused at full size with random
weights, which take the time of trained ones.

    python tests/bench/by_hand.py VISUAL_FILE AUDIO_FILE                    # writes them
    python tests/bench/by_hand.py VISUAL_FILE AUDIO_FILE CLIP COUNT OUT     # embeds with them
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image

from avvp_pipe.stages.teachers.laion_import import ROBERTA

VISUAL = "ViT-L-14-quickgelu"
SECONDS, RATE = 10, 48_000


@contextmanager
def without_the_hub() -> Iterator[None]:
    """`import laion_clap` and CLAP_Module() ask the hub for tokenizers and RoBERTa; here they get none, and a blank."""
    import transformers
    from transformers import RobertaConfig, RobertaModel

    def blank(_: str) -> Any:
        return RobertaModel(RobertaConfig(**ROBERTA))

    with ExitStack() as stack:
        for kind in ("BertTokenizer", "RobertaTokenizer", "BartTokenizer"):
            stack.enter_context(mock.patch.object(getattr(transformers, kind), "from_pretrained", return_value=None))
        stack.enter_context(mock.patch.object(RobertaModel, "from_pretrained", blank))
        stack.enter_context(redirect_stdout(sys.stderr))
        yield


def clap_package() -> Any:
    """laion_clap's CLAP_Module for the fused HTSAT-tiny, as its documentation builds it, with random weights."""
    with without_the_hub():
        import laion_clap

        return laion_clap.CLAP_Module(enable_fusion=True, device="cpu")


def write(visual: Path, audio: Path) -> None:
    """Both checkpoints, and beside the audio one a tokenizer of single bytes in RoBERTa's form."""
    from safetensors.torch import save_file
    from tokenizers.pre_tokenizers import ByteLevel

    torch.manual_seed(0)
    save_file(open_clip.create_model(VISUAL, pretrained=None).state_dict(), visual)
    torch.save(clap_package().model.state_dict(), audio)
    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet())]
    (audio.parent / "vocab.json").write_text(json.dumps({word: at for at, word in enumerate(words)}))
    (audio.parent / "merges.txt").write_text("#version: 0.2\n")


def decoded(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The frame in the middle of each second (10, H, W, 3), and ten seconds of mono sound (480000,)."""
    import av
    import decord

    reader = decord.VideoReader(str(path), ctx=decord.cpu(0))
    shown = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    frames = reader.get_batch([int(np.abs(shown - shown[0] - at - 0.5).argmin()) for at in range(SECONDS)]).asnumpy()
    resampler, pieces = av.AudioResampler("fltp", rate=RATE), []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            pieces += [piece.to_ndarray().mean(0) for piece in resampler.resample(frame)]
    sound = np.concatenate(pieces)[: SECONDS * RATE]
    return frames, np.pad(sound, (0, SECONDS * RATE - len(sound)))


def seen(model: Any, preprocess: Any, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Frames (10, H, W, 3) -> (10, 768), as open_clip's documentation does it, on a CPU."""
    with torch.no_grad():
        images = torch.stack([preprocess(Image.fromarray(frame)) for frame in frames])
        return np.asarray(model.encode_image(images, normalize=True).numpy())


def heard(clap: Any, sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """Samples (480000,) -> (10, 512), as laion_clap's documentation does it."""
    with torch.no_grad():
        return np.asarray(clap.get_audio_embedding_from_data(x=sound.reshape(SECONDS, RATE), use_tensor=False))


def embed(visual_file: Path, audio_file: Path, clip: Path, count: int, out: Path) -> None:
    """Embed the same clip so many times; write features of all, and the seconds they took."""
    model, _, preprocess = open_clip.create_model_and_transforms(VISUAL, pretrained=str(visual_file))
    model.eval()
    clap: Any = clap_package()
    clap.model.load_state_dict(torch.load(audio_file, weights_only=True))
    frames, sound = decoded(clip)
    seen(model, preprocess, frames), heard(clap, sound)
    spent = dict.fromkeys(("decode", "CLIP", "CLAP"), 0.0)
    began = time.perf_counter()
    for row in range(count):
        start = time.perf_counter()
        frames, sound = decoded(clip)
        seen_from = time.perf_counter()
        visual = seen(model, preprocess, frames)
        heard_from = time.perf_counter()
        audio = heard(clap, sound)
        ended = time.perf_counter()
        np.savez(out / f"{row}.npz", visual=visual, audio=audio)
        for what, seconds in zip(spent, (seen_from - start, heard_from - seen_from, ended - heard_from), strict=True):
            spent[what] += seconds
    (out / "seconds.json").write_text(json.dumps({"all": time.perf_counter() - began, **spent}))


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # open_clip warns of random weights
    files = Path(sys.argv[1]), Path(sys.argv[2])
    if len(sys.argv) == 3:
        write(*files)
    else:
        embed(*files, Path(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
