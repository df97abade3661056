"""How much faster an epoch of training a parser is than the straightforward loop, side by side in one run.

1,000 clips of ten seconds, split into training and validation as LLP's are, 25 classes, UWAV's parser as released (23
million weights) on classic features: VGGish (10, 128), ResNet-152 (80, 2048), R(2+1)D (10, 512). UWAV's objective on
soft labels, with re-weighting and mixup; an epoch is all training clips and the scores of all validation clips.

    straightforward   torch's own layers in float32, one .npy per clip and feature read by a DataLoader in every epoch,
                      validation one clip at a time
    and by steps      memory: frames averaged into seconds once, and held; batching: validation many clips at a time,
                      layers and AdamW of ours, which do more at once; precision: bfloat16

Both start from the same weights, and first show that their losses and their decisions agree. Exits 1 where the last
step, `train-parser --precision auto`, is not three times as fast.

    python tests/bench/bench_parser.py [CLIPS]
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from avvp_pipe.stages.blocks.device import Precision, fast_precision
from avvp_pipe.stages.blocks.losses import class_balance
from avvp_pipe.stages.metrics import avvp_scores
from avvp_pipe.stages.parsers import parser_method
from avvp_pipe.stages.parsers.feeding import Feed
from avvp_pipe.stages.parsers.objectives import SharedObjective, shared_terms
from avvp_pipe.stages.parsers.recipes import settled_network, settled_recipe
from avvp_pipe.stages.parsers.training import Job, trained
from avvp_pipe.stages.parsers.validation import Parsing, Validation, predictions
from avvp_pipe.stages.train_parser import Params

CLIPS, SEGMENTS, FRAMES = 1000, 10, 8
VAL_SHARE = 649 / 10_649
"""Of LLP's training and validation clips."""
WANTED = 3.0
BATCH = 64
METHOD = parser_method("uwav")
NETWORK = METHOD.network
CLASSES = NETWORK.classes
STREAMS = {"audio": (SEGMENTS, 128), "visual": (SEGMENTS * FRAMES, 2048), "motion": (SEGMENTS, 512)}
Item = dict[str, Tensor]


def world(clips: int) -> tuple[dict[str, NDArray[np.float32]], dict[str, Tensor]]:
    """Drawn features as they lie in files, and weak, soft and hard labels."""
    rng = np.random.default_rng(0)
    files = {name: rng.standard_normal((clips, *shape), np.float32) for name, shape in STREAMS.items()}
    weak = rng.random((clips, CLASSES)) < 1.6 / CLASSES
    soft = {m: rng.random((clips, SEGMENTS, CLASSES), np.float32) * weak[:, None] for m in ("audio", "visual")}
    labels = {"weak": torch.from_numpy(weak)} | {name: torch.from_numpy(array) for name, array in soft.items()}
    return files, labels


def job_of(files: dict[str, NDArray[np.float32]], labels: dict[str, Tensor], precision: Precision) -> Job:
    """What `train-parser --parser uwav` would train on: seconds' means of the frames, as the store holds them."""
    clips = len(labels["weak"])
    held = {name: torch.from_numpy(array) for name, array in files.items()}
    held["visual"] = held["visual"].view(clips, SEGMENTS, FRAMES, -1).mean(dim=2)
    lengths = torch.full((clips,), SEGMENTS)
    targets = {modality: labels[modality] for modality in ("audio", "visual")}
    feed = Feed(cast(Any, None), tuple(STREAMS), labels["weak"], lengths, SEGMENTS, targets, held)
    train, val = split_of(clips)
    truth = {name: np.asarray(every[val] > 0.5) for name, every in targets.items()}
    balance = {name: class_balance(every[train] > 0.5) for name, every in targets.items()}
    given = asdict(Params(parser="uwav", precision=precision))
    settings = given | settled_recipe(METHOD, given, labelled=True) | settled_network(METHOD, given)
    validation = Validation(val, truth, lengths.numpy()[val])
    parsing = Parsing(METHOD.gate, precision=precision)
    return Job(METHOD, NETWORK, None, settings | {"epochs": 1}, feed, train, validation, parsing, balance)


