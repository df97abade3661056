"""transformers' CLAP against its documented calls, on a small model of random weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from avvp_pipe.stages.teachers import clap
from avvp_pipe.stages.teachers.transformers_clap import TransformersClap
from tests.small_roberta import write_tokenizer

RATE, LOG_SCALE = 16_000, 3.0
AUDIO: dict[str, Any] = {
    "num_mel_bins": 32, "spec_size": 64, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4,
    "patch_embeds_hidden_size": 32, "hidden_size": 128, "depths": [1, 1, 2], "num_attention_heads": [2, 4, 8],
    "mlp_ratio": 2.0, "enable_fusion": False, "projection_dim": 48,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": 40, "pad_token_id": 1, "projection_dim": 48,
}  # fmt: skip


def write_port(folder: Path, *, fused: bool = False, truncation: str = "rand_trunc") -> Any:
    """What transformers writes for a CLAP; returns the model."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

    torch.manual_seed(0)
    audio = {**AUDIO, "enable_fusion": fused}
    model = ClapModel(ClapConfig(projection_dim=48, audio_config=audio, text_config=TEXT)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, weight[0].numel() ** -0.5)
        model.logit_scale_a.fill_(LOG_SCALE)
        model.audio_model.audio_encoder.batch_norm.running_mean.fill_(-20)
        model.audio_model.audio_encoder.batch_norm.running_var.fill_(400)
    model.save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=32, sampling_rate=RATE, hop_length=160, max_length_s=1, fft_window_size=512,
        frequency_min=50, frequency_max=8000, truncation=truncation,
    ).save_pretrained(folder)  # fmt: skip
    RobertaTokenizer(*map(str, write_tokenizer(folder))).save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("port")
    write_port(place)
    return place


@pytest.fixture(scope="module")
def teacher(folder: Path) -> TransformersClap:
    found = clap.load("transformers-clap", str(folder))
    assert isinstance(found, TransformersClap)
    return found


def sounds() -> list[NDArray[np.float32]]:
    random = np.random.default_rng(5)
    waves = []
    for length in (16_000, 16_000, 5_000, 333):
        tone = np.sin(2 * np.pi * random.uniform(100, 4000) * np.arange(length) / RATE) * random.uniform(0.05, 0.9)
        waves.append((tone + random.normal(0, 10 ** random.uniform(-4, -1), length)).astype(np.float32))
    return waves


def documented(folder: Path, pieces: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Extractor and model loaded and called as transformers' documentation shows, one piece at a time."""
    from transformers import AutoFeatureExtractor, ClapModel

    model, extractor = ClapModel.from_pretrained(folder), AutoFeatureExtractor.from_pretrained(folder)
    with torch.inference_mode():
        found = [
            model.get_audio_features(**extractor(piece, sampling_rate=RATE, return_tensors="pt")) for piece in pieces
        ]
    return np.concatenate([getattr(one, "pooler_output", one) for one in found])


def test_sounds_equal_the_documented_call(folder: Path, teacher: TransformersClap) -> None:
    ours, theirs = teacher.sounds(sounds()), documented(folder, sounds())
    assert (ours * theirs).sum(1).min() >= 0.999999
    assert (theirs @ theirs.T).min() < 0.9, "these weights tell nothing apart, so that nothing was tested"
    np.testing.assert_allclose(teacher.sounds(sounds()[::-1])[::-1], ours, atol=2e-6)


def test_filling_with_zeros_is_another_sound(folder: Path, teacher: TransformersClap) -> None:
    padded = clap.load("transformers-clap", str(folder), fill="pad").sounds(sounds())
    same = (padded * teacher.sounds(sounds())).sum(1)
    assert same[:2].min() > 0.999999, "a whole second needs no filling"
    assert same[2:].max() < 0.99999


def test_half_the_bits_keep_the_embedding(folder: Path, teacher: TransformersClap) -> None:
    lower = clap.load("transformers-clap", str(folder), precision="bf16").sounds(sounds())
    assert lower.dtype == np.float32
    assert 0.999 <= (lower * teacher.sounds(sounds())).sum(1).min() < 0.9999999


def test_texts_equal_the_documented_call(folder: Path, teacher: TransformersClap) -> None:
    from transformers import AutoTokenizer, ClapModel

    prompts = ["This is a sound of speech", "dog", ""]
    with torch.inference_mode():
        tokens = AutoTokenizer.from_pretrained(folder)(prompts, padding=True, return_tensors="pt")
        found = ClapModel.from_pretrained(folder).get_text_features(**tokens)
    theirs = getattr(found, "pooler_output", found).numpy()
    ours = teacher.texts(prompts)
    assert (ours * theirs / np.linalg.norm(theirs, axis=1)[:, None]).sum(1).min() >= 0.999999
    np.testing.assert_allclose(teacher.texts(prompts[1:2]), ours[1:2], atol=2e-6)
    assert teacher.texts(["bell " * 200]).shape == (1, 48), "a text longer than the model is cut"


def test_it_states_what_it_takes_before_and_after_loading(folder: Path, teacher: TransformersClap) -> None:
    assert clap.facts("transformers-clap", str(folder)) == (teacher.sample_rate, teacher.width) == (RATE, 48)
    assert (teacher.log_scale, teacher.has_maps) == (LOG_SCALE, False)
    names = [file.name for file in clap.files("transformers-clap", str(folder))]
    assert names[:3] == ["model.safetensors", "config.json", "preprocessor_config.json"]
    assert "tokenizer.json" in names


def test_loading_says_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    clap.load("transformers-clap", str(folder))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("length", [0, RATE + 1])
def test_a_piece_that_would_be_cut_at_random_is_refused(teacher: TransformersClap, length: int) -> None:
    with pytest.raises(ValueError, match="1 to 16000 samples are wanted"):
        teacher.sounds([np.zeros(length, np.float32)])


def test_a_fused_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"audio_config": {"enable_fusion": True}}))
    for ask in (clap.facts, clap.files, clap.load):
        with pytest.raises(ValueError, match="marks a random item of each batch"):
            ask("transformers-clap", str(tmp_path))


