"""VALOR's three parsers: released sizes, released outputs, and CLAP's maps read as the release reads them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.blocks.stored import load_network
from avvp_pipe.stages.blocks.weights import load_arrays
from avvp_pipe.stages.parsers import ParserMethod, parser_method
from avvp_pipe.stages.parsers.han import METHOD, Han, Network, predict
from avvp_pipe.stages.parsers.inputs import map_seconds
from avvp_pipe.stages.parsers.recipes import PUBLISHED, settled_recipe
from avvp_pipe.stages.parsers.valor import VALOR, VALOR_PLUS, VALOR_PLUSPLUS, from_released
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Artifact
from tests.trees import make_dataset

FAMILY = {"valor": 5_096_523, "valor+": 5_052_235, "valor++": 4_888_395, "uwav": 23_023_691}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "parameters"), FAMILY.items())
def test_each_parser_has_the_released_number_of_parameters(name: str, parameters: int) -> None:
    method = parser_method(name)
    with torch.device("meta"):
        model = method.build(method.network)
    assert sum(one.numel() for one in model.parameters()) == parameters


GOLDEN = {"valor_han": VALOR_PLUS, "valor_plusplus_han": VALOR_PLUSPLUS}


@pytest.mark.real_data
@pytest.mark.parametrize("file", GOLDEN)
def test_imported_weights_give_the_outputs_of_the_released_parser(real_data: Path, file: str) -> None:
    # VALOR's code at 2677da9, eval mode, random weights, torch 2.11 on CPU.
    with np.load(real_data / "golden" / f"{file}.npz") as stored:
        golden = {name: torch.from_numpy(stored[name]) for name in stored.files}
    published = GOLDEN[file].network
    heard = published.audio_stream
    width, heads, ffn, layers = (int(golden[name]) for name in ("hidden", "heads", "ffn", "layers"))
    network = Network(
        width=width, heads=heads, ffn=ffn, layers=layers,
        audio_stream=heard, audio_projection=published.audio_projection, visual_fusion=published.visual_fusion,
        audio_width=golden["audio"].shape[2], visual_width=golden["visual_2d"].shape[2], motion_width=512,
    )  # fmt: skip
    model = Han(network).eval()
    load_arrays(model, from_released({k.removeprefix("weights/"): v for k, v in golden.items() if "weights/" in k}))
    with torch.no_grad():
        found = model({heard: golden["audio"], "visual": golden["visual_2d"], "motion": golden["visual_3d"]})
    logits = torch.stack((found.audio_logits, found.visual_logits), dim=2)
    compared = {
        "video_probs": found.video_probs,
        "audio_video_probs": found.audio_video_probs,
        "visual_video_probs": found.visual_video_probs,
        "segment_logits": logits,
        "segment_probs": logits.sigmoid(),
    }
    for name, value in compared.items():
        torch.testing.assert_close(value, golden[name], rtol=0, atol=1e-5, msg=name)


def published_map(maps: Tensor, linear: nn.Linear, segments: int) -> Tensor:
    """Step by step as methods go: (B, 64, D) -> stretched to 1024 steps -> Linear -> mean of bands -> seconds."""
    pictures = maps.view(len(maps), 2, 32, -1).permute(0, 3, 1, 2)  # (B, D, bands, steps)
    fine = functional.interpolate(pictures, size=(2, 1024), mode="bicubic")
    read = linear(fine.permute(0, 2, 3, 1)).mean(dim=1)  # (B, 1024, width)
    return functional.adaptive_avg_pool1d(read.transpose(1, 2), segments).transpose(1, 2)


def test_a_map_read_as_weighted_means_is_what_the_release_makes_of_its_1024_steps() -> None:
    maps, linear = draw(3, 64, 6), nn.Linear(6, 5)
    for segments in (10, 7, 1):
        found = linear(map_seconds(maps, segments))
        torch.testing.assert_close(found, published_map(maps, linear, segments), rtol=1e-5, atol=1e-5)


def test_the_first_half_of_a_map_is_one_band_of_frequency_and_time_runs_within_it() -> None:
    maps = torch.zeros(1, 64, 1)
    maps[0, [0, 32]] = 1  # the first step of both bands
    seconds = map_seconds(maps, 10)[0, :, 0]
    assert seconds[0] > 0.2
    assert seconds[2:].abs().max() < 1e-6
    maps[0, 32] = 0  # of one band: half as much
    torch.testing.assert_close(map_seconds(maps, 10)[0, :, 0], seconds / 2)


def test_a_map_of_a_shorter_clip_is_that_of_its_own_seconds() -> None:
    maps = draw(3, 64, 6)
    together = map_seconds(maps, 5, torch.tensor([5, 2, 0]))
    torch.testing.assert_close(together[0], map_seconds(maps[:1], 5)[0])
    torch.testing.assert_close(together[1, :2], map_seconds(maps[1:2], 2)[0])
    assert together.isfinite().all()
    torch.manual_seed(0)
    model = Han(Network(classes=3, width=8, heads=2, ffn=12, layers=1, audio_stream="audio_map", audio_width=6,
                        visual_width=4, motion_width=0)).eval()  # fmt: skip
    clips = {"audio_map": maps, "visual": draw(3, 5, 4, seed=1)}
    with torch.no_grad():
        whole = model(clips, torch.tensor([5, 2, 4]))
        alone = model({"audio_map": maps[1:2], "visual": clips["visual"][1:2, :2]})
    torch.testing.assert_close(whole.audio_logits[1:2, :2], alone.audio_logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole.video_probs[1:2], alone.video_probs, rtol=1e-5, atol=1e-6)


@given(segments=st.integers(1, 60), steps=st.integers(1, 40), length=st.integers(1, 60))
@settings(deadline=None, max_examples=25)
def test_a_map_that_says_one_thing_all_along_says_it_in_every_second(segments: int, steps: int, length: int) -> None:
    length = min(length, segments)
    maps = draw(1, 1, 3).expand(1, 2 * steps, 3)
    found = map_seconds(maps, segments, torch.tensor([length]))
    torch.testing.assert_close(found[0, :length], maps[0, :1].expand(length, 3), rtol=1e-5, atol=1e-5)
    assert not found[0, length:].any()


def test_a_map_of_an_odd_number_of_rows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"came with 63 rows; VALOR\+\+ reads CLAP's"):
        map_seconds(draw(1, 63, 6), 10)


def test_valorplusplus_is_trained_from_the_store_on_maps_of_whole_clips(
    tmp_path: Path, make_artifact: Callable[..., Artifact]
) -> None:
    store = make_dataset(tmp_path / "world", {f"clip{number}": 10 for number in range(6)})
    dataset, rng = store.get("dataset/clips"), np.random.default_rng(0)
    shapes = {"audio_map": (64, 768), "visual": (10, 768), "motion": (10, 512)}
    streams = {name: rng.normal(size=(6, *shape)).astype(np.float32) for name, shape in shapes.items()}
    clips: dict[str, Any] = {name: dataset.strings(name) for name in ("video_ids", "splits")}
    clips |= {name: dataset.array(name) for name in ("weak", "lengths")} | {"status": np.ones(6, np.uint8)}
    make_artifact(store, "features/clips", arrays={**clips, **streams}, classes=list(dataset.attrs["classes"]))
    params = {"parser": "valor++", "targets": "weak", "epochs": 1, "width": 8, "heads": 2, "ffn": 8, "device": "cpu"}
    inputs = {"dataset": "dataset/clips", "features": "features/clips"}
    made = run_step(store, Step("train-parser", "mine", params, inputs), progress=Silent()).artifact
    assert (made.attrs["parser"], made.attrs["streams"]) == ("valor++", ["audio_map", "visual", "motion"])
    model = load_network(made, Network, Han)
    with torch.inference_mode():
        found = model({name: torch.from_numpy(array) for name, array in streams.items()})
    np.testing.assert_allclose(made.array("audio_probs"), found.audio_logits.sigmoid(), atol=1e-6)


@pytest.mark.parametrize("name", [*FAMILY, "han", "uwav-clip-clap"])
def test_a_parser_of_the_family_reads_the_streams_it_says_and_parses_a_clip(name: str) -> None:
    method = parser_method(name)
    assert method.name == name
    assert method.reads == tuple(method.network.widths())
    rows = {"audio_map": 64, "visual": 20 if method.network.visual_width == 2048 else 10}
    streams = {stream: draw(2, rows.get(stream, 10), wide) for stream, wide in method.network.widths().items()}
    torch.manual_seed(0)
    with torch.inference_mode():
        found = method.build(method.network).eval()(streams, torch.tensor([10, 8]))
    assert found.audio_logits.shape == found.visual_logits.shape == (2, 10, 25)
    gate = method.gate
    heard, seen = predict(
        found, gate=gate.gate, gate_threshold=gate.gate_threshold, threshold=gate.threshold, strict=gate.strict
    )
    assert heard.shape == seen.shape == (2, 10, 25)
    assert (gate.gate, gate.strict) == ("global", name.startswith("uwav"))


@pytest.mark.parametrize(
    ("method", "rates", "seed"),
    [(VALOR, (1e-4, 1e-6), 1000), (VALOR_PLUS, (3e-4, 3e-6), 64), (VALOR_PLUSPLUS, (3e-4, 3e-6), 87)],
)
def test_each_has_the_rates_and_the_seed_of_its_own_script(
    method: ParserMethod, rates: tuple[float, float], seed: int
) -> None:
    recipe = settled(method)
    assert (recipe["learning_rate"], recipe["learning_rate_min"]) == rates
    assert recipe["seed"] == seed


def settled(method: ParserMethod) -> dict[str, Any]:
    """What trains it where nothing else is asked for."""
    nothing = dict.fromkeys(PUBLISHED)
    return settled_recipe(method, nothing, labelled=method.name != "han")


def test_they_are_trained_as_published() -> None:
    # As the released scripts of VALOR (2677da9), UWAV (15c9a8d) and HAN (fde5611) say.
    common = {"optimiser": "adamw", "schedule": "cosine", "warmup": 10, "clip_norm": 1.0, "train_batch": 64,
              "video": "pooled", "segment": "bce", "select": "val_Type", "ties": "first", "beta2": 0.999}  # fmt: skip
    valor = {"targets": "hard", "reweight": "none", "mixup": "none", "epochs": 60, "beta1": 0.5, "weight_decay": 1e-3}
    uwav = {"targets": "soft", "reweight": "code", "mixup": "soft", "epochs": 80, "beta1": 0.9, "weight_decay": 1e-4}
    uwav |= {"learning_rate": 1e-4, "learning_rate_min": 5e-6, "seed": 20000, "balance": 0.5, "mixup_alpha": 1.7}
    han = {"targets": "weak", "video": "guided", "audio_smoothing": 1.0, "visual_smoothing": 0.9, "segment": "none",
           "reweight": "none", "mixup": "none", "epochs": 40, "optimiser": "adam", "weight_decay": 0.0,
           "clip_norm": 0.0, "beta1": 0.9, "beta2": 0.999, "schedule": "step", "learning_rate": 3e-4, "step_every": 10,
           "step_factor": 0.1, "train_batch": 16, "select": "val_Type", "ties": "last", "seed": 1}  # fmt: skip
    published = dict.fromkeys(("valor", "valor+", "valor++"), common | valor)
    published |= {"uwav": common | uwav, "uwav-clip-clap": common | uwav, "han": han}
    for name, wanted in published.items():
        found = settled(parser_method(name))
        assert {key: found[key] for key in wanted} == wanted, name


def test_han_can_be_trained_on_labels_of_seconds_too_hard_ones() -> None:
    found = settled_recipe(METHOD, dict.fromkeys(PUBLISHED), labelled=True)
    assert (found["targets"], found["segment"], found["video"], found["mixup"]) == ("hard", "bce", "guided", "none")


def test_on_ave_a_feed_forward_network_of_two_layers_says_the_classes_of_a_second() -> None:
    network = replace(VALOR.network, head="ffn", classes=29)
    torch.manual_seed(0)
    model = Han(network).eval()
    layers: Any = model.classifier
    first, second = layers[0], layers[2]
    assert [tuple(one.weight.shape) for one in (first, second)] == [(1024, 512), (29, 1024)]
    streams = {stream: draw(2, 10, wide) for stream, wide in network.widths().items()}
    with torch.inference_mode():
        found = model(streams)
        hidden = (found.audio_features @ first.weight.T + first.bias).clamp(min=0)
        torch.testing.assert_close(found.audio_logits, hidden @ second.weight.T + second.bias)
        torch.testing.assert_close(found.visual_logits, model.classifier(found.visual_features))
    assert isinstance(Han(VALOR.network).classifier, torch.nn.Linear), "elsewhere one Linear, as released"
    with pytest.raises(ValueError, match="head"):
        replace(network, head="three")