def split_of(clips: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of training and of validation."""
    count = max(1, round(clips * VAL_SHARE))
    return np.arange(clips - count), np.arange(clips - count, clips)


class Files(Dataset[Item]):
    """One .npy per clip and feature."""

    def __init__(self, folder: Path, rows: NDArray[np.intp], labels: dict[str, Tensor]) -> None:
        self.folder, self.rows, self.labels = folder, rows, labels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Item:
        clip = int(self.rows[place])
        read = {name: torch.from_numpy(np.load(self.folder / name / f"{clip}.npy")) for name in STREAMS}
        return read | {f"label_{name}": every[clip].float() for name, every in self.labels.items()}


class Layer(nn.Module):
    """HAN's layer, of torch's own parts; names are those of ours."""

    def __init__(self) -> None:
        super().__init__()
        width, drop = NETWORK.width, NETWORK.dropout
        self.self_attn = nn.MultiheadAttention(width, NETWORK.heads, drop, batch_first=True)
        self.cm_attn = nn.MultiheadAttention(width, NETWORK.heads, drop, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, NETWORK.ffn), nn.Linear(NETWORK.ffn, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(drop)

    def forward(self, stream: Tensor, other: Tensor) -> Tensor:
        crossed = self.drop(self.cm_attn(stream, other, other)[0])
        stream = self.norm1(stream + crossed + self.drop(self.self_attn(stream, stream, stream)[0]))
        out: Tensor = self.norm2(stream + self.drop(self.linear2(self.drop(functional.relu(self.linear1(stream))))))
        return out


class Straightforward(nn.Module):
    """UWAV's parser as one would write it down."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        width = NETWORK.width
        self.audio_in = nn.Sequential(nn.Linear(128, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.visual_in = nn.ModuleDict({"fusion": nn.Linear(2048 + 512, width)})
        norms = {"final_norm_a": nn.LayerNorm(width), "final_norm_v": nn.LayerNorm(width)}
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Layer() for _ in range(NETWORK.layers)), **norms})
        self.classifier = nn.Linear(width, CLASSES)
        self.pooling = nn.ModuleDict({name: nn.Linear(width, CLASSES) for name in ("over_time", "over_modality")})
        self.load_state_dict(weights)

    def forward(self, one: Item) -> dict[str, Tensor]:
        frames = one["visual"].view(len(one["visual"]), SEGMENTS, -1, 2048).mean(dim=2)
        heard, seen = self.audio_in(one["audio"]), self.visual_in["fusion"](torch.cat((frames, one["motion"]), dim=2))
        for layer in cast(Iterable[nn.Module], self.encoder["layers"]):
            heard = layer(heard, seen)
            seen = layer(seen, heard)
        both = torch.stack((heard, seen), dim=2)
        logits = self.classifier(both)
        weights = self.pooling["over_time"](both).softmax(dim=1) * self.pooling["over_modality"](both).softmax(dim=2)
        video = (weights * logits.sigmoid()).sum(dim=(1, 2))
        return {"video": video, "logits": logits, "features": both}

    def loss(self, one: Item, balance: Any) -> Tensor:
        """UWAV's released objective."""
        found, weak = self(one), one["label_weak"]
        loss = functional.binary_cross_entropy(found["video"].clamp(1e-7, 1 - 1e-7), weak)
        for place, modality in enumerate(("audio", "visual")):
            labels, logits = one[f"label_{modality}"], found["logits"][:, :, place]
            weight = torch.where(weak > 0, balance[modality].positive, balance[modality].negative)[:, None]
            loss = loss + functional.binary_cross_entropy_with_logits(logits, labels, weight.expand_as(labels))
            segments, targets = found["features"][:, :, place].flatten(0, 1), labels.flatten(0, 1)
            share = torch.distributions.Beta(1.7, 1.7).sample().item()
            other = torch.randperm(len(segments))
            mixed = self.classifier(share * segments + (1 - share) * segments[other])
            loss = loss + share * functional.binary_cross_entropy_with_logits(mixed, targets)
            loss = loss + (1 - share) * functional.binary_cross_entropy_with_logits(mixed, targets[other])
        return loss

    def decisions(self, one: Item) -> list[Tensor]:
        """Heard and seen, by UWAV's gate."""
        found = self(one)
        on = (found["logits"].sigmoid() > 0.5) & (found["video"] > 0.5)[:, None, None]
        return [on[:, :, 0], on[:, :, 1]]


def plain_epoch(
    weights: dict[str, Tensor], training: Iterable[Item], validating: Iterable[Item], job: Job
) -> tuple[float, float]:
    """Seconds of training and of validation."""
    model = Straightforward(weights).train()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    start = time.perf_counter()
    for batch in training:
        loss = model.loss(batch, job.balance)
        adamw.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
    half = time.perf_counter()
    model.eval()
    with torch.no_grad():
        found = [model.decisions(batch) for batch in validating]
    heard, seen = (torch.cat([one[place] for one in found]).numpy() for place in (0, 1))
    validation = cast(Validation, job.validation)
    avvp_scores(heard, seen, validation.truth["audio"], validation.truth["visual"])
    return half - start, time.perf_counter() - half


