"""Trains the embedded teachers from nothing, on scenes of the rendered world drawn while training.

    python -m avvp_pipe.stages.teachers.train_embedded --seed 0

A teacher sees single frames, or hears single seconds, that are unrelated to one another: nought to three members of
the whole cast, look-alikes, hum and noise. It learns to tell, by the sigmoid contrastive loss (SigLIP,
arXiv:2303.15343), which of the cast's captions fit. It is told nothing of time, of drop-outs or of labels.
Writes weights, configurations and tokenizer beside itself, and `RECORD.md` with command, seed and figures.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from avvp_pipe.stages.datasets.prompts import prompt_sets, shown
from avvp_pipe.stages.datasets.rendered.cast import CHARACTERS, EVERYONE
from avvp_pipe.stages.datasets.rendered.looks import SIDE, backdrop, frame_of, lookalike_of, sprite_of
from avvp_pipe.stages.datasets.rendered.sounds import RATE, burst, hum, sound_of, soundalike_of
from avvp_pipe.stages.teachers.embedded import (
    CONTEXT,
    END_ID,
    PAD_ID,
    MelInput,
    build_clap,
    build_clip,
    clap_features,
    clip_pixels,
    tokens_of,
)
from avvp_pipe.stages.teachers.shipped import FOLDER, TOKENIZER

COMMAND = "python -m avvp_pipe.stages.teachers.train_embedded"
NAMES = tuple(one.name for one in EVERYONE)
WIDTH = 96
BANDS = 32
VOCABULARY = 384
BATCH = 96
CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": WIDTH,
    "quick_gelu": True,
    "vision_cfg": {"image_size": SIDE, "patch_size": 8, "layers": 3, "width": 96, "head_width": 32},
    "text_cfg": {
        "context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 64, "heads": 4, "layers": 2,
        "pad_id": PAD_ID, "eos_id": END_ID, "pool_type": "eos",
    },
}  # fmt: skip
CLAP_CONFIG: dict[str, Any] = {
    "projection_dim": WIDTH,
    "audio_config": {
        "num_mel_bins": BANDS, "spec_size": 64, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4,
        "patch_embeds_hidden_size": 32, "hidden_size": 128, "depths": [1, 1, 2], "num_attention_heads": [2, 4, 8],
        "mlp_ratio": 2.0, "enable_fusion": False, "projection_dim": WIDTH,
    },
    "text_config": {
        "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "max_position_embeddings": CONTEXT + 2, "pad_token_id": PAD_ID,
        "projection_dim": WIDTH,
    },
}  # fmt: skip
CAPTIONS = {
    "visual": ("A photo of a {}.", "A photo of {}", "A picture of a {}", "{}"),
    "audio": ("This is a sound of {}", "This is the sound of {}", "The sound of a {}", "{}"),
}


def scene(random: np.random.Generator) -> tuple[NDArray[np.uint8], list[str]]:
    """One frame and who is in it."""
    names = [NAMES[index] for index in random.choice(len(NAMES), random.choice(4, p=[0.1, 0.45, 0.3, 0.15]), False)]
    sprites = [sprite_of(CHARACTERS[name], random) for name in names]
    sprites += [
        lookalike_of(EVERYONE[random.integers(len(NAMES))], random) for _ in range(random.choice(2, p=[0.6, 0.4]))
    ]
    hidden = [False] * len(sprites)
    picture = frame_of(backdrop(random), sprites, hidden, seconds=float(random.uniform(0, 10)), random=random)
    return picture, names


def noise_scene(random: np.random.Generator) -> tuple[NDArray[np.float32], list[str]]:
    """One second of sound and who is in it."""
    names = [NAMES[index] for index in random.choice(len(NAMES), random.choice(4, p=[0.1, 0.45, 0.3, 0.15]), False)]
    wave = hum(RATE, random) * float(random.uniform(0.05, 0.15))
    for name in names:
        wave += sound_of(CHARACTERS[name], RATE, random) * float(random.uniform(0.12, 0.35))
    if random.random() < 0.3:
        wave += soundalike_of(EVERYONE[random.integers(len(NAMES))], RATE, random) * float(random.uniform(0.12, 0.35))
    if not names and random.random() < 0.5:
        wave += burst(RATE, random) * float(random.uniform(0.25, 0.45))
    return np.asarray(wave * (0.9 / max(float(np.abs(wave).max()), 0.9)), np.float32), names


@dataclass(frozen=True)
class Student:
    """What is being trained, and how it embeds."""

    name: str
    modality: str
    model: nn.Module
    inputs: Callable[[NDArray[Any]], Tensor]
    embed: Callable[[Tensor], Tensor]
    embed_texts: Callable[[Tensor], Tensor]
    draw: Callable[[np.random.Generator], tuple[NDArray[Any], list[str]]]
    config: dict[str, Any]
    extra: dict[str, Any]


def clip_student() -> Student:
    """The tiny CLIP."""
    model: Any = build_clip(CLIP_CONFIG)
    return Student(
        name="tiny-clip",
        modality="visual",
        model=model,
        inputs=lambda batch: clip_pixels(torch.from_numpy(batch)),
        embed=lambda pixels: model.encode_image(pixels, normalize=True),
        embed_texts=lambda tokens: model.encode_text(tokens, normalize=True),
        draw=scene,
        config=CLIP_CONFIG,
        extra={},
    )


def clap_student() -> Student:
    """The tiny CLAP."""
    model = build_clap(CLAP_CONFIG)
    mel = MelInput(rate=RATE, bands=BANDS)
    return Student(
        name="tiny-clap",
        modality="audio",
        model=model,
        inputs=lambda batch: mel(torch.from_numpy(batch)),
        embed=lambda found: clap_features(model, mel=found),
        embed_texts=lambda tokens: clap_features(model, tokens=tokens),
        draw=noise_scene,
        config=CLAP_CONFIG,
        extra={"sample_rate": RATE},
    )


def draw_batch(student: Student, count: int, random: np.random.Generator) -> tuple[NDArray[Any], Tensor]:
    """`count` scenes and which of the cast are in each, (count, classes) float."""
    drawn = [student.draw(random) for _ in range(count)]
    present = torch.tensor([[float(name in names) for name in NAMES] for _, names in drawn])
    return np.stack([item for item, _ in drawn]), present


def train(student: Student, tokenizer: Any, *, steps: int, seed: int) -> tuple[float, dict[str, float]]:
    """Train with the sigmoid contrastive loss; returns the log scale and the figures on fresh scenes."""
    random = np.random.default_rng(np.random.SeedSequence((seed, len(student.name))))
    scale, bias = nn.Parameter(torch.tensor(2.3)), nn.Parameter(torch.tensor(-3.0))
    optimiser = torch.optim.AdamW([*student.model.parameters(), scale, bias], lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    student.model.train()
    started = time.monotonic()
    for step in range(steps):
        items, present = draw_batch(student, BATCH, random)
        templates = CAPTIONS[student.modality]
        texts = [templates[random.integers(len(templates))].format(shown(name)) for name in NAMES]
        captions = student.embed_texts(tokens_of(tokenizer, texts))
        logits = scale.exp() * student.embed(student.inputs(items)) @ captions.T + bias
        loss = functional.binary_cross_entropy_with_logits(logits, present)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(
                f"{student.name} {step}/{steps} loss {loss.item():.4f} {time.monotonic() - started:.0f} s", flush=True
            )
    figures = {"seconds": time.monotonic() - started, "final_loss": loss.item()}
    return float(scale.detach()), figures | measure(student, tokenizer, seed=seed + 1)


def measure(student: Student, tokenizer: Any, *, seed: int, count: int = 1000) -> dict[str, float]:
    """On fresh scenes: how often the highest caption is right where one is present, and the mean average precision."""
    student.model.eval()
    items, present = draw_batch(student, count, np.random.default_rng(seed))
    prompts = prompt_sets(NAMES)["uwav"]
    with torch.inference_mode():
        captions = student.embed_texts(tokens_of(tokenizer, getattr(prompts, student.modality)))
        cosines = (
            torch.cat([student.embed(student.inputs(items[i : i + 250])) for i in range(0, count, 250)]) @ captions.T
        )
    some = present.any(dim=1)
    right = present[some].gather(1, cosines[some].argmax(dim=1, keepdim=True)).mean().item()
    return {"top1": right, "mean_average_precision": mean_average_precision(cosines.numpy(), present.numpy())}


def mean_average_precision(scores: NDArray[np.float32], present: NDArray[np.float32]) -> float:
    """Over the columns of (M, C) arrays; in [0, 1].

    >>> mean_average_precision(np.array([[0.9], [0.8], [0.1]]), np.array([[1], [0], [1]]))
    0.8333333333333333
    """
    found = []
    for column in range(scores.shape[1]):
        hits = present[np.argsort(-scores[:, column], kind="stable"), column]
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        found.append(float((precision * hits).sum() / hits.sum()))
    return float(np.mean(found))


def make_tokenizer() -> Any:
    """A byte-level BPE of VOCABULARY tokens, trained on the cast's captions; any text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<start>", "<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [form.format(shown(name)) for forms in CAPTIONS.values() for form in forms for name in NAMES]
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def save(student: Student, log_scale: float, folder: Path) -> None:
    """Weights as safetensors in float32, configuration as JSON."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    state = {name: tensor.contiguous().clone() for name, tensor in student.model.state_dict().items()}
    save_file(state, folder / f"{student.name}.safetensors")
    record = {"model": student.config, "log_scale": log_scale, **student.extra}
    (folder / f"{student.name}.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def write_down(folder: Path, name: str, *, command: str, figures: dict[str, float]) -> None:
    """Put a teacher's section into `RECORD.md`, in place of its former one; other teachers' stay."""
    file = folder / "RECORD.md"
    parts = file.read_text().split("\n## ")[1:] if file.exists() else []
    sections = {part.partition("\n")[0]: part.partition("\n")[2].strip("\n") for part in parts}
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value:.6g} |" for key, value in figures.items())
    sections[name] = f"    {command}\n\n| figure | value |\n|---|---|\n{rows}"
    head = (
        "# How the embedded teachers came about\n\nTop-1 and average precision: 1,000 fresh scenes, UWAV's prompts.\n"
    )
    file.write_text(head + "".join(f"\n## {key}\n\n{sections[key]}\n" for key in sorted(sections)))


def main() -> None:
    """Train both teachers, or one of them, and write them down."""
    parser = argparse.ArgumentParser(description="Train the embedded teachers on the rendered world.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--only", choices=("tiny-clip", "tiny-clap"))
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(options.out / TOKENIZER))
    for make in (clip_student, clap_student):
        torch.manual_seed(options.seed)
        student = make()
        if options.only in (None, student.name):
            log_scale, figures = train(student, tokenizer, steps=options.steps, seed=options.seed)
            save(student, log_scale, options.out)
            parameters = sum(tensor.numel() for tensor in student.model.parameters())
            figures = {"parameters": parameters, "log_scale": log_scale, **figures}
            command = f"{COMMAND} --seed {options.seed} --steps {options.steps} --only {student.name}"
            write_down(options.out, student.name, command=command, figures=figures)
            print(json.dumps({"teacher": student.name, **figures}))


if __name__ == "__main__":
    main()
