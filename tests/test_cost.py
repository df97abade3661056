"""docs/cost.md: every figure called derived there follows from those called measured and quoted there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from avvp_pipe.stages.media.clip import Sampling
from avvp_pipe.stages.media.gather import AHEAD_CLIPS, media_columns
from avvp_pipe.stages.teachers import audio_facts, visual_facts

PAGE = Path(__file__).parents[1] / "docs" / "cost.md"
CLIP_SECONDS = 10
SETS = {
    "LLP": (11_849, 118_490),
    "UnAV-100": (10_790, 456_636),
    "AudioSet": (2_000_000, 20_000_000),
    "ten million clips": (10_000_000, 100_000_000),
}
"""Clips, and seconds of video."""
WIDTHS = (
    visual_facts("ViT-L-14-quickgelu").width,
    audio_facts("HTSAT-tiny-fused").width,
)


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text()


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    part = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def figures(page: str) -> dict[str, float]:
    """Everything measured or quoted or assumed, by name."""
    rows = [row for heading in ("Measured", "Quoted and assumed") for row in table(page, heading)]
    return {name: float(figure.replace(",", "")) for name, figure, *_ in rows}


def span(seconds: float) -> str:
    """How long, in two or three digits."""
    for unit, long, below in (("min", 60, 7200), ("h", 3600, 172_800), ("days", 86_400, float("inf"))):
        if seconds < below:
            value = seconds / long
            return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    raise AssertionError


def size(amount: float) -> str:
    """How many bytes, in three digits."""
    unit = next(unit for unit in (12, 9, 6, 3, 0) if amount >= 10**unit or unit == 0)
    return f"{amount / 10**unit:.3g} {({12: 'TB', 9: 'GB', 6: 'MB', 3: 'kB', 0: 'B'})[unit]}"


def core_seconds(known: dict[str, float], precision: str) -> float:
    """Of one core, for a second of video."""
    return (known["decode"] + known[f"CLIP {precision}"] + known[f"CLAP {precision}"]) / CLIP_SECONDS


def gpu_rates(known: dict[str, float]) -> tuple[float, float]:
    """Seconds of video a second: what one GPU embeds, and what the cores beside it decode."""
    hearing = known["CLAP fp32"] / known["CLIP fp32"]
    return known["GPU images"] / (1 + hearing), known["cores beside a GPU"] * CLIP_SECONDS / known["decode"]


def bytes_a_clip() -> dict[str, int]:
    """What is stored of a clip of ten seconds, but for a few bytes of names, status and digests."""
    stored = {"features, float32": 4 * CLIP_SECONDS * sum(WIDTHS), "features, float16": 2 * CLIP_SECONDS * sum(WIDTHS)}
    for what, sampling, sound in (
        ("media", Sampling(), "float32"),
        ("media, int16 sound", Sampling(), "int16"),
        ("media, float32 frames", Sampling(frame_dtype="float32"), "float32"),
    ):
        columns = media_columns(sampling, CLIP_SECONDS, sound).values()
        stored[what] = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype, _ in columns)
    return stored


def test_clips_a_second_follow_from_core_seconds(page: str) -> None:
    known = figures(page)
    wanted = [
        ["decode alone", f"{1 / known['decode']:.2g}"],
        ["all, bf16", f"{1 / (CLIP_SECONDS * core_seconds(known, 'bf16')):.2g}"],
        ["all, fp32", f"{1 / (CLIP_SECONDS * core_seconds(known, 'fp32')):.2g}"],
        ["the straightforward way, fp32", f"{1 / known['straightforward']:.2g}"],
    ]
    assert [row[:2] for row in table(page, "Clips a second and core")] == wanted


def test_bytes_a_clip_are_those_of_the_arrays(page: str) -> None:
    wanted = [
        [what, f"{amount:,}", *(size(amount * clips) for clips, _ in (SETS["LLP"], SETS["ten million clips"]))]
        for what, amount in bytes_a_clip().items()
    ]
    assert table(page, "Bytes") == wanted


def test_what_each_dataset_takes_follows_from_the_figures_above_it(page: str) -> None:
    known = figures(page)
    rate = min(gpu_rates(known))
    wanted = []
    for name, (clips, seconds) in SETS.items():
        bf16, fp32 = (core_seconds(known, precision) * seconds for precision in ("bf16", "fp32"))
        laptop = known["cores of a laptop"]
        times = (fp32 / 2, bf16 / 2, bf16 / laptop, seconds / rate, seconds / rate / known["GPUs of a cluster"])
        wanted.append([name, f"{clips:,}", f"{seconds:,}", *map(span, times)])
    assert table(page, "What it takes") == wanted


def test_which_part_limits_follows_from_the_figures_above_it(page: str) -> None:
    known = figures(page)
    embeds, decodes = gpu_rates(known)
    cores = embeds * known["decode"] / CLIP_SECONDS
    large = embeds * known["decode 1280 x 720"] / CLIP_SECONDS
    said = " ".join(page.split("\n## What limits\n")[1].split())
    assert f"embeds {embeds:.0f} seconds of video a second" in said
    assert f"cores beside it decode {decodes:,.0f}" in said
    assert f"{np.ceil(cores):.0f} cores keep it busy" in said
    assert f"Of 1280 x 720 it takes {np.ceil(large):.0f}" in said
    shares = (known["decode"], known["CLIP bf16"], known["CLAP bf16"])
    decode, clip, clap = (100 * share / sum(shares) for share in shares)
    assert f"CLIP is {clip:.0f} % of the work in bf16, CLAP {clap:.0f} %, decoding {decode:.0f} %" in said


def test_videos_and_what_is_kept_of_them_compare_as_said(page: str) -> None:
    stored, said = bytes_a_clip(), " ".join(page.split())
    found = re.search(r"LLP's clip has ([\d,]+) bytes, ten million such (\S+ \w+)", said)
    assert found
    video = int(found[1].replace(",", ""))
    assert found[2] == size(10_000_000 * video)
    whole_time = SETS["ten million clips"][1] / min(gpu_rates(figures(page))) / figures(page)["GPUs of a cluster"]
    assert f"that is {size(2 * 10_000_000 * video / whole_time)} a second" in said
    assert f"1/{video / stored['features, float32']:.0f} of its video" in said
    assert f"its media {stored['media'] / video:.1f} times it" in said


def test_memory_ahead_follows_from_the_media_of_a_clip(page: str) -> None:
    media = bytes_a_clip()["media"]
    found = re.search(
        r"(\d+) clips decoded ahead, (\S+ \S+) of ten seconds, (\S+ \S+) of sixty", " ".join(page.split())
    )
    assert found
    assert list(found.groups()) == [str(AHEAD_CLIPS), size(AHEAD_CLIPS * media), size(AHEAD_CLIPS * media * 6)]


@pytest.mark.real_data
def test_the_datasets_have_the_sizes_that_are_said(real_data: Path) -> None:
    every = json.loads((real_data / "unav" / "unav100_annotations.json").read_text())["database"].values()
    assert (len(every), sum(int(np.ceil(one["duration"])) for one in every)) == SETS["UnAV-100"]
    llp = len((real_data / "llp" / "AVVP_dataset_full.csv").read_text().splitlines()) - 1
    assert (llp, llp * CLIP_SECONDS) == SETS["LLP"]
    assert f"{(real_data / 'llp' / 'BjCEufrlXm4.mp4').stat().st_size:,} bytes" in PAGE.read_text()