def held_batches(job: Job, rows: NDArray[np.intp], size: int) -> Iterator[Item]:
    """Batches out of memory, for the straightforward network."""
    for start in range(0, len(rows), size):
        batch = job.feed.batch(rows[start : start + size])
        labels = {f"label_{name}": every for name, every in {"weak": batch.weak.float(), **batch.targets}.items()}
        yield {**batch.streams, **labels}


def check(weights: dict[str, Tensor], job: Job) -> None:
    """Stop where both do not compute the same."""
    theirs, ours = Straightforward(weights).eval(), METHOD.build(NETWORK).eval()
    ours.load_state_dict(weights)
    rows = np.arange(8)
    batch, (item,) = job.feed.batch(rows), held_batches(job, rows, 8)
    torch.manual_seed(1)
    plain = theirs.loss(item, job.balance)
    torch.manual_seed(1)
    shared = SharedObjective(balance=job.balance, mixup=True)
    terms = shared_terms(ours, ours(batch.streams, batch.lengths), batch, shared)
    torch.testing.assert_close(torch.stack(tuple(terms.values())).sum(), plain, rtol=1e-4, atol=1e-5)
    said = predictions(ours, job.feed, rows, Parsing(METHOD.gate))
    with torch.no_grad():
        heard, seen = theirs.decisions(item)
    assert (said["audio_hard"] != heard.numpy()).mean() < 1e-3, "what is heard differs"
    assert (said["visual_hard"] != seen.numpy()).mean() < 1e-3, "what is seen differs"


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(clips: int = CLIPS) -> int:
    """Time all, print what each step brings, and say by the exit code whether the factor is reached."""
    files, labels = world(clips)
    fast = fast_precision("cpu")
    start = time.perf_counter()
    job = job_of(files, labels, "fp32")
    loading = time.perf_counter() - start
    torch.manual_seed(0)
    weights = METHOD.build(NETWORK).state_dict()
    check(weights, job)
    with tempfile.TemporaryDirectory() as folder:
        for name, array in files.items():
            (Path(folder) / name).mkdir()
            for clip in range(clips):
                np.save(Path(folder) / name / f"{clip}.npy", array[clip])
        on_disk = sum(array.nbytes for array in files.values())
        del files
        quick = replace(job, parsing=replace(job.parsing, precision=fast), settings={**job.settings, "precision": fast})
        for warmed in (job, quick):  # what is done once a process
            trained(replace(warmed, train=warmed.train[:8]))
        ours, faster = timed(lambda: trained(job)), timed(lambda: trained(quick))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        train, val = split_of(clips)
        order = np.random.default_rng(0).permutation(train)
        one_by_one = plain_epoch(weights, held_batches(job, order, BATCH), held_batches(job, val, 1), job)
        together = plain_epoch(weights, held_batches(job, order, BATCH), held_batches(job, val, 512), job)
        loaders = (
            DataLoader(Files(Path(folder), train, labels), BATCH, shuffle=True, num_workers=2),
            DataLoader(Files(Path(folder), val, labels), 1, num_workers=2),
        )
        plain = plain_epoch(weights, *loaders, job)
    seconds = {
        "straightforward": sum(plain),
        "memory": sum(one_by_one),
        "batching: validation": sum(together),
        "batching: layers and AdamW that do more at once": ours,
        f"precision: --precision auto ({fast} here)": faster,
    }
    before = sum(plain)
    print(f"train-parser, an epoch over {len(train)} clips and validation of {len(val)}")
    for name, one in seconds.items():
        print(f"train-parser, {name}: {one:.1f} s, {before / one:.2f} times as fast as the one above")
        before = one
    held = sum(stream.numel() * 4 for stream in job.feed.held.values())
    print(
        f"train-parser, memory: features {held / 2**20:.0f} MiB held once, made in {loading:.1f} s "
        f"({on_disk / 2**20:.0f} MiB of files read every epoch by the straightforward way); "
        f"peak of the process {peak:.1f} GiB, {on_disk / 2**30:.1f} GiB of it the drawn files"
    )
    if fast == "fp32":
        print("train-parser: this processor has no instructions for bfloat16; the factor wanted is with them")
    ratio = sum(plain) / faster
    print(f"train-parser: {ratio:.1f} times as fast with --precision auto (at least {WANTED:.0f} wanted)")
    return 0 if ratio >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