def test_a_fused_feature_extractor_is_refused(tmp_path: Path) -> None:
    write_port(tmp_path, truncation="fusion")
    with pytest.raises(ValueError, match="feature extractor of a fused CLAP"):
        clap.load("transformers-clap", str(tmp_path))


def test_weights_that_are_not_there_are_an_error_and_not_drawn(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    place = Path(shutil.copytree(folder, tmp_path / "copy"))
    state = load_file(place / "model.safetensors")
    state.pop("audio_projection.linear1.weight")
    save_file(state, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"it lacks audio_projection\.linear1\.weight"):
        clap.load("transformers-clap", str(place))
    (place / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be loaded as a CLAP"):
        clap.load("transformers-clap", str(place))


@pytest.mark.parametrize("key", ["transformers_weights", "quantization_config"])
def test_a_configuration_that_names_other_weights_is_refused(folder: Path, tmp_path: Path, key: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: "other.safetensors"}))
    with pytest.raises(ValueError, match=f"holds {key}; wanted one whole CLAP"):
        clap.files("transformers-clap", str(tmp_path))


def test_a_configuration_decides_neither_precision_nor_attention(
    folder: Path, tmp_path: Path, teacher: TransformersClap
) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((place / "config.json").read_text())
    asked = {"dtype": "bfloat16", "torch_dtype": "bfloat16", "attn_implementation": "kernels-community/some"}
    (place / "config.json").write_text(json.dumps({**config, **asked}))
    found = clap.load("transformers-clap", str(place)).sounds(sounds())
    np.testing.assert_array_equal(found, teacher.sounds(sounds()))


def test_weights_that_are_not_finite_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    place = Path(shutil.copytree(folder, tmp_path / "copy"))
    state = load_file(place / "model.safetensors")
    state["audio_projection.linear1.weight"][0, 0] = torch.nan
    save_file(state, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"audio_projection\.linear1\.weight holds values that are not finite"):
        clap.load("transformers-clap", str(place))


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (["model.safetensors"], r"lacks model\.safetensors or pytorch_model\.bin"),
        (["tokenizer.json", "vocab.json"], "lacks a tokenizer"),
        (["preprocessor_config.json"], r"lacks preprocessor_config\.json"),
        (["config.json"], r"config\.json is wanted"),
    ],
)
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, gone: list[str], said: str) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "copy"))
    for file in gone:
        (place / file).unlink()
    with pytest.raises(ValueError, match=said):
        clap.files("transformers-clap", str(place))


def test_a_repository_is_looked_up_in_the_local_cache_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="run: avvp-pipe models fetch transformers-clap --weights some/clap"):
        clap.files("transformers-clap", "some/clap")
    with pytest.raises(ValueError, match="neither"):
        clap.files("transformers-clap", "../some/clap")
    place = tmp_path / "models--some--clap"
    shutil.copytree(folder, place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    assert clap.files("transformers-clap", "some/clap")[0] == place / "snapshots" / "abc" / "model.safetensors"
    assert ("some/clap", "pytorch_model.bin") in clap.hub_files("transformers-clap", "some/clap")
    assert clap.hub_files("transformers-clap", str(folder)) == []


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_damaged_configuration_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        clap.facts("transformers-clap", str(tmp_path))
